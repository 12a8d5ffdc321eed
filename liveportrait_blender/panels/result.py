# SPDX-License-Identifier: GPL-3.0-or-later
"""What came back: the active object's result, what can be done with it, and what an artist should know."""

from typing import Any

import bpy
from bpy.types import Panel

from .. import compare, compat, preferences, result_files, results
from .layout import Subpanel, blocked, wrapped

CONSENT = (
    "Animate only faces of people who agree to it. {place}; each picture and clip "
    "says in its metadata that it is AI-generated."
)
HERE = "Everything stays on this machine"
AWAY = "Pictures and clips are sent to the remote backend that you chose"
LISTED = 6


class LIVEPORTRAIT_PT_result(Subpanel, Panel):
    bl_label = "Result"
    bl_order = 40

    def draw(self, context: Any) -> None:
        layout = self.layout
        settings = preferences.get()
        if settings is not None and not settings.consent_seen:
            consent(layout, context)
        every = results.all_results()
        image = results.active(context)
        if not every:
            layout.label(text="Nothing is animated yet", icon="INFO")
            return
        listed(layout, every, image)
        if image is not None:
            one(layout, context, image)
        warnings(layout, context, image)
        column = layout.column(align=True)
        column.operator("liveportrait.pack_for_sending", icon="PACKAGE")
        column.operator("liveportrait.remove_unused_results", icon="BRUSH_DATA")


def consent(layout: Any, context: Any) -> None:
    """The note that is shown until it was read."""
    box = layout.box().column(align=True)
    wrapped(box, CONSENT.format(place=AWAY if preferences.is_remote() else HERE), context, "COMMUNITY")
    box.operator("liveportrait.note_consent", icon="CHECKMARK")


def listed(layout: Any, every: list[Any], image: Any) -> None:
    """The results of the file, to be chosen from; one alone needs no list."""
    if len(every) < 2:
        return
    column = layout.column(align=True)
    for other in every[:LISTED]:
        row = column.row(align=True)
        row.alignment = "LEFT"  # a button without a frame is centred otherwise
        row.operator(
            "liveportrait.select_result",
            text=other.name,
            icon="RADIOBUT_ON" if other == image else "RADIOBUT_OFF",
            emboss=False,
            translate=False,
        ).image = other.name
    if len(every) > LISTED:
        column.label(text=f"and {len(every) - LISTED} more", icon="BLANK1")


def one(layout: Any, context: Any, image: Any) -> None:
    """A result and what can be done with it."""
    first, last = results.span(image)
    row = layout.row()
    frames = f"{first} to {last}" if last > first else f"frame {first}"
    row.label(text=f"{image.name}: {frames}", icon="IMAGE_DATA", translate=False)
    if last > first:
        row.operator("liveportrait.set_scene_range", text="", icon="PREVIEW_RANGE")
    column = layout.column(align=True)
    column.operator("liveportrait.animate_again", icon="FILE_REFRESH")
    column.operator("liveportrait.load_recipe", icon="IMPORT")
    column.operator(
        "liveportrait.compare",
        icon="MOD_ARRAY",
        text="Remove Comparison" if compare.shown(image) else "Compare Side by Side",
    )
    row = column.row(align=True)
    row.operator("liveportrait.show_result_folder", icon="FILE_FOLDER")
    row.operator("liveportrait.delete_result", text="", icon="TRASH")


def warnings(layout: Any, context: Any, image: Any) -> None:
    """What an artist would stumble over."""
    away, moving = len(result_files.outside()), result_files.progress()
    if moving is not None:
        row = layout.row(align=True)
        row.progress(factor=moving[0], text=f"Moving: {moving[1]}")
        row.operator("liveportrait.cancel_move", text="", icon="CANCEL")
    elif away:
        what = "1 result lies" if away == 1 else f"{away} results lie"
        if bpy.data.filepath:
            blocked(layout, context, f"{what} outside the folder of this file", "liveportrait.move_results")
        else:
            reason = f"{what} in the user folder until the file is saved"
            blocked(layout, context, reason, "wm.save_mainfile", "Save")
    if image is not None and image.liveportrait.fps:
        made, rate = image.liveportrait.fps, compat.rate(context.scene)
        if abs(made - rate) > 0.01:
            rates = f"Made for {made:.4g} frames a second, the scene has {rate:.4g}"
            blocked(layout, context, rates, "liveportrait.animate_again")
    if image is not None and results.span(image)[1] > context.scene.frame_end:
        last, end = results.span(image)[1], context.scene.frame_end
        reason = f"It ends at frame {last}, the scene at {end}"
        blocked(layout, context, reason, "liveportrait.set_scene_range")
    view = context.scene.view_settings.view_transform
    if view != "Standard":
        blocked(
            layout,
            context,
            f"The view transform {view} changes the portrait's colours",
            "liveportrait.use_standard_view",
        )


CLASSES = (LIVEPORTRAIT_PT_result,)
