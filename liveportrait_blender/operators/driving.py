# SPDX-License-Identifier: GPL-3.0-or-later
"""Choose the performance: a file, a movie clip, a strip or a library motion; swap it with the source."""

from typing import Any

import bpy
from bpy.types import Operator
from bpy_extras.io_utils import ImportHelper

from .. import compat, inputs
from ..names import UserError
from ..properties import options
from ..thumbnails import CLIPS, PICTURES
from .source import checked, pattern, start_beside

DRIVING_SUFFIXES = CLIPS | PICTURES | inputs.MOTION_SUFFIXES


class LIVEPORTRAIT_OT_open_driving(Operator, ImportHelper):
    bl_idname = "liveportrait.open_driving"
    bl_label = "Open Driving"
    bl_description = "Choose the clip, picture or motion file (.npz, .pkl, .csv) that drives the portrait"
    bl_options = {"REGISTER", "UNDO"}

    filter_glob: bpy.props.StringProperty(default=pattern(DRIVING_SUFFIXES), options={"HIDDEN"})

    def invoke(self, context: Any, event: Any) -> set[str]:
        start_beside(self, context.scene.liveportrait, "driving_path", "source_path")
        return super().invoke(context, event)

    def execute(self, context: Any) -> set[str]:
        settings = context.scene.liveportrait
        try:
            settings.driving_path = checked(self.filepath, DRIVING_SUFFIXES, "clip, picture or motion file")
        except UserError as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        settings.driving_kind = "FILE"
        settings.options.use_driving_face = False  # the number was another clip's
        return {"FINISHED"}


class LIVEPORTRAIT_OT_use_clip(Operator):
    bl_idname = "liveportrait.use_clip"
    bl_label = "Use Movie Clip"
    bl_description = "Take a movie clip of this .blend file as the performance"
    bl_options = {"REGISTER", "UNDO"}

    clip: bpy.props.StringProperty(name="Clip", description="Its name; empty is the scene's active clip")

    @classmethod
    def poll(cls, _context: Any) -> bool:
        if not bpy.data.movieclips:
            cls.poll_message_set("There is no movie clip in this .blend file")
            return False
        return True

    def execute(self, context: Any) -> set[str]:
        settings = context.scene.liveportrait
        clips = bpy.data.movieclips
        clip = clips.get(self.clip) if self.clip else context.scene.active_clip or clips[0]
        if clip is None:
            self.report({"ERROR"}, f'There is no movie clip "{self.clip}". Choose another.')
            return {"CANCELLED"}
        settings.driving_clip = clip
        settings.driving_kind = "CLIP"
        return {"FINISHED"}


class LIVEPORTRAIT_OT_use_strip(Operator):
    bl_idname = "liveportrait.use_strip"
    bl_label = "Use Strip"
    bl_description = "Take a movie or image strip of the video sequencer as the performance"
    bl_options = {"REGISTER", "UNDO"}

    strip: bpy.props.StringProperty(name="Strip", description="Its name; empty is the active strip")

    @classmethod
    def poll(cls, context: Any) -> bool:
        if not strip_names(context.scene):
            cls.poll_message_set("There is no movie or image strip in the video sequencer")
            return False
        return True

    def execute(self, context: Any) -> set[str]:
        settings = context.scene.liveportrait
        names = strip_names(context.scene)
        active = context.scene.sequence_editor.active_strip
        name = self.strip or (active.name if active and active.name in names else names[0])
        if name not in names:
            self.report({"ERROR"}, f'There is no movie or image strip "{name}". Choose another.')
            return {"CANCELLED"}
        settings.driving_strip = name
        settings.driving_kind = "STRIP"
        return {"FINISHED"}


class LIVEPORTRAIT_OT_use_motion(Operator):
    bl_idname = "liveportrait.use_motion"
    bl_label = "Use Library Motion"
    bl_description = "Take a motion that comes with the add-on as the performance"
    bl_options = {"REGISTER", "UNDO"}

    motion: bpy.props.StringProperty(name="Motion", description="Its name", default="talk")

    def execute(self, context: Any) -> set[str]:
        settings = context.scene.liveportrait
        names = [row["name"] for row in options.table()["library"]]
        if self.motion not in names:
            self.report({"ERROR"}, f'There is no motion "{self.motion}". There are: {", ".join(names)}.')
            return {"CANCELLED"}
        settings.driving_library = self.motion
        settings.driving_kind = "LIBRARY"
        return {"FINISHED"}


class LIVEPORTRAIT_OT_swap_inputs(Operator):
    bl_idname = "liveportrait.swap_inputs"
    bl_label = "Swap Source and Driving"
    bl_description = "Let the driving be the portrait, and the portrait drive"
    bl_options = {"REGISTER", "UNDO"}

    @classmethod
    def poll(cls, context: Any) -> bool:
        settings = context.scene.liveportrait
        if settings.source_kind != "FILE" or settings.driving_kind != "FILE":
            cls.poll_message_set("Only files can be swapped")
            return False
        if not (settings.source_path and settings.driving_path):
            cls.poll_message_set("Choose a portrait and a driving first")
            return False
        if settings.driving_path.lower().endswith(tuple(inputs.MOTION_SUFFIXES)):
            cls.poll_message_set("A motion file cannot be a portrait")
            return False
        return True

    def execute(self, context: Any) -> set[str]:
        settings = context.scene.liveportrait
        settings.source_path, settings.driving_path = settings.driving_path, settings.source_path
        settings.options.use_face = settings.options.use_driving_face = False
        return {"FINISHED"}


def strip_names(scene: Any) -> list[str]:
    """The strips of a scene that have pictures."""
    editor = scene.sequence_editor
    if editor is None:
        return []
    return [strip.name for strip in compat.all_strips(editor) if strip.type in ("MOVIE", "IMAGE")]


CLASSES = (
    LIVEPORTRAIT_OT_open_driving,
    LIVEPORTRAIT_OT_use_clip,
    LIVEPORTRAIT_OT_use_strip,
    LIVEPORTRAIT_OT_use_motion,
    LIVEPORTRAIT_OT_swap_inputs,
)
