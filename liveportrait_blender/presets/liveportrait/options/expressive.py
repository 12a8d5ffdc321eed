# SPDX-License-Identifier: GPL-3.0-or-later
# More of everything than the driver does.
import bpy

options = bpy.context.scene.liveportrait.options
options.multiplier = 1.25
options.eye_gain = 1.15
options.lip_gain = 1.2
options.smoothing_mode = "auto"
