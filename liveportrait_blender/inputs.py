# SPDX-License-Identifier: GPL-3.0-or-later
"""What the artist chose as source and as driving: a file, a folder of pictures, or a name of the library.

Whatever is not a file on disk is written to the cache under the name of its contents, by `pictures`.
`source_missing` and `driving_missing` are for draw and poll: they look at settings alone, never at files.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bpy

from . import compat, pictures
from .names import UserError

TABLES = {".csv", ".json"}  # of blendshape curves
MOTION_SUFFIXES = {".npz", ".pkl", *TABLES}


@dataclass(frozen=True)
class Chosen:
    """An input. value: a file or folder, or {"library": name}. label: what to call it in the interface.

    frames: (first, stop) half-open in the clip's own frames, stop None for its end; None for all of it.
    """

    value: Path | dict[str, str]
    label: str
    frames: tuple[int, int | None] | None = None


def source(context: Any) -> Chosen:
    """The portrait, a picture or a clip. Raises UserError."""
    settings = context.scene.liveportrait
    kind = settings.source_kind
    if kind == "FILE":
        return _file(settings.source_path, "portrait", "Choose a picture or a clip.")
    if kind == "IMAGE":
        if settings.source_image is None:
            raise UserError("No image is chosen as the portrait.", "Choose one of the file's images.")
        return from_image(settings.source_image, context.scene)
    if kind == "OBJECT":
        return from_object(context.active_object, context.scene)
    return from_clipboard(context)


def driving(context: Any) -> Chosen:
    """The performance. Raises UserError."""
    settings = context.scene.liveportrait
    kind = settings.driving_kind
    if kind == "FILE":
        return _file(settings.driving_path, "driving clip", "Choose a clip, a picture or a motion file.")
    if kind == "CLIP":
        if settings.driving_clip is None:
            raise UserError("No movie clip is chosen.", "Choose one of the file's movie clips.")
        return from_movie_clip(settings.driving_clip)
    if kind == "STRIP":
        return from_strip(_strip(context.scene, settings.driving_strip))
    if not settings.driving_library:
        raise UserError("No motion is chosen.", "Choose one of the motion library.")
    return Chosen({"library": settings.driving_library}, settings.driving_library)


def source_missing(context: Any) -> str:
    """Why there is no source yet, "" when one is chosen; opens no file."""
    settings = context.scene.liveportrait
    kind = settings.source_kind
    if kind == "FILE":
        return "" if settings.source_path.strip() else "Choose a portrait first"
    if kind == "IMAGE":
        return "" if settings.source_image else "Choose an image as the portrait first"
    if kind == "OBJECT":
        active = context.active_object
        if active is None:
            return "Select the object whose texture is the portrait"
        return "" if texture_of(active) else f'The object "{active.name}" has no image in its material'
    return "There is no clipboard in background mode" if bpy.app.background else ""


def driving_missing(context: Any) -> str:
    """Why there is no driving yet, "" when one is chosen; opens no file."""
    settings = context.scene.liveportrait
    kind = settings.driving_kind
    if kind == "FILE":
        return "" if settings.driving_path.strip() else "Choose a driving clip first"
    if kind == "CLIP":
        return "" if settings.driving_clip else "Choose a movie clip as driving first"
    if kind == "STRIP":
        try:
            _strip(context.scene, settings.driving_strip)
        except UserError as error:
            return error.sentence.rstrip(".")
        return ""
    return "" if settings.driving_library else "Choose a motion of the library first"


def from_image(image: Any, scene: Any = None) -> Chosen:
    """The file, folder or clip behind an image of the .blend; its pixels where there is none.

    Raises UserError.
    """
    if image.source == "SEQUENCE":
        return Chosen(_existing(image, "image").parent, image.name)
    if image.source == "MOVIE":
        return Chosen(_existing(image, "movie"), image.name)
    return Chosen(pictures.file_of(image, scene), image.name)


def from_object(owner: Any, scene: Any = None) -> Chosen:
    """The texture of an object. Raises UserError."""
    if owner is None:
        raise UserError("No object is active.", "Select the object whose texture is the portrait.")
    image = texture_of(owner)
    if image is None:
        raise UserError(
            f'The object "{owner.name}" has no image in its material.', "Choose another object or a file."
        )
    return from_image(image, scene)


def texture_of(owner: Any) -> Any:
    """The image that an object shows: that of the active image node of its active material, or else the one
    that is linked to base colour or emission, or else any; None without one.
    """
    material = getattr(owner, "active_material", None)
    if material is None and owner.type == "EMPTY" and owner.empty_display_type == "IMAGE":
        return owner.data
    tree = material.node_tree if material else None
    if tree is None:
        return None
    active = tree.nodes.active
    if active is not None and active.type == "TEX_IMAGE" and active.image is not None:
        return active.image
    found = [node for node in tree.nodes if node.type == "TEX_IMAGE" and node.image is not None]
    sockets = ("Base Color", "Emission Color", "Emission", "Color")
    for link in tree.links:
        if link.from_node in found and link.to_socket.name in sockets:
            return link.from_node.image
    return found[0].image if found else None


def from_clipboard(context: Any) -> Chosen:
    """The picture on the clipboard, or the picture file whose path is there. Raises UserError."""
    return Chosen(pictures.clipboard_file(context), "Clipboard")


def from_movie_clip(clip: Any) -> Chosen:
    """The file of a movie clip, or the folder of its pictures, from its frame offset on. Raises UserError."""
    path = _existing(clip, "movie clip")
    frames = (clip.frame_offset, None) if clip.frame_offset > 0 else None
    return Chosen(path.parent if clip.source == "SEQUENCE" else path, clip.name, frames)


def from_strip(strip: Any) -> Chosen:
    """The file of a movie or image strip and the part of it that its handles leave. Raises UserError."""
    if strip.type == "MOVIE":
        path = Path(bpy.path.abspath(strip.filepath))
        if strip.use_reverse_frames:
            raise UserError(f'The strip "{strip.name}" plays backwards.', "Turn off Reverse Frames.")
    elif strip.type == "IMAGE":
        path = Path(bpy.path.abspath(strip.directory))
        if len(strip.elements) == 1:
            return Chosen(_there(path / strip.elements[0].filename, "strip"), strip.name)
    else:
        raise UserError(f'The strip "{strip.name}" has no pictures.', "Choose a movie or image strip.")
    first, stop, whole = compat.strip_range(strip)
    return Chosen(_there(path, "strip"), strip.name, None if whole else (first, stop))


def _strip(scene: Any, name: str) -> Any:
    if not name:
        raise UserError("No strip of the sequencer is chosen.", "Choose a movie or image strip.")
    editor = scene.sequence_editor
    strip = compat.strips(editor).get(name) if editor else None
    if strip is None and editor:  # in a meta strip
        strip = next((one for one in compat.all_strips(editor) if one.name == name), None)
    if strip is None:
        raise UserError(f'There is no strip "{name}" in the sequencer.', "Choose another.")
    return strip


def _file(path: str, what: str, hint: str) -> Chosen:
    if not path.strip():
        raise UserError(f"No {what} is chosen.", hint)
    found = _there(Path(bpy.path.abspath(path.strip())), what)
    return Chosen(found, found.name)


def _existing(block: Any, what: str) -> Path:
    """The file of an image or a clip, relative to the library that it comes from."""
    return _there(Path(bpy.path.abspath(block.filepath, library=block.library)), what)


def _there(path: Path, what: str) -> Path:
    if not path.exists():
        raise UserError(f"The file of the {what} is not there: {path}.", "Choose it again.")
    return path.resolve()
