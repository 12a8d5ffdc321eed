# SPDX-License-Identifier: GPL-3.0-or-later
"""The expression controls as sliders, with a preview that follows them, and the pictures of keyed ones."""

from typing import Any

from bpy.types import Panel

from .. import inputs, live_preview
from ..operators.presets import LIVEPORTRAIT_PT_expression_presets
from ..properties import controls
from .layout import Subpanel, blocked, trouble

PICTURE = 9.0  # height of the preview in rows
PARENT = "LIVEPORTRAIT_PT_controls"


class LIVEPORTRAIT_PT_controls(Subpanel, Panel):
    bl_label = "Expression Controls"
    bl_idname = PARENT
    bl_options = {"DEFAULT_CLOSED"}
    bl_order = 50

    def draw_header_preset(self, _context: Any) -> None:
        LIVEPORTRAIT_PT_expression_presets.draw_panel_header(self.layout)

    def draw(self, context: Any) -> None:
        layout = self.layout
        preview(layout, context)
        row = layout.row(align=True)
        row.operator("liveportrait.key_controls", text="Key All", icon="KEY_HLT")
        row.operator("liveportrait.reset_controls", text="Reset", icon="LOOP_BACK")
        big = layout.column()
        big.scale_y = 1.3
        big.operator("liveportrait.render_controls", icon="RENDER_ANIMATION")
        why = inputs.source_missing(context)
        if why:
            blocked(layout, context, why)
        # That no slider was moved says the button's tooltip: a note here would shift the slider that is drawn
        # away from under the pointer as soon as it moves.


def preview(layout: Any, context: Any) -> None:
    """The switch of the live preview and its picture."""
    on = live_preview.is_on()
    switch = "liveportrait.stop_live_preview" if on else "liveportrait.start_live_preview"
    layout.operator(switch, text="Live Preview", icon="HIDE_OFF" if on else "HIDE_ON", depress=on)
    if not on:
        return
    if live_preview.error():
        trouble(layout, context, live_preview.error())
    elif live_preview.icon():
        layout.template_icon(icon_value=live_preview.icon(), scale=PICTURE)
    else:
        layout.label(text="The first picture is on its way", icon="SORTTIME")


class Sliders(Subpanel):
    """The sliders of one part of the face; each can be keyed with the dot beside it."""

    bl_parent_id = PARENT
    names: tuple[str, ...] = ()

    def draw(self, context: Any) -> None:
        layout, settings = self.layout, context.scene.liveportrait.controls
        layout.use_property_split = True
        layout.use_property_decorate = True
        column = layout.column(align=True)
        for name in self.names:
            draw_control(column, settings, name)


def draw_control(layout: Any, settings: Any, name: str) -> None:
    row = controls.rows()[name]
    switch = controls.switch(row)
    if not switch:
        layout.prop(settings, name, slider=True)
        return
    line = layout.row(align=True, heading=controls.short_label(row))
    line.prop(settings, switch, text="")
    value = line.row(align=True)
    value.active = getattr(settings, switch)
    value.prop(settings, name, text="", slider=True)


def _panels() -> tuple[type, ...]:
    made = []
    for number, (label, names) in enumerate(controls.GROUPS):
        name = f"LIVEPORTRAIT_PT_controls_{label.split()[0].lower()}"
        words = {"bl_label": label, "bl_idname": name, "names": names, "bl_order": number}
        made.append(type(name, (Sliders, Panel), {**words, "__module__": __name__}))
    return tuple(made)


CLASSES = (LIVEPORTRAIT_PT_controls, *_panels())
