# SPDX-License-Identifier: GPL-3.0-or-later
"""The environment that Set Up Backend made: what is in it, whether it is whole, and taking it away.

Imports no bpy.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from . import backend_code
from .own_files import NotOurs, is_alive, remove_inside, size_of
from .setup_plan import Places, python_in

MARKER = "liveportrait-environment.json"
FORMAT = "liveportrait-environment/1"
_held: set[Path] = set()  # locks that a thread of this process holds


@dataclass(frozen=True)
class Made:
    """What an environment's marker says. python: its version; base: where that one is installed."""

    profile: str
    pins: tuple[str, ...]
    python: str
    base: str
    offline: bool = False
    made: str = ""
    format: str = FORMAT


@dataclass(frozen=True)
class Found:
    """The environment of a folder. kind: "absent", "broken" (with why) or "whole"."""

    kind: str
    made: Made | None = None
    why: str = ""
    python: Path | None = None

    def is_current(self, pins: Sequence[str]) -> bool:
        """Whether it holds what the add-on's list says today."""
        return self.made is not None and set(self.made.pins) == set(pins)


def look(folder: Path) -> Found:
    """The environment below the extension's folder. Reads one small file; runs nothing."""
    places = Places(folder)
    environment = places.environment
    if not environment.is_dir():
        if places.old.is_dir() and _marker(places.old) is not None:
            return Found("broken", None, "A repair was interrupted.")
        return Found("absent")
    made = _marker(environment)
    if made is None:
        return Found("broken", None, "Its set-up was not finished.")
    python = python_in(environment)
    if not python.exists():  # a link that leads nowhere, too
        return Found("broken", made, f"The Python that it was made with is gone ({made.base}).")
    return Found("whole", made, "", python)


def _marker(environment: Path) -> Made | None:
    try:
        told = json.loads((environment / MARKER).read_text(encoding="utf-8"))
        if told["format"] != FORMAT:
            return None
        told["pins"] = tuple(told["pins"])
        return Made(**told)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def finish(folder: Path, made: Made) -> None:
    """Mark what was built as whole and put it in its place. Raises OSError."""
    places = Places(folder)
    made = Made(**{**asdict(made), "made": time.strftime("%Y-%m-%d %H:%M:%S")})
    text = json.dumps(asdict(made), indent=1) + "\n"
    (places.building / MARKER).write_text(text, encoding="utf-8")
    clear(folder, places.old)
    if places.environment.exists():
        places.environment.replace(places.old)
    places.building.replace(places.environment)
    with contextlib.suppress(OSError):  # a backend may still run from it (Windows); the next set-up clears it
        clear(folder, places.old, places.downloads)


def recover(folder: Path) -> None:
    """Put the old environment back where a swap was interrupted between its two steps."""
    places = Places(folder)
    if not places.environment.exists() and _marker(places.old) is not None:
        with contextlib.suppress(OSError):
            places.old.replace(places.environment)


def clear(folder: Path, *paths: Path) -> None:
    """Remove what is there of `paths`, all below `folder`. Raises OSError, NotOurs."""
    for path in paths:
        if path.exists() or path.is_symlink():
            remove_inside(folder, path)


def takes(folder: Path, models: Path | None, cache: Path | None) -> list[tuple[str, Path, int]]:
    """What Remove Backend would remove: (what, where, bytes). Folders elsewhere are the user's and stay."""
    places = Places(folder)
    named: list[tuple[str, Path]] = [("environment", path) for path in places.all if path.is_dir()]
    copies = folder.glob("backend-*")
    named += [("backend", path) for path in copies if (path / backend_code.MARKER).is_file()]
    for what, path in (("models", models), ("cache", cache)):
        if path is not None and path.is_dir() and _is_below(folder, path):
            named.append((what, path))
    return [(what, path, size_of(path)) for what, path in named]


def remove(folder: Path, paths: Sequence[Path]) -> list[str]:
    """Remove them, all below `folder`; the names of those that could not go."""
    kept = []
    for path in paths:
        try:
            clear(folder, path)
        except (OSError, NotOurs):
            kept.append(path.name)
    return kept


def _is_below(folder: Path, path: Path) -> bool:
    return folder.resolve() in path.resolve().parents


@contextlib.contextmanager
def only_one(lock: Path) -> Iterator[bool]:
    """Whether this process alone sets up here; another Blender with the same folder has to wait."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    for _ in range(2):
        if lock in _held:
            break
        try:
            descriptor = os.open(lock, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            if _holder_is_alive(lock):
                yield False
                return
            lock.unlink(missing_ok=True)
            continue
        with os.fdopen(descriptor, "w") as stream:
            stream.write(str(os.getpid()))
        _held.add(lock)
        try:
            yield True
        finally:
            _held.discard(lock)
            lock.unlink(missing_ok=True)
        return
    yield False


def _holder_is_alive(lock: Path) -> bool:
    try:
        text = lock.read_text()
        if not text:  # it is just being written
            return time.time() - lock.stat().st_mtime < 60.0
        return text.isdigit() and int(text) != os.getpid() and is_alive(int(text))
    except OSError:
        return False
