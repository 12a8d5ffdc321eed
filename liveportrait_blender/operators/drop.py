# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that are dropped into the 3-D view: the portrait, or what drives it.

Blender asks which is meant where a file can be both, and does so itself.
"""

from typing import Any

import bpy
from bpy.types import FileHandler, Operator

from ..inputs import TABLES
from .driving import DRIVING_SUFFIXES
from .source import SOURCE_SUFFIXES


def extensions(suffixes: set[str]) -> str:
    return ";".join(sorted(suffixes))


def over_viewport(context: Any) -> bool:
    """Whether the mouse is over a 3-D view."""
    return context.area is not None and context.area.type == "VIEW_3D"


class LIVEPORTRAIT_OT_drop_source(Operator):
    bl_idname = "liveportrait.drop_source"
    bl_label = "Use as Portrait"
    bl_description = "Take the dropped file as the portrait"
    bl_options = {"UNDO", "INTERNAL"}

    filepath: bpy.props.StringProperty(subtype="FILE_PATH", options={"SKIP_SAVE"})

    def execute(self, _context: Any) -> set[str]:
        return _taken(self, bpy.ops.liveportrait.open_source, "Portrait")


class LIVEPORTRAIT_OT_drop_driving(Operator):
    bl_idname = "liveportrait.drop_driving"
    bl_label = "Use as Driving"
    bl_description = "Let the dropped file drive the portrait"
    bl_options = {"UNDO", "INTERNAL"}

    filepath: bpy.props.StringProperty(subtype="FILE_PATH", options={"SKIP_SAVE"})

    def execute(self, _context: Any) -> set[str]:
        return _taken(self, bpy.ops.liveportrait.open_driving, "Driving")


def _taken(operator: Operator, choose: Any, what: str) -> set[str]:
    try:
        choose("EXEC_DEFAULT", filepath=operator.filepath)
    except RuntimeError as error:  # what the other operator reported
        operator.report({"ERROR"}, str(error).strip().removeprefix("Error: "))
        return {"CANCELLED"}
    operator.report({"INFO"}, f"{what}: {bpy.path.basename(operator.filepath)}")
    return {"FINISHED"}


class LIVEPORTRAIT_FH_source(FileHandler):
    bl_idname = "LIVEPORTRAIT_FH_source"
    bl_label = "LivePortrait: Use as Portrait"
    bl_import_operator = "liveportrait.drop_source"
    bl_file_extensions = extensions(SOURCE_SUFFIXES)

    @classmethod
    def poll_drop(cls, context: Any) -> bool:
        return over_viewport(context)


class LIVEPORTRAIT_FH_driving(FileHandler):
    bl_idname = "LIVEPORTRAIT_FH_driving"
    bl_label = "LivePortrait: Use as Driving"
    bl_import_operator = "liveportrait.drop_driving"
    bl_file_extensions = extensions(DRIVING_SUFFIXES - TABLES)  # those are mostly something else

    @classmethod
    def poll_drop(cls, context: Any) -> bool:
        return over_viewport(context)


CLASSES = (
    LIVEPORTRAIT_OT_drop_source,
    LIVEPORTRAIT_OT_drop_driving,
    LIVEPORTRAIT_FH_source,
    LIVEPORTRAIT_FH_driving,
)
