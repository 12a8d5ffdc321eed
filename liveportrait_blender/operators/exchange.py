# SPDX-License-Identifier: GPL-3.0-or-later
"""ARKit's channels to and from files that other programs read: Live Link Face's CSV, and JSON."""

from pathlib import Path
from typing import Any

import bpy
from bpy.types import Operator
from bpy_extras.io_utils import ExportHelper, ImportHelper

from .. import channel_samples, curve_file, motion_file, performance, runtime
from ..names import UserError
from .performance import HIDDEN, Converting, has_rig

SUFFIXES = (".csv", ".json")
MENU = "LivePortrait Face Curves (.csv, .json)"


class LIVEPORTRAIT_OT_export_curves(ExportHelper, Operator):
    bl_idname = "liveportrait.export_curves"
    bl_label = "Export Face Curves"
    bl_description = "Write ARKit's 52 channels and the head's turn as Live Link Face does (CSV), or as JSON"
    bl_options = set()

    filename_ext = ".csv"
    check_extension = None
    filter_glob: bpy.props.StringProperty(default="*.csv;*.json", options={"HIDDEN"})
    use_scene_range: bpy.props.BoolProperty(
        name="Scene Range", description="Write the scene's frame range instead of the performance's"
    )

    @classmethod
    def poll(cls, context: Any) -> bool:
        return has_rig(cls, context)

    def execute(self, context: Any) -> set[str]:
        path = Path(bpy.path.abspath(self.filepath))
        if path.suffix.lower() not in SUFFIXES:
            path = path.with_name(f"{path.name}.csv")
        try:
            rig = performance.active(context)
            frames = performance.frames(rig, context.scene, self.use_scene_range)
            curve_file.write(path, channel_samples.sample(rig, frames, scene=context.scene))
        except UserError as error:
            return runtime.report(self, error)
        self.report({"INFO"}, f"{path.name}: {len(frames)} frames")
        return {"FINISHED"}


class LIVEPORTRAIT_OT_import_curves(Converting, ImportHelper, Operator):
    bl_idname = "liveportrait.import_curves"
    bl_label = "Import Face Curves"
    bl_description = "Make a recording of Live Link Face (CSV), or JSON, a performance of an average face"
    bl_options = {"REGISTER", "UNDO"}

    filename_ext = ".csv"
    filter_glob: bpy.props.StringProperty(default="*.csv;*.json", options={"HIDDEN"})
    name: bpy.props.StringProperty(name="Name", description="Of the rig [the file]", options=HIDDEN)
    start_frame: bpy.props.IntProperty(
        name="Start Frame", description="Scene frame of the first row [current]", options=HIDDEN
    )
    onto_active: bpy.props.BoolProperty(
        name="Onto Active Rig", description="Give the active rig a new Action instead of making a rig"
    )

    def needs_backend(self) -> bool:
        return not self.filepath.lower().endswith(".npz")  # what it was converted to

    def submit(self, context: Any, then: Any) -> Any:
        path = Path(bpy.path.abspath(self.filepath))
        if path.suffix.lower() not in SUFFIXES:
            raise UserError(f"{path.name} is no file of curves.", "Choose a .csv or a .json.")
        if not path.is_file():
            raise UserError(f"{path.name} does not exist.", "Choose another file.")
        return performance.convert(path, "npz", then)

    def later(self) -> Any:
        said = {"onto_active": self.onto_active, "name": Path(self.filepath).stem}
        said["start_frame"] = bpy.context.scene.frame_current

        def read(path: Path) -> None:
            bpy.ops.liveportrait.import_curves("EXEC_DEFAULT", True, filepath=str(path), **said)

        return read

    def invoke(self, context: Any, event: Any) -> set[str]:
        return ImportHelper.invoke(self, context, event)

    def finish(self, context: Any, path: Path | None) -> None:
        rig = performance.active(context) if self.onto_active else None
        if self.onto_active and rig is None:
            raise UserError("There is no active rig.", "Select a performance's armature.")
        given = self.properties.is_property_set("start_frame")
        first = float(self.start_frame if given else context.scene.frame_current)
        motion = motion_file.read(path or bpy.path.abspath(self.filepath))
        name = self.name or Path(self.filepath).stem
        performance.perform_motion(context, motion, name, first, rig=rig)
        self.report({"INFO"}, f'"{name}": {len(motion)} frames at {float(motion.fps):.5g} a second')


CLASSES = (LIVEPORTRAIT_OT_export_curves, LIVEPORTRAIT_OT_import_curves)


def menu_import(self: Any, _context: Any) -> None:
    self.layout.operator("liveportrait.import_curves", text=MENU)


def menu_export(self: Any, _context: Any) -> None:
    self.layout.operator("liveportrait.export_curves", text=MENU)


def register() -> None:
    bpy.types.TOPBAR_MT_file_import.append(menu_import)
    bpy.types.TOPBAR_MT_file_export.append(menu_export)


def unregister() -> None:
    bpy.types.TOPBAR_MT_file_export.remove(menu_export)
    bpy.types.TOPBAR_MT_file_import.remove(menu_import)
