# SPDX-License-Identifier: GPL-3.0-or-later
"""The performance as an armature of implicit keypoints; rig_layout.py says how it is laid out.

The other halves are rig_action.py (motion -> Action) and rig_sampling.py (Action -> motion).
"""

from __future__ import annotations

import math
from typing import Any

import bpy

from . import rig_action, rig_channels, rig_controls
from .motion_file import Motion
from .names import UserError
from .rig_action import first_frame, frame_range, neutral, set_neutral, to_action
from .rig_layout import BONES, CHANNELS, GROUPS, HEAD, RIG_KEY, STILL
from .rig_sampling import sample

__all__ = [
    "build",
    "first_frame",
    "frame_range",
    "is_rig",
    "neutral",
    "perform",
    "rigs",
    "sample",
    "set_neutral",
    "to_action",
]

_HEAD_COLLECTION = "Head"
_COLOURS = {
    "Eyes": (0.25, 0.60, 1.0),
    "Lips": (1.0, 0.30, 0.30),
    "Brows": (1.0, 0.80, 0.20),
    "Jaw and Cheeks": (0.35, 0.85, 0.40),
    "Other": (0.65, 0.65, 0.65),
    _HEAD_COLLECTION: (1.0, 0.55, 0.15),
}
_KEYPOINT_RADIUS, _STILL_RADIUS = 0.011, 0.006  # the nearest two keypoints lie 0.012 apart
_HEAD_RADIUS = 0.6
_BONE_LENGTH = 0.03
_SHAPES = {
    "keypoint": "LivePortrait Keypoint Shape",
    "still": "LivePortrait Still Keypoint Shape",
    "head": "LivePortrait Head Shape",
}


def build(
    context: Any,
    motion: Motion,
    name: str,
    *,
    first_frame: float | None = None,
    resample: bool = False,
    controls: bool = True,
    reference: int | None = None,
) -> Any:
    """An armature object that performs `motion`, in the scene, active and selected, in object mode.

    first_frame: the scene frame of the motion's first frame [the current one]. resample, reference: as
    `to_action` has them. controls: with the expression controls.

    Raises:
        UserError: the motion has no frames, or the scene cannot be changed.
    """
    if len(motion) == 0:
        raise UserError("The motion has no frames.", "Capture it again.")
    scene = context.scene
    if scene.library is not None:
        raise UserError("The scene is linked from another file.", "Make it local first.")
    canonical = motion.canonical.astype("f8").mean(axis=0)
    armature = _armature(context, canonical.tolist(), name)
    _properties(armature)
    if controls:
        rig_controls.add(armature)
    rig_channels.add(armature)
    first = scene.frame_current if first_frame is None else first_frame
    words = {"scene": scene, "first_frame": first, "resample": resample, "reference": reference}
    perform(armature, motion, **words, name=name)
    return armature


def perform(armature: Any, motion: Motion, **arguments: Any) -> Any:
    """`to_action`, and the rig's neutral face becomes this motion's, for controls and channels."""
    action = to_action(armature, motion, **arguments)
    set_neutral(armature, None)
    rig_controls.rest_from_neutral(armature)
    found = rig_channels.neutral_inputs(motion)
    rig_channels.remember_neutral(armature, found)
    if rig_channels.has_channels(armature):
        rig_channels.set_neutral(armature, found)
    return action


def is_rig(candidate: Any) -> bool:
    """Whether an object (or None) is a keypoint rig."""
    return candidate is not None and candidate.type == "ARMATURE" and RIG_KEY in candidate.data


def rigs(scene: Any) -> list[Any]:
    """The keypoint rigs of a scene."""
    return [candidate for candidate in scene.objects if is_rig(candidate)]


def _armature(context: Any, canonical: list[list[float]], name: str) -> Any:
    if context.object is not None and context.mode != "OBJECT":
        bpy.ops.object.mode_set(mode="OBJECT")
    armature = bpy.data.armatures.new(name)
    armature[RIG_KEY] = 1
    item = bpy.data.objects.new(name, armature)
    context.scene.collection.objects.link(item)  # the active collection may be hidden or linked
    for other in context.selected_objects:
        other.select_set(False)
    item.select_set(True)
    context.view_layer.objects.active = item
    bpy.ops.object.mode_set(mode="EDIT")
    try:
        head = _edit_bone(armature, HEAD, (0.0, 0.0, 0.0), 0.25)
        for bone, place in zip(BONES, canonical):
            _edit_bone(armature, bone, place, _BONE_LENGTH).parent = head
    finally:
        bpy.ops.object.mode_set(mode="OBJECT")
    _collections(armature)
    _look(item)
    item.show_in_front = True
    return item


def _edit_bone(armature: Any, name: str, place: Any, length: float) -> Any:
    """A bone at `place` (LivePortrait's axes) that rests with LivePortrait's axes."""
    x, y, z = place
    bone = armature.edit_bones.new(name)
    bone.head = (x, z, -y)
    bone.tail = (x, z, -y - length)
    bone.align_roll((0.0, 1.0, 0.0))  # its z, into the picture, is the armature's +Y
    bone.use_deform = False
    return bone


def _collections(armature: Any) -> None:
    armature.collections.new(_HEAD_COLLECTION).assign(armature.bones[HEAD])
    _colour(armature.bones[HEAD], _HEAD_COLLECTION)
    for group, keypoints in GROUPS.items():
        collection = armature.collections.new(group)
        for k in keypoints:
            collection.assign(armature.bones[BONES[k]])
            _colour(armature.bones[BONES[k]], group)


def _colour(bone: Any, group: str) -> None:
    bone.color.palette = "CUSTOM"
    colours, own = bone.color.custom, _COLOURS[group]
    colours.normal = own
    colours.select = [0.5 + 0.5 * part for part in own]
    colours.active = (1.0, 1.0, 1.0)


def _look(item: Any) -> None:
    """Shapes, and the channels that mean nothing locked."""
    head = item.pose.bones[HEAD]
    head.rotation_mode = "XYZ"
    head.custom_shape = _shape("head")
    head.use_custom_shape_bone_size = False
    head.custom_shape_wire_width = 2.0
    for k, name in enumerate(BONES):
        bone = item.pose.bones[name]
        bone.rotation_mode = "XYZ"
        bone.custom_shape = _shape("still" if k in STILL else "keypoint")
        bone.use_custom_shape_bone_size = False
        bone.lock_rotation = bone.lock_scale = (True, True, True)


def _shape(kind: str) -> Any:
    """The object that is drawn for bones: in no scene, kept by the bones that use it."""
    name = _SHAPES[kind]
    found = bpy.data.objects.get(name)
    if found is not None and found.library is None and found.type == "MESH":
        return found
    mesh = bpy.data.meshes.new(name)
    if kind == "head":
        mesh.from_pydata(*_ring_with_nose(), [])
    else:
        points, faces = _diamond(_STILL_RADIUS if kind == "still" else _KEYPOINT_RADIUS)
        mesh.from_pydata(points, [], faces)
    item = bpy.data.objects.new(name, mesh)
    # Appending a rig puts them into the scene, and shows them whatever is hidden; they do not render there.
    item.hide_viewport = item.hide_render = True
    return item


def _diamond(radius: float) -> tuple[list[Any], list[Any]]:
    """An octahedron: solid, so that a click anywhere on it takes it."""
    points = []
    for axis in range(3):
        for sign in (-radius, radius):
            point = [0.0, 0.0, 0.0]
            point[axis] = sign
            points.append(tuple(point))
    faces = []
    for x in (0, 1):
        for y in (2, 3):
            for z in (4, 5):
                outward = (x + y + z) % 2 == 1  # seen from outside the corners go round the same way
                faces.append((x, y, z) if outward else (x, z, y))
    return points, faces


def _ring_with_nose() -> tuple[list[Any], list[Any]]:
    """A ring about the face and an arrow that points where it looks, in the bone's axes (-z is forward)."""
    points: list[Any] = []
    edges: list[Any] = []
    _circle(points, edges, _HEAD_RADIUS, 2, 48)
    first = len(points)
    points += [(0, 0, -0.35), (0, 0, -0.75), (-0.05, 0, -0.65), (0.05, 0, -0.65)]
    edges += [(first, first + 1), (first + 1, first + 2), (first + 1, first + 3)]
    return points, edges


def _circle(points: list[Any], edges: list[Any], radius: float, axis: int, count: int) -> None:
    first = len(points)
    for k in range(count):
        angle = 2 * math.pi * k / count
        point = [0.0, 0.0, 0.0]
        point[axis - 2], point[axis - 1] = radius * math.cos(angle), radius * math.sin(angle)
        points.append(tuple(point))
        edges.append((first + k, first + (k + 1) % count))


def _properties(item: Any) -> None:
    for channel in CHANNELS:
        rig_action.add_property(item, channel)
