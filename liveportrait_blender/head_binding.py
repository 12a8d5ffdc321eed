# SPDX-License-Identifier: GPL-3.0-or-later
"""The head's rotation of a keypoint rig on a bone or an object, by one constraint of Blender's own.

A Transformation constraint adds the head's turn, relative to the neutral face, to whatever the target does
itself; it needs no Python and no add-on. Pitch (> 0 looks down), yaw (> 0 to the subject's right) and roll
(> 0 to the left shoulder) are turns about x, y, z of a head that has +X at its left, -Z up and +Y behind it,
so the axis map says which of the target's own axes those are; by default a face that looks along -Y.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import permutations
from typing import TYPE_CHECKING, Any

import bpy

from . import baking, fcurves, rig_angles
from .channel_samples import Samples
from .keypoint_rig import is_rig, neutral
from .names import UserError
from .rig_layout import HEAD, bone_path
from .rig_sampling import alone

if TYPE_CHECKING:
    import numpy as np

NAME = "LivePortrait Head"  # of the constraint
MUTED = "liveportrait_head_bone"  # custom property of a baked Action: the bone whose constraint is muted
AXES = ("X", "Y", "Z", "-X", "-Y", "-Z")
# The axes of a head that looks along -Y, z up: where pitch, yaw and roll turn about.
_WORLD = ((1.0, 0.0, 0.0), (0.0, 0.0, -1.0), (0.0, 1.0, 0.0))


def bind(
    rig: Any,
    target: Any,
    bone: str = "",
    axes: Sequence[str] | None = None,
    gain: float = 1.0,
    rest: Sequence[float] | None = None,
) -> Any:
    """Let a bone of `target`, or without one the object itself, turn as the rig's head does; the constraint.
    Binding again brings it up to date.

    axes: which of the target's axes pitch, yaw and roll turn about, as in AXES [as `axes_of` finds them].
    rest: the angles (radians) that count as no turn [the neutral face's].

    Raises:
        UserError: the rig, target or bone is none, is linked, or two of the axes are the same.
    """
    if not is_rig(rig):
        raise UserError("There is no performance.", "Choose a performance's armature.")
    owner = _owner(target, bone)
    if target == rig:
        raise UserError("The performance cannot turn itself.", "Choose your character's head.")
    axes = tuple(axes or axes_of(target, bone))
    letters = [axis[-1] for axis in axes]
    if len(axes) != 3 or not set(axes) <= set(AXES) or len(set(letters)) != 3:
        raise UserError(
            "Pitch, yaw and roll need an axis each.", "Choose three different axes, X, Y and Z."
        )
    rest = rest_of(rig) if rest is None else rest
    constraint = find(target, bone)
    if constraint is None:
        constraint = owner.constraints.new("TRANSFORM")
        constraint.name = NAME
    constraint.target, constraint.subtarget = rig, HEAD
    constraint.target_space = constraint.owner_space = "LOCAL"
    constraint.map_from = constraint.map_to = "ROTATION"
    constraint.from_rotation_mode = "XYZ"
    constraint.use_motion_extrapolate = True
    constraint.mix_mode_rot = "AFTER"
    constraint.to_euler_order = "".join(letters)
    for source, axis, middle in zip("xyz", axes, rest):
        end = math.pi * gain * (-1 if axis[0] == "-" else 1)
        letter = axis[-1].lower()
        setattr(constraint, f"from_min_{source}_rot", middle - math.pi)
        setattr(constraint, f"from_max_{source}_rot", middle + math.pi)
        setattr(constraint, f"map_to_{letter}_from", source.upper())
        setattr(constraint, f"to_min_{letter}_rot", -end)
        setattr(constraint, f"to_max_{letter}_rot", end)
    return constraint


def follow_neutral(rig: Any) -> None:
    """Let all that turns with a rig's head be relative to the neutral face that it has now."""
    rest = rest_of(rig)
    for item in bpy.data.objects:
        owners = [item, *(item.pose.bones if item.pose is not None else ())]
        for owner in owners:
            constraint = owner.constraints.get(NAME)
            if constraint is None or constraint.target != rig or item.library is not None:
                continue
            for source, middle in zip("xyz", rest):
                setattr(constraint, f"from_min_{source}_rot", middle - math.pi)
                setattr(constraint, f"from_max_{source}_rot", middle + math.pi)


def unbind(target: Any, bone: str = "") -> bool:
    """Take the constraint away; whether there was one."""
    constraint = find(target, bone)
    if constraint is not None:
        _owner(target, bone).constraints.remove(constraint)
    return constraint is not None


def find(target: Any, bone: str = "") -> Any:
    """The constraint on a bone or an object, or None. Cheap."""
    if target is None or (bone and (target.type != "ARMATURE" or bone not in target.pose.bones)):
        return None
    return (target.pose.bones[bone] if bone else target).constraints.get(NAME)


def axes_of(target: Any, bone: str = "") -> tuple[str, str, str]:
    """The axes of a bone at rest, or of an object as it stands, that pitch, yaw and roll of a face that looks
    along -Y, z up, turn about most nearly."""
    frame = target.matrix_world.to_3x3().normalized()
    if bone:
        frame = frame @ target.data.bones[bone].matrix_local.to_3x3()
    columns = frame.transposed()
    shares = [[sum(a * b for a, b in zip(world, column)) for column in columns] for world in _WORLD]
    best = max(permutations(range(3)), key=lambda order: sum(abs(shares[k][order[k]]) for k in range(3)))
    found = [("-" if shares[k][best[k]] < 0 else "") + "XYZ"[best[k]] for k in range(3)]
    return found[0], found[1], found[2]


def rest_of(rig: Any) -> tuple[float, float, float]:
    """Pitch, yaw, roll (radians) of the rig's neutral face; zeros where it has none."""
    frame = neutral(rig)
    return (0.0, 0.0, 0.0) if frame is None else tuple(rig_angles.angles(frame.rotation)[0].tolist())


def turns(samples: Samples, axes: Sequence[str], gain: float, rest: Sequence[float]) -> list[Any]:
    """What the constraint adds: a 3 x 3 rotation a frame, mathutils Matrix."""
    from mathutils import Euler

    order = "".join(axis[-1] for axis in axes)
    angles = [samples.values[name] for name in ("headPitch", "headYaw", "headRoll")]
    by_letter = {
        axis[-1]: gain * (-1 if axis[0] == "-" else 1) * (line - middle)
        for axis, line, middle in zip(axes, angles, rest)
    }
    rows = zip(*(by_letter[letter].tolist() for letter in "XYZ"))
    return [Euler(row, order).to_matrix() for row in rows]


def bake(
    target: Any,
    bone: str,
    samples: Samples,
    name: str,
    *,
    into: str = baking.TO_ACTION,
    tolerance: float = 0.0,
) -> Any:
    """Give a bound bone or object keys of its own turn and the head's together, as what moves it, and mute
    the constraint; the Action. tolerance: radians, or of a quaternion's parts.

    Raises:
        UserError: it is not bound, or linked.
    """
    constraint = find(target, bone)
    owner = _owner(target, bone)
    if constraint is None:
        raise UserError(f'"{bone or target.name}" does not follow a head.', "Bind it first.")
    axes, gain, rest = _as_bound(constraint)
    if is_baked(target):
        restore(target)
    own = _own_turns(target, bone, samples.frames.tolist())
    mixed = [first @ second for first, second in zip(own, turns(samples, axes, gain, rest))]
    prefix = bone_path(bpy.utils.escape_identifier(bone), "") if bone else ""
    lines = _lines(owner, mixed, prefix)
    thinned = baking.thinned(samples.frames, lines, tolerance)
    action = baking.put(target, thinned, name, into, group=bone or "Object Transforms")
    constraint.mute = True
    action[MUTED] = bone
    return action


def is_baked(target: Any) -> bool:
    """Whether a target (or None) plays a head's turn that was baked."""
    action = baking.baked_action(target)
    return action is not None and MUTED in action


def restore(target: Any) -> None:
    """Let a baked target follow the head again. Raises UserError if it was not baked."""
    if not is_baked(target):
        raise UserError(f'"{target.name}" was not baked.', "Choose one that was.")
    bone = baking.baked_action(target)[MUTED]
    baking.take_back(target)
    constraint = find(target, bone)
    if constraint is not None:
        constraint.mute = False


def _owner(target: Any, bone: str) -> Any:
    if target is None:
        raise UserError("There is nothing to turn.", "Choose your character's armature or head object.")
    if target.library is not None:
        raise UserError(f"{target.name} is linked from another file.", "Make a library override of it first.")
    if not bone:
        return target
    if target.type != "ARMATURE" or bone not in target.pose.bones:
        raise UserError(f'"{target.name}" has no bone "{bone}".', "Choose one of its bones.")
    return target.pose.bones[bone]


def _as_bound(constraint: Any) -> tuple[tuple[str, ...], float, tuple[float, ...]]:
    """Axes, gain and rest that a constraint says, edits of the user's included."""
    axes, rest, gain = [], [], 1.0
    for source in "xyz":
        letter = next(a for a in "xyz" if getattr(constraint, f"map_to_{a}_from") == source.upper())
        low = getattr(constraint, f"from_min_{source}_rot")
        high = getattr(constraint, f"from_max_{source}_rot")
        slope = (
            getattr(constraint, f"to_max_{letter}_rot") - getattr(constraint, f"to_min_{letter}_rot")
        ) / (high - low)
        axes.append(("-" if slope < 0 else "") + letter.upper())
        rest.append((low + high) / 2)
        gain = abs(slope)
    return tuple(axes), gain, tuple(rest)


def _own_turns(target: Any, bone: str, frames: list[float]) -> list[Any]:
    """The target's own rotation at each frame, its constraints left out."""
    owner = target.pose.bones[bone] if bone else target
    data = target.animation_data
    moving = data is not None and (data.action is not None or data.drivers or data.nla_tracks)
    if not moving:
        return [_rotation(owner)] * len(frames)
    found = []
    with alone(target, bpy.context.scene) as stage:
        for frame in frames:
            whole = math.floor(frame)
            stage.frame_set(whole, subframe=frame - whole)
            posed = target.evaluated_get(stage.view_layers[0].depsgraph)
            found.append(_rotation(posed.pose.bones[bone] if bone else posed))
    return found


def _rotation(owner: Any) -> Any:
    from mathutils import Quaternion

    if owner.rotation_mode == "QUATERNION":
        return owner.rotation_quaternion.normalized().to_matrix()
    if owner.rotation_mode == "AXIS_ANGLE":
        angle, *axis = owner.rotation_axis_angle
        return Quaternion(axis, angle).to_matrix()
    return owner.rotation_euler.to_matrix()


def _lines(owner: Any, matrices: Sequence[Any], prefix: str) -> Mapping[fcurves.Name, np.ndarray]:
    """Curves of rotations in the target's rotation mode, going on smoothly."""
    import numpy as np

    mode, before = owner.rotation_mode, None
    rows = []
    for matrix in matrices:
        if mode in ("QUATERNION", "AXIS_ANGLE"):
            turn = matrix.to_quaternion()
            if before is not None:
                turn.make_compatible(before)
            before = turn
            if mode == "AXIS_ANGLE":
                axis, angle = turn.to_axis_angle()
                rows.append((angle, *axis))
                continue
        else:
            turn = matrix.to_euler(mode) if before is None else matrix.to_euler(mode, before)
            before = turn
        rows.append(tuple(turn))
    path = {"QUATERNION": "rotation_quaternion", "AXIS_ANGLE": "rotation_axis_angle"}.get(
        mode, "rotation_euler"
    )
    width = 3 if path == "rotation_euler" else 4
    values = np.array(rows, np.float64).reshape(-1, width)
    return {(f"{prefix}{path}", k): values[:, k] for k in range(width)}
