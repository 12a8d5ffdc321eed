# SPDX-License-Identifier: GPL-3.0-or-later
"""Small pictures of files for the panel: of a picture, or of a clip's first frame.

Draw only asks (`icon`, `missing`); a file is looked at and loaded a moment later, by a timer, and the panel
is drawn again when that is done. So whatever sets a path, a click, undo, a script or a file that is opened,
the picture follows.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bpy
import bpy.utils.previews

from . import picture_size

CLIPS = {".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".mpg", ".mpeg", ".gif", ".ogv"}
PICTURES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}
LOOK_AGAIN = 3.0  # seconds after which a file that was drawn is looked at again
MOST = 60  # pictures that are kept
MOST_ADDED = 100  # and of those that others bring

log = logging.getLogger(__name__)


@dataclass
class Entry:
    """What was found at a path: whether it is there, when that was last seen, its icon (0: none), its size in
    pixels where it is a picture.
    """

    there: bool = True
    seen: float = 0.0
    stamp: tuple[int, int] = (0, 0)
    icon: int = 0
    key: str = ""
    size: tuple[int, int] = (0, 0)


_entries: dict[str, Entry] = {}
_wanted: set[str] = set()
_added: dict[str, None] = {}  # in the order in which they came
_previews: Any = None
_count = 0


def icon(path: str) -> int:
    """The icon of a file's picture, 0 while there is none. For draw: opens nothing."""
    return _ask(path).icon if path else 0


def missing(path: str) -> bool:
    """Whether a file was found to be missing. For draw: opens nothing."""
    return bool(path) and not _ask(path).there


def size(path: str) -> tuple[int, int]:
    """Width and height of a picture's file, (0, 0) while they are not known. For draw: opens nothing."""
    return _ask(path).size if path else (0, 0)


def icon_of_image(image: Any) -> int:
    """The icon of an image of the .blend file; 0 while its preview has not been made."""
    if image is None:
        return 0
    if image.preview is not None and image.preview.icon_id:
        return int(image.preview.icon_id)
    _want(f"image:{image.name}")
    return 0


def add(key: str, path: Path) -> int:
    """Load a picture at once, not to be called from draw; gives its icon, 0 if that cannot be."""
    if _previews is None:
        return 0
    if key in _previews:
        del _previews[key]
    _added.pop(key, None)
    _added[key] = None
    for old in list(_added)[:-MOST_ADDED]:
        del _added[old]
        if old in _previews:
            del _previews[old]
    try:
        return int(_previews.load(key, str(path), "IMAGE").icon_id)
    except (RuntimeError, KeyError, OSError):
        log.debug("No thumbnail of %s", path, exc_info=True)
        return 0


def look() -> bool:
    """Look at what was asked for; whether anything to be drawn has changed."""
    changed = False
    for name in sorted(_wanted):
        kind, colon, rest = name.partition(":")
        changed |= _make_preview(rest) if colon and kind == "image" else _look_at(name)
    _wanted.clear()
    _forget()
    return changed


def _ask(path: str) -> Entry:
    absolute = bpy.path.abspath(path)
    entry = _entries.get(absolute)
    if entry is None:
        entry = _entries[absolute] = Entry()
    if time.monotonic() - entry.seen > LOOK_AGAIN:
        _want(absolute)
    return entry


def _want(name: str) -> None:
    if bpy.app.background or _previews is None:
        return
    _wanted.add(name)
    if not bpy.app.timers.is_registered(_on_time):
        bpy.app.timers.register(_on_time, first_interval=0.05)


def _on_time() -> None:
    try:
        if look():
            redraw()
    except Exception:  # a timer that fails is dropped without a word
        log.exception("No thumbnails")


def _look_at(name: str) -> bool:
    global _count
    entry = _entries.setdefault(name, Entry())
    before = (entry.there, entry.icon, entry.size)
    path = Path(name)
    try:
        status = path.stat()
    except OSError:
        entry.there = False
    else:
        entry.there = True
        stamp = (status.st_mtime_ns, status.st_size)
        if stamp != entry.stamp:
            if entry.key in _previews:
                del _previews[entry.key]
            _count += 1
            entry.stamp, entry.key = stamp, f"file {_count}"
            entry.icon = _load(entry.key, path)
            entry.size = _size_of(path)
    entry.seen = time.monotonic()
    return before != (entry.there, entry.icon, entry.size)


def _load(key: str, path: Path) -> int:
    suffix = path.suffix.lower()
    if suffix not in CLIPS | PICTURES:
        return 0
    try:
        return int(_previews.load(key, str(path), "MOVIE" if suffix in CLIPS else "IMAGE").icon_id)
    except (RuntimeError, KeyError, OSError):
        log.debug("No thumbnail of %s", path, exc_info=True)
        return 0


def _size_of(path: Path) -> tuple[int, int]:
    if path.suffix.lower() not in PICTURES:
        return (0, 0)
    try:
        return picture_size.size_of(path)
    except OSError:
        return (0, 0)


def _make_preview(name: str) -> bool:
    image = bpy.data.images.get(name)
    if image is None:
        return False
    image.preview_ensure()
    return image.preview is not None


def _forget() -> None:
    """Keep no more than MOST pictures: those drawn last."""
    for name in sorted(_entries, key=lambda name: _entries[name].seen)[: max(len(_entries) - MOST, 0)]:
        entry = _entries.pop(name)
        if entry.key in _previews:
            del _previews[entry.key]


def redraw() -> None:
    """Have the sidebars of the 3-D views drawn again."""
    for window in bpy.context.window_manager.windows:
        for area in window.screen.areas:
            if area.type == "VIEW_3D":
                for region in area.regions:
                    if region.type == "UI":
                        region.tag_redraw()


def register() -> None:
    global _previews
    _previews = bpy.utils.previews.new()


def unregister() -> None:
    global _previews
    if bpy.app.timers.is_registered(_on_time):
        bpy.app.timers.unregister(_on_time)
    _entries.clear()
    _wanted.clear()
    _added.clear()
    if _previews is not None:
        bpy.utils.previews.remove(_previews)
        _previews = None
