# SPDX-License-Identifier: GPL-3.0-or-later
"""The faces of the chosen source or driving, to choose from: found by the backend, when asked."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import inputs, preferences, pump, runtime, thumbnails
from .client import BackendError
from .names import UserError

ACROSS = 96  # pixels of a face's picture
MOST = 24  # faces that the panel shows
KEPT = 200  # pictures of faces on the disk, about 15 kB each
FOLDER = "faces"  # of the cache
WITHIN = 30.0  # seconds for an answer

log = logging.getLogger(__name__)


@dataclass
class Face:
    """A face: its number, as the options have it, and the icon of its picture (0: none)."""

    number: int
    icon: int = 0


@dataclass
class Found:
    """What is known of a picture's faces. of: the settings that were asked about."""

    of: Any = None
    asking: bool = False
    faces: list[Face] = field(default_factory=list)
    error: str = ""
    params: dict[str, Any] | None = None  # what is still to be asked


_found: dict[str, Found] = {"source": Found(), "driving": Found()}
_writing: list[Writing] = []


def chosen(context: Any, role: str) -> Any:
    """What the settings name as source or driving, and how its faces are counted. Cheap, for draw."""
    settings = context.scene.liveportrait
    image, owner, clip = settings.source_image, context.active_object, settings.driving_clip
    seen = {
        ("source", "FILE"): settings.source_path,
        ("source", "IMAGE"): image.name if image else "",
        ("source", "OBJECT"): owner.name if owner else "",
        ("driving", "FILE"): settings.driving_path,
        ("driving", "CLIP"): clip.name if clip else "",
        ("driving", "STRIP"): settings.driving_strip,
    }
    kind = getattr(settings, f"{role}_kind")
    return kind, seen.get((role, kind), ""), settings.options.face_order


def known(context: Any, role: str) -> Found | None:
    """The faces of what is chosen now; None where nobody has asked. For draw."""
    found = _found[role]
    return found if found.of is not None and found.of == chosen(context, role) else None


def file_of(context: Any, role: str) -> Any:
    """The file whose faces are meant. Raises UserError where it has no pictures."""
    value = inputs.source(context).value if role == "source" else inputs.driving(context).value
    if isinstance(value, dict) or value.suffix.lower() in inputs.MOTION_SUFFIXES:
        raise UserError("A recorded motion has no pictures.", "Choose a clip or a picture.")
    return value


def params(context: Any, role: str) -> dict[str, Any]:
    """What is asked of the backend. Raises UserError."""
    options = context.scene.liveportrait.options.as_options()
    given = {name: options[name] for name in ("face_order",) if name in options}
    return {"source": file_of(context, role), "options": given, "thumbnail": ACROSS}


def ask(context: Any, role: str) -> None:
    """Ask for the faces as soon as there is a connection; the answer comes later. Raises UserError."""
    found = Found(chosen(context, role), asking=True)
    found.params = params(context, role)
    runtime.session.ensure()
    _found[role] = found
    if look not in pump.watchers:
        pump.watchers.append(look)
    pump.start()


def look() -> None:
    """Ask what waits for a connection; called by the pump until nothing does."""
    state = runtime.session.state
    for role, found in _found.items():
        if found.params is None:
            continue
        if state.up:
            _send(found, role)
        elif state.kind in ("failed", "stopped"):
            found.params, found.asking = None, False
            found.error = f"{state.sentence} {state.hint}".strip()
            thumbnails.redraw()
    for writing in [one for one in _writing if not one.thread.is_alive()]:
        _writing.remove(writing)
        writing.found.asking = False
        take(writing.found, writing.told, writing.paths)
        thumbnails.redraw()
    waits = any(found.params is not None for found in _found.values())
    if not waits and not _writing and look in pump.watchers:
        pump.watchers.remove(look)


def _send(found: Found, role: str) -> None:
    asked, found.params = found.params, None
    replies: list[Any] = []

    def answered(result: Mapping[str, Any] | None, error: BackendError | None) -> None:
        if error is not None:
            found.asking, found.error = False, f"{error.message} {error.hint}".strip()
            thumbnails.redraw()
            return
        told, folder = result or {}, preferences.cache_folder() / FOLDER
        _writing.append(Writing(found, told, folder, replies[0].pictures[:MOST]))
        if look not in pump.watchers:
            pump.watchers.append(look)

    replies.append(runtime.session.later("source.faces", asked, answered, WITHIN))


def ask_and_wait(context: Any, role: str) -> Found:
    """Ask for the faces and wait for them, at most WITHIN seconds. Raises UserError, BackendError."""
    asked = params(context, role)
    found = _found[role] = Found(chosen(context, role))
    take(found, runtime.session.call("source.faces", asked, WITHIN), {})
    return found


def take(found: Found, told: Mapping[str, Any], paths: Mapping[int, Path]) -> None:
    """Note what the backend tells, with the faces' pictures; what is no answer becomes an error."""
    try:
        numbers = [int(face["number"]) for face in told["faces"]][:MOST]
    except (LookupError, TypeError, ValueError):
        log.warning("Not a list of faces: %.200s", told)
        found.error = "The backend sent something that is no list of faces."
        return
    icons = {number: thumbnails.add(f"face {path.stem}", path) for number, path in paths.items()}
    found.faces = [Face(number, icons.get(number, 0)) for number in numbers]
    if not numbers:
        found.error = "No face was found."


class Writing:
    """Pictures of faces that a thread writes, as icons are made of files: a disk may be slow. paths: of those
    that could be written, by the face's number.
    """

    def __init__(self, found: Found, told: Mapping[str, Any], folder: Path, pictures: list[Any]) -> None:
        self.found, self.told = found, told
        self.paths: dict[int, Path] = {}
        self._folder, self._pictures = folder, pictures
        self.thread = threading.Thread(target=self._write, name="liveportrait-faces", daemon=True)
        self.thread.start()

    def _write(self) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            for header, content in self._pictures:
                path = self._folder / f"{hashlib.sha256(content).hexdigest()[:32]}.png"
                path.write_bytes(content)
                self.paths[int(header["number"])] = path
            tidy(self._folder)
        except (OSError, LookupError, TypeError, ValueError):
            log.warning("A face's picture cannot be kept", exc_info=True)


def tidy(folder: Path) -> None:
    """Keep the newest pictures alone. Raises OSError."""
    found = []
    for entry in folder.glob("*.png"):
        with contextlib.suppress(OSError):  # another Blender was quicker
            found.append((entry.stat().st_mtime_ns, entry))
    for _, entry in sorted(found)[: max(len(found) - KEPT, 0)]:
        with contextlib.suppress(OSError):
            entry.unlink()


def forget() -> None:
    for role in _found:
        _found[role] = Found()
    _writing.clear()
