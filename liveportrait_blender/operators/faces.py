# SPDX-License-Identifier: GPL-3.0-or-later
"""Find the faces of the source or the driving, and choose one of them."""

from typing import Any

import bpy
from bpy.types import Operator
from bpy_extras.io_utils import ImportHelper

from .. import face_drivings, faces, inputs, runtime
from ..client import BackendError
from ..names import UserError
from .driving import DRIVING_SUFFIXES
from .source import checked, pattern

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


class LIVEPORTRAIT_OT_drive_faces(Operator):
    bl_idname = "liveportrait.drive_faces"
    bl_label = "A Driving for Each Face"
    bl_description = "List the faces that were found, each with what it performs"
    bl_options = {"REGISTER", "UNDO"}

    @classmethod
    def poll(cls, context: Any) -> bool:
        found = faces.known(context, "source")
        if found is None or not found.faces:
            cls.poll_message_set("Look for the portrait's faces first")
            return False
        return True

    def execute(self, context: Any) -> set[str]:
        face_drivings.begin(context, [face.number for face in faces.known(context, "source").faces])
        return {"FINISHED"}


class LIVEPORTRAIT_OT_open_face_driving(Operator, ImportHelper):
    bl_idname = "liveportrait.open_face_driving"
    bl_label = "Open Driving of a Face"
    bl_description = "Choose the clip, picture or motion file that drives this face"
    bl_options = {"REGISTER", "UNDO"}

    number: bpy.props.IntProperty(name="Number", description="The face's number", min=0)
    filter_glob: bpy.props.StringProperty(default=pattern(DRIVING_SUFFIXES), options={"HIDDEN"})

    def execute(self, context: Any) -> set[str]:
        every = context.scene.liveportrait.face_drivings.faces
        face = next((one for one in every if one.number == self.number), None)
        if face is None:
            self.report({"ERROR"}, f"Face {self.number} is not listed. Look for the faces again.")
            return {"CANCELLED"}
        try:
            face.path = checked(self.filepath, DRIVING_SUFFIXES, "clip, picture or motion file")
        except UserError as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        face.kind = "FILE"
        return {"FINISHED"}


CLASSES = (
    LIVEPORTRAIT_OT_find_faces,
    LIVEPORTRAIT_OT_choose_face,
    LIVEPORTRAIT_OT_drive_faces,
    LIVEPORTRAIT_OT_open_face_driving,
)


def unregister() -> None:
    faces.forget()
