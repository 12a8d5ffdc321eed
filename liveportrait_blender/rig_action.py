# SPDX-License-Identifier: GPL-3.0-or-later
"""A motion becomes an Action of the keypoint rig, and what the Action remembers of the motion."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import bpy

from . import fcurves, rig_angles
from .motion_file import FORMAT, Motion, check
from .names import UserError
from .rig_layout import (
    ACTION_KEY,
    BONES,
    CHANNELS,
    HEAD,
    NEUTRAL_KEY,
    SIDES,
    Channel,
    bone_path,
    group_of,
    property_path,
)

if TYPE_CHECKING:
    import numpy as np

_MARKERS = 500  # more of a kind would only hide the timeline
_STEPPED = {channel.name for channel in CHANNELS if not isinstance(channel.default, float)}


def add_property(item: Any, channel: Channel) -> None:
    """Give an object a custom property that can be animated, and overridden where it is linked."""
    item[channel.name] = channel.default
    if not isinstance(channel.default, bool):
        item.id_properties_ui(channel.name).update(
            min=channel.minimum, max=channel.maximum, default=channel.default, description=channel.description
        )
    else:
        item.id_properties_ui(channel.name).update(description=channel.description)
    item.property_overridable_library_set(property_path(channel.name), True)


def scene_rate(scene: Any) -> Fraction:
    """Frames a second of a scene, exact: 24 with a base of 1.001 is 24000/1001."""
    base = Fraction(scene.render.fps_base).limit_denominator(10_000)
    return Fraction(scene.render.fps) / base


def scene_frames(motion: Motion, rate: Fraction, first: float) -> np.ndarray:
    """The scene frame (n,) float64 of each frame of the motion; whole ones only where the rates agree."""
    import numpy as np

    ratio = rate / motion.fps
    return np.arange(len(motion), dtype=np.float64) * ratio.numerator / ratio.denominator + first


def to_action(
    armature: Any,
    motion: Motion,
    *,
    scene: Any,
    first_frame: float = 1.0,
    resample: bool = False,
    name: str = "",
    reference: int | None = None,
) -> Any:
    """Write `motion` into a new Action of the keypoint rig `armature`, which then performs it.

    Keys lie where the motion's frames fall in the scene's time, between whole frames if the rates differ;
    `resample` puts one on each whole frame instead, with the value the curves have there. Curves are linear
    and hold still over a cut. The Action keeps rate, start, engine and the mean x_c of the motion, marks cuts
    and the stretches without a face, and is named after `name` [the armature]. `reference`: the frame that
    counts as neutral [the first with a face]; every other shot has its own first.

    Raises:
        UserError: the motion holds something impossible, or the armature is linked.
    """
    import numpy as np

    check(motion)
    if armature.library is not None:
        raise UserError(
            f"{armature.name} is linked from another file and cannot get keys.",
            "Make a library override of it first.",
        )
    rate = scene_rate(scene)
    frames = scene_frames(motion, rate, float(first_frame))
    shots = shot_numbers(motion)
    channels, known = _channels(motion, shots)
    if resample:
        frames, channels, known, shots = _on_whole_frames(frames, channels, known, shots)
    frames = frames.astype(np.float32)
    action = bpy.data.actions.new(name or armature.name)
    action.use_fake_user = True  # what was captured is not lost because another action is tried out
    curves, codes = _curves(frames, channels, known, shots)
    fcurves.write(armature, action, curves, group_of, codes)
    canonical = motion.canonical.astype(np.float64).mean(axis=0)
    action[ACTION_KEY] = {
        "format": FORMAT,
        "fps_numerator": motion.fps_numerator,
        "fps_denominator": motion.fps_denominator,
        "start": motion.start,
        "engine": motion.engine,
        "ratios_estimated": motion.ratios_estimated,
        "frames": len(motion),
        "first_frame": float(first_frame),
        "scene_fps_numerator": rate.numerator,
        "scene_fps_denominator": rate.denominator,
        "canonical": canonical.ravel().tolist(),
        "neutrals": _neutrals(motion, shot_numbers(motion), reference),
    }
    _markers(action, frames, channels["valid"], shots)
    return action


def first_frame(armature: Any) -> float | None:
    """The scene frame where the rig's own Action begins, or None if it has none of ours."""
    about = described(armature)
    return None if about is None else float(about["first_frame"])


def frame_range(armature: Any, scene: Any) -> tuple[int, int]:
    """The first and the last scene frame of the rig's performance, whole; the scene's range where the rig has
    no Action of a motion."""
    about = described(armature)
    if about is None:
        return scene.frame_start, scene.frame_end
    clip = Fraction(int(about["fps_numerator"]), int(about["fps_denominator"]))
    first = math.ceil(float(about["first_frame"]) - 1e-4)
    return first, first + max(math.ceil(int(about["frames"]) * (scene_rate(scene) / clip)), 1) - 1


def described(armature: Any) -> Any:
    """What the rig's present Action remembers of its motion, or None."""
    data = armature.animation_data
    action = data.action if data is not None else None
    return action.get(ACTION_KEY) if action is not None else None


def neutral(armature: Any, shot: int = 0) -> Motion | None:
    """The frame (a motion of one) that counts as the neutral face in a shot: the one chosen with
    `set_neutral`, else the Action's; None for a rig that has neither."""
    chosen = armature.data.get(NEUTRAL_KEY)
    if chosen is not None and int(chosen["shot"]) == shot:
        return neutral_from_dict(chosen)
    about = described(armature)
    if about is None:
        return None if chosen is None else neutral_from_dict(chosen)
    each = about["neutrals"]
    return neutral_from_dict(each[shot] if shot < len(each) else each[0])


def set_neutral(armature: Any, motion: Motion | None, frame: int = 0, shot: int = 0) -> None:
    """Have a frame of `motion` count as the neutral face of a shot; None goes back to the Action's own."""
    if armature.data.library is not None:
        raise UserError(f"{armature.data.name} is linked from another file.", "Make it local first.")
    if motion is not None:
        armature.data[NEUTRAL_KEY] = {**neutral_to_dict(motion, frame), "shot": shot}
    elif NEUTRAL_KEY in armature.data:
        del armature.data[NEUTRAL_KEY]


def shot_numbers(motion: Motion) -> np.ndarray:
    """Per frame (n,) the number of its shot, from 0."""
    import numpy as np

    return np.zeros(len(motion), int) if motion.cuts is None else np.cumsum(motion.cuts) - motion.cuts[0]


def _neutrals(motion: Motion, shots: np.ndarray, reference: int | None) -> list[dict[str, list[float]]]:
    import numpy as np

    found = []
    for shot in range(int(shots[-1]) + 1):
        frames = np.flatnonzero(shots == shot)
        frame = int(frames[np.argmax(motion.valid[frames])])
        if reference is not None and 0 <= reference < len(motion) and shots[reference] == shot:
            frame = reference
        found.append(neutral_to_dict(motion, frame))
    return found


_NEUTRAL_ARRAYS = ("rotation", "expression", "scale", "translation", "canonical", "eye_ratio", "lip_ratio")


def neutral_to_dict(motion: Motion, frame: int) -> dict[str, list[float]]:
    """A frame as a custom property can hold it."""
    found = {name: getattr(motion, name)[frame].ravel().tolist() for name in _NEUTRAL_ARRAYS}
    if motion.gaze is not None and (motion.gaze[frame] == motion.gaze[frame]).all():
        found["gaze"] = motion.gaze[frame].ravel().tolist()
    return found


def neutral_from_dict(stored: Any) -> Motion:
    """The opposite: a motion of one frame."""
    import numpy as np

    shapes = {"rotation": (1, 3, 3), "expression": (1, 21, 3), "scale": (1,), "translation": (1, 3)}
    shapes |= {"canonical": (1, 21, 3), "eye_ratio": (1, 2), "lip_ratio": (1,), "gaze": (1, 2, 2)}
    fields: dict[str, Any] = {
        name: np.array(list(stored[name]), np.float32).reshape(shape)
        for name, shape in shapes.items()
        if name in stored
    }
    return Motion(**fields, valid=np.ones(1, bool))


def _channels(motion: Motion, shots: np.ndarray) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """What gets curves, by name: (n, width) arrays; and for gaze in which frames it was measured, (n,)."""
    import numpy as np

    turned = rig_angles.angles(motion.rotation, shots)
    values: dict[str, Any] = {
        "location": motion.translation,
        "rotation_euler": turned,
        "scale": np.repeat(motion.scale[:, None], 3, axis=1),
        "expression": motion.expression.reshape(len(motion), -1),
        "lip_ratio": motion.lip_ratio,
        "valid": motion.valid,
        "shot": shots,
    }
    known = {}
    for side, word in enumerate(SIDES):
        values[f"eye_ratio_{word}"] = motion.eye_ratio[:, side]
        if motion.gaze is None:
            continue
        found = np.isfinite(motion.gaze[:, side]).all(axis=1)
        values[f"gaze_{word}_known"] = found
        if found.any():
            at = np.flatnonzero(found)
            for axis, letter in enumerate("xy"):
                held = np.interp(np.arange(len(motion)), at, motion.gaze[at, side, axis])
                values[f"gaze_{word}_{letter}"] = held
                known[f"gaze_{word}_{letter}"] = found
    flat = {name: np.asarray(value, np.float64).reshape(len(motion), -1) for name, value in values.items()}
    return flat, known


def _on_whole_frames(frames: Any, channels: Any, known: Any, shots: Any) -> tuple[Any, Any, Any, Any]:
    """Everything at the whole scene frames that the motion covers, as its curves have it there."""
    import numpy as np

    whole = np.arange(np.ceil(frames[0] - 1e-6), np.floor(frames[-1] + 1e-6) + 1)
    if not len(whole):
        whole = np.round(frames[:1])
    below = np.clip(np.searchsorted(frames, whole + 1e-6, side="right") - 1, 0, len(frames) - 1)
    above = np.minimum(below + 1, len(frames) - 1)
    above = np.where(shots[above] == shots[below], above, below)
    gap = np.maximum(frames[above] - frames[below], 1e-9)
    share = np.clip((whole - frames[below]) / gap, 0, 1)[:, None]
    moved = {}
    for name, values in channels.items():
        steps = name in _STEPPED
        moved[name] = values[below] if steps else values[below] + share * (values[above] - values[below])
    return whole, moved, {name: found[below] for name, found in known.items()}, shots[below]


def _curves(frames: Any, channels: Any, known: Any, shots: Any) -> tuple[dict[Any, Any], dict[Any, Any]]:
    """(data path, index) -> (frames, values), and -> interpolation codes."""
    import numpy as np

    codes = fcurves.codes()
    holds = np.full(len(frames), codes["LINEAR"], np.uint8)
    holds[np.flatnonzero(np.diff(shots))] = codes["CONSTANT"]  # the last frame of a shot
    curves: dict[Any, Any] = {}
    kinds: dict[Any, Any] = {}
    for name, values in channels.items():
        for column in range(values.shape[1]):
            key = _curve_name(name, column)
            keep = known.get(name)
            line = values[:, column].astype(np.float32)
            at, kind = frames, holds
            if keep is not None:
                at, line, kind = frames[keep], line[keep], holds[keep]
            if name in _STEPPED:
                steps = np.flatnonzero(np.append(True, line[1:] != line[:-1]))
                at, line = at[steps], line[steps]
                kind = np.full(len(steps), codes["CONSTANT"], np.uint8)
            elif len(line) and (line == line[0]).all():
                at, line, kind = at[:1], line[:1], kind[:1]
            curves[key], kinds[key] = (at, line), kind
    if (shots == shots[0]).all():
        del curves[_curve_name("shot", 0)]
    return curves, kinds


def _curve_name(name: str, column: int) -> tuple[str, int]:
    if name in ("location", "rotation_euler", "scale"):
        return bone_path(HEAD, name), column
    if name == "expression":
        return bone_path(BONES[column // 3], "location"), column % 3
    return property_path(name), 0


def _markers(action: Any, frames: Any, valid: Any, shots: Any) -> None:
    import numpy as np

    for k in (np.flatnonzero(np.diff(shots)) + 1)[:_MARKERS]:
        action.pose_markers.new("Cut").frame = round(float(frames[k]))
    found = valid[:, 0] > 0.5
    changes = (np.flatnonzero(found[1:] != found[:-1]) + 1).tolist()
    if not found[0]:
        changes = [0, *changes]
    for k in changes[:_MARKERS]:
        action.pose_markers.new("Face" if found[k] else "No Face").frame = round(float(frames[k]))
