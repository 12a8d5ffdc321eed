# SPDX-License-Identifier: GPL-3.0-or-later
# The face acts, the head keeps the pose of the portrait.
import bpy

options = bpy.context.scene.liveportrait.options
options.region = "expression"
options.lock_scale = True
options.smoothing_mode = "auto"
