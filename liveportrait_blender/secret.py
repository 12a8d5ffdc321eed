# SPDX-License-Identifier: GPL-3.0-or-later
"""The remote backend's token: in memory, and on the user's wish in a file that only they can read.

Blender's preferences would keep it in plain text in a file that is readable for others and gets sent around.
Imports no bpy.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from .paths import user_folder

VARIABLE = "LIVEPORTRAIT_REMOTE_TOKEN"  # for farms: comes before what is kept
LONGEST = 512

_now: str | None = None


def _file() -> Path:
    return user_folder() / "remote-token"


def token() -> str:
    """The token, "" for none."""
    global _now
    if given := os.environ.get(VARIABLE):
        return given
    if _now is None:
        try:
            _now = _file().read_text(encoding="utf-8")[:LONGEST].strip()
        except (OSError, UnicodeDecodeError):
            _now = ""
    return _now


def set_token(text: str, remember: bool) -> None:
    """Use a token from now on; kept in the file only if `remember`. Raises OSError."""
    global _now
    _now = text.strip()[:LONGEST]
    path = _file()
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    if remember and _now:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(_now)


def is_kept() -> bool:
    """Whether the file is there."""
    return _file().is_file()


def forget() -> None:
    """Forget what is in memory, not the file: as a Blender that starts anew."""
    global _now
    _now = None
