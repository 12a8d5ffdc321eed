# SPDX-License-Identifier: GPL-3.0-or-later
# As the released program animates, its faults included.
import bpy

options = bpy.context.scene.liveportrait.options
options.compatibility = "upstream"
