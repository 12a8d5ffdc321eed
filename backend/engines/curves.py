# SPDX-License-Identifier: GPL-3.0-or-later
"""Smooth outlines: closed curves through landmarks and their soft masks."""

from __future__ import annotations

import cv2
import numpy as np

_STEPS = 4
_T = np.arange(_STEPS) / _STEPS
# Catmull-Rom basis, rows: weights of the points before, at, after and two after.
_BASIS = 0.5 * np.stack(
    [-_T + 2 * _T**2 - _T**3, 2 - 5 * _T**2 + 3 * _T**3, _T + 4 * _T**2 - 3 * _T**3, -(_T**2) + _T**3]
)


def closed_curve(points: np.ndarray) -> np.ndarray:
    """(n,2) -> (4n,2): a Catmull-Rom curve through the points of a closed loop."""
    stacked = np.stack(
        [np.roll(points, 1, axis=0), points, np.roll(points, -1, axis=0), np.roll(points, -2, axis=0)], axis=1
    )
    return np.einsum("kt,nkc->ntc", _BASIS, stacked).reshape(-1, 2)


def polygon_alpha(curve: np.ndarray, size: tuple[int, int], feather: float) -> np.ndarray:
    """Soft mask float32 0..1 of `size` (h,w) of a polygon in continuous pixels; feather: sigma of its edge
    in pixels.
    """
    mask = np.zeros(size, np.uint8)
    points = np.round((curve - 0.5) * 16).astype(np.int32)
    cv2.fillPoly(mask, [points], (255,), lineType=cv2.LINE_AA, shift=4)
    alpha: np.ndarray = mask.astype(np.float32) * np.float32(1.0 / 255.0)
    if feather > 0.3:
        alpha = cv2.GaussianBlur(alpha, (0, 0), feather)
    return alpha


def patch_round(points: np.ndarray, pad: int, size: tuple[int, ...]) -> tuple[int, int, int, int] | None:
    """x0, y0, x1, y1 of the pixels round points (n,2) and `pad` more, inside a picture of `size` (h,w);
    None if empty.
    """
    x0, y0 = np.maximum(np.floor(points.min(axis=0)).astype(int) - pad, 0)
    x1, y1 = np.minimum(np.ceil(points.max(axis=0)).astype(int) + pad, (size[1], size[0]))
    return (int(x0), int(y0), int(x1), int(y1)) if x1 - x0 >= 2 and y1 - y0 >= 2 else None
