# SPDX-License-Identifier: GPL-3.0-or-later
"""Motions and a simple engine for the tests of retargeting."""

from __future__ import annotations

from typing import Any

import numpy as np

from backend.motion import Motion
from backend.ratios import ratio_change
from backend.rotations import rotation_from_euler


class LinearEngine:
    """Stitching leaves alone; the retargeting maps are linear and reach their target by `ratio_change`."""

    def __init__(self) -> None:
        lids = np.zeros((2, 21, 3), np.float32)
        lids[0, 11, 1] = lids[1, 15, 1] = -0.01
        answer = ratio_change(lids).eye_ratio
        self.eyes = np.linalg.solve(answer, lids.reshape(2, 63)).reshape(2, 21, 3)
        lips = np.zeros((1, 21, 3), np.float32)
        lips[0, 19, 1] = 0.01
        self.lips = lips[0] / ratio_change(lips).lip_ratio[0]
        self.scale = 1.0

    def stitch(self, source: np.ndarray, driving: np.ndarray) -> np.ndarray:
        return driving

    def retarget_eyes(self, source: np.ndarray, ratios: np.ndarray) -> np.ndarray:
        return self.scale * np.einsum("ne,ekc->nkc", ratios[:, 2:] - ratios[:, :2], self.eyes)

    def retarget_lips(self, source: np.ndarray, ratios: np.ndarray) -> np.ndarray:
        return self.scale * (ratios[:, 1] - ratios[:, 0])[:, None, None] * self.lips


def make(n: int, seed: int = 0, **fields: np.ndarray) -> Motion:
    """n frames of lively but possible motion."""
    r = np.random.default_rng(seed)
    arrays: dict[str, Any] = {
        "rotation": rotation_from_euler(*(8 * r.standard_normal((3, n)))),
        "expression": 0.01 * r.standard_normal((n, 21, 3)),
        "scale": 1.5 + 0.05 * r.standard_normal(n),
        "translation": 0.05 * r.standard_normal((n, 3)) * [1, 1, 0],
        "canonical": np.repeat(0.3 * r.standard_normal((1, 21, 3)), n, 0),
        "eye_ratio": r.uniform(0.05, 0.4, (n, 2)),
        "lip_ratio": r.uniform(0.0, 0.3, n),
    }
    return Motion(**{**arrays, **fields})


def expression_of(x: np.ndarray, source: Motion) -> np.ndarray:
    """delta of keypoints that have the source's own pose, scale and place."""
    moved = (x - source.translation[:, None] * [1, 1, 0]) / source.scale[:, None, None]
    return moved - source.canonical @ source.rotation
