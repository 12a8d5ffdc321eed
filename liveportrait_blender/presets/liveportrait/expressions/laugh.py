# SPDX-License-Identifier: GPL-3.0-or-later
import bpy

bpy.context.scene.liveportrait.controls.set_controls(
    {"smile": 1.0, "grin": 2, "blink": -3, "brow": 4, "lips_open": 12}
)
