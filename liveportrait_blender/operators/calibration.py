# SPDX-License-Identifier: GPL-3.0-or-later
"""Calibration: the neutral face, ranges from a clip, examples by hand, smoothing, the head's turn."""

from typing import Any

import bpy
from bpy.types import Operator

from .. import (
    calibration,
    channel_samples,
    head_binding,
    keypoint_rig,
    performance,
    rig_smoothing,
)
from ..names import UserError
from .performance import OnRig
from .shape_keys import OnMesh, OnMeshes


def rig_of(item: Any) -> Any:
    """The performance that a mesh follows. Raises UserError."""
    rig = item.liveportrait.shape_keys.rig
    if not keypoint_rig.is_rig(rig):
        raise UserError(f'"{item.name}" follows no performance.', "Choose a performance's armature.")
    return rig


def frame_of(scene: Any) -> float:
    """The scene's current frame with its fraction."""
    return scene.frame_current + scene.frame_subframe


class LIVEPORTRAIT_OT_calibrate_neutral(OnRig, Operator):
    bl_idname = "liveportrait.calibrate_neutral"
    bl_label = "Find Neutral"
    bl_description = "Take the calmest frames of the performance for the face that does nothing"
    bl_options = {"REGISTER", "UNDO"}

    use_scene_range: bpy.props.BoolProperty(
        name="Scene Range", description="Look at the scene's frame range instead of the performance's"
    )

    def act(self, context: Any, rig: Any) -> str:
        frames = performance.frames(rig, context.scene, self.use_scene_range)
        calibration.neutral_from_clip(rig, frames, context.scene)
        return f"Neutral is the mean of the calmest of {len(frames)} frames"


class LIVEPORTRAIT_OT_calibrate_ranges(OnMeshes, Operator):
    bl_idname = "liveportrait.calibrate_ranges"
    bl_label = "Fill Ranges"
    bl_description = "Set gains and offsets so that this performance moves each shape key through its range"
    bl_options = {"REGISTER", "UNDO"}

    low: bpy.props.FloatProperty(
        name="Rest", description="Percentile of a channel that is its rest", default=5.0, min=0.0, max=50.0
    )
    high: bpy.props.FloatProperty(
        name="Full",
        description="Percentile of a channel that is its full value",
        default=98.0,
        min=50.0,
        max=100.0,
    )
    use_scene_range: bpy.props.BoolProperty(
        name="Scene Range", description="Look at the scene's frame range instead of the performance's"
    )

    def execute(self, context: Any) -> set[str]:
        def act(item: Any) -> list[str]:
            rig = rig_of(item)
            frames = performance.frames(rig, context.scene, self.use_scene_range)
            samples = channel_samples.sample(rig, frames, scene=context.scene)
            found = calibration.ranges_from_clip(item, samples, self.low, self.high)
            return [f'"{item.name}": {len(found)} shape keys fill their ranges; others move too little']

        return self.for_each(context, act)


class LIVEPORTRAIT_OT_pose_example(OnMesh, Operator):
    bl_idname = "liveportrait.pose_example"
    bl_label = "Pose by Hand"
    bl_description = "Pause the drivers, to set the shape keys as they should be at this frame; or go on"
    bl_options = {"REGISTER", "UNDO"}

    def act(self, context: Any, item: Any) -> str:
        begin = not calibration.is_posed_by_hand(item)
        calibration.pose_by_hand(item, begin)
        return "Set the shape keys, then add the example" if begin else "The shape keys follow again"


class LIVEPORTRAIT_OT_add_example(OnMesh, Operator):
    bl_idname = "liveportrait.add_example"
    bl_label = "Add Example"
    bl_description = "Remember the shape keys as they are as how they should be at this frame"
    bl_options = {"REGISTER", "UNDO"}

    def act(self, context: Any, item: Any) -> str:
        frame = frame_of(context.scene)
        calibration.add_example(item, frame, context.scene)
        return f"{len(item.liveportrait.calibration.examples)} examples"


class LIVEPORTRAIT_OT_remove_example(OnMesh, Operator):
    bl_idname = "liveportrait.remove_example"
    bl_label = "Remove Example"
    bl_description = "Forget an example"
    bl_options = {"REGISTER", "UNDO"}

    index: bpy.props.IntProperty(name="Example", default=0, min=0)

    def act(self, context: Any, item: Any) -> str:
        examples = item.liveportrait.calibration.examples
        if self.index >= len(examples):
            raise UserError("There is no such example.", "Choose one from the list.")
        examples.remove(self.index)
        return f"{len(examples)} examples"


class LIVEPORTRAIT_OT_solve_examples(OnMesh, Operator):
    bl_idname = "liveportrait.solve_examples"
    bl_label = "Fit to Examples"
    bl_description = "Find the gains and offsets that come nearest to the examples"
    bl_options = {"REGISTER", "UNDO"}

    prior: bpy.props.FloatProperty(
        name="Keep",
        description="How much the present gains count; 1 as much as one example of a full movement",
        default=0.05,
        min=0.001,
        soft_max=1.0,
    )

    def act(self, context: Any, item: Any) -> str:
        solved = calibration.solve_examples(item, self.prior)
        if calibration.is_posed_by_hand(item):
            calibration.pose_by_hand(item, False)
        changed = len(solved.shape_keys)
        return f"{changed} shape keys changed; error {solved.before:.3f}, now {solved.after:.3f}"


class LIVEPORTRAIT_OT_smooth_performance(OnRig, Operator):
    bl_idname = "liveportrait.smooth_performance"
    bl_label = "Smooth Performance"
    bl_description = "Give the rig a smoothed copy of its Action; the original stays in the file"
    bl_options = {"REGISTER", "UNDO"}

    frames: bpy.props.FloatProperty(
        name="Frames",
        description="How far it is smoothed, in scene frames",
        default=1.0,
        min=0.1,
        soft_max=5.0,
    )
    part: bpy.props.EnumProperty(
        name="Part",
        items=[
            (rig_smoothing.ALL, "Face and Head", "All that was measured"),
            (rig_smoothing.FACE, "Face", "Keypoints, lids and lips"),
            (rig_smoothing.HEAD_ONLY, "Head", "Where the head is and how it turns"),
        ],
    )

    def act(self, context: Any, rig: Any) -> str:
        return f'"{rig_smoothing.smooth(rig, self.frames, self.part).name}"'


class LIVEPORTRAIT_OT_bind_head(OnMesh, Operator):
    bl_idname = "liveportrait.bind_head"
    bl_label = "Bind Head"
    bl_description = "Let the bone or object turn with the performer's head, relative to the neutral face"
    bl_options = {"REGISTER", "UNDO"}

    find_axes: bpy.props.BoolProperty(
        name="Find Axes",
        description="Choose the axes for a face that looks along -Y, with Z up",
        default=True,
    )

    def act(self, context: Any, item: Any) -> str:
        head = item.liveportrait.head
        if head.target is None:
            head.target = item
        if self.find_axes and (not head.bone or head.bone in getattr(head.target.data, "bones", ())):
            head.pitch_axis, head.yaw_axis, head.roll_axis = head_binding.axes_of(head.target, head.bone)
        axes = (head.pitch_axis, head.yaw_axis, head.roll_axis)
        head_binding.bind(rig_of(item), head.target, head.bone, axes, head.gain)
        return f'"{head.bone or head.target.name}" turns with the performance'


class LIVEPORTRAIT_OT_unbind_head(OnMesh, Operator):
    bl_idname = "liveportrait.unbind_head"
    bl_label = "Unbind Head"
    bl_description = "Let the bone or object turn no more with the performer's head"
    bl_options = {"REGISTER", "UNDO"}

    def act(self, context: Any, item: Any) -> str:
        head = item.liveportrait.head
        if not head_binding.unbind(head.target, head.bone):
            raise UserError("Nothing turns with the performance.", "Bind it first.")
        return ""


CLASSES = (
    LIVEPORTRAIT_OT_calibrate_neutral,
    LIVEPORTRAIT_OT_calibrate_ranges,
    LIVEPORTRAIT_OT_pose_example,
    LIVEPORTRAIT_OT_add_example,
    LIVEPORTRAIT_OT_remove_example,
    LIVEPORTRAIT_OT_solve_examples,
    LIVEPORTRAIT_OT_smooth_performance,
    LIVEPORTRAIT_OT_bind_head,
    LIVEPORTRAIT_OT_unbind_head,
)
