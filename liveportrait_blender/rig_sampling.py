# SPDX-License-Identifier: GPL-3.0-or-later
"""The performance of a keypoint rig as a motion: what its evaluated pose shows, frame by frame.

Two ways, which agree: if one Action and our own controls are all that moves the rig, their curves are
evaluated at all frames at once; with the NLA, other constraints or drivers, a scene of the rig alone
is stepped through, so that the rest of the file costs nothing and the user's frame stays where it is.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import bpy

from . import compat, fcurves, rig_angles, rig_controls
from .motion_file import Motion
from .names import UserError
from .rig_action import described, scene_rate
from .rig_control_table import ANGLES, Control, controls
from .rig_layout import (
    BONES,
    CHANNELS,
    HEAD,
    KEYPOINTS,
    SIDES,
    TOTALS,
    bone_path,
    property_path,
)

if TYPE_CHECKING:
    import numpy as np

_TRANSFORMS = {"location": (0.0,) * 3, "rotation_euler": (0.0,) * 3, "scale": (1.0,) * 3}
_DEFAULTS = {channel.name: float(channel.default) for channel in CHANNELS}


def sample(
    armature: Any,
    frames: Sequence[float],
    *,
    scene: Any = None,
    stepwise: bool | None = None,
    progress: Callable[[float], None] | None = None,
) -> Motion:
    """The motion that the rig performs at scene frames (k,), which may lie between whole ones.

    delta, R, s and t are those of the evaluated pose; ratios and gaze include the expression controls. x_c is
    that of the rig's own Action, else where its bones rest. Its rate is the scene's, its `start` the place of
    the first frame in the clip. stepwise: True steps through the frames in any case, False never does [as
    needed]. progress: called with 0..1 now and then.

    Raises:
        UserError: it is no keypoint rig, or there are no frames.
    """
    return sample_shots(armature, frames, scene=scene, stepwise=stepwise, progress=progress)[0]


def sample_shots(
    armature: Any,
    frames: Sequence[float],
    *,
    scene: Any = None,
    stepwise: bool | None = None,
    progress: Callable[[float], None] | None = None,
) -> tuple[Motion, np.ndarray]:
    """As `sample`, and for each frame (k,) the number of the shot that it shows."""
    import numpy as np

    if armature.type != "ARMATURE" or any(name not in armature.pose.bones for name in (HEAD, *BONES)):
        raise UserError(
            f"{armature.name} is no keypoint rig, or bones of it are missing.",
            "Choose a performance's armature.",
        )
    scene = scene or bpy.context.scene
    at = np.asarray(frames, np.float32).astype(np.float64)
    if len(at) == 0:
        raise UserError("There are no frames to sample.", "Choose a range of frames.")
    if stepwise is None:
        stepwise = bool(why_stepwise(armature))
    found = (_step if stepwise else _evaluate)(armature, at.tolist(), scene, progress)
    return _assemble(armature, at, found, scene), np.round(found["shot"]).astype(int)


def why_stepwise(armature: Any) -> str:
    """What keeps the rig from being evaluated curve by curve, or "" if nothing does."""
    data = armature.animation_data
    if armature.pose.bones[HEAD].rotation_mode != "XYZ":
        return "the head bone has another rotation mode"
    if armature.data.pose_position == "REST":
        return "the armature shows its rest pose"
    if data is not None:
        if data.use_nla and any(not track.mute and track.strips for track in data.nla_tracks):
            return "the NLA mixes in strips"
        if data.drivers and (driver := _foreign_driver(armature)):
            return f"a driver moves {driver}"
    ours = _our_constraints(armature)
    for name in (HEAD, rig_controls.HELPER, *BONES):
        bone = armature.pose.bones.get(name)
        for constraint in bone.constraints if bone is not None else ():
            key = (name, constraint.name)
            if key in ours:
                if constraint.mute or constraint.influence != 1.0 or not _is_as_made(constraint):
                    return f"the constraint {constraint.name} of {name} has been changed"
            elif not constraint.mute and constraint.influence != 0.0:
                return f"the constraint {constraint.name} moves {name}"
    if ours and not ours <= {(b.name, c.name) for b in armature.pose.bones for c in b.constraints}:
        return "constraints of expression controls are missing"
    return ""


def _our_constraints(armature: Any) -> set[tuple[str, str]]:
    if not rig_controls.has_controls(armature):
        return set()
    ours = {(HEAD, name) for name in rig_controls.HEAD_CONSTRAINTS}
    for control in controls():
        ours |= {(BONES[k], rig_controls.PREFIX + control.label) for k in control.keypoints()}
    return ours


def _is_as_made(constraint: Any) -> bool:
    if constraint.type == "ACTION":
        return bool(
            constraint.use_eval_time
            and constraint.mix_mode == "AFTER_SPLIT"
            and constraint.action is not None
            and (constraint.frame_start, constraint.frame_end) == (0, int(rig_controls.END))
        )
    return constraint.type in ("COPY_LOCATION", "COPY_ROTATION", "COPY_SCALE")


def _foreign_driver(armature: Any) -> str:
    """The path of a driver that moves what is sampled and is not as we made it, or ""."""
    ours = _our_drivers() if rig_controls.has_controls(armature) else {}
    sampled = {property_path(name) for name in (*_DEFAULTS, *(control.name for control in controls()))}
    for curve in armature.animation_data.drivers:
        key = (curve.data_path, curve.array_index)
        if key in ours:
            if curve.mute or curve.driver.expression != ours[key]:
                return str(curve.data_path)
        elif curve.data_path.startswith("pose.bones") or curve.data_path in sampled:
            return str(curve.data_path)
    return ""


def _our_drivers() -> dict[tuple[str, int], str]:
    made = {}
    for control in controls():
        for k in control.keypoints():
            path = bone_path(BONES[k], f'constraints["{rig_controls.PREFIX}{control.label}"].eval_time')
            made[path, 0] = rig_controls.eval_time_expression(control)
    for what in _TRANSFORMS:
        for index in range(3):
            made[bone_path(rig_controls.HELPER, what), index] = rig_controls.head_expression(what, index)
    for name, total in TOTALS.items():
        made[property_path(total), 0] = rig_controls.total_expression(name)
    return made


Found = dict[str, "np.ndarray"]
"""rotation (k,3,3), location, scale (k,3), expression (k,63), and the channels (k,), float64."""


def _evaluate(armature: Any, frames: list[float], scene: Any, progress: Any) -> Found:
    import numpy as np

    curves = {name: curve for name, curve in fcurves.curves_of(armature).items() if not _is_muted(curve)}

    def line(path: str, index: int, otherwise: float) -> np.ndarray:
        curve = curves.get((path, index))
        if curve is None or not (curve.keyframe_points or curve.modifiers):
            return np.full(len(frames), otherwise)
        return fcurves.evaluate(curve, frames).astype(np.float64)

    def transform(bone: str, what: str) -> np.ndarray:
        now = getattr(armature.pose.bones[bone], what)
        return np.stack([line(bone_path(bone, what), axis, now[axis]) for axis in range(3)], 1)

    def channel(name: str, otherwise: float) -> np.ndarray:
        return line(property_path(name), 0, float(armature.get(name, otherwise)))

    head = {what: transform(HEAD, what) for what in _TRANSFORMS}
    expression = np.concatenate([transform(bone, "location") for bone in BONES], 1)
    found = {name: channel(name, default) for name, default in _DEFAULTS.items()}
    if rig_controls.has_controls(armature):
        values = {control.name: channel(control.name, control.default) for control in controls()}
        _add_controls(armature, values, head, expression, found)
    found.update(
        rotation=rig_angles.matrices(head["rotation_euler"]),
        location=head["location"],
        scale=head["scale"],
        expression=expression,
    )
    return found


def _add_controls(
    armature: Any, values: dict[str, np.ndarray], head: Any, expression: np.ndarray, found: Found
) -> None:
    """What constraints and drivers add, in the same words."""
    import numpy as np

    for name in TOTALS:
        total = found[name].copy()
        for control in controls():
            up, down = control.ratio_slopes().get(name, (0.0, 0.0))
            value = _from_rest(armature, control, values)
            total += float(f"{up:.5g}") * np.maximum(value, 0) + float(f"{down:.5g}") * np.minimum(value, 0)
        found[name] = total if name.startswith("gaze") else np.maximum(total, 0)
    for control in controls():
        if not control.keypoints():
            continue
        value = _from_rest(armature, control, values)
        active = np.flatnonzero(value)
        if not len(active):
            continue
        time = np.clip(0.5 + 0.5 / control.reach * value[active], 0, 1) * rig_controls.END
        at = time.tolist()
        bone = armature.pose.bones[BONES[control.keypoints()[0]]]
        for curve in compat.constraint_curves(bone.constraints[rig_controls.PREFIX + control.label]):
            path, axis = curve.data_path, curve.array_index
            column = 3 * BONES.index(path.split('"')[1]) + axis
            expression[active, column] += fcurves.evaluate(curve, at)
    by_head = {control.head: control for control in controls() if control.head}
    zoom = values[by_head["zoom"].name]
    for axis, letter in enumerate("xy"):
        control = by_head[letter]
        head["location"][:, axis] += control.factor * values[control.name] * zoom * head["scale"][:, 0]
    for axis, angle in enumerate(ANGLES):
        control = by_head[angle]
        head["rotation_euler"][:, axis] += np.radians(control.factor * values[control.name])
    head["scale"] *= zoom[:, None]


def _from_rest(armature: Any, control: Control, values: dict[str, np.ndarray]) -> np.ndarray:
    return values[control.name] - float(armature[control.rest]) if control.rest else values[control.name]


def _is_muted(curve: Any) -> bool:
    return bool(curve.mute or (curve.group is not None and curve.group.mute))


def _step(armature: Any, frames: list[float], scene: Any, progress: Any) -> Found:
    import numpy as np

    count = len(frames)
    found: Found = {name: np.empty(count) for name in _DEFAULTS}
    found["rotation"], found["location"] = np.empty((count, 3, 3)), np.empty((count, 3))
    found["scale"], found["expression"] = np.empty((count, 3)), np.empty((count, 3 * KEYPOINTS))
    names = {name: TOTALS[name] if TOTALS.get(name, "") in armature else name for name in _DEFAULTS}
    with alone(armature, scene) as stage:
        for k, frame in enumerate(frames):
            whole = int(np.floor(frame))
            stage.frame_set(whole, subframe=frame - whole)
            posed = armature.evaluated_get(stage.view_layers[0].depsgraph)
            _read_pose(posed, found, k)
            for name, source in names.items():
                found[name][k] = posed.get(source, _DEFAULTS[name])
            if progress is not None and k % 100 == 0:
                progress(k / count)
    return found


@contextlib.contextmanager
def alone(item: Any, scene: Any) -> Iterator[Any]:
    """For a moment, a scene of one object (and what moves it) with the time of `scene`."""
    stage = bpy.data.scenes.new("LivePortrait Sampling")
    try:
        for field in ("fps", "fps_base", "frame_map_old", "frame_map_new"):
            setattr(stage.render, field, getattr(scene.render, field))
        stage.collection.objects.link(item)
        yield stage
    finally:
        bpy.data.scenes.remove(stage)


def _read_pose(posed: Any, found: Found, k: int) -> None:
    bones = posed.pose.bones
    head = bones[HEAD]
    local = posed.convert_space(pose_bone=head, matrix=head.matrix, from_space="POSE", to_space="LOCAL")
    place, turn, size = local.decompose()
    found["location"][k], found["scale"][k] = place, size
    found["rotation"][k] = turn.to_matrix().transposed()
    line = found["expression"][k]
    for j, name in enumerate(BONES):
        bone = bones[name]
        matrix = posed.convert_space(pose_bone=bone, matrix=bone.matrix, from_space="POSE", to_space="LOCAL")
        line[3 * j : 3 * j + 3] = matrix.translation


def _assemble(armature: Any, frames: np.ndarray, found: Found, scene: Any) -> Motion:
    import numpy as np

    count = len(frames)
    about = described(armature)
    gaze = np.full((count, 2, 2), np.nan)
    for side, word in enumerate(SIDES):
        known = found[f"gaze_{word}_known"] > 0.5
        for axis, letter in enumerate("xy"):
            gaze[known, side, axis] = found[f"gaze_{word}_{letter}"][known]
    shot = np.round(found["shot"])
    cuts = np.append(False, shot[1:] != shot[:-1])
    rate = scene_rate(scene)
    start = 0.0
    if about is not None:
        start = float(about["start"] + (frames[0] - about["first_frame"]) / float(rate))
    canonical = _rest(armature) if about is None else np.reshape(list(about["canonical"]), (KEYPOINTS, 3))
    arrays = {
        "rotation": found["rotation"],
        "expression": found["expression"].reshape(count, KEYPOINTS, 3),
        "scale": found["scale"].mean(axis=1),
        "translation": found["location"],
        "canonical": np.broadcast_to(canonical, (count, KEYPOINTS, 3)),
        "eye_ratio": np.stack([found[f"eye_ratio_{word}"] for word in SIDES], 1),
        "lip_ratio": found["lip_ratio"],
    }
    return Motion(
        **{name: np.ascontiguousarray(array, np.float32) for name, array in arrays.items()},
        gaze=gaze.astype(np.float32) if np.isfinite(gaze).any() else None,
        valid=found["valid"] > 0.5,
        cuts=cuts if cuts.any() else None,
        fps_numerator=rate.numerator,
        fps_denominator=rate.denominator,
        start=start,
        engine="unknown" if about is None else str(about["engine"]),
        ratios_estimated=False if about is None else bool(about["ratios_estimated"]),
    )


def _rest(armature: Any) -> np.ndarray:
    """x_c (21,3) as the bones rest."""
    import numpy as np

    bones = armature.data.bones
    turn = bones[HEAD].matrix_local.inverted()
    return np.array([turn @ bones[name].head_local for name in BONES])
