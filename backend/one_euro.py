# SPDX-License-Identifier: GPL-3.0-or-later
"""Causal smoothing for live driving: the one-euro filter (Casiez, Roussel and Vogel, CHI 2012).

A low-pass filter whose cutoff rises with speed: a face at rest is steady, one that moves is hardly late.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from backend.motion import Motion
from backend.rotations import nearest_rotation
from backend.smoothing import LID_KEYPOINTS

DERIVATIVE_CUTOFF = 1.0  # Hz, as published
REST_CUTOFF = 1.5  # Hz at strength 1, for a face at rest
LID_CUTOFF = 6.0  # a blink lasts a tenth of a second

# Hz that one unit a second adds to the cutoff, so that usual movements pass at 10 Hz and more: a head turns
# by 1 rad/s, delta changes by 0.1 /s, the head crosses half a crop and a ratio opens by 1 in a second.
SPEED = {"rotation": 10.0, "expression": 100.0, "scale": 20.0, "translation": 20.0, "gaze": 20.0}
LID_SPEED = 20.0


class OneEuro:
    """Filters arrays of one shape, told in turn; all numbers of an array share the cutoff of their speed.

    rest: cutoff in Hz at rest. speed: Hz for each unit a second. rate: arrays a second.
    """

    def __init__(self, rest: float, speed: float, rate: float) -> None:
        self._rest, self._speed, self._rate = rest, speed, rate
        self._value: np.ndarray | None = None
        self._raw: np.ndarray | None = None
        self._derivative: np.ndarray | None = None

    def __call__(self, value: np.ndarray) -> np.ndarray:
        """The filtered array; the first one as it is."""
        value = np.asarray(value, np.float64)
        if self._value is None or self._raw is None or not np.isfinite(self._value).all():
            self._value, self._raw, self._derivative = value, value, np.zeros_like(value)
            return value
        derivative = (value - self._raw) * self._rate
        assert self._derivative is not None
        self._derivative = self._derivative + self._share(DERIVATIVE_CUTOFF) * (derivative - self._derivative)
        cutoff = self._rest + self._speed * float(np.abs(self._derivative).max())
        self._value = self._value + self._share(cutoff) * (value - self._value)
        self._raw = value
        return self._value

    def _share(self, cutoff: float) -> float:
        """How much of a new value is taken, 0..1."""
        return 1.0 / (1.0 + self._rate / (2 * np.pi * cutoff))


class MotionFilter:
    """One-euro filters for a Motion that comes frame by frame. strength 0 changes nothing, 1 is the usual."""

    def __init__(self, strength: float, rate: float) -> None:
        self._strength = strength
        lid = {"rest": LID_CUTOFF / max(strength, 1e-6), "speed": LID_SPEED, "rate": rate}
        rest = REST_CUTOFF / max(strength, 1e-6)
        self._filters = {name: OneEuro(rest, speed, rate) for name, speed in SPEED.items()}
        self._lids = {name: OneEuro(**lid) for name in ("eye_ratio", "lip_ratio")}
        self._lids["lids"] = OneEuro(lid["rest"], SPEED["expression"], rate)

    def __call__(self, motion: Motion) -> Motion:
        """The next frame (a Motion of one), filtered."""
        if self._strength <= 0:
            return motion
        filtered: dict[str, Any] = {
            name: f(getattr(motion, name)) for name, f in self._filters.items() if name != "gaze"
        }
        filtered |= {name: self._lids[name](getattr(motion, name)) for name in ("eye_ratio", "lip_ratio")}
        filtered["rotation"] = nearest_rotation(filtered["rotation"])
        lids = list(LID_KEYPOINTS)
        filtered["expression"] = filtered["expression"].copy()
        filtered["expression"][:, lids] = self._lids["lids"](motion.expression[:, lids])
        if motion.gaze is not None and np.isfinite(motion.gaze).all():
            filtered["gaze"] = self._filters["gaze"](motion.gaze)
        return replace(motion, **filtered)
