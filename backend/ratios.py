# SPDX-License-Identifier: GPL-3.0-or-later
"""How far a change of expression opens the eyes and the lips, and where it turns the gaze.

The linear map is fitted on motions that the released LivePortrait measured (scripts/fit_mesh_engine.py).
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from backend.engines.mesh_maps import DATA, LIVE


class Change(NamedTuple):
    """Changes, float32: eye_ratio (n, 2) image-left first, lip_ratio (n,), gaze (n, 2, 2) in eye widths."""

    eye_ratio: np.ndarray
    lip_ratio: np.ndarray
    gaze: np.ndarray


@lru_cache(maxsize=1)
def _map() -> np.ndarray:
    with np.load(DATA, allow_pickle=False) as file:
        return np.asarray(file["ratio_decoder"], dtype=np.float32)


def ratio_change(change: np.ndarray) -> Change:
    """What a change of expression (n, 21, 3) does to the ratios and the gaze.

    The same as MeshMaps.decode gives, without the landmarks, which cost forty times as much.
    """
    values = change.reshape(len(change), 63)[:, LIVE] @ _map()
    return Change(values[:, :2], values[:, 2], values[:, 3:7].reshape(-1, 2, 2))


def _distance(landmarks: np.ndarray, a: int, b: int) -> np.ndarray:
    return np.asarray(np.linalg.norm(landmarks[:, a] - landmarks[:, b], axis=1), dtype=np.float64)


def eye_ratio(landmarks: np.ndarray) -> np.ndarray:
    """Lid distance over eye width, image-left first, (n, 2), in LivePortrait's 203 points (n, 203, 2).

    The released src/utils/retargeting_utils.py.
    """
    pairs = (((6, 18), (0, 12)), ((30, 42), (24, 36)))
    return np.stack(
        [_distance(landmarks, *lids) / (_distance(landmarks, *ends) + 1e-6) for lids, ends in pairs], 1
    )


def lip_ratio(landmarks: np.ndarray) -> np.ndarray:
    """Inner lip distance over mouth width, (n,), in LivePortrait's 203 points (n, 203, 2); as eye_ratio."""
    return _distance(landmarks, 90, 102) / (_distance(landmarks, 48, 66) + 1e-6)
