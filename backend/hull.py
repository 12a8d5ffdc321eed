# SPDX-License-Identifier: GPL-3.0-or-later
"""How large a face is in keypoint space: the volume of the keypoints' convex hull."""

from __future__ import annotations

import numpy as np

from backend.errors import InputError

_FLAT = 1e-12  # of the points' extent cubed: less is no volume


def hull_volume(points: np.ndarray) -> float:
    """The volume of the convex hull of points (k,3), k >= 4. InputError when they lie in a plane.

    Grown point by point: the faces that a new point sees give way to faces from their rim to it.
    """
    points = np.asarray(points, dtype=np.float64)
    extent = float(np.ptp(points, axis=0).max())
    faces = _tetrahedron(points, extent)
    for new in range(len(points)):
        a, b, c = (points[faces[:, i]] for i in range(3))
        seen = np.einsum("fi,fi->f", np.cross(b - a, c - a), points[new] - a) > _FLAT * extent**3
        if not seen.any():
            continue
        edges = {(int(face[i]), int(face[i - 2])) for face in faces[seen] for i in range(3)}
        rim = [(start, end) for start, end in edges if (end, start) not in edges]
        faces = np.concatenate([faces[~seen], [(start, end, new) for start, end in rim]])
    a, b, c = (points[faces[:, i]] - points[0] for i in range(3))
    return float(np.einsum("fi,fi->", np.cross(a, b), c) / 6)


def _tetrahedron(points: np.ndarray, extent: float) -> np.ndarray:
    """Four of the points that span a volume, as outward faces (4,3) of indices."""
    first = int(points[:, 0].argmin())
    away = points - points[first]
    second = int((away**2).sum(axis=1).argmax())
    third = int((np.cross(away[second], away) ** 2).sum(axis=1).argmax())
    heights = away @ np.cross(away[second], away[third])
    fourth = int(np.abs(heights).argmax())
    if not abs(heights[fourth]) > _FLAT * extent**3:
        raise InputError("The keypoints lie in a plane.", "Measure the face again.")
    if heights[fourth] > 0:
        second, third = third, second
    return np.array(
        [
            (first, second, third),
            (first, fourth, second),
            (second, fourth, third),
            (third, fourth, first),
        ]
    )


def motion_multiplier(source: np.ndarray, driving: np.ndarray) -> float:
    """How much larger the source (21,3) is than the driving face (21,3): the root of their volumes' ratio.

    The released src/utils/helper.py calc_motion_multiplier.
    """
    return float(np.sqrt(hull_volume(source) / hull_volume(driving)))
