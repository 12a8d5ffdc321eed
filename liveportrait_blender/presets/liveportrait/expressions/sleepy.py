# SPDX-License-Identifier: GPL-3.0-or-later
import bpy

bpy.context.scene.liveportrait.controls.set_controls(
    {"blink": -11, "pitch": 6, "smile": -0.1}
)
