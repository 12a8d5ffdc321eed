# SPDX-License-Identifier: GPL-3.0-or-later
"""The skin layer: one backward map a frame, rasterised small from the moved triangles, applied to the
source's own pixels.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from ..rotations import euler_from_rotation
from .mesh_motion import Targets
from .mesh_seam import SHIFT, Seam, draw_seam, find_seam
from .mesh_source import MeshAppearance, smoothstep, to_pixels
from .mesh_topology import EYES, FACE_POINTS

FAR_TURN = 8.0  # degrees back to the front over which the far side comes to be shown from further inside
STRETCH = 6.0  # times a triangle may be enlarged before it counts as a sliver
STILL = 0.005  # map cells up to which a vertex has not moved
SLIVER = 0.8  # map cells: how thin
PLATE_FADE = 0.03  # eye units of head motion over which the background's plate fades in
LID_PROFILE = np.array([0.5, 0.8, 1.0, 1.0, 1.0, 0.8, 0.5])


def affine(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """(t,3,2) triangles -> (t,6) coefficients of the map from target to source points.

    Where a sliver of a triangle would be stretched more than STRETCH times, it is moved as a whole instead.
    """
    e1, e2 = target[:, 1] - target[:, 0], target[:, 2] - target[:, 0]
    s1, s2 = source[:, 1] - source[:, 0], source[:, 2] - source[:, 0]
    det = e1[:, 0] * e2[:, 1] - e1[:, 1] * e2[:, 0]
    safe = np.where(np.abs(det) < 1e-6, 1e-6, det)[:, None]
    a = (s1 * e2[:, 1:2] - s2 * e1[:, 1:2]) / safe
    b = (s2 * e1[:, 0:1] - s1 * e2[:, 0:1]) / safe
    wild = np.maximum(np.abs(a), np.abs(b)).max(axis=1) > STRETCH
    a[wild], b[wild] = (1.0, 0.0), (0.0, 1.0)
    middle = target.mean(axis=1)
    c = source.mean(axis=1) - a * middle[:, 0:1] - b * middle[:, 1:2]
    return np.stack([a[:, 0], b[:, 0], c[:, 0], a[:, 1], b[:, 1], c[:, 1]], axis=1)


def _source_points(app: MeshAppearance, targets: Targets, k: int) -> np.ndarray:
    """Source vertices in pixels. Behind a closing lid they slide off the eyeball, so no white is dragged
    along; on the far side of a face that turns back to the front they slide off the outline, so no hair is.
    """
    opening = targets.opening[k]
    back = 0.0
    if app.far is not None:
        yaw = float(euler_from_rotation(targets.pose[1][k : k + 1])[1][0])
        back = float(smoothstep(np.array(-yaw * app.far_side / FAR_TURN)))
    if (opening >= 1.0).all() and back <= 0.0:
        return app.rest_px
    points = app.rest_px.copy()
    if app.far is not None:
        points[:FACE_POINTS] += back * app.far
    for side, eye in enumerate(EYES):
        closed = max(0.0, 1.0 - float(opening[side]))
        if closed == 0.0:
            continue
        outer, inner = points[eye.corners[0]], points[eye.corners[1]]
        axis = inner - outer
        down = np.array([-axis[1], axis[0]])
        if down @ (points[eye.lower[3]] - points[eye.upper[3]]) < 0:
            down = -down
        points[list(eye.upper)] -= down * (0.03 * closed * LID_PROFILE)[:, None]
        points[list(eye.lower)] += down * (0.10 * closed * LID_PROFILE)[:, None]
    return points


def skin_map(app: MeshAppearance, targets: Targets, k: int) -> tuple[np.ndarray, np.ndarray, Seam | None]:
    """Displacement planes dx, dy (map rows, map columns) float32 in region pixels: target pixel -> source
    pixel; and where they jump.
    """
    width, height = app.map_size
    to_map = np.array([width / app.region.shape[1], height / app.region.shape[0]])
    face_px = to_pixels(targets.face[k, :FACE_POINTS], app.placement)
    outer_px = to_pixels(targets.outer[k], app.placement)
    target = np.concatenate([face_px, outer_px]) * to_map
    source = _source_points(app, targets, k) * to_map
    depth = targets.face[k, :FACE_POINTS, 2]

    face = app.face_triangles
    order = np.argsort(-depth[face].mean(axis=1), kind="stable")
    # What stays where it is need not be drawn.
    moved = np.abs(target - source).max(axis=1) > STILL
    around = app.outer_triangles[moved[app.outer_triangles].any(axis=1)]
    triangles = np.concatenate([around, app.hole_triangles, face[order]])
    corners = target[triangles]
    e1, e2 = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    area = e1[:, 0] * e2[:, 1] - e1[:, 1] * e2[:, 0]
    front = np.flatnonzero(area > 1e-3)  # neither turned away nor closed to a line
    outer = int(np.searchsorted(front, len(around)))
    # Slivers, which the rasteriser draws too wide, lie below what is round them.
    first = front[:outer]
    longest = np.maximum((e1[first] ** 2).sum(axis=1), (e2[first] ** 2).sum(axis=1))
    front[:outer] = first[np.argsort(area[first] ** 2 > SLIVER**2 * longest, kind="stable")]
    triangles, corners = triangles[front], corners[front]
    coefficients = affine(source[triangles], corners).astype(np.float32)
    coefficients = np.concatenate([np.array([[1, 0, 0, 0, 1, 0]], np.float32), coefficients])

    ids = app.buffers.setdefault("ids", np.empty((height, width), np.int32))
    ids.fill(0)
    fixed = np.round((corners - 0.5) * (1 << SHIFT)).astype(np.int32)
    fill: Any = cv2.fillConvexPoly  # its stubs want a sequence as colour; a plain number is quicker
    for i, corner in enumerate(fixed[:outer], start=1):
        fill(ids, corner, i, shift=SHIFT)
    behind = app.buffers.setdefault("behind", np.empty((height, width), np.int32))
    np.copyto(behind, ids)
    for i, corner in enumerate(fixed[outer:], start=outer + 1):
        fill(ids, corner, i, shift=SHIFT)
    if "x" not in app.buffers:
        app.buffers["x"] = np.broadcast_to(np.arange(width, dtype=np.float32) + 0.5, (height, width)).copy()
        app.buffers["y"] = np.broadcast_to(
            np.arange(height, dtype=np.float32)[:, None] + 0.5, (height, width)
        ).copy()
    x, y = app.buffers["x"], app.buffers["y"]
    planes = []
    for row, grid, scale in ((0, x, to_map[0]), (3, y, to_map[1])):
        plane: Any = coefficients[:, row].take(ids)
        plane *= x
        plane += coefficients[:, row + 1].take(ids) * y
        plane += coefficients[:, row + 2].take(ids)
        plane -= grid
        plane *= np.float32(1.0 / scale)
        plane = cv2.GaussianBlur(plane, (5, 5), 0.8)
        plane[[0, -1]] = 0.0  # the border is where the region meets the rest of the picture
        plane[:, [0, -1]] = 0.0
        planes.append(plane)
    return planes[0], planes[1], find_seam(ids, behind, outer + 1, coefficients, corners)


def warp(
    app: MeshAppearance, dx: np.ndarray, dy: np.ndarray, seam: Seam | None, out: np.ndarray, moved: float
) -> None:
    """Apply a small displacement map to the source's pixels into out (h,w,3); zero displacement leaves them
    bit-identical. moved: the head's motion, eye units.
    """
    pixels = app.region
    height, width = pixels.shape[:2]
    if "column" not in app.buffers:
        app.buffers["column"] = np.broadcast_to(np.arange(width, dtype=np.float32), (height, width)).copy()
        app.buffers["row"] = np.broadcast_to(
            np.arange(height, dtype=np.float32)[:, None], (height, width)
        ).copy()
        app.buffers["map_x"] = np.empty((height, width), np.float32)
        app.buffers["map_y"] = np.empty((height, width), np.float32)
    map_x, map_y = app.buffers["map_x"], app.buffers["map_y"]
    for small, grid, full in ((dx, app.buffers["column"], map_x), (dy, app.buffers["row"], map_y)):
        cv2.resize(small, (width, height), dst=full, interpolation=cv2.INTER_LINEAR)
        cv2.add(full, grid, dst=full)
    cv2.remap(pixels, map_x, map_y, cv2.INTER_LINEAR, dst=out, borderMode=cv2.BORDER_REFLECT_101)
    background = None
    if app.plate is not None and app.cover is not None:
        fade = float(smoothstep(np.array(moved / PLATE_FADE)))
        if fade > 0.0:
            background = app.plate, app.cover, fade
            _show_background(app, background, dx, dy, out)
    if seam is not None:
        unit = app.eye_unit * app.scale * float(np.sqrt(abs(np.linalg.det(app.placement[:, :2]))))
        draw_seam(seam, pixels, out, app.map_size, unit, background)


def _show_background(
    app: MeshAppearance,
    background: tuple[np.ndarray, np.ndarray, float],
    dx: np.ndarray,
    dy: np.ndarray,
    out: np.ndarray,
) -> None:
    """Put the plate where the moved person does not cover it. background: plate, cover and how far the plate
    shows.
    """
    plate, cover, fade = background
    columns, rows = app.map_size
    height, width = out.shape[:2]
    x = app.buffers["x"] - np.float32(0.5) + dx * np.float32(columns / width)
    y = app.buffers["y"] - np.float32(0.5) + dy * np.float32(rows / height)
    shown = cv2.remap(cover, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    shown = 1.0 - (1.0 - shown) * np.float32(fade)
    person = app.buffers.setdefault("cover", np.empty((height, width), np.float32))
    cv2.resize(shown, (width, height), dst=person, interpolation=cv2.INTER_LINEAR)
    cv2.blendLinear(out, plate, person, 1.0 - person, dst=out)
