# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the face hides what lies behind it: a turned jaw before the neck, a cheek before the hair.

The skin layer's one map jumps there, and between the two sides it would pass over all of the picture that
lies in between: a thin, ragged line of some other colour. So along such a seam the face and what is behind it
are shown by a map of their own each, and the face's outline parts them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

SHIFT = 4  # fixed-point bits of the rasteriser
JUMP = 1.2  # map cells by which the two sides must differ
REACH = 3  # map cells on both sides of the outline that are drawn anew
SOFTNESS = 0.010  # eye units: sigma of the outline's edge
_ROW = 1024  # OpenCV maps at most 32767 pixels a side, so lists of pixels go as rows of so many


@dataclass
class Seam:
    """One frame's seams, in a box of the map.

    origin: column and row of the box; weight (h,w) float32: 1 along the seams; face, behind (2,h,w) float32:
    displacements in map cells, each as if the other was not there; triangles (t,3,2): the face's near the
    seams, map cells.
    """

    origin: tuple[int, int]
    weight: np.ndarray
    face: np.ndarray
    behind: np.ndarray
    triangles: np.ndarray


def find_seam(
    ids: np.ndarray, behind: np.ndarray, first: int, coefficients: np.ndarray, corners: np.ndarray
) -> Seam | None:
    """The seams of a frame, or None.

    ids, behind (map rows, map columns) int32: the triangle shown in each cell, and the one without the face,
    whose triangles are `first` and above; coefficients (1+t,6) and corners (t,3,2) as in mesh_warp, triangle
    0 being the picture at rest.
    """
    height, width = ids.shape
    pad = 2 * REACH
    low, high = corners[first - 1 :].min(axis=(0, 1)), corners[first - 1 :].max(axis=(0, 1))
    x0, y0 = np.maximum(np.floor(low).astype(int) - pad, 0)
    x1, y1 = np.minimum(np.ceil(high).astype(int) + pad, (width, height))
    ids, behind = ids[y0:y1, x0:x1], behind[y0:y1, x0:x1]
    shown = np.where(ids >= first, ids, 0).astype(np.uint16)
    # Closed: a sliver of a triangle that is turned away leaves a hole in the face, which is no outline.
    face = cv2.morphologyEx((shown > 0).view(np.uint8), cv2.MORPH_CLOSE, _square(2))
    rows, columns = np.nonzero(cv2.morphologyEx(face, cv2.MORPH_GRADIENT, _square(1)))
    near = cv2.dilate(shown, _square(1))  # later triangles are nearer
    own = np.where(shown > 0, shown, near)[rows, columns]
    apart = _displaced(coefficients, own, rows + y0, columns + x0)
    apart -= _displaced(coefficients, behind[rows, columns], rows + y0, columns + x0)
    jumps = (np.abs(apart).max(axis=0) > JUMP) & (own > 0)
    if not jumps.any():
        return None
    rows, columns = rows[jumps], columns[jumps]
    top, bottom = max(int(rows.min()) - pad, 0), int(rows.max()) + pad + 1
    left, right = max(int(columns.min()) - pad, 0), int(columns.max()) + pad + 1
    box = np.s_[top:bottom, left:right]
    seam = np.zeros(ids.shape, np.uint8)
    seam[rows, columns] = 1
    seam, ids, behind = seam[box], ids[box], behind[box]
    # The face a little beyond its outline: the triangle there, continued.
    own = shown[box]
    for _ in range(REACH):
        own = np.where(own > 0, own, cv2.dilate(own, _square(2)))
    cells = np.unique(ids[(cv2.dilate(seam, _square(pad)) > 0) & (ids >= first)]) - 1
    weight = cv2.blur(
        cv2.dilate(seam, _square(REACH)).astype(np.float32), (3, 3), borderType=cv2.BORDER_REPLICATE
    )
    origin = int(x0) + left, int(y0) + top
    y, x = np.mgrid[: ids.shape[0], : ids.shape[1]]
    return Seam(
        origin,
        weight,
        _smooth(_displaced(coefficients, own, y + origin[1], x + origin[0])),
        _smooth(_displaced(coefficients, behind, y + origin[1], x + origin[0])),
        corners[cells],
    )


def _square(reach: int) -> np.ndarray:
    return np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)


def _displaced(coefficients: np.ndarray, ids: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> Any:
    """Displacement (2,...) float32 of cells, each by its triangle."""
    a, b, c, d, e, f = (column.take(ids) for column in coefficients.T)
    x, y = columns.astype(np.float32) + np.float32(0.5), rows.astype(np.float32) + np.float32(0.5)
    return np.stack([a * x + b * y + c - x, d * x + e * y + f - y])


def _smooth(planes: np.ndarray) -> np.ndarray:
    return np.stack([cv2.GaussianBlur(plane, (5, 5), 0.8) for plane in planes])


def draw_seam(
    seam: Seam,
    region: np.ndarray,
    out: np.ndarray,
    map_size: tuple[int, int],
    unit: float,
    background: tuple[np.ndarray, np.ndarray, float] | None,
) -> None:
    """Draw the seams into out (h,w,3) in place.

    region (h,w,3) uint8: the source; map_size: columns, rows; unit: pixels of an eye unit; background: plate
    (h,w,3), cover (map rows, map columns) and how far the plate shows, 0..1.
    """
    height, width = region.shape[:2]
    to_x, to_y = width / map_size[0], height / map_size[1]
    rows, columns = seam.weight.shape
    left, top = int(seam.origin[0] * to_x), int(seam.origin[1] * to_y)
    right = min(int(np.ceil((seam.origin[0] + columns) * to_x)), width)
    bottom = min(int(np.ceil((seam.origin[1] + rows) * to_y)), height)
    # Which of the box's pixels lie along a seam, and where those are in the box's cells.
    scale = np.array([[1 / to_x, 0, 0], [0, 1 / to_y, 0]])
    scale[:, 2] = np.array([left + 0.5, top + 0.5]) / (to_x, to_y) - seam.origin - 0.5
    weight = cv2.warpAffine(
        seam.weight, scale, (right - left, bottom - top), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    )
    y, x = np.nonzero(weight > 0.02)
    count = len(y)
    if not count:
        return
    length = -(-count // _ROW) * _ROW

    def listed(values: np.ndarray) -> np.ndarray:
        return np.resize(values.astype(np.float32), length).reshape(-1, _ROW)

    cell_x, cell_y = listed(x * scale[0, 0] + scale[0, 2]), listed(y * scale[1, 1] + scale[1, 2])

    def at(picture: np.ndarray, px: np.ndarray, py: np.ndarray, border: int) -> np.ndarray:
        found = cv2.remap(picture, px, py, cv2.INTER_LINEAR, borderMode=border)
        return found.reshape(length, *picture.shape[2:])[:count]

    full_x, full_y = listed(x + left), listed(y + top)
    sides = []
    for plane in (seam.face, seam.behind):
        dx, dy = (
            cv2.remap(part, cell_x, cell_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            for part in plane
        )
        px, py = full_x + dx * np.float32(to_x), full_y + dy * np.float32(to_y)
        sides.append((at(region, px, py, cv2.BORDER_REFLECT_101).astype(np.float32), px, py))
    (face, _, _), (behind, px, py) = sides
    y, x = y + top, x + left
    if background is not None:
        plate, cover, shown = background
        map_x, map_y = (px + 0.5) / to_x - 0.5, (py + 0.5) / to_y - 0.5
        covered = 1.0 - (1.0 - at(cover, map_x, map_y, cv2.BORDER_REPLICATE)) * np.float32(shown)
        behind += (plate[y, x] - behind) * (1.0 - covered)[:, None]

    alpha = _outline(seam, (left, top, right, bottom), (to_x, to_y), unit)[y - top, x - left]
    mixed = behind + (face - behind) * alpha[:, None]
    before = out[y, x]
    share = np.minimum(weight[y - top, x - left] * 1.5, 1.0)[:, None]
    out[y, x] = np.clip(before + (mixed - before) * share + 0.5, 0, 255).astype(np.uint8)


def _outline(
    seam: Seam, box: tuple[int, int, int, int], scale: tuple[float, float], unit: float
) -> np.ndarray:
    """How far the face covers each pixel of a box, 0..1; a little less than its landmarks say, since just
    outside them lies something else.
    """
    left, top, right, bottom = box
    mask = np.zeros((bottom - top, right - left), np.uint8)
    corners = seam.triangles * scale - (left, top)
    fixed = np.round((corners - 0.5) * (1 << SHIFT)).astype(np.int32)
    fill: Any = cv2.fillConvexPoly  # its stubs want a sequence as colour; a plain number is quicker
    for corner in fixed:
        fill(mask, corner, 255, shift=SHIFT)
    sigma = max(0.7, SOFTNESS * unit)
    soft = cv2.GaussianBlur(mask, (0, 0), sigma).astype(np.float32) / np.float32(255)
    inside = np.clip((soft - 0.4) / 0.6, 0.0, 1.0)
    return np.asarray(inside * inside * (3.0 - 2.0 * inside))
