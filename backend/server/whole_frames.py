# SPDX-License-Identifier: GPL-3.0-or-later
"""What of a result is whole in a work folder: frames/000000.png ..., result.mp4, result.json at the end."""

from __future__ import annotations

import json
import re
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

FRAME = re.compile(r"(\d{6,})\.png")
TEMPORARY = re.compile(r"\..*\.tmp")


def frame_file(folder: Path, index: int) -> Path:
    return folder / "frames" / f"{index:06d}.png"


def whole_frames(folder: Path) -> int:
    """How many frames are there from the first on. A frame's file appears whole or not at all."""
    count = 0
    while frame_file(folder, count).is_file():
        count += 1
    return count


def result_of(folder: Path) -> dict[str, Any] | None:
    """What result.json says once everything is there."""
    try:
        told = json.loads((folder / "result.json").read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return told if isinstance(told, dict) else None


def clean(folder: Path) -> None:
    """Remove what a killed writer left: temporary files, and frames behind one that is missing."""
    place = folder / "frames"
    if not place.is_dir():
        return
    if not (place / "result.json").is_file():
        shutil.rmtree(place, ignore_errors=True)
        return
    count = whole_frames(folder)
    for child in place.iterdir():
        found = FRAME.fullmatch(child.name)
        if TEMPORARY.fullmatch(child.name) or (found and int(found[1]) >= count):
            with suppress(OSError):
                child.unlink()
