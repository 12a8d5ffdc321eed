# SPDX-License-Identifier: GPL-3.0-or-later
"""MediaPipe's 478-point face mesh: triangles, loops and the named rows of landmarks that the mesh engine
moves.

"Image-left" eye means the subject's right one, as everywhere in LivePortrait's indices.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

DATA = Path(__file__).resolve().parents[1] / "data" / "face_topology.json"

FACE_POINTS = 468  # the ten iris points that follow are not part of the skin
OUTER_EYE_CORNERS = (33, 263)
CHIN = (152, 148, 377, 175, 199)
CHEEKS = (50, 280, 205, 425, 187, 411)
TRAGUS = (234, 454)


@dataclass(frozen=True)
class EyeRows:
    """Landmark rows of one eye, from the outer to the inner side; `upper[i]` lies above `lower[i]`."""

    corners: tuple[int, int]  # outer, inner
    iris: tuple[int, ...]  # centre first
    upper: tuple[int, ...]
    lower: tuple[int, ...]
    upper2: tuple[int, ...]  # the crease
    upper3: tuple[int, ...]  # between crease and brow
    lower2: tuple[int, ...]


EYES = (
    EyeRows(
        corners=(33, 133),
        iris=(468, 469, 470, 471, 472),
        upper=(246, 161, 160, 159, 158, 157, 173),
        lower=(7, 163, 144, 145, 153, 154, 155),
        upper2=(247, 30, 29, 27, 28, 56, 190),
        upper3=(113, 225, 224, 223, 222, 221, 189),
        lower2=(25, 110, 24, 23, 22, 26, 112),
    ),
    EyeRows(
        corners=(263, 362),
        iris=(473, 474, 475, 476, 477),
        upper=(466, 388, 387, 386, 385, 384, 398),
        lower=(249, 390, 373, 374, 380, 381, 382),
        upper2=(467, 260, 259, 257, 258, 286, 414),
        upper3=(342, 445, 444, 443, 442, 441, 413),
        lower2=(255, 339, 254, 253, 252, 256, 341),
    ),
)

# Rows of the lips from the inner edge outwards, each from the image-left to the image-right corner.
UPPER_LIP_ROWS = (
    (191, 80, 81, 82, 13, 312, 311, 310, 415),
    (183, 42, 41, 38, 12, 268, 271, 272, 407),
    (184, 74, 73, 72, 11, 302, 303, 304, 408),
    (185, 40, 39, 37, 0, 267, 269, 270, 409),
)
LOWER_LIP_ROWS = (
    (95, 88, 178, 87, 14, 317, 402, 318, 324),
    (96, 89, 179, 86, 15, 316, 403, 319, 325),
    (77, 90, 180, 85, 16, 315, 404, 320, 307),
    (146, 91, 181, 84, 17, 314, 405, 321, 375),
)
INNER_LIP_CORNERS = (78, 308)
LIP_CORNERS = (61, 291)


@dataclass(frozen=True)
class Topology:
    """triangles (852,3); holes (h,3): strips that close both eyes and the mouth; oval (36,); inner_lips
    (20,).
    """

    triangles: np.ndarray
    holes: np.ndarray
    oval: np.ndarray
    eye_loops: tuple[np.ndarray, np.ndarray]
    inner_lips: np.ndarray


def _strip(
    corner_a: int, corner_b: int, upper: tuple[int, ...], lower: tuple[int, ...]
) -> list[tuple[int, int, int]]:
    """Triangles between two rows that share their end points."""
    up = (corner_a, *upper, corner_b)
    low = (corner_a, *lower, corner_b)
    found = []
    for i in range(len(up) - 1):
        if up[i] != low[i]:
            found.append((up[i], up[i + 1], low[i]))
        if up[i + 1] != low[i + 1]:
            found.append((up[i + 1], low[i + 1], low[i]))
    return found


@cache
def topology() -> Topology:
    data = json.loads(DATA.read_text(encoding="utf-8"))
    holes = [t for eye in EYES for t in _strip(eye.corners[0], eye.corners[1], eye.upper, eye.lower)]
    holes += _strip(*INNER_LIP_CORNERS, UPPER_LIP_ROWS[0], LOWER_LIP_ROWS[0])
    return Topology(
        triangles=np.array(data["triangles"], np.int32),
        holes=np.array(holes, np.int32),
        oval=np.array(data["oval"], np.int32),
        eye_loops=(np.array(data["eye_image_left"], np.int32), np.array(data["eye_image_right"], np.int32)),
        inner_lips=np.array(data["inner_lips"], np.int32),
    )
