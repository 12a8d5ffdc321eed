# SPDX-License-Identifier: GPL-3.0-or-later
import bpy

bpy.context.scene.liveportrait.controls.set_controls(
    {"smile": 0.7, "blink": -2, "brow": 3}
)
