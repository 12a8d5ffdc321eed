# SPDX-License-Identifier: GPL-3.0-or-later
"""Shape keys that follow the performance: which mesh, which performance, which key by which channel."""

from typing import Any

import bpy
from bpy.types import Menu, Panel, UIList

from .. import (
    keypoint_rig,
    performance,
    rig_channels,
    shape_key_drivers,
    shape_key_mapping,
    shape_key_matching,
    shape_key_presets,
)
from ..shape_key_formula import source, taking_part
from ..shape_key_report import listed
from .layout import Subpanel, blocked, split, wrapped

PARENT = "LIVEPORTRAIT_PT_shape_keys"


class LIVEPORTRAIT_UL_shape_keys(UIList):
    """An entry a line: whether it is used, its shape key, its channel where that has another name."""

    def draw_item(self, context, layout, data, item, icon, active_data, active_property) -> None:
        layout.use_property_split = False  # else the names are squeezed into the right half
        row = layout.row(align=True)
        row.prop(item, "use", text="")
        key = shape_key_drivers.key_of(item.id_data)
        there = key is not None and item.shape_key in key.key_blocks
        moves = source(item) not in rig_channels.unknown()  # else it stays still
        alone = there and shape_key_matching.same_name(item.shape_key, source(item))
        names = row.row(align=True) if alone else row.split(factor=0.5, align=True)
        names.active = item.use and (moves or not alone)
        names.label(text=item.shape_key or "(none)", icon="NONE" if there else "ERROR")
        if not alone:
            channel = names.row()
            channel.active = moves
            channel.label(text=source(item))

    def filter_items(self, context, data, property) -> tuple[list[int], list[int]]:
        entries = getattr(data, property)
        helper = bpy.types.UI_UL_list
        flags = (
            helper.filter_items_by_name(self.filter_name, self.bitflag_filter_item, entries, "shape_key")
            if self.filter_name
            else []
        )
        order = helper.sort_items_by_name(entries, "shape_key") if self.use_filter_sort_alpha else []
        return flags, order


class LIVEPORTRAIT_MT_shape_keys(Menu):
    bl_label = "Shape Key Specials"

    def draw(self, context: Any) -> None:
        layout = self.layout
        layout.operator("liveportrait.match_shape_keys", text="Match Again").start_over = True
        layout.operator("liveportrait.mirror_shape_keys", icon="ARROW_LEFTRIGHT")
        layout.separator()
        layout.menu("LIVEPORTRAIT_MT_shape_key_presets", icon="PRESET")
        layout.operator("liveportrait.import_shape_key_mapping", text="Import", icon="IMPORT")
        layout.operator("liveportrait.export_shape_key_mapping", text="Export", icon="EXPORT")
        layout.separator()
        layout.operator("liveportrait.clear_shape_key_entries", icon="X")


class LIVEPORTRAIT_MT_shape_key_presets(Menu):
    bl_label = "Presets"

    def draw(self, context: Any) -> None:
        layout = self.layout
        own = shape_key_presets.own()  # a folder is listed when the menu opens, as Blender's own do
        for name in sorted({**shape_key_presets.shipped(), **own}):
            layout.operator("liveportrait.load_shape_key_preset", text=name).preset = name
        layout.separator()
        layout.operator("liveportrait.save_shape_key_preset", text="Save...", icon="ADD")
        for name in own:
            row = layout.operator(
                "liveportrait.remove_shape_key_preset", text=f"Remove {name}", icon="REMOVE"
            )
            row.preset = name


class LIVEPORTRAIT_PT_shape_keys(Subpanel, Panel):
    bl_label = "Shape Keys"
    bl_idname = PARENT
    bl_options = {"DEFAULT_CLOSED"}
    bl_order = 65

    def draw(self, context: Any) -> None:
        layout = self.layout
        split(layout)
        item = shape_key_mapping.active(context)
        if item is None:
            why = shape_key_mapping.why_no_target(context) or "Make the mesh active whose list to edit"
            blocked(layout, context, why)
            return
        settings = item.liveportrait.shape_keys
        layout.label(text=item.name, icon="MESH_DATA")
        if item.library is not None:
            blocked(layout, context, f'"{item.name}" is linked from another file; override it to edit this')
            return
        layout.prop(settings, "rig")
        if settings.rig is None and not keypoint_rig.rigs(context.scene):
            blocked(layout, context, "Create or import a performance for the shape keys to follow")
        layout.operator("liveportrait.match_shape_keys", icon="VIEWZOOM")
        _entries(layout, settings)
        if settings.entries:
            _state(layout, context, item)
        if 0 <= settings.active < len(settings.entries):
            _entry(layout, item, settings.entries[settings.active])


def _entries(layout: Any, settings: Any) -> None:
    row = layout.row()
    row.template_list(
        "LIVEPORTRAIT_UL_shape_keys", "", settings, "entries", settings, "active", rows=5, maxrows=8
    )
    buttons = row.column(align=True)
    buttons.operator("liveportrait.add_shape_key_entry", text="", icon="ADD")
    buttons.operator("liveportrait.remove_shape_key_entry", text="", icon="REMOVE")
    buttons.separator()
    buttons.menu("LIVEPORTRAIT_MT_shape_keys", text="", icon="DOWNARROW_HLT")
    buttons.separator()
    for way, icon in (("UP", "TRIA_UP"), ("DOWN", "TRIA_DOWN")):
        button = buttons.operator("liveportrait.move_shape_key_entry", text="", icon=icon)
        button.direction = way


def _entry(layout: Any, item: Any, entry: Any) -> None:
    column = layout.column()
    column.active = entry.use
    column.prop_search(entry, "shape_key", shape_key_drivers.key_of(item), "key_blocks")
    column.prop(entry, "channel")
    column.prop(entry, "mirror")
    values = column.column(align=True)
    values.prop(entry, "gain")
    values.prop(entry, "offset")
    values.prop(entry, "dead_zone", slider=True)
    ends = column.column(align=True)
    ends.prop(entry, "minimum")
    ends.prop(entry, "maximum")


def _state(layout: Any, context: Any, item: Any) -> None:
    """Drive and its opposite, and what is not as one might think."""
    settings, key = item.liveportrait.shape_keys, shape_key_drivers.key_of(item)
    driven = shape_key_drivers.driven(item)
    row = layout.row(align=True)
    row.scale_y = 1.3
    row.operator("liveportrait.drive_shape_keys", icon="DRIVER")
    if driven:
        row.operator("liveportrait.undrive_shape_keys", text="", icon="X")
    reason = shape_key_drivers.why_not(item)
    if reason:
        blocked(layout, context, reason)
        return
    gone = performance.deleted(context)
    if gone is not None and driven:
        reason = f'"{gone.name}" was deleted from the scene; until Remove Drivers the face follows it still'
        blocked(layout, context, reason, "liveportrait.put_rig_back")
    wanted = taking_part(settings.entries)
    layout.label(text=f"{len(driven)} of {len(wanted)} shape keys driven")
    kept = shape_key_drivers.of_others(item, wanted)
    if kept:
        box = layout.box().column(align=True)
        wrapped(box, f"Drivers of your own are kept: {listed(kept)}", context, "INFO")
        box.operator("liveportrait.drive_shape_keys", text="Replace Them").replace = True
    unknown = rig_channels.unknown()
    for names, text in (
        ([name for name in wanted if name not in key.key_blocks], "Not on the mesh: {}"),
        (
            [name for name, entries in wanted.items() if all(source(entry) in unknown for entry in entries)],
            "Stay still, as the keypoints do not tell them: {}",
        ),
        (
            [
                block.name
                for block in key.key_blocks
                if block != key.reference_key and block.name not in wanted
            ],
            "Without an entry: {}",
        ),
    ):
        if names:
            wrapped(layout, text.format(listed(names)), context, "INFO")


CLASSES = (
    LIVEPORTRAIT_UL_shape_keys,
    LIVEPORTRAIT_MT_shape_keys,
    LIVEPORTRAIT_MT_shape_key_presets,
    LIVEPORTRAIT_PT_shape_keys,
)
