# SPDX-License-Identifier: GPL-3.0-or-later
# Only the mouth moves, from the rest that the driver has.
import bpy

options = bpy.context.scene.liveportrait.options
options.region = "lips"
options.normalize_lips = True
options.smoothing_mode = "auto"
