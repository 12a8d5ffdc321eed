# SPDX-License-Identifier: GPL-3.0-or-later
"""A .blend with its results as one zip, to be sent away.

Blender can pack pictures, sounds and fonts, but no image sequences. So the zip holds NAME/NAME.blend with
all that can be packed inside, and the results beside it in NAME/liveportrait/, where they are found on any
machine, with or without the add-on. The open file stays as it is.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bpy

from . import image_plane, result_files, results
from .names import UserError


def pack(target: Path) -> list[str]:
    """Write the zip; the files that could not go along, by name. It appears whole or not at all.

    Raises UserError where frames are missing or the zip cannot be written.
    """
    name = Path(bpy.data.filepath).stem or "untitled"
    inside = _placed(results.all_results())
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with tempfile.TemporaryDirectory(prefix="liveportrait-") as scratch:
            copy = Path(scratch) / f"{name}.blend"
            with _relinked(inside), _packed():
                left_out = _left_out(inside)
                bpy.ops.wm.save_as_mainfile(
                    filepath=str(copy), copy=True, relative_remap=False, compress=True, check_existing=False
                )
            with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
                archive.write(copy, f"{name}/{name}.blend")
                for folder, place in {results.folder_of(image): place for image, place in inside}.items():
                    for entry in sorted(folder.iterdir()):
                        if entry.is_file() and result_files.OURS.fullmatch(entry.name):
                            archive.write(entry, f"{name}/{results.FOLDER}/{place}/{entry.name}")
        temporary.replace(target)
    except OSError as error:
        raise UserError(
            f"{target.name} cannot be written: {error.strerror or error}.", "Choose another place."
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
    return left_out


def _placed(images: list[Any]) -> list[tuple[Any, str]]:
    """The name of each result's folder in the zip; one for two that share theirs."""
    places: dict[Path, str] = {}
    for image in images:
        folder = results.folder_of(image)
        frames = results.frames_in(folder)
        if frames < image.liveportrait.frames:
            raise UserError(
                f'"{image.name}" has {frames} of its {image.liveportrait.frames} frames in {folder}.',
                "Put them back, animate again, or delete the result.",
            )
        if folder not in places:
            name, number = folder.name, 1
            while name.casefold() in {place.casefold() for place in places.values()}:
                number += 1
                name = f"{folder.name}_{number:03d}"
            places[folder] = name
    return [(image, places[results.folder_of(image)]) for image in images]


@contextlib.contextmanager
def _relinked(inside: list[tuple[Any, str]]) -> Iterator[None]:
    """For a moment, results whose paths are those that they have in the zip."""
    before = [(image, image.filepath) for image, _ in inside if image.library is None]
    try:
        for image, place in inside:
            if image.library is None:
                image.filepath = f"//{results.FOLDER}/{place}/{image_plane.FIRST}"
        yield
    finally:
        for image, path in before:
            image.filepath = path


@contextlib.contextmanager
def _packed() -> Iterator[None]:
    """For a moment, everything packed that can be. What has unsaved strokes stays as it is."""
    done: list[Any] = []
    try:
        for block in [*bpy.data.images, *bpy.data.sounds, *bpy.data.fonts]:
            if _can_be_packed(block):
                with contextlib.suppress(RuntimeError):  # not there, or of a kind that Blender does not pack
                    block.pack()
                    if block.packed_file is not None:
                        done.append(block)
        yield
    finally:
        for block in done:
            with contextlib.suppress(RuntimeError):
                block.unpack(method="REMOVE")


def _can_be_packed(block: Any) -> bool:
    path = block.filepath
    if block.packed_file is not None or block.library is not None or not path or path == "<builtin>":
        return False
    if isinstance(block, bpy.types.Image) and (block.source != "FILE" or block.is_dirty):
        return False
    return Path(bpy.path.abspath(path)).is_file()


def _left_out(inside: list[tuple[Any, str]]) -> list[str]:
    """What lies outside the .blend and is no result: libraries, clips, caches."""
    ours = {bpy.path.abspath(image.filepath) for image, _ in inside}
    found = {path for path in bpy.utils.blend_paths(absolute=True, packed=False) if path not in ours}
    strokes = {image.name for image in bpy.data.images if image.source == "FILE" and image.is_dirty}
    return sorted({Path(path).name for path in found if path} | strokes)
