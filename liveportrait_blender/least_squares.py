# SPDX-License-Identifier: GPL-3.0-or-later
"""Least squares with bounds, small and exact: Blender brings numpy but no scipy. Imports no bpy."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

_ROUNDS = 50  # times the number of unknowns; each round moves one of them onto or off a bound


def bounded(matrix: np.ndarray, target: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """The x (m,) that minimises |matrix x - target|^2 with low <= x <= high, float64.

    matrix (n,m), target (n,), low and high (m,), which may be infinite. Lawson and Hanson's active-set
    method as Stark and Parker have it for two bounds (BVLS): ends at a point that satisfies the conditions
    of the optimum. If columns depend on each other, one of the solutions is given.

    Raises:
        ValueError: shapes do not fit, something is not finite, or low > high.
    """
    import numpy as np

    a, b = np.asarray(matrix, np.float64), np.asarray(target, np.float64)
    low, high = np.asarray(low, np.float64), np.asarray(high, np.float64)
    if a.ndim != 2 or b.shape != (len(a),) or low.shape != high.shape or low.shape != (a.shape[1],):
        raise ValueError(f"shapes {a.shape}, {b.shape}, {low.shape}, {high.shape}")
    if not (np.isfinite(a).all() and np.isfinite(b).all()) or (low > high).any():
        raise ValueError("not finite, or bounds the wrong way round")
    count = a.shape[1]
    x = np.clip(np.zeros(count), low, high)
    free = np.zeros(count, bool)
    scale = max(float(np.abs(a.T @ b).max(initial=0.0)), float((a * a).sum()), 1e-30)
    for _ in range(_ROUNDS * max(count, 1)):
        slope = a.T @ (b - a @ x)  # the way downhill
        gain = np.where(x <= low, slope, np.where(x >= high, -slope, np.abs(slope)))
        gain[free | (low == high)] = -np.inf
        if not count or gain.max() <= 1e-12 * scale:
            return x
        free[gain.argmax()] = True
        x = _settle(a, b, low, high, x, free)
    return x


def _settle(a: np.ndarray, b: np.ndarray, low: np.ndarray, high: np.ndarray, x: np.ndarray, free: np.ndarray):
    """Solve for the free unknowns; those that leave their bounds stop there and are free no more."""
    import numpy as np

    x = x.copy()
    while free.any():
        held = a[:, ~free] @ x[~free]
        wanted = np.linalg.lstsq(a[:, free], b - held, rcond=None)[0]
        at, bottom, top = x[free], low[free], high[free]
        outside = (wanted < bottom) | (wanted > top)
        if not outside.any():
            x[free] = wanted
            break
        edge = np.where(wanted < bottom, bottom, top)
        way = np.where(outside, wanted - at, 1.0)
        share = np.where(outside, (edge - at) / np.where(way == 0, 1.0, way), np.inf)
        step = min(max(float(share.min()), 0.0), 1.0)
        moved = at + step * (wanted - at)
        stops = outside & (share <= share.min() + 1e-15)
        moved[stops] = edge[stops]
        x[free] = np.clip(moved, bottom, top)
        free[np.flatnonzero(free)[stops]] = False
    return x
