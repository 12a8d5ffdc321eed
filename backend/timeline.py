# SPDX-License-Identifier: GPL-3.0-or-later
"""Which frame of a source clip meets which frame of the driving when one is shorter than the other."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np

from backend.errors import InputError
from backend.motion import FRAME_SHAPES, Motion

LengthPolicy = Literal["cut", "constant", "cycle", "mirror"]
LENGTH_POLICIES: tuple[LengthPolicy, ...] = ("cut", "constant", "cycle", "mirror")


def frames_together(source: int, driving: int, policy: LengthPolicy) -> int:
    """How many frames a source and a driving of so many frames make: the shorter's with "cut" (the released
    program), else the longer's.
    """
    _check(policy)
    return min(source, driving) if policy == "cut" else max(source, driving)


def frames_of(count: int, wanted: np.ndarray, policy: LengthPolicy) -> np.ndarray:
    """The frames, 0 to count - 1, that a clip of `count` frames shows at the times `wanted` (n,) from 0 on.

    Past its end "constant" holds the last frame, "cycle" starts over and "mirror" runs back and forth
    without showing the turning frames twice; "cut" has nothing there. InputError for that and for a clip
    without frames.
    """
    _check(policy)
    wanted = np.asarray(wanted, dtype=np.intp)
    if count < 1:
        raise InputError("A clip without frames cannot be shown.", "Choose another file or range of frames.")
    if policy == "cut" and np.any(wanted >= count):
        raise InputError(
            f"The shorter clip has no frame {int(wanted.max())}.", "Choose constant, cycle or mirror."
        )
    if policy == "cycle":
        return wanted % count
    if policy == "mirror":
        way = max(2 * (count - 1), 1)
        there = wanted % way
        return np.minimum(there, way - there)
    return np.minimum(wanted, count - 1)


def take(motion: Motion, frames: np.ndarray) -> Motion:
    """The frames (n,) of a motion in the order given, at its rate and start."""
    arrays = {name: getattr(motion, name) for name in FRAME_SHAPES}
    picked = {name: array[frames] for name, array in arrays.items() if array is not None}
    return replace(motion, **picked)


def in_step(source: Motion, driving: Motion, policy: LengthPolicy) -> tuple[Motion, Motion]:
    """Source and driving with as many frames as each other, by the policy. InputError for an empty one."""
    together = np.arange(frames_together(len(source), len(driving), policy))
    picked = []
    for motion in (source, driving):
        if len(motion) != len(together):
            motion = take(motion, frames_of(len(motion), together, policy))
        picked.append(motion)
    return picked[0], picked[1]


def _check(policy: str) -> None:
    if policy not in LENGTH_POLICIES:
        raise InputError(
            f"There is no length policy {policy!r}.", f"Use one of {', '.join(LENGTH_POLICIES)}."
        )
