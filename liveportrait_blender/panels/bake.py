# SPDX-License-Identifier: GPL-3.0-or-later
"""Subpanel of Shape Keys: bake to curves, and back."""

from typing import Any

from bpy.types import Panel

from .. import shape_key_bake, shape_key_mapping
from .layout import Sidebar, split
from .shape_keys import PARENT


class LIVEPORTRAIT_PT_bake(Sidebar, Panel):
    bl_label = "Bake"
    bl_parent_id = PARENT
    bl_options = {"DEFAULT_CLOSED"}
    bl_order = 30

    @classmethod
    def poll(cls, context: Any) -> bool:
        return shape_key_mapping.active(context) is not None

    def draw(self, context: Any) -> None:
        layout = self.layout
        split(layout)
        item = shape_key_mapping.active(context)
        layout.operator("liveportrait.bake_shape_keys", icon="KEYFRAME_HLT")
        if shape_key_bake.is_baked(item):
            layout.label(text="Baked; its drivers do not work", icon="KEYFRAME_HLT")
            layout.operator("liveportrait.restore_drivers", icon="DRIVER")


CLASSES = (LIVEPORTRAIT_PT_bake,)
