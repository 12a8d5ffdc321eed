# SPDX-License-Identifier: GPL-3.0-or-later
"""The motion library: small performances that drive a portrait by name.

scripts/make_motion_library.py writes them.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from backend.errors import InputError
from backend.motion import Motion
from backend.motion_files import load_motion

FOLDER = Path(__file__).parent / "data" / "library"


def library_names() -> list[str]:
    """The names that can be used as driving, in alphabetical order."""
    return sorted(path.stem for path in FOLDER.glob("*.npz"))


@cache
def library_facts() -> list[dict[str, Any]]:
    """name, frames and fps of every one, in the order of library_names."""
    motions = [(name, load_library(name)) for name in library_names()]
    return [{"name": name, "frames": len(motion), "fps": float(motion.fps)} for name, motion in motions]


def load_library(name: str) -> Motion:
    """The library motion of that name; see library_file."""
    return load_motion(library_file(name))


def library_file(name: str) -> Path:
    """The file of a library motion; case and spaces or underscores for dashes do not matter.

    Raises InputError with the names there are.
    """
    wanted = name.strip().lower().replace("_", "-").replace(" ", "-")
    names = library_names()
    if wanted not in names:
        raise InputError(f"There is no library motion {name!r}.", f"There are: {', '.join(names)}.")
    return FOLDER / f"{wanted}.npz"
