# SPDX-License-Identifier: GPL-3.0-or-later
"""Operators on results: bring one into the file, collect, send, compare, delete."""

from __future__ import annotations

from bpy.props import StringProperty
from bpy.types import Operator

from .. import results
from ..names import UserError


class LIVEPORTRAIT_OT_apply_result(Operator):
    bl_idname = "liveportrait.apply_result"
    bl_label = "Apply Result"
    bl_description = "Bring a finished result into the file"
    bl_options = {"UNDO", "INTERNAL"}

    landing: StringProperty(options={"HIDDEN", "SKIP_SAVE"})

    def execute(self, context):
        try:
            landed = results.land(context, results.Landing.from_json(self.landing))
        except UserError as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        frames = landed.image.liveportrait.frames
        self.report({"INFO"}, f'"{landed.image.name}": {frames} frame{"" if frames == 1 else "s"}')
        return {"FINISHED"}


CLASSES = (LIVEPORTRAIT_OT_apply_result,)
