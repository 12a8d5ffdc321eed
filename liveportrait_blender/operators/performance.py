# SPDX-License-Identifier: GPL-3.0-or-later
"""Performances as keypoint rigs: from a result or a file, back to files and into the portrait, edited."""

from pathlib import Path
from typing import Any

import bpy
from bpy.types import Operator
from bpy_extras.io_utils import ExportHelper, ImportHelper

from .. import (
    keypoint_rig,
    motion_file,
    performance,
    results,
    rig_controls,
    rig_mirror,
    rig_poses,
    runtime,
    scene_jobs,
)
from ..client import BackendError
from ..names import UserError
from .animate import Waiting

HIDDEN = {"SKIP_SAVE", "HIDDEN"}


def has_rig(cls: Any, context: Any) -> bool:
    """A poll: whether there is a rig that is meant."""
    if performance.active(context) is not None:
        return True
    several = len(keypoint_rig.rigs(context.scene)) > 1
    cls.poll_message_set("Select a performance's armature" if several else "There is no performance yet")
    return False


class OnRig:
    """Works on the rig that `performance.active` finds."""

    @classmethod
    def poll(cls, context: Any) -> bool:
        return has_rig(cls, context)

    def execute(self, context: Any) -> set[str]:
        try:
            self.report({"INFO"}, self.act(context, performance.active(context)))
        except UserError as error:
            return runtime.report(self, error)
        return {"FINISHED"}


class Converting:
    """Reads or writes a file, a template by way of the backend. A script waits for it; from the window it is
    a job of the list, and what is to be done with its file is done when that is there."""

    timeout: bpy.props.FloatProperty(
        name="Timeout", description="Seconds to wait at most, 0 for any", min=0.0, options=HIDDEN
    )

    def needs_backend(self) -> bool:
        return self.filepath.lower().endswith(performance.TEMPLATE)

    def execute(self, context: Any) -> set[str]:
        try:
            if not self.needs_backend():
                self.finish(context, None)
                return {"FINISHED"}
            waits = bpy.app.background or context.window is None
            record = self.submit(context, None if waits else self.later())
            if not waits:
                return {"FINISHED"}
            try:
                scene_jobs.wait(record, self.timeout)
                self.finish(context, performance.converted(record))
            finally:
                performance.tidy(record)
        except (UserError, BackendError) as error:
            return runtime.report(self, error)
        return {"FINISHED"}


class LIVEPORTRAIT_OT_create_performance(Operator):
    bl_idname = "liveportrait.create_performance"
    bl_label = "Create Performance Rig"
    bl_description = "Make an armature that performs what drove the active result, to edit, layer and mix"
    bl_options = {"REGISTER", "UNDO"}

    @classmethod
    def poll(cls, context: Any) -> bool:
        if results.active(context) is None:
            cls.poll_message_set("Select the plane that shows a result")
            return False
        return True

    def execute(self, context: Any) -> set[str]:
        try:
            rig = performance.rig_of_result(context, results.active(context))
        except UserError as error:
            return runtime.report(self, error)
        self.report({"INFO"}, f'"{rig.name}": {len(performance.frames(rig, context.scene))} frames')
        return {"FINISHED"}


class LIVEPORTRAIT_OT_import_performance(Converting, ImportHelper, Operator):
    bl_idname = "liveportrait.import_performance"
    bl_label = "Import Performance"
    bl_description = "Read a motion file or a LivePortrait template as a keypoint rig"
    bl_options = {"REGISTER", "UNDO"}

    filename_ext = ".npz"
    filter_glob: bpy.props.StringProperty(default="*.npz;*.pkl", options={"HIDDEN"})
    name: bpy.props.StringProperty(name="Name", description="Of the rig [the file]", options=HIDDEN)
    start_frame: bpy.props.FloatProperty(
        name="Start Frame", description="Scene frame of the first picture [current]", default=1.0
    )
    at_current: bpy.props.BoolProperty(
        name="At Current Frame", description="Begin where the playhead is", default=True
    )
    resample: bpy.props.BoolProperty(
        name="Whole Frames", description="Put the keys on whole scene frames instead of where they fall"
    )
    onto_active: bpy.props.BoolProperty(
        name="Onto Active Rig", description="Give the active rig a new Action instead of making a rig"
    )

    def submit(self, context: Any, then: Any) -> Any:
        path = Path(bpy.path.abspath(self.filepath))
        if not path.is_file():
            raise UserError(f"{path.name} does not exist.", "Choose another file.")
        return performance.convert(path, "npz", then)

    def later(self) -> Any:
        said = {"onto_active": self.onto_active, "resample": self.resample, "name": Path(self.filepath).stem}
        said["start_frame"] = self.first_frame(bpy.context.scene)

        def read(path: Path) -> None:
            bpy.ops.liveportrait.import_performance("EXEC_DEFAULT", True, filepath=str(path), **said)

        return read

    def invoke(self, context: Any, event: Any) -> set[str]:
        return ImportHelper.invoke(self, context, event)

    def first_frame(self, scene: Any) -> float:
        given = self.properties.is_property_set("start_frame") or not self.at_current
        return self.start_frame if given else float(scene.frame_current)

    def finish(self, context: Any, path: Path | None) -> None:
        rig = performance.active(context) if self.onto_active else None
        if self.onto_active and rig is None:
            raise UserError("There is no active rig.", "Select a performance's armature.")
        motion = motion_file.read(path or bpy.path.abspath(self.filepath))
        name, first = self.name or Path(self.filepath).stem, self.first_frame(context.scene)
        performance.perform_motion(context, motion, name, first, resample=self.resample, rig=rig)
        self.report({"INFO"}, f'"{name}": {len(motion)} frames at {float(motion.fps):.5g} a second')


class LIVEPORTRAIT_OT_export_performance(Converting, ExportHelper, Operator):
    bl_idname = "liveportrait.export_performance"
    bl_label = "Export Performance"
    bl_description = "Write what the rig performs as a motion file, or as a LivePortrait template"
    bl_options = set()

    filename_ext = ".npz"
    check_extension = None
    filter_glob: bpy.props.StringProperty(default="*.npz;*.pkl", options={"HIDDEN"})
    use_scene_range: bpy.props.BoolProperty(
        name="Scene Range", description="Write the scene's frame range instead of the performance's"
    )

    @classmethod
    def poll(cls, context: Any) -> bool:
        return has_rig(cls, context)

    def submit(self, context: Any, then: Any) -> Any:
        return performance.convert_motion(self.sampled(context), "pkl", then)

    def later(self) -> Any:
        target = Path(bpy.path.abspath(self.filepath))
        return lambda path: performance.keep(path, target)

    def sampled(self, context: Any) -> Any:
        rig = performance.active(context)
        return keypoint_rig.sample(rig, performance.frames(rig, context.scene, self.use_scene_range))

    def invoke(self, context: Any, event: Any) -> set[str]:
        return ExportHelper.invoke(self, context, event)

    def finish(self, context: Any, path: Path | None) -> None:
        target = Path(bpy.path.abspath(self.filepath))
        if path is not None:
            performance.keep(path, target)
        else:
            target = motion_file.write(target.with_suffix(".npz"), self.sampled(context))
        self.report({"INFO"}, f"{target.name} written")


class LIVEPORTRAIT_OT_render_performance(Waiting, Operator):
    bl_idname = "liveportrait.render_performance"
    bl_label = "Render Performance"
    bl_description = "Let the portrait perform the rig as it is now, edits, layers and controls included"
    bl_options = {"UNDO"}

    use_scene_range: bpy.props.BoolProperty(
        name="Scene Range", description="Render the scene's frame range instead of the performance's"
    )

    @classmethod
    def poll(cls, context: Any) -> bool:
        rig = performance.active(context)
        if rig is None:
            return has_rig(cls, context)
        reason = performance.missing(context, rig)
        if reason:
            cls.poll_message_set(reason)
        return not reason

    def submit(self, context: Any) -> Any:
        rig = performance.active(context)
        window = context.window_manager
        window.progress_begin(0, 1)
        try:
            frames = performance.frames(rig, context.scene, self.use_scene_range)
            return performance.render(context, rig, frames, window.progress_update)
        finally:
            window.progress_end()


class LIVEPORTRAIT_OT_put_rig_back(Operator):
    bl_idname = "liveportrait.put_rig_back"
    bl_label = "Put Armature Back"
    bl_description = "Bring the armature that the shape keys still follow back into the scene"
    bl_options = {"REGISTER", "UNDO"}

    @classmethod
    def poll(cls, context: Any) -> bool:
        if performance.deleted(context) is None:
            cls.poll_message_set("The performance's armature is in the scene")
            return False
        return True

    def execute(self, context: Any) -> set[str]:
        rig = performance.deleted(context)
        context.scene.collection.objects.link(rig)
        self.report({"INFO"}, f'"{rig.name}" is back in the scene')
        return {"FINISHED"}


class LIVEPORTRAIT_OT_set_neutral(OnRig, Operator):
    bl_idname = "liveportrait.set_neutral"
    bl_label = "Set Neutral"
    bl_description = "Let the face at the current frame count as the one that does nothing"
    bl_options = {"REGISTER", "UNDO"}

    reset: bpy.props.BoolProperty(
        name="Reset", description="Go back to the neutral face of the performance itself"
    )

    def act(self, context: Any, rig: Any) -> str:
        performance.set_neutral(rig, context.scene, reset=self.reset)
        return "The performance's own neutral face" if self.reset else "Neutral is the face at this frame"


class LIVEPORTRAIT_OT_mirror_performance(OnRig, Operator):
    bl_idname = "liveportrait.mirror_performance"
    bl_label = "Mirror Performance"
    bl_description = "Swap the left and the right of the rig's Action, as in a mirror"
    bl_options = {"REGISTER", "UNDO"}

    def act(self, context: Any, rig: Any) -> str:
        rig_mirror.mirror(rig)
        return "Left and right are swapped"


class LIVEPORTRAIT_OT_create_pose_assets(OnRig, Operator):
    bl_idname = "liveportrait.create_pose_assets"
    bl_label = "Create Pose Assets"
    bl_description = "Mark the expressions as pose assets of this file, for the pose library"
    bl_options = {"REGISTER", "UNDO"}

    def act(self, context: Any, rig: Any) -> str:
        return f"{len(rig_poses.create(rig))} pose assets"


class LIVEPORTRAIT_OT_reset_rig_controls(OnRig, Operator):
    bl_idname = "liveportrait.reset_rig_controls"
    bl_label = "Reset Rig Controls"
    bl_description = "Bring the rig's expression controls to rest; keyed ones follow their curves again"
    bl_options = {"REGISTER", "UNDO"}

    def act(self, context: Any, rig: Any) -> str:
        if not rig_controls.has_controls(rig):
            raise UserError(f'"{rig.name}" has no expression controls.', "Create a new performance rig.")
        rig_controls.reset(rig)
        return "Controls at rest"


CLASSES = (
    LIVEPORTRAIT_OT_create_performance,
    LIVEPORTRAIT_OT_import_performance,
    LIVEPORTRAIT_OT_export_performance,
    LIVEPORTRAIT_OT_render_performance,
    LIVEPORTRAIT_OT_put_rig_back,
    LIVEPORTRAIT_OT_set_neutral,
    LIVEPORTRAIT_OT_mirror_performance,
    LIVEPORTRAIT_OT_create_pose_assets,
    LIVEPORTRAIT_OT_reset_rig_controls,
)


def menu_import(self: Any, _context: Any) -> None:
    self.layout.operator("liveportrait.import_performance", text="LivePortrait Performance (.npz, .pkl)")


def menu_export(self: Any, _context: Any) -> None:
    self.layout.operator("liveportrait.export_performance", text="LivePortrait Performance (.npz, .pkl)")


def register() -> None:
    # Before the result lands, and after: the order of the list.
    runtime.takers.insert(0, performance.before_landing)
    runtime.takers.append(performance.after_landing)
    runtime.takers.append(performance.after_conversion)
    bpy.types.TOPBAR_MT_file_import.append(menu_import)
    bpy.types.TOPBAR_MT_file_export.append(menu_export)


def unregister() -> None:
    bpy.types.TOPBAR_MT_file_export.remove(menu_export)
    bpy.types.TOPBAR_MT_file_import.remove(menu_import)
    for taker in performance.TAKERS:
        if taker in runtime.takers:
            runtime.takers.remove(taker)
