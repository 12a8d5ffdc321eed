# SPDX-License-Identifier: GPL-3.0-or-later
"""Zero-phase smoothing of per-frame arrays: no lag, and the clip's ends stay in place."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from backend.rotations import quaternion_from_rotation, rotation_from_quaternion, rotation_vector

Array = NDArray[np.float64]

# Widths in frames at strength 1 (reference/mesh-engine.md, section 2).
POSE_SIGMA = 1.5
EXPRESSION_SIGMA = 1.0
# A blink lasts three to five frames; anything wider than this eats it, so strength never widens it either.
LID_SIGMA = 0.5
LID_KEYPOINTS = (11, 13, 15, 16)

# "auto": this much shake of the head, in degrees, is what strength 1 is for.
_AUTO_SHAKE = 0.2
_AUTO_MAXIMUM = 1.5
# Median of -a[k] a[k+1] for second differences a of white noise of deviation 1 (two million samples).
_WHITE_REVERSAL = 1.475


def gaussian(values: ArrayLike, sigma: float) -> Array:
    """Gaussian average over axis 0 of (n, …), sigma in frames, the ends mirrored; n and shape stay.

    NaN entries count as not measured: they stay NaN and do not touch their neighbours.
    """
    x = np.asarray(values, np.float64)
    n = len(x)
    if sigma <= 0.0 or n < 2:
        return x.copy()
    radius = max(1, int(np.ceil(4.0 * sigma)))
    taps = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    taps /= taps.sum()
    # Mirror with the end frame repeated; the modulo folds kernels wider than the clip back and forth.
    index = np.arange(-radius, n + radius) % (2 * n)
    index = np.where(index < n, index, 2 * n - 1 - index)
    missing = np.isnan(x)
    if not missing.any():
        return _correlate(x[index], taps, n)
    weight = _correlate((~missing)[index].astype(np.float64), taps, n)
    total = _correlate(np.where(missing, 0.0, x)[index], taps, n)
    return np.where(missing, np.nan, total / np.maximum(weight, 1e-300))


def _correlate(padded: Array, taps: Array, n: int) -> Array:
    out = np.zeros((n, *padded.shape[1:]))
    for k, weight in enumerate(taps):
        out += weight * padded[k : k + n]
    return out


def smooth_rotations(rotations: ArrayLike, sigma: float) -> Array:
    """Gaussian average of (n,3,3) rotations over frames; the result is exactly orthonormal."""
    q = quaternion_from_rotation(rotations)
    # q and -q are one rotation: walk along the clip with the sign that keeps neighbours together.
    flips = np.where(np.sum(q[1:] * q[:-1], axis=-1) < 0, -1.0, 1.0)
    q[1:] *= np.cumprod(flips)[:, None]
    return rotation_from_quaternion(gaussian(q, sigma))


def shake_degrees(rotations: ArrayLike) -> float:
    """Frame-to-frame noise of the head in (n,3,3) rotations: deviation about its worst axis in degrees.

    Noise throws the head back in the next frame, so that one acceleration is the other's opposite; motion
    that is meant, even a quick shake of the head, does not. 0 below five frames.
    """
    r = np.asarray(rotations, np.float64)
    if len(r) < 5:
        return 0.0
    steps = np.degrees(rotation_vector(np.swapaxes(r[:-1], -1, -2) @ r[1:]))
    acceleration = np.diff(steps, axis=0)
    reversal = -np.median(acceleration[1:] * acceleration[:-1], axis=0).min()
    return float(np.sqrt(max(0.0, reversal / _WHITE_REVERSAL)))


def automatic_strength(rotations: ArrayLike) -> float:
    """The smoothing strength that suits a clip's own shake: 0 for a steady head, at most 1.5."""
    return float(min(shake_degrees(rotations) / _AUTO_SHAKE, _AUTO_MAXIMUM))
