# SPDX-License-Identifier: GPL-3.0-or-later
"""Find the faces of the source or the driving, and choose one of them."""

from typing import Any

import bpy
from bpy.types import Operator

from .. import faces, inputs, runtime
from ..client import BackendError
from ..names import UserError

ROLES = (
    ("source", "Source", "The portrait"),
    ("driving", "Driving", "The performance"),
)


class LIVEPORTRAIT_OT_find_faces(Operator):
    bl_idname = "liveportrait.find_faces"
    bl_label = "Find Faces"
    bl_description = "Look for faces, so that one of several can be chosen"

    role: bpy.props.EnumProperty(name="Of", description="Whose faces", items=ROLES)

    @classmethod
    def poll(cls, _context: Any) -> bool:
        why = runtime.missing()[0]
        if why:
            cls.poll_message_set(why)
        return not why

    def invoke(self, context: Any, _event: Any) -> set[str]:
        try:
            faces.ask(context, self.role)
        except UserError as error:
            return runtime.report(self, error)
        return {"FINISHED"}

    def execute(self, context: Any) -> set[str]:
        try:
            found = faces.ask_and_wait(context, self.role)
        except (UserError, BackendError) as error:
            return runtime.report(self, error)
        self.report({"INFO"}, f"{len(found.faces)} face{'' if len(found.faces) == 1 else 's'}")
        return {"FINISHED"}


class LIVEPORTRAIT_OT_choose_face(Operator):
    bl_idname = "liveportrait.choose_face"
    bl_label = "Choose Face"
    bl_description = "Use this face; -1 is the largest"
    bl_options = {"REGISTER", "UNDO"}

    role: bpy.props.EnumProperty(name="Of", description="Whose face", items=ROLES)
    number: bpy.props.IntProperty(name="Number", description="The face's number", min=-1, default=-1)

    @classmethod
    def poll(cls, context: Any) -> bool:
        reason = inputs.source_missing(context) and inputs.driving_missing(context)
        if reason:
            cls.poll_message_set(reason)
        return not reason

    def execute(self, context: Any) -> set[str]:
        options = context.scene.liveportrait.options
        name = "face" if self.role == "source" else "driving_face"
        setattr(options, f"use_{name}", self.number >= 0)
        if self.number >= 0:
            setattr(options, name, self.number)
        return {"FINISHED"}


CLASSES = (LIVEPORTRAIT_OT_find_faces, LIVEPORTRAIT_OT_choose_face)


def unregister() -> None:
    faces.forget()
