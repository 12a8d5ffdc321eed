# SPDX-License-Identifier: GPL-3.0-or-later
import bpy

bpy.context.scene.liveportrait.controls.set_controls(
    {"brow": 20, "smile": -0.15, "gaze_x": -8, "roll": 4, "yaw": 5}
)
