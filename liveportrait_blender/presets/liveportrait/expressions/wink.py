# SPDX-License-Identifier: GPL-3.0-or-later
import bpy

bpy.context.scene.liveportrait.controls.set_controls(
    {"wink": 30, "smile": 0.5, "roll": 4}
)
