# SPDX-License-Identifier: GPL-3.0-or-later
"""The sound of a result: a strip in the scene's sequencer."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import bpy

from . import compat, image_plane

log = logging.getLogger(__name__)


def put(
    scene: Any, path: str, name: str, start: int, frames: int, from_second: float = 0.0, strip_name: str = ""
) -> Any:
    """A sound strip over the frames of a result, heard from `from_second` of the file on; None without sound.

    The strip of that name with the same file is moved and not made again; with another file it is replaced.
    """
    editor = scene.sequence_editor or scene.sequence_editor_create()
    strips = compat.strips(editor)
    before = strips.get(strip_name) if strip_name else None
    channel = None
    if before is not None and before.type == "SOUND":
        if _same(before.sound.filepath, path):
            compat.place_sound(before, start, frames, round(from_second * compat.rate(scene)))
            return before
        channel = before.channel
        _drop(strips, before)
    if channel is None:
        channel = max((one.channel for one in strips), default=0) + 1
    try:
        strip = strips.new_sound(name, image_plane.relative_path(Path(path)), min(channel, 128), start)
    except RuntimeError as error:  # no sound in the file, or a Blender without sound
        log.info("No sound strip of %s: %s", path, error)
        return None
    if compat.content_length(strip) <= 1:  # what Blender makes of a file without sound
        _drop(strips, strip)
        return None
    compat.place_sound(strip, start, frames, round(from_second * compat.rate(scene)))
    return strip


def remove(name: str) -> None:
    """Take the sound strip of that name out of the sequencer that has it, and its sound with the last one."""
    for scene in bpy.data.scenes:
        if not name or not scene.sequence_editor:
            continue
        strips = compat.strips(scene.sequence_editor)
        strip = strips.get(name)
        if strip is not None and strip.type == "SOUND":
            _drop(strips, strip)


def _drop(strips: Any, strip: Any) -> None:
    used = strip.sound
    strips.remove(strip)
    if used is not None and not used.users:
        bpy.data.sounds.remove(used)


def _same(one: str, other: str) -> bool:
    return Path(bpy.path.abspath(one)).resolve() == Path(bpy.path.abspath(other)).resolve()
