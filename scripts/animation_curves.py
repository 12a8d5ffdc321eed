# SPDX-License-Identifier: GPL-3.0-or-later
"""Curves as an animator keys them, (n,) float64, one value a frame at FPS."""

from __future__ import annotations

import numpy as np

FPS = 30


def keys(n: int, *pairs: tuple[float, float]) -> np.ndarray:
    """(n,) curve through (frame, value): monotone between keys, flat at turning points (Fritsch-Carlson)."""
    x, y = np.array(pairs, dtype=float).T
    h, slope = np.diff(x), np.diff(y) / np.diff(x)
    tangent = np.zeros(len(x))
    same = slope[:-1] * slope[1:] > 0
    w1, w2 = 2 * h[1:] + h[:-1], h[1:] + 2 * h[:-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        tangent[1:-1] = np.where(same, (w1 + w2) / (w1 / slope[:-1] + w2 / slope[1:]), 0.0)
    at = np.clip(np.arange(n, dtype=float), x[0], x[-1])
    i = np.clip(np.searchsorted(x, at, side="right") - 1, 0, len(h) - 1)
    u = (at - x[i]) / h[i]
    return np.asarray(
        y[i] * (1 + 2 * u) * (1 - u) ** 2
        + y[i + 1] * u * u * (3 - 2 * u)
        + h[i] * (tangent[i] * u * (1 - u) ** 2 - tangent[i + 1] * u * u * (1 - u))
    )


def delay(curve: np.ndarray, frames: float) -> np.ndarray:
    """The curve `frames` later (or earlier), held at its ends."""
    at = np.arange(len(curve))
    return np.interp(at - frames, at, curve)


def spring(target: np.ndarray, hertz: float, damping: float) -> np.ndarray:
    """What a mass on a spring does that is pulled along the target: follow-through and overshoot."""
    steps, omega = 8, 2 * np.pi * hertz
    value, speed, result = float(target[0]), 0.0, np.empty(len(target))
    for i, goal in enumerate(target):
        for _ in range(steps):
            speed += (omega * omega * (goal - value) - 2 * damping * omega * speed) / (FPS * steps)
            value += speed / (FPS * steps)
        result[i] = value
    return result


def bump(n: int, at: float, rise: float, fall: float) -> np.ndarray:
    """(n,) curve that goes from 0 to 1 at frame `at` and back."""
    return keys(n, (at - rise, 0.0), (at, 1.0), (at + fall, 0.0))


def soften(curve: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian average over frames."""
    radius = int(4 * sigma) + 1
    taps = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    return np.convolve(np.pad(curve, radius, mode="edge"), taps / taps.sum(), mode="valid")
