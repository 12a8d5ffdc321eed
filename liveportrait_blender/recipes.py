# SPDX-License-Identifier: GPL-3.0-or-later
"""What made a result, kept with its image, so that it can be made again: also after the project has moved."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bpy

from . import preferences
from .names import UserError

if TYPE_CHECKING:
    from .results import Landing

LIBRARY = "library:"


def remember(image: Any, landing: Landing, frames: int) -> None:
    """Write into `image.liveportrait` what a result is and what made it."""
    said, folder = image.liveportrait, Path(landing.folder)
    said.is_result = True
    said.frames, said.start_frame, said.kind = frames, landing.start_frame, landing.kind
    said.fps = float(landing.result.get("fps") or 0.0)
    said.source = _lasting(landing.source, folder)
    said.driving = landing.driving
    said.source_near, said.driving_near = _near(said.source, folder), _near(said.driving, folder)
    said.recipe, said.summary = json.dumps(landing.recipe), json.dumps(landing.result)
    if landing.result:
        _write_summary(folder, landing.result)


def source_of(image: Any) -> Path | None:
    """The portrait that a result shows, where it is now; None if it is gone."""
    return _found(image, image.liveportrait.source, image.liveportrait.source_near)


def driving_of(image: Any) -> Path | str | None:
    """What drove a result: a file, "library:NAME", "" if nothing did; None if the file is gone."""
    text = image.liveportrait.driving
    if not text or text.startswith(LIBRARY):
        return text
    return _found(image, text, image.liveportrait.driving_near)


def wanted(image: Any) -> tuple[Path, str]:
    """(source, driving) to make a result again. Raises UserError when one of them is gone."""
    source, driving = source_of(image), driving_of(image)
    for what, value, text in (
        ("portrait", source, image.liveportrait.source),
        ("driving clip", driving, image.liveportrait.driving),
    ):
        if value is None:
            raise UserError(
                f"The {what} of this result is gone: {text or 'unknown'}.", "Choose source and driving anew."
            )
    return source, str(driving)  # type: ignore[return-value]  # it is there, see above


def options_of(image: Any) -> Mapping[str, Any]:
    """The options that a result was made with."""
    try:
        found = json.loads(image.liveportrait.recipe or "{}").get("options") or {}
    except (ValueError, AttributeError):  # somebody else wrote it
        return {}
    return found if isinstance(found, dict) else {}


def summary_of(image: Any) -> Mapping[str, Any]:
    """What the backend said of a result."""
    try:
        found = json.loads(image.liveportrait.summary or "{}")
    except ValueError:  # somebody else wrote it
        return {}
    return found if isinstance(found, dict) else {}


def faces_of(image: Any) -> Mapping[str, Any]:
    """What drove each face that had a driving of its own."""
    try:
        found = json.loads(image.liveportrait.recipe or "{}").get("faces") or {}
    except (ValueError, AttributeError):  # somebody else wrote it
        return {}
    return found if isinstance(found, dict) else {}


def motion_of(image: Any) -> Path | None:
    """The motion that was measured for a result; None if there is none."""
    path = Path(bpy.path.abspath(image.filepath, library=image.library)).with_name("motion.npz")
    return path if path.is_file() else None


def _lasting(source: str, folder: Path) -> str:
    """A source that only the cache holds, which forgets, is kept beside the frames; so is one that was kept
    beside those of another result, with which it would go.
    """
    if not source:
        return ""
    path = Path(source)
    with contextlib.suppress(OSError):
        kept_before = path.stem == "source" and path.parent != folder and _is_result(path.parent)
        if path.is_file() and (kept_before or path.is_relative_to(preferences.cache_folder())):
            kept = folder / f"source{path.suffix}"
            if not kept.exists():
                shutil.copyfile(path, kept)
            return str(kept)
    return source


def _is_result(folder: Path) -> bool:
    return (folder / "000000.png").is_file()


def _near(text: str, folder: Path) -> str:
    """A path from the frames' folder on; "" where there is no way."""
    if not text or text.startswith(LIBRARY):
        return ""
    try:
        return Path(os.path.relpath(text, folder)).as_posix()
    except ValueError:  # another drive
        return ""


def _found(image: Any, text: str, near: str) -> Path | None:
    if not text:
        return None
    folder = Path(bpy.path.abspath(image.filepath, library=image.library)).parent
    places = [Path(bpy.path.abspath(text))] + ([(folder / near)] if near else [])
    return next((place.resolve() for place in places if place.exists()), None)


def _write_summary(folder: Path, result: Mapping[str, Any]) -> None:
    """result.json beside the frames, as the command line writes it; that it is missing harms nothing."""
    path = folder / "result.json"
    with contextlib.suppress(OSError):
        if not path.exists():
            path.write_text(json.dumps(result, indent=1, ensure_ascii=False), "utf-8")
