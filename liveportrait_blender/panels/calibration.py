# SPDX-License-Identifier: GPL-3.0-or-later
"""Subpanels of Shape Keys: calibration, and what turns with the head."""

from typing import Any

from bpy.types import Panel

from .. import calibration, head_binding, shape_key_mapping
from .layout import Sidebar, split
from .shape_keys import PARENT


class _OnMesh(Sidebar):
    bl_parent_id = PARENT
    bl_options = {"DEFAULT_CLOSED"}

    @classmethod
    def poll(cls, context: Any) -> bool:
        return shape_key_mapping.active(context) is not None


class LIVEPORTRAIT_PT_calibration(_OnMesh, Panel):
    bl_label = "Calibration"
    bl_order = 10

    def draw(self, context: Any) -> None:
        layout = self.layout
        split(layout)
        item = shape_key_mapping.active(context)
        column = layout.column(align=True)
        column.label(text="Neutral face")
        column.operator("liveportrait.set_neutral", text="From This Frame", icon="USER").reset = False
        column.operator("liveportrait.calibrate_neutral", icon="VIEWZOOM")
        column = layout.column(align=True)
        column.label(text="Ranges")
        column.operator("liveportrait.calibrate_ranges", icon="FULLSCREEN_ENTER")
        column = layout.column(align=True)
        column.label(text="Examples")
        posing = calibration.is_posed_by_hand(item)
        column.operator("liveportrait.pose_example", depress=posing, icon="HAND")
        column.operator("liveportrait.add_example", icon="ADD")
        for index, example in enumerate(item.liveportrait.calibration.examples):
            row = column.row(align=True)
            row.label(text=f"Frame {example.frame:g}", icon="SHAPEKEY_DATA")
            row.operator("liveportrait.remove_example", text="", icon="X").index = index
        column.operator("liveportrait.solve_examples", icon="CHECKMARK")
        column = layout.column(align=True)
        column.label(text="Performance")
        column.operator("liveportrait.smooth_performance", icon="SMOOTHCURVE")
        column.operator("liveportrait.mirror_performance", icon="MOD_MIRROR")


class LIVEPORTRAIT_PT_head(_OnMesh, Panel):
    bl_label = "Head"
    bl_order = 20

    def draw(self, context: Any) -> None:
        layout = self.layout
        split(layout)
        head = shape_key_mapping.active(context).liveportrait.head
        layout.prop(head, "target")
        if head.target is not None and head.target.type == "ARMATURE":
            layout.prop_search(head, "bone", head.target.data, "bones")
        bound = head_binding.find(head.target, head.bone) is not None
        row = layout.row(align=True)
        row.operator("liveportrait.bind_head", icon="CON_ROTLIKE", depress=bound).find_axes = not bound
        if bound:
            row.operator("liveportrait.unbind_head", text="", icon="X")
        column = layout.column(align=True)
        column.prop(head, "pitch_axis")
        column.prop(head, "yaw_axis")
        column.prop(head, "roll_axis")
        layout.prop(head, "gain")


CLASSES = (LIVEPORTRAIT_PT_calibration, LIVEPORTRAIT_PT_head)
