# SPDX-License-Identifier: GPL-3.0-or-later
"""All options of the command line, in its groups and with its words; a panel a group, closed at first."""

from typing import Any

from bpy.types import Panel

from ..operators.presets import LIVEPORTRAIT_PT_option_presets
from ..properties import options
from .layout import Subpanel, split

PARENT = "LIVEPORTRAIT_PT_options"
ORDER = ("motion", "crop", "driving crop", "clips as source", "choice", "engine")
SHORT = {  # where the group already says the rest
    "reference_frame": "Reference",
    "source_smoothing": "Smoothing",
    "crop_scale": "Scale",
    "crop_x": "X",
    "crop_y": "Y",
    "driving_crop_scale": "Scale",
    "driving_crop_x": "X",
    "driving_crop_y": "Y",
}
UPSTREAM = {"driving_option", "observation_variance"}  # what upstream compatibility alone heeds
LABELS = {"choice": "Faces, Frames and Sound", "crop": "Source Crop", "clips as source": "Clip as Source"}


class LIVEPORTRAIT_PT_options(Subpanel, Panel):
    bl_label = "Options"
    bl_idname = PARENT
    bl_options = {"DEFAULT_CLOSED"}
    bl_order = 40

    def draw_header_preset(self, _context: Any) -> None:
        LIVEPORTRAIT_PT_option_presets.draw_panel_header(self.layout)

    def draw(self, context: Any) -> None:
        changed = len(context.scene.liveportrait.options.as_options())
        row = self.layout.row()
        told = "All at their defaults" if not changed else f"{changed} changed"
        row.label(text=told)
        part = row.row()
        part.enabled = bool(changed)
        part.operator("liveportrait.reset_options", text="Reset", icon="LOOP_BACK")


class Group(Subpanel):
    """The options of one group of the command line."""

    bl_parent_id = PARENT
    bl_options = {"DEFAULT_CLOSED"}
    group = ""

    def draw(self, context: Any) -> None:
        layout, settings = self.layout, context.scene.liveportrait.options
        split(layout)
        for row in options.rows().values():
            if row["group"] == self.group:
                draw_option(layout, settings, row)


def draw_option(layout: Any, settings: Any, row: Any) -> None:
    """One option, with what says whether its number counts."""
    name, beside = row["name"], options.companion(row)
    label = SHORT.get(name, row["label"])
    if name in UPSTREAM:
        layout = layout.column()
        layout.active = settings.compatibility == "upstream"
    if name == "observation_variance":
        label = f"Variance {settings.observation_variance:.2g}"  # its field has too few digits
    if row.get("words"):
        column = layout.column(align=True)
        column.prop(settings, beside, text=label)
        if getattr(settings, beside) == options.VALUE:
            column.prop(settings, name, text="Frame" if row["unit"] == "frame" else "Strength")
        return
    if not beside:
        layout.prop(settings, name, text=label)
        return
    line = layout.row(align=True, heading=label)
    line.prop(settings, beside, text="")
    value = line.row(align=True)
    value.active = getattr(settings, beside)
    value.use_property_split = False
    if row["type"] == "range":
        value.prop(settings, name, index=0, text="")
        value.prop(settings, name, index=1, text="")
    else:
        value.prop(settings, name, text="")


def _panels() -> tuple[type, ...]:
    labels = {group["name"]: group["label"] for group in options.table()["groups"]}
    made = []
    for number, group in enumerate(sorted(labels, key=ORDER.index)):
        name = f"LIVEPORTRAIT_PT_options_{group.replace(' ', '_')}"
        words = {"bl_label": LABELS.get(group, labels[group]), "bl_idname": name, "group": group}
        made.append(type(name, (Group, Panel), {**words, "bl_order": number, "__module__": __name__}))
    return tuple(made)


CLASSES = (LIVEPORTRAIT_PT_options, *_panels())
