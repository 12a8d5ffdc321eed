# SPDX-License-Identifier: GPL-3.0-or-later
"""The channels that a keypoint rig shows at many frames: ARKit's 52 and the head's angles, as arrays.

Two ways, which agree: if curves and our own drivers are all that moves the rig, the drivers' expressions are
reckoned with arrays; else a scene of the rig alone is stepped through and its evaluated properties are read.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import bpy

from . import rig_channels, rig_sampling
from .names import UserError
from .rig_action import described, scene_rate
from .rig_layout import BONES, CHANNELS, HEAD, SIDES, TOTALS, property_path

if TYPE_CHECKING:
    import numpy as np

_ANGLES = tuple(rig_channels.HEAD_ANGLES)
_ORDER = {"ROT_X": 0, "ROT_Y": 1, "ROT_Z": 2}


@dataclass(frozen=True)
class Samples:
    """values: {channel: (k,) float64}, with headPitch, headYaw, headRoll in radians (LivePortrait's signs:
    > 0 looks down, turns to the subject's right, leans to the left); valid (k,) bool: a face was found.
    frames (k,): scene frames. rate: the scene's, exact. start: seconds into the clip of the first one."""

    values: dict[str, np.ndarray]
    valid: np.ndarray
    frames: np.ndarray
    rate: Fraction
    start: float

    def __len__(self) -> int:
        return len(self.frames)


def sample(
    armature: Any,
    frames: Sequence[float],
    *,
    scene: Any = None,
    stepwise: bool | None = None,
    progress: Callable[[float], None] | None = None,
) -> Samples:
    """The channels at scene frames (k,); none is a result too. stepwise, progress: as rig_sampling has them.

    Raises:
        UserError: it is no keypoint rig, or has no channels.
    """
    import numpy as np

    if not rig_channels.has_channels(armature):
        raise UserError(f"{armature.name} has no channels.", "Import the performance again.")
    scene = scene or bpy.context.scene
    at = np.asarray(frames, np.float32).astype(np.float64)
    rate = scene_rate(scene)
    if len(at) == 0:
        none = np.empty(0)
        names = (*rig_channels.names(), *_ANGLES)
        return Samples(dict.fromkeys(names, none), np.empty(0, bool), at, rate, 0.0)
    if stepwise is None:
        stepwise = bool(why_stepwise(armature))
    values, valid = (_step if stepwise else _evaluate)(armature, at.tolist(), scene, progress)
    about = described(armature)
    start = 0.0
    if about is not None:
        start = float(about["start"] + (at[0] - about["first_frame"]) / float(rate))
    return Samples(values, valid, at, rate, start)


def why_stepwise(armature: Any) -> str:
    """What keeps the channels from being reckoned with arrays, or "" if nothing does."""
    reason = rig_sampling.why_stepwise(armature)
    if reason:
        return reason
    try:
        for name in (*rig_channels.names(), *_ANGLES):
            _check(armature, name, _drivers(armature), set())
    except _NotPlain as error:
        return f"{error} is more than the channels' own drivers"
    return ""


class _NotPlain(Exception):
    """A driver that cannot be said with arrays; the text says of what."""


def _drivers(armature: Any) -> dict[str, Any]:
    data = armature.animation_data
    return {curve.data_path: curve for curve in data.drivers} if data is not None else {}


def _check(armature: Any, name: str, drivers: dict[str, Any], seen: set[str]) -> None:
    """Raises _NotPlain unless a property is a constant or is driven by what `_evaluate` knows."""
    if name in seen:
        return
    seen.add(name)
    curve = drivers.get(property_path(name))
    if curve is None:
        if _curve_of(armature, name) is not None:
            raise _NotPlain(name)
        return
    driver = curve.driver
    if curve.mute or curve.modifiers or len(curve.keyframe_points) or driver.type != "SCRIPTED":
        raise _NotPlain(name)
    _compiled(driver.expression, name)
    for variable in driver.variables:
        target = variable.targets[0]
        if target.id != armature:
            raise _NotPlain(name)
        if variable.type == "TRANSFORMS":
            plain = target.transform_space == "LOCAL_SPACE" and target.rotation_mode == "XYZ"
            turn = target.bone_target == HEAD and target.transform_type in _ORDER
            place = target.bone_target in BONES and target.transform_type[:4] == "LOC_"
            if not plain or not (turn or place):
                raise _NotPlain(name)
        elif variable.type == "SINGLE_PROP" and target.data_path.startswith('["'):
            other = target.data_path[2:-2]
            if other not in _sampled_names():
                _check(armature, other, drivers, seen)
        else:
            raise _NotPlain(name)


def _curve_of(armature: Any, name: str) -> Any:
    from . import fcurves

    return fcurves.curves_of(armature).get((property_path(name), 0))


def _sampled_names() -> dict[str, str]:
    """Properties whose values a sampled motion holds -> under which name."""
    plain = {channel.name: channel.name for channel in CHANNELS if channel.name in TOTALS}
    return plain | {total: name for name, total in TOTALS.items()}


_NODES = (
    ast.Expression,
    ast.BinOp,
    ast.UnaryOp,
    ast.Add,
    ast.Sub,
    ast.Mult,
    ast.Div,
    ast.USub,
    ast.UAdd,
    ast.Constant,
    ast.Name,
    ast.Load,
    ast.Call,
)


def _compiled(text: str, name: str) -> Any:
    """A driver's expression of + - * / min max, to be evaluated with arrays. Raises _NotPlain for others."""
    try:
        tree = ast.parse(text, mode="eval")
    except SyntaxError as error:
        raise _NotPlain(name) from error
    for node in ast.walk(tree):
        if not isinstance(node, _NODES):
            raise _NotPlain(name)
        if isinstance(node, ast.Call):
            function = node.func
            if not isinstance(function, ast.Name) or function.id not in ("min", "max") or len(node.args) != 2:
                raise _NotPlain(name)
    return tree.body


def _reckon(node: Any, words: dict[str, Any]) -> Any:
    import numpy as np

    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name):
        return words[node.id]
    if isinstance(node, ast.Call):
        first, second = (_reckon(argument, words) for argument in node.args)
        name = getattr(node.func, "id", "")
        return np.minimum(first, second) if name == "min" else np.maximum(first, second)
    if isinstance(node, ast.UnaryOp):
        value = _reckon(node.operand, words)
        return -value if isinstance(node.op, ast.USub) else value
    first, second = _reckon(node.left, words), _reckon(node.right, words)
    if isinstance(node.op, ast.Add):
        return first + second
    if isinstance(node.op, ast.Sub):
        return first - second
    return first * second if isinstance(node.op, ast.Mult) else first / second


def _evaluate(armature: Any, frames: list[float], scene: Any, progress: Any) -> Any:
    import numpy as np

    motion = rig_sampling.sample(armature, frames, scene=scene, stepwise=False, progress=progress)
    drivers = _drivers(armature)
    turned = _as_decomposed(motion.rotation)
    known = {
        "lip_ratio": motion.lip_ratio,
        **{f"eye_ratio_{word}": motion.eye_ratio[:, side] for side, word in enumerate(SIDES)},
    }
    found: dict[str, Any] = {}

    def value(name: str) -> Any:
        if name in found:
            return found[name]
        sampled = known.get(_sampled_names().get(name, ""))
        curve = drivers.get(property_path(name))
        if sampled is not None:
            result = sampled.astype(np.float64)
        elif curve is None:
            result = np.full(len(frames), float(armature.get(name, 0.0)))
        else:
            words = {variable.name: source(variable) for variable in curve.driver.variables}
            result = _reckon(_compiled(curve.driver.expression, name), words)
        found[name] = np.broadcast_to(np.asarray(result, np.float64), (len(frames),))
        return found[name]

    def source(variable: Any) -> Any:
        target = variable.targets[0]
        if variable.type == "SINGLE_PROP":
            return value(target.data_path[2:-2])
        if target.transform_type in _ORDER:
            return turned[:, _ORDER[target.transform_type]]
        bone = BONES.index(target.bone_target)
        return motion.expression[:, bone, "XYZ".index(target.transform_type[-1])].astype(np.float64)

    names = (*rig_channels.names(), *_ANGLES)
    return {name: value(name) for name in names}, motion.valid


def _as_decomposed(rotation: np.ndarray) -> np.ndarray:
    """(k,3) radians from (k,3,3), each within a turn, as Blender takes them out of a bone's matrix."""
    import numpy as np

    m = np.asarray(rotation, np.float64)
    yaw = np.arctan2(-m[:, 0, 2], np.hypot(m[:, 0, 0], m[:, 0, 1]))
    return np.stack([np.arctan2(m[:, 1, 2], m[:, 2, 2]), yaw, np.arctan2(m[:, 0, 1], m[:, 0, 0])], 1)


def _step(armature: Any, frames: list[float], scene: Any, progress: Any) -> Any:
    import numpy as np

    names = (*rig_channels.names(), *_ANGLES)
    values = {name: np.zeros(len(frames)) for name in names}
    valid = np.ones(len(frames), bool)
    with rig_sampling.alone(armature, scene) as stage:
        for k, frame in enumerate(frames):
            whole = int(np.floor(frame))
            stage.frame_set(whole, subframe=frame - whole)
            posed = armature.evaluated_get(stage.view_layers[0].depsgraph)
            for name in names:
                values[name][k] = posed.get(name, 0.0)
            valid[k] = bool(posed.get("valid", True))
            if progress is not None and k % 100 == 0:
                progress(k / len(frames))
    return values, valid
