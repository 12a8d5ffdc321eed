# SPDX-License-Identifier: GPL-3.0-or-later
import bpy

bpy.context.scene.liveportrait.controls.set_controls(
    {"gaze_x": 18, "gaze_y": 18, "pitch": -3, "yaw": 6, "smile": -0.1, "brow": 6}
)
