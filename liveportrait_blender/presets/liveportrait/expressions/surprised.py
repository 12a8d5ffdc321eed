# SPDX-License-Identifier: GPL-3.0-or-later
import bpy

bpy.context.scene.liveportrait.controls.set_controls(
    {"brow": 16, "blink": 5, "lips_open": 32, "pitch": -3}
)
