# SPDX-License-Identifier: GPL-3.0-or-later
import bpy

bpy.context.scene.liveportrait.controls.set_controls(
    {"smile": -0.3, "brow": -26, "gaze_y": -14, "pitch": 8, "blink": -4, "lips_open": -15}
)
