# SPDX-License-Identifier: GPL-3.0-or-later
"""The frame of a driving clip that counts as its rest: relative motion is measured from there."""

from __future__ import annotations

from typing import Literal

import numpy as np

from backend.errors import InputError
from backend.motion import Motion
from backend.rotations import euler_from_rotation

# What counts as one unit of "not neutral", judged on talking and acting clips.
POSE_DEGREES = 6.0
TURN_DEGREES = 20.0
LIP_RATIO = 0.06
EYE_RATIO = 0.06
EXPRESSION_RMS = 0.004
SPEED_DEGREES = 1.5
SPEED_EXPRESSION = 0.0015


def choose_reference(
    motion: Motion,
    wanted: int | Literal["auto"],
    *,
    only_with_face: bool = True,
    notes: list[str] | None = None,
) -> int:
    """The reference frame's index; `wanted` is one, or "auto" for `most_neutral_frame`.

    only_with_face replaces a frame whose face was lost by the nearest with one and says so in `notes`.
    Raises InputError for a frame that the motion does not have.
    """
    notes = [] if notes is None else notes
    if wanted == "auto":
        frame = most_neutral_frame(motion)
        notes.append(f"reference frame {frame} chosen as the most neutral")
        return frame
    if not 0 <= wanted < len(motion):
        raise InputError(
            f"There is no reference frame {wanted}.", f"The driving motion has frames 0 to {len(motion) - 1}."
        )
    faces = np.flatnonzero(motion.valid)
    if only_with_face and len(faces) and not motion.valid[wanted]:
        frame = int(faces[np.argmin(np.abs(faces - wanted))])
        notes.append(f"no face in reference frame {wanted}: frame {frame} is used instead")
        return frame
    return int(wanted)


def most_neutral_frame(motion: Motion) -> int:
    """The frame nearest to the clip's usual pose and to frontal, mouth closed, eyes open, at rest."""
    angles = np.stack(euler_from_rotation(motion.rotation), axis=1)
    expression = motion.expression.reshape(len(motion), -1)
    away = np.linalg.norm(angles - np.median(angles, axis=0), axis=1) / POSE_DEGREES
    turned = np.linalg.norm(angles, axis=1) / TURN_DEGREES
    lips = (motion.lip_ratio - np.percentile(motion.lip_ratio, 5)).clip(min=0) / LIP_RATIO
    eyes = motion.eye_ratio.mean(axis=1)
    closed = (np.percentile(eyes, 75) - eyes).clip(min=0) / EYE_RATIO
    unusual = np.sqrt(np.mean((expression - np.median(expression, axis=0)) ** 2, axis=1)) / EXPRESSION_RMS
    moving = (
        _speed(angles) / SPEED_DEGREES + _speed(expression) / np.sqrt(expression.shape[1]) / SPEED_EXPRESSION
    )
    score = away + turned + lips + closed + unusual + moving
    if motion.valid.any():
        score = np.where(motion.valid, score, np.inf)
    return int(np.argmin(score))


def _speed(values: np.ndarray) -> np.ndarray:
    """Size of the change a frame of (n, k), by central differences, (n,)."""
    if len(values) < 2:
        return np.zeros(len(values))
    return np.asarray(np.linalg.norm(np.gradient(values, axis=0), axis=1))
