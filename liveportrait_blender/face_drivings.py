# SPDX-License-Identifier: GPL-3.0-or-later
"""What drives each face of the portrait, as it is chosen in the panel.

`in_use`, `missing` and `needs_main` are for draw and poll: they look at settings alone, never at files.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import bpy

from . import faces, inputs
from .names import UserError


def in_use(context: Any) -> bool:
    """Whether the faces of the portrait that is chosen have drivings of their own."""
    said = context.scene.liveportrait.face_drivings
    return said.use and bool(said.faces) and said.of == portrait(context)


def portrait(context: Any) -> str:
    """Which portrait is chosen, and how its faces are counted."""
    return repr(faces.chosen(context, "source"))


def needs_main(context: Any) -> bool:
    """Whether any face performs the driving that is chosen for all."""
    return any(face.kind == "MAIN" for face in context.scene.liveportrait.face_drivings.faces)


def missing(context: Any) -> str:
    """Why the faces cannot perform yet, "" if they can; the driving for all is looked at elsewhere."""
    every = context.scene.liveportrait.face_drivings.faces
    if all(face.kind == "STILL" for face in every):
        return "Choose a driving for one of the faces"
    empty = [face.number for face in every if face.kind == "FILE" and not face.path.strip()]
    return f"Choose a driving for face {empty[0]}" if empty else ""


def chosen(context: Any) -> dict[str, inputs.Chosen]:
    """What each face performs, by its number. Raises UserError."""
    if why := missing(context):
        raise UserError(f"{why}.", "The panel lists them under Source.")
    main = inputs.driving(context) if needs_main(context) else None
    found: dict[str, inputs.Chosen] = {}
    every = sorted(context.scene.liveportrait.face_drivings.faces, key=lambda face: face.number)
    for face in every:
        if face.kind == "MAIN" and main is not None:
            found[str(face.number)] = main
        elif face.kind == "LIBRARY":
            found[str(face.number)] = inputs.Chosen({"library": face.library}, face.library)
        elif face.kind == "FILE":
            path = Path(bpy.path.abspath(face.path.strip()))
            if not path.exists():
                what = f"The driving of face {face.number} is not there: {path}."
                raise UserError(what, "Choose it again.")
            found[str(face.number)] = inputs.Chosen(path.resolve(), path.name)
    return found


def begin(context: Any, numbers: Iterable[int]) -> None:
    """List these faces; what was chosen for the same portrait stays."""
    said = context.scene.liveportrait.face_drivings
    if said.of != portrait(context):
        said.faces.clear()
    said.use, said.of = True, portrait(context)
    there = {face.number for face in said.faces}
    for number in numbers:
        if number not in there:
            said.faces.add().number = number


def load(context: Any, given: Mapping[str, Any], main: int | None) -> list[str]:
    """Choose what drove each face of a result of the portrait that is chosen: the motions that are no more.

    main: the number of the face that the driving for all was for, None where there was none.
    """
    said = context.scene.liveportrait.face_drivings
    said.faces.clear()
    said.use, said.of = bool(given), portrait(context)
    gone = []
    for number, text in sorted((int(number), str(text)) for number, text in given.items()):
        face = said.faces.add()
        face.number = number
        if not text.startswith("library:"):
            face.kind, face.path = "FILE", text
            continue
        face.kind = "LIBRARY"
        try:
            face.library = text.removeprefix("library:")
        except TypeError:  # a motion that another version had
            gone.append(text)
    if given and main is not None and str(main) not in given:
        said.faces.add().number = main
    return gone
