# SPDX-License-Identifier: GPL-3.0-or-later
"""Swap left and right of a performance, as in a mirror, by the fitted map in data/mirror.json.

What delta changes from the neutral face is mirrored; the neutral face, which is the performer's own, stays.
Mirrored twice, a performance is as it was.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from . import fcurves, rig_channels
from .motion_file import Motion
from .names import UserError
from .paths import data_file
from .rig_action import described, neutral, neutral_from_dict, neutral_to_dict
from .rig_layout import BONES, HEAD, NEUTRAL_KEY, bone_path, group_of, property_path

if TYPE_CHECKING:
    import numpy as np

# What changes places; and what changes its sign: yaw, roll and the way across.
EXCHANGED = (
    ("eye_ratio_left", "eye_ratio_right"),
    ("gaze_left_x", "gaze_right_x"),
    ("gaze_left_y", "gaze_right_y"),
    ("gaze_left_known", "gaze_right_known"),
    ("blink_left", "blink_right"),
)
NEGATED = ("gaze_left_x", "gaze_right_x", "gaze_x", "yaw", "roll", "move_x", "pout")
NEGATED_HEAD = (("location", 0), ("rotation_euler", 1), ("rotation_euler", 2))


@lru_cache(maxsize=1)
def matrix() -> np.ndarray:
    """(63,63) float64: the change of delta of a face -> that of its mirror image."""
    import numpy as np

    table = json.loads(data_file("mirror.json").read_text(encoding="utf-8"))
    live = [3 * keypoint + axis for keypoint, axis in table["inputs"]]
    whole = np.eye(63)
    whole[np.ix_(live, live)] = table["matrix"]
    whole.setflags(write=False)
    return whole


def mirrored_delta(expression: np.ndarray, rest: np.ndarray) -> np.ndarray:
    """delta (n,63) of the mirror image; rest (63,): the neutral face's."""
    return (expression - rest) @ matrix().T + rest


def mirror(armature: Any) -> None:
    """Swap left and right of the rig's Action, in it, with its neutral frames; static values of the sided
    controls too. Curves of delta get linear keys wherever one of them had a key. Raises UserError."""
    data = armature.animation_data
    action = data.action if data is not None else None
    if action is None:
        raise UserError(f"{armature.name} has no Action.", "Choose one in the Action Editor.")
    if action.library is not None:
        raise UserError(f"{action.name} is linked from another file.", "Make it local first.")
    curves = fcurves.curves_of(armature, action)
    rest = neutral(armature)
    base = [0.0] * 63 if rest is None else rest.expression.ravel().tolist()
    _mirror_delta(armature, action, curves, base)
    for what, axis in NEGATED_HEAD:
        _negate_curve(curves.get((bone_path(HEAD, what), axis)))
    for name in NEGATED:
        _negate_curve(curves.get((property_path(name), 0)))
        if name in armature:
            armature[name] = -armature[name]
    for left, right in EXCHANGED:
        _exchange(armature, curves, left, right)
    _mirror_neutrals(armature, base)
    armature.update_tag()


def _mirror_delta(armature: Any, action: Any, curves: Any, rest: list[float]) -> None:
    import numpy as np

    names = [(bone_path(bone, "location"), axis) for bone in BONES for axis in range(3)]
    keys = [fcurves.read(curves[name])[0] for name in names if name in curves]
    if not keys:
        return
    frames = np.unique(np.concatenate(keys))
    at = frames.tolist()
    lines = []
    for k, name in enumerate(names):
        still = armature.pose.bones[BONES[k // 3]].location[k % 3]
        lines.append(fcurves.evaluate(curves[name], at) if name in curves else np.full(len(at), still))
    moved = mirrored_delta(np.stack(lines, 1).astype(np.float64), np.array(rest)).astype(np.float32)
    codes = fcurves.codes()
    kinds = np.full(len(frames), codes["LINEAR"], np.uint8)
    for name in names:
        if name in curves:
            held = [key.co[0] for key in curves[name].keyframe_points if key.interpolation == "CONSTANT"]
            kinds[np.isin(frames, np.array(held, np.float32))] = codes["CONSTANT"]
    written: dict[Any, Any] = {}
    interpolation: dict[Any, Any] = {}
    for k, name in enumerate(names):
        constant = bool((moved[:, k] == moved[0, k]).all())
        keep = slice(0, 1) if constant else slice(None)
        written[name], interpolation[name] = (frames[keep], moved[keep, k]), kinds[keep]
    fcurves.write(armature, action, written, group_of, interpolation)


def _negate_curve(curve: Any) -> None:
    import numpy as np

    if curve is None:
        return
    count = len(curve.keyframe_points)
    for field in ("co", "handle_left", "handle_right"):
        points = np.empty(2 * count, np.float32)
        curve.keyframe_points.foreach_get(field, points)
        points[1::2] *= -1
        curve.keyframe_points.foreach_set(field, points)
    curve.update()


def _exchange(armature: Any, curves: Any, left: str, right: str) -> None:
    first, second = (curves.get((property_path(name), 0)) for name in (left, right))
    # A name that nothing has stands between, since no two curves may have one path.
    if first is not None:
        first.data_path = property_path("liveportrait between")
    if second is not None:
        second.data_path = property_path(left)
    if first is not None:
        first.data_path = property_path(right)
    if left in armature and right in armature:
        armature[left], armature[right] = armature[right], armature[left]


def _mirror_neutrals(armature: Any, rest: list[float]) -> None:
    import numpy as np

    about = described(armature)
    if about is not None:
        frames = [neutral_from_dict(stored) for stored in about["neutrals"]]
        about["neutrals"] = [neutral_to_dict(mirrored(frame, np.array(rest)), 0) for frame in frames]
        own = rig_channels.mirrored_inputs(rig_channels.own_neutral(armature), rest)
        rig_channels.remember_neutral(armature, own)
    chosen = armature.data.get(NEUTRAL_KEY)
    if chosen is not None:
        frame = mirrored(neutral_from_dict(chosen), np.array(rest))
        armature.data[NEUTRAL_KEY] = {**neutral_to_dict(frame, 0), "shot": chosen["shot"]}
    if rig_channels.has_channels(armature):
        present = rig_channels.neutral_of(armature)
        rig_channels.set_neutral(armature, rig_channels.mirrored_inputs(present, rest))


def mirrored(motion: Motion, rest: np.ndarray) -> Motion:
    """A motion as its mirror image shows it; rest (63,): delta of the neutral face, which stays."""
    from dataclasses import replace

    import numpy as np

    flip = np.diag([-1.0, 1.0, 1.0]).astype(np.float32)
    delta = mirrored_delta(motion.expression.reshape(len(motion), -1).astype(np.float64), rest)
    return replace(
        motion,
        expression=delta.reshape(-1, 21, 3).astype(np.float32),
        rotation=flip @ motion.rotation @ flip,
        translation=motion.translation * np.array([-1, 1, 1], np.float32),
        eye_ratio=motion.eye_ratio[:, ::-1].copy(),
        gaze=None if motion.gaze is None else motion.gaze[:, ::-1] * np.array([-1, 1], np.float32),
    )
