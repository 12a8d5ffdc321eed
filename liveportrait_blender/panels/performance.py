# SPDX-License-Identifier: GPL-3.0-or-later
"""The performance as curves: the rig, its controls, and the way back into the portrait."""

from typing import Any

from bpy.types import Panel

from .. import keypoint_rig, performance, results, rig_controls, runtime
from ..properties import controls
from ..rig_action import described
from ..rig_layout import property_path
from .layout import Subpanel, blocked, split

PARENT = "LIVEPORTRAIT_PT_performance"


class LIVEPORTRAIT_PT_performance(Subpanel, Panel):
    bl_label = "Performance"
    bl_idname = PARENT
    bl_options = {"DEFAULT_CLOSED"}
    bl_order = 60

    def draw(self, context: Any) -> None:
        layout = self.layout
        split(layout)
        rig = performance.active(context)
        if rig is None:
            if keypoint_rig.rigs(context.scene):
                blocked(layout, context, "Select a performance's armature")
            elif results.active(context) is None:
                blocked(layout, context, "Animate a portrait or import a performance to have one to edit")
        column = layout.column(align=True)
        column.operator("liveportrait.create_performance", icon="OUTLINER_OB_ARMATURE")
        row = column.row(align=True)
        row.operator("liveportrait.import_performance", text="Import", icon="IMPORT")
        row.operator("liveportrait.export_performance", text="Export", icon="EXPORT")
        row = column.row(align=True)
        row.operator("liveportrait.import_curves", text="Import Curves", icon="FCURVE")
        row.operator("liveportrait.export_curves", text="Export Curves", icon="FCURVE")
        if rig is None:
            return
        box = layout.box().column(align=True)
        box.label(text=rig.name, icon="ARMATURE_DATA")
        about = described(rig)
        if about is not None:
            rate = about["fps_numerator"] / about["fps_denominator"]
            box.label(text=f"{about['frames']} frames at {rate:.5g} a second ({about['engine']})")
        layout.prop(rig.liveportrait.rig, "result")
        big = layout.column()
        big.scale_y = 1.5
        big.operator("liveportrait.render_performance", icon="RENDER_ANIMATION")
        why = performance.missing(context, rig)
        if why and why != runtime.missing()[0]:  # that stands at the top
            blocked(layout, context, why)
        row = layout.row(align=True)
        row.operator("liveportrait.set_neutral", icon="USER").reset = False
        row.operator("liveportrait.set_neutral", text="", icon="LOOP_BACK").reset = True
        layout.operator("liveportrait.mirror_performance", icon="MOD_MIRROR")
        layout.operator("liveportrait.create_pose_assets", icon="ASSET_MANAGER")


class LIVEPORTRAIT_PT_performance_controls(Subpanel, Panel):
    bl_label = "Rig Controls"
    bl_parent_id = PARENT
    bl_options = {"DEFAULT_CLOSED"}

    @classmethod
    def poll(cls, context: Any) -> bool:
        rig = performance.active(context)
        return rig is not None and rig_controls.has_controls(rig)

    def draw(self, context: Any) -> None:
        layout = self.layout
        layout.use_property_split = True
        layout.use_property_decorate = True
        rig = performance.active(context)
        for label, names in controls.GROUPS:
            column = layout.column(align=True, heading=label)
            for name in names:
                title = controls.short_label(controls.rows()[name])
                column.prop(rig, property_path(name), text=title, slider=True)
        layout.operator("liveportrait.reset_rig_controls", text="Reset", icon="LOOP_BACK")


CLASSES = (LIVEPORTRAIT_PT_performance, LIVEPORTRAIT_PT_performance_controls)
