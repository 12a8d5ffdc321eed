# SPDX-License-Identifier: GPL-3.0-or-later
import bpy

bpy.context.scene.liveportrait.controls.set_controls(
    {"purse": 10, "smile": -0.3, "pitch": 9, "blink": -5, "gaze_y": 8, "lips_open": -20}
)
