# SPDX-License-Identifier: GPL-3.0-or-later
"""Choose the portrait: a file, the active object's texture, the clipboard."""

import os
from pathlib import Path
from typing import Any

import bpy
from bpy.types import Operator
from bpy_extras.io_utils import ImportHelper

from .. import inputs, pictures
from ..names import UserError
from ..thumbnails import CLIPS, PICTURES

SOURCE_SUFFIXES = PICTURES | CLIPS


def pattern(suffixes: set[str]) -> str:
    """What a file browser shows."""
    return ";".join(f"*{suffix}" for suffix in sorted(suffixes))


def checked(path: str, suffixes: set[str], what: str) -> str:
    """A path that is there and of a kind that can be used, as it is to be kept. Raises UserError."""
    if not path:
        raise UserError(f"No {what} was given.", "Choose a file.")
    found = Path(bpy.path.abspath(path))
    if not found.exists():
        raise UserError(f"{found} does not exist.", "Choose another file.")
    if found.is_file() and found.suffix.lower() not in suffixes:
        known = ", ".join(sorted(suffix[1:] for suffix in suffixes))
        raise UserError(f"{found.name} is no {what}.", f"Choose one of {known}.")
    return kept_path(str(found))


def kept_path(path: str) -> str:
    """Relative to the .blend file where it is saved and the user's preferences say so."""
    if not bpy.data.filepath or not bpy.context.preferences.filepaths.use_relative_paths:
        return path
    try:
        return bpy.path.relpath(path)
    except ValueError:  # on another drive
        return path


def start_beside(operator: Any, settings: Any, *names: str) -> None:
    """Let a file browser open where the first of these paths that is set lies, if that folder is there."""
    for name in names:
        path = getattr(settings, name)
        folder = Path(bpy.path.abspath(path)).parent
        if path and folder.is_dir() and not operator.properties.is_property_set("filepath"):
            operator.filepath = f"{folder}{os.sep}"
            return


class LIVEPORTRAIT_OT_open_source(Operator, ImportHelper):
    bl_idname = "liveportrait.open_source"
    bl_label = "Open Portrait"
    bl_description = "Choose the picture or clip that is to move"
    bl_options = {"REGISTER", "UNDO"}

    filter_glob: bpy.props.StringProperty(default=pattern(SOURCE_SUFFIXES), options={"HIDDEN"})

    def invoke(self, context: Any, event: Any) -> set[str]:
        start_beside(self, context.scene.liveportrait, "source_path", "driving_path")
        return super().invoke(context, event)

    def execute(self, context: Any) -> set[str]:
        settings = context.scene.liveportrait
        try:
            settings.source_path = checked(self.filepath, SOURCE_SUFFIXES, "picture or clip")
        except UserError as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        settings.source_kind = "FILE"
        settings.options.use_face = False  # the number was another picture's
        return {"FINISHED"}


class LIVEPORTRAIT_OT_use_object_texture(Operator):
    bl_idname = "liveportrait.use_object_texture"
    bl_label = "Use Active Object's Texture"
    bl_description = "Take the image that the active object shows as the portrait"
    bl_options = {"REGISTER", "UNDO"}

    @classmethod
    def poll(cls, context: Any) -> bool:
        active = context.active_object
        if active is None:
            cls.poll_message_set("Select the object whose texture is the portrait")
            return False
        if inputs.texture_of(active) is None:
            cls.poll_message_set("The active object has no image in its material")
            return False
        return True

    def execute(self, context: Any) -> set[str]:
        settings = context.scene.liveportrait
        settings.source_image = inputs.texture_of(context.active_object)
        settings.source_kind = "IMAGE"
        settings.options.use_face = False
        return {"FINISHED"}


class LIVEPORTRAIT_OT_paste_source(Operator):
    bl_idname = "liveportrait.paste_source"
    bl_label = "Paste Portrait"
    bl_description = "Take the image on the clipboard as the portrait and pack it into the .blend file"
    bl_options = {"REGISTER", "UNDO"}

    @classmethod
    def poll(cls, _context: Any) -> bool:
        if bpy.app.background:
            cls.poll_message_set("There is no clipboard in background mode")
            return False
        return True

    def execute(self, context: Any) -> set[str]:
        settings = context.scene.liveportrait
        try:
            path = pictures.clipboard_file(context)
        except UserError as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        image = bpy.data.images.load(str(path), check_existing=True)
        image.name = "Pasted Portrait"
        if image.packed_file is None:
            image.pack()
        settings.source_image = image
        settings.source_kind = "IMAGE"
        settings.options.use_face = False
        return {"FINISHED"}


CLASSES = (LIVEPORTRAIT_OT_open_source, LIVEPORTRAIT_OT_use_object_texture, LIVEPORTRAIT_OT_paste_source)
