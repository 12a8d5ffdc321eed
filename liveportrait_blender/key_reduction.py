# SPDX-License-Identifier: GPL-3.0-or-later
"""Fewer keys for a curve: linear keys that stay within a tolerance of every sample. Imports no bpy."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


def reduced(frames: np.ndarray, values: np.ndarray, tolerance: float) -> np.ndarray:
    """Which samples to keep, indices ascending, of frames (n,) ascending and values (n,).

    Straight lines between the kept ones are nowhere further than `tolerance` from a sample, reckoned in
    float32 as Blender keeps keys. First and last are kept; of a constant curve only the first. With a
    tolerance of 0 or less all are kept.

    Douglas and Peucker's way by values, all pieces of a round at once: each that is too far off is cut at its
    worst sample.
    """
    import numpy as np

    count = len(frames)
    frames = np.asarray(frames, np.float32).astype(np.float64)
    values = np.asarray(values, np.float32).astype(np.float64)
    if count == 0 or tolerance <= 0:
        return np.arange(count)
    if (values == values[0]).all():
        return np.zeros(1, int)
    if count < 3:
        return np.arange(count)
    kept = np.zeros(count, bool)
    kept[[0, -1]] = True
    # Rounding of Blender's own float32 interpolation stays inside what is promised.
    limit = max(tolerance - 4e-7 * max(1.0, float(np.abs(values).max())), 0.0)
    starts, stops = np.array([0]), np.array([count - 1])
    while len(starts):
        inside = stops - starts - 1
        starts, stops, inside = starts[inside > 0], stops[inside > 0], inside[inside > 0]
        if not len(starts):
            break
        offsets = np.cumsum(inside) - inside
        piece = np.repeat(np.arange(len(starts)), inside)
        at = np.arange(len(piece)) + (starts + 1 - offsets)[piece]
        first, last = starts[piece], stops[piece]
        share = (frames[at] - frames[first]) / (frames[last] - frames[first])
        error = np.abs(values[first] + share * (values[last] - values[first]) - values[at])
        worst = np.maximum.reduceat(error, offsets)
        hits = np.flatnonzero((error == worst[piece]) & (worst > limit)[piece])
        cut, chosen = np.unique(piece[hits], return_index=True)
        middle = at[hits[chosen]]
        kept[middle] = True
        starts, stops = np.append(starts[cut], middle), np.append(middle, stops[cut])
    return np.flatnonzero(kept)


def largest_error(frames: np.ndarray, values: np.ndarray, kept: np.ndarray) -> float:
    """How far straight lines between kept samples are from any sample."""
    import numpy as np

    if len(kept) == 0:
        return 0.0
    return float(np.abs(np.interp(frames, frames[kept], values[kept]) - values).max())
