# SPDX-License-Identifier: GPL-3.0-or-later
import bpy

bpy.context.scene.liveportrait.controls.set_controls(
    {"pout": 0.09, "purse": 15, "blink": -14, "pitch": -4}
)
