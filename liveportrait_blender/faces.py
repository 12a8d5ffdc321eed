# SPDX-License-Identifier: GPL-3.0-or-later
"""The faces of the chosen source or driving, to choose from: found by the backend, when asked."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from . import inputs, paths, pump, runtime, thumbnails
from .client import BackendError
from .names import UserError

ACROSS = 96  # pixels of a face's picture
MOST = 24  # faces that the panel shows
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
    if all(found.params is None for found in _found.values()) and look in pump.watchers:
        pump.watchers.remove(look)


def _send(found: Found, role: str) -> None:
    asked, found.params = found.params, None
    replies: list[Any] = []

    def answered(result: Mapping[str, Any] | None, error: BackendError | None) -> None:
        found.asking = False
        if error is not None:
            found.error = f"{error.message} {error.hint}".strip()
        else:
            take(found, role, result or {}, replies[0].pictures)
        thumbnails.redraw()

    replies.append(runtime.session.later("source.faces", asked, answered, WITHIN))


def ask_and_wait(context: Any, role: str) -> Found:
    """Ask for the faces and wait for them, at most WITHIN seconds. Raises UserError, BackendError."""
    asked = params(context, role)
    found = _found[role] = Found(chosen(context, role))
    take(found, role, runtime.session.call("source.faces", asked, WITHIN), [])
    return found


def take(found: Found, role: str, told: Mapping[str, Any], pictures: list[Any]) -> None:
    """Note what the backend tells; what is no answer becomes an error."""
    try:
        numbers = [int(face["number"]) for face in told["faces"]][:MOST]
    except (LookupError, TypeError, ValueError):
        log.warning("Not a list of faces: %.200s", told)
        found.error = "The backend sent something that is no list of faces."
        return
    icons = {header.get("number"): icon_of(content) for header, content in pictures[:MOST]}
    found.faces = [Face(number, icons.get(number, 0)) for number in numbers]
    if not numbers:
        found.error = "No face was found."


def icon_of(content: bytes) -> int:
    """The icon of a PNG file's content, by way of a file in the cache; 0 where it cannot be written."""
    name = hashlib.sha256(content).hexdigest()[:32]
    try:
        path = paths.user_folder("cache", "faces") / f"{name}.png"
        path.write_bytes(content)
    except OSError:
        log.warning("A face's picture cannot be kept", exc_info=True)
        return 0
    return thumbnails.add(f"face {name}", path)


def forget() -> None:
    for role in _found:
        _found[role] = Found()


