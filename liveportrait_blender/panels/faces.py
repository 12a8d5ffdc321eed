# SPDX-License-Identifier: GPL-3.0-or-later
"""The faces of a picture side by side, to choose one; drawn within the panels of source and driving."""

from typing import Any

from .. import face_drivings, faces, thumbnails
from .layout import blocked, wrapped

ACROSS = 4  # faces in a row
HEIGHT = 3.0  # of a face's picture in rows
SMALL = 2.0  # of one in a list


def draw(layout: Any, context: Any, role: str) -> None:
    """A button that looks for faces, or the faces that were found."""
    found = faces.known(context, role)
    if role == "source" and face_drivings.in_use(context):
        drivings(layout, context, found)
        return
    name = "face" if role == "source" else "driving_face"
    options = context.scene.liveportrait.options
    current = getattr(options, name) if getattr(options, f"use_{name}") else -1
    if found is None or found.asking:
        row = layout.row(align=True)
        row.enabled = found is None
        text = "Choose a Face" if found is None else "Looking for Faces"
        if current >= 0:
            text = f"Face {current} Is Used"
        row.operator("liveportrait.find_faces", text=text, icon="USER").role = role
        if current >= 0:
            button = row.operator("liveportrait.choose_face", text="", icon="X")
            button.role, button.number = role, -1
        return
    if found.error:
        wrapped(layout, found.error, context, "ERROR")
        layout.operator("liveportrait.find_faces", text="Look Again", icon="FILE_REFRESH").role = role
        return
    if len(found.faces) == 1 and current in (-1, found.faces[0].number):
        layout.label(text="One face", icon="USER")
        return
    grid = layout.grid_flow(columns=min(len(found.faces), ACROSS), even_columns=True, align=True)
    for face in found.faces:
        cell = grid.column(align=True)
        if face.icon:
            cell.template_icon(icon_value=face.icon, scale=HEIGHT)
        button = cell.operator(
            "liveportrait.choose_face", text=str(face.number), depress=face.number == current
        )
        button.role, button.number = role, face.number
    row = layout.row()
    button = row.operator("liveportrait.choose_face", text="The Largest", depress=current < 0)
    button.role, button.number = role, -1
    if role == "source":
        layout.operator("liveportrait.drive_faces", icon="COMMUNITY")


def drivings(layout: Any, context: Any, found: Any) -> None:
    """The faces of the portrait, each with what it performs."""
    said = context.scene.liveportrait.face_drivings
    layout.prop(said, "use")
    icons = {face.number: face.icon for face in found.faces} if found is not None else {}
    for face in sorted(said.faces, key=lambda one: one.number):
        row = layout.box().row()
        if icons.get(face.number):
            row.template_icon(icon_value=icons[face.number], scale=SMALL)
        column = row.column(align=True)
        column.prop(face, "kind", text=f"Face {face.number}")
        if face.kind == "LIBRARY":
            column.prop(face, "library", text="")
        elif face.kind == "FILE" and face.path:
            column.prop(face, "path", text="")
            if thumbnails.missing(face.path):
                blocked(column, context, "This file is not there")
        elif face.kind == "FILE":
            button = column.operator("liveportrait.open_face_driving", text="Open", icon="FILE_FOLDER")
            button.number = face.number
    why = face_drivings.missing(context)
    if why:
        blocked(layout, context, why)
    if found is None or found.asking:
        row = layout.row()
        row.enabled = found is None
        text = "Look for Faces" if found is None else "Looking for Faces"
        row.operator("liveportrait.find_faces", text=text, icon="USER").role = "source"
    elif {face.number for face in found.faces} - {face.number for face in said.faces}:
        layout.operator("liveportrait.drive_faces", text="List All Faces", icon="ADD")

