# SPDX-License-Identifier: GPL-3.0-or-later
"""LivePortrait's motion templates (.pkl): both generations read, the newer one written.

{n_frames, output_fps, motion: [{scale (1,1), R (1,3,3), exp (1,21,3), t (1,3), kp (1,21,3), x_s (1,21,3)}],
c_eyes_lst: [(1,2)], c_lip_lst: [(1,1)]}. The older generation says R_d, c_d_eyes_lst and c_d_lip_lst, has no
kp and x_s, and often no ratios.
"""

from __future__ import annotations

import json
import pickle
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.errors import MotionFileError
from backend.motion import KEYPOINTS, Motion
from backend.pickles import printable, read_pickle

MAXIMUM_BYTES = 160 << 20
MAXIMUM_FRAMES = 200_000
_DEFAULT_FPS = 25  # what the released program falls back to
_DATA = Path(__file__).with_name("data")

F32 = NDArray[np.float32]


@cache
def mean_canonical() -> F32:
    """(21,3) float32: mean x_c of faces that the released networks measured (scripts/fit_ratio_maps.py)."""
    table = json.loads((_DATA / "canonical_keypoints.json").read_text(encoding="utf-8"))
    points = np.array(table["keypoints"], np.float32)
    points.setflags(write=False)
    return points


@cache
def _ratio_maps() -> dict[str, Any]:
    return json.loads((_DATA / "ratio_maps.json").read_text(encoding="utf-8"))


def estimate_ratios(expression: F32) -> tuple[F32, F32]:
    """eye_ratio (n,2) and lip_ratio (n,), not below 0, from expressions (n,21,3) by the fitted linear maps.

    Whose face it is shifts them: good for when and how far lids and lips move, not for the last hundredth.
    """
    maps = _ratio_maps()

    def apply(one: dict[str, Any]) -> F32:
        total = np.full(len(expression), one["intercept"], np.float32)
        for keypoint, axis, coefficient in one["terms"]:
            with np.errstate(invalid="ignore", over="ignore"):  # what is no number is reported by its field
                total += np.float32(coefficient) * expression[:, keypoint, axis]
        return np.maximum(total, 0)

    return np.stack([apply(one) for one in maps["eye_ratio"]], axis=1), apply(maps["lip_ratio"])


def motion_from_template(data: bytes, name: str = "The template") -> Motion:
    """The Motion in a template's bytes: engine "liveportrait", start 0, every frame valid.

    Absent ratios are estimated from the expression (`ratios_estimated`), an absent kp is `mean_canonical()`.
    UnsafePickleError for content a template never has, MotionFileError naming the key that is missing or
    wrong.
    """
    root = read_pickle(data)
    frames = root.get("motion") if isinstance(root, dict) else None
    if not isinstance(frames, list) or not frames or not all(isinstance(frame, dict) for frame in frames):
        raise MotionFileError(
            f"{name} holds no list of frames under the key motion.", "Is it a LivePortrait template?"
        )
    n = len(frames)
    if n > MAXIMUM_FRAMES:
        raise MotionFileError(
            f"{name} has {n} frames, more than {MAXIMUM_FRAMES}.", "Save long performances as motion .npz."
        )
    if type(root.get("n_frames", n)) is not int or root.get("n_frames", n) != n:
        raise MotionFileError(
            f"{name} says n_frames {_short(root['n_frames'])} but holds {n}.", "Get it again."
        )

    expression = _column(frames, ("exp",), (KEYPOINTS, 3))
    eyes = _listed(root, ("c_eyes_lst", "c_d_eyes_lst"), n, (2,))
    lips = _listed(root, ("c_lip_lst", "c_d_lip_lst"), n, ())
    estimated = eyes is None or lips is None
    if eyes is None or lips is None:
        guessed_eyes, guessed_lips = estimate_ratios(expression)
        eyes = guessed_eyes if eyes is None else eyes
        lips = guessed_lips if lips is None else lips
    fps = _fps(root.get("output_fps", _DEFAULT_FPS))
    return Motion(
        rotation=_column(frames, ("R", "R_d"), (3, 3)),
        expression=expression,
        scale=_column(frames, ("scale",), ()),
        translation=_column(frames, ("t",), (3,)),
        canonical=_column(frames, ("kp",), (KEYPOINTS, 3)) if "kp" in frames[0] else mean_canonical(),
        eye_ratio=eyes,
        lip_ratio=lips,
        fps_numerator=fps.numerator,
        fps_denominator=fps.denominator,
        engine="liveportrait",
        ratios_estimated=estimated,
    ).validate()


def template_from_motion(motion: Motion) -> bytes:
    """A template of the newer generation, float32, for the released program: every key and shape as there.

    What templates have no place for is left out: start, gaze, mouth, valid, engine. A whole frame rate is
    written as an int, any other as a float.
    """
    motion.validate()
    x = motion.keypoints()
    frames = [
        {
            "scale": motion.scale[i].reshape(1, 1),
            "R": motion.rotation[i][None],
            "exp": motion.expression[i][None],
            "t": motion.translation[i][None],
            "kp": motion.canonical[i][None],
            "x_s": x[i][None],
        }
        for i in range(len(motion))
    ]
    fps = motion.fps
    template = {
        "n_frames": len(motion),
        "output_fps": fps.numerator if fps.denominator == 1 else float(fps),
        "motion": frames,
        "c_eyes_lst": [ratio.reshape(1, 2) for ratio in motion.eye_ratio],
        "c_lip_lst": [ratio.reshape(1, 1) for ratio in motion.lip_ratio],
    }
    return pickle.dumps(template, protocol=4)


def _column(frames: list[dict[Any, Any]], keys: tuple[str, ...], shape: tuple[int, ...]) -> F32:
    """(n, *shape) float32 of one key of every frame; each value may have axes of length 1 more."""
    key = next((key for key in keys if key in frames[0]), None)
    if key is None:
        raise MotionFileError(f"Template key {keys[0]} is missing.", "Get the file again.")
    return _stack(key, [frame.get(key) for frame in frames], shape)


def _listed(root: dict[Any, Any], keys: tuple[str, ...], n: int, shape: tuple[int, ...]) -> F32 | None:
    """(n, *shape) float32 of the first of `keys` that the template has, or None."""
    key = next((key for key in keys if root.get(key) is not None), keys[0])
    values = root.get(key)
    if values is None or (isinstance(values, list) and not values):
        return None
    if not isinstance(values, list) or len(values) != n:
        raise MotionFileError(f"Template key {key} is no list of {n} frames.", "Get the file again.")
    return _stack(key, values, shape)


def _stack(key: str, values: list[Any], shape: tuple[int, ...]) -> F32:
    out = np.empty((len(values), *shape), np.float32)
    size = out[0].size
    for i, value in enumerate(values):
        if type(value) in (int, float):
            value = np.array(value, np.float64)
        if not isinstance(value, np.ndarray) or value.size != size or value.dtype.kind not in "fiu":
            raise MotionFileError(
                f"Template key {key} of frame {i} is not {size} number{'s' * (size > 1)}.",
                "Get the file again.",
            )
        if tuple(length for length in value.shape if length > 1) != shape:
            raise MotionFileError(
                f"Template key {key} of frame {i} has shape {value.shape}, expected {(1, *shape)}.",
                "Get the file again.",
            )
        with np.errstate(over="ignore"):
            out[i] = value.reshape(shape)
    return out


def _fps(value: Any) -> Fraction:
    if type(value) not in (int, float) or not 0 < value <= 1000:
        raise MotionFileError(f"Template key output_fps is {_short(value)}.", "Get the file again.")
    # 29.97002997 is meant as 30000/1001; shorter decimals are exact with this denominator too.
    return Fraction(value).limit_denominator(1001)


def _short(value: Any) -> str:
    return printable(str(value), 40) if isinstance(value, int | float | str) else f"a {type(value).__name__}"
