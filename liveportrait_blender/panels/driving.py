# SPDX-License-Identifier: GPL-3.0-or-later
"""The performance: where it comes from, how it looks, which part of it."""

from typing import Any

import bpy
from bpy.types import Panel

from .. import compat, inputs, thumbnails
from ..operators.driving import strip_names
from . import faces
from .layout import Subpanel, blocked, split
from .source import picture


class LIVEPORTRAIT_PT_driving(Subpanel, Panel):
    bl_label = "Driving"
    bl_order = 20

    def draw_header_preset(self, _context: Any) -> None:
        row = self.layout.row()
        row.emboss = "NONE"
        row.operator("liveportrait.swap_inputs", text="", icon="UV_SYNC_SELECT")

    def draw(self, context: Any) -> None:
        layout, settings = self.layout, context.scene.liveportrait
        layout.prop(settings, "driving_kind", text="")
        {"FILE": _file, "CLIP": _clip, "STRIP": _strip, "LIBRARY": _library}[settings.driving_kind](
            layout, context, settings
        )
        if settings.driving_kind == "LIBRARY" or inputs.driving_missing(context):
            return
        frames(layout, settings.options)
        if settings.driving_kind != "FILE" or not is_motion(settings.driving_path):
            faces.draw(layout, context, "driving")


def _file(layout: Any, context: Any, settings: Any) -> None:
    if not settings.driving_path:
        big = layout.row()
        big.scale_y = 1.5
        big.operator("liveportrait.open_driving", icon="FILE_FOLDER")
        layout.label(text="or drop one into the viewport", icon="BLANK1")
        return
    layout.prop(settings, "driving_path", text="")
    if thumbnails.missing(settings.driving_path):
        blocked(layout, context, "The file of the driving is not there", "liveportrait.open_driving")
    elif is_motion(settings.driving_path):
        layout.label(text="A recorded motion, no pictures", icon="ARMATURE_DATA")
    else:
        picture(layout, thumbnails.icon(settings.driving_path))


def _clip(layout: Any, _context: Any, settings: Any) -> None:
    layout.template_ID(settings, "driving_clip", open="clip.open")
    if settings.driving_clip is not None:
        clip = settings.driving_clip
        picture(layout, thumbnails.icon(bpy.path.abspath(clip.filepath, library=clip.library)))


def _strip(layout: Any, context: Any, settings: Any) -> None:
    editor = context.scene.sequence_editor
    if not strip_names(context.scene) and not settings.driving_strip:
        blocked(layout, context, "There is no movie or image strip in the video sequencer; add one there")
        return
    row = layout.row(align=True)
    if editor is None:
        row.prop(settings, "driving_strip", text="", icon="SEQUENCE")
    else:
        row.prop_search(settings, "driving_strip", editor, compat.strips_property(), text="", icon="SEQUENCE")
    row.operator("liveportrait.use_strip", text="", icon="RESTRICT_SELECT_OFF")
    reason = inputs.driving_missing(context)
    if reason and settings.driving_strip:
        blocked(layout, context, reason)
        return
    strip = compat.strips(editor).get(settings.driving_strip) if editor else None
    if strip is not None and strip.type == "MOVIE":
        picture(layout, thumbnails.icon(strip.filepath))


def _library(layout: Any, _context: Any, settings: Any) -> None:
    layout.prop(settings, "driving_library", text="", icon="ASSET_MANAGER")


def is_motion(path: str) -> bool:
    """Whether a file holds a motion, and no pictures."""
    return path.lower().endswith(tuple(inputs.MOTION_SUFFIXES))


def frames(layout: Any, options: Any) -> None:
    """The part of the driving that is used."""
    column = layout.column(heading="Range")
    split(column)
    row = column.row(align=True)
    row.prop(options, "use_frames", text="")
    values = row.row(align=True)
    values.active = options.use_frames
    values.use_property_split = False
    values.prop(options, "frames", index=0, text="")
    values.prop(options, "frames", index=1, text="")


CLASSES = (LIVEPORTRAIT_PT_driving,)
