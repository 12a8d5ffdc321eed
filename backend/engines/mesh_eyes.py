# SPDX-License-Identifier: GPL-3.0-or-later
"""The eye layer: the source's own eyeball under the moved lids, turned by the gaze."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from .curves import closed_curve, patch_round, polygon_alpha
from .filling import fill
from .mesh_topology import EyeRows

FEATHER = 0.020  # eye widths
GAZE_LIMIT = (0.22, 0.16)  # eye widths, sideways and up or down
LID_FILL = (0.03, 0.09)  # eye widths above and below the opening that may still show eyeball or wet rim
LID_FADE = 0.3  # of the eye's opening by which it must close for that to be painted over
LASH_WIDTH = 0.036  # eye widths: thickness of the line between closed lids
LASHES = (0.2, 0.65, 0.68)  # how dark it is: always, by the source's own lashes, at most
IRIS_FALL = (1.0, 2.5)  # iris radii between which the gaze shift dies away


@dataclass
class Eye:
    """texture (h,w,3) uint8: the eyeball, continued beyond the lids; lid, same size: the skin round it,
    closed over the eyeball; origin: their corner in region pixels.
    """

    rows: EyeRows
    loop: np.ndarray
    texture: np.ndarray
    lid: np.ndarray
    origin: np.ndarray
    width: float
    iris: np.ndarray
    radius: float
    solver: np.ndarray  # (3,16): least squares from loop points to an affine map
    lashes: float  # how much darker than the lid its edge is, 0..1


def make_eye(region: np.ndarray, landmarks: np.ndarray, rows: EyeRows, loop: np.ndarray) -> Eye:
    """Cut one eyeball out of a region (h,w,3) with landmarks (478,3) in its pixels."""
    points = landmarks[loop, :2].astype(np.float64)
    corners = landmarks[list(rows.corners), :2].astype(np.float64)
    width = float(np.linalg.norm(corners[1] - corners[0]))
    height, full = region.shape[:2]
    pad = 0.6 * width
    x0, y0 = np.maximum(np.floor(points.min(axis=0) - pad), 0).astype(int)
    x1, y1 = np.minimum(np.ceil(points.max(axis=0) + pad), (full, height)).astype(int)
    x1, y1 = max(x1, x0 + 2), max(y1, y0 + 2)
    patch = region[y0:y1, x0:x1]
    origin = np.array([x0, y0], np.float64)
    alpha = polygon_alpha(closed_curve(points - origin), (patch.shape[0], patch.shape[1]), 0.0)
    # A little inside the lids the pixels are surely eyeball; from there they are continued outwards.
    inside = alpha > 0.9
    size = max(1, round(0.03 * width))
    eroded = cv2.erode(inside.astype(np.uint8), np.ones((2 * size + 1, 1), np.uint8))
    if eroded.any():
        inside = eroded.astype(bool)
    texture = patch.copy()
    if inside.any():
        _, labels = cv2.distanceTransformWithLabels(
            (~inside).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
        )
        colour = np.zeros((int(labels.max()) + 1, 3), np.uint8)
        colour[labels[inside]] = patch[inside]
        filled = colour[labels]
        soft = cv2.GaussianBlur(filled, (0, 0), max(0.6, 0.03 * width))
        texture = np.where(inside[..., None], patch, soft)
    iris = landmarks[list(rows.iris), :2].astype(np.float64)
    radius = float(np.linalg.norm(iris[1:] - iris[0], axis=1).mean())
    base = np.column_stack([points, np.ones(len(points))])
    return Eye(
        rows=rows,
        loop=loop,
        texture=np.ascontiguousarray(texture),
        lid=_closed_over(patch, alpha > 0.05, width),
        origin=origin,
        width=width,
        iris=iris[0],
        radius=max(radius, 0.08 * width),
        solver=np.linalg.pinv(base),
        lashes=_lash_contrast(region, landmarks, rows, width),
    )


def _closed_over(patch: np.ndarray, eyeball: np.ndarray, width: float) -> np.ndarray:
    """A patch (h,w,3) uint8 with its eyeball (h,w) bool and the rim round it filled in from the skin."""
    above, below = (max(1, round(share * width)) for share in LID_FILL)
    # Rows of the kernel over its anchor grow the mask downwards.
    kernel = np.ones((above + below + 1, 2 * above + 1), np.uint8)
    unknown = cv2.dilate(eyeball.astype(np.uint8), kernel, anchor=(above, below)) > 0
    return np.ascontiguousarray(fill(patch, unknown))


def draw_lids(frame: np.ndarray, eye: Eye, lids: np.ndarray, opening: float, maps: tuple) -> None:
    """Draw the skin round a closing eye into frame (h,w,3) in place: none of the eyeball, which the map would
    show where it goes over from the upper lid to the lower one.

    lids (16,2) and opening as for draw_eye; maps: the planes x, y (h,w) float32 that took the skin's pixels
    from the region.
    """
    share = np.clip((1.0 - opening) / LID_FADE, 0.0, 1.0)
    share = float(share * share * (3.0 - 2.0 * share))
    box = patch_round(lids, int(np.ceil(0.25 * eye.width)) + 2, frame.shape[:2])
    if share <= 0.0 or box is None:
        return
    x0, y0, x1, y1 = box
    map_x, map_y = (
        plane[y0:y1, x0:x1] - np.float32(start) for plane, start in zip(maps, eye.origin, strict=True)
    )
    skin = cv2.remap(eye.lid, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    view = frame[y0:y1, x0:x1]
    cv2.addWeighted(skin, share, view, 1.0 - share, 0.0, dst=view)


def _lash_contrast(region: np.ndarray, landmarks: np.ndarray, rows: EyeRows, width: float) -> float:
    """How much darker the upper lid's edge is than the lid, from the source itself."""
    edge, lid = landmarks[list(rows.upper), :2], landmarks[list(rows.upper2), :2]
    steps = np.linspace(-0.06, 0.06, 7)[:, None] * width
    axis = (edge - lid).mean(axis=0)
    axis = axis / (np.linalg.norm(axis) or 1.0)
    height, full = region.shape[:2]

    def light(points: np.ndarray) -> np.ndarray:
        x = np.clip(points[..., 0].astype(int), 0, full - 1)
        y = np.clip(points[..., 1].astype(int), 0, height - 1)
        return region[y, x].astype(np.float64).mean(axis=-1)

    darkest = light(edge[None] + steps[..., None] * axis).min(axis=0)
    return float(np.clip(1.0 - np.median(darkest) / max(float(np.median(light(lid))), 1.0), 0.0, 1.0))


def draw_eye(
    frame: np.ndarray, eye: Eye, lids: np.ndarray, rigid: np.ndarray, opening: float, gaze: np.ndarray
) -> None:
    """Draw one eye into frame (h,w,3) in place.

    lids, rigid (16,2): the loop's points in frame pixels, as moved and under head pose alone; opening 1 =
    as in the source; gaze (2,): change of the iris offset in eye widths, x right and y down in the head's
    frame.
    """
    if opening < 1.0:
        _draw_lashes(frame, eye, lids, 1.0 - opening)
    shift = np.clip(gaze, [-GAZE_LIMIT[0], -GAZE_LIMIT[1]], GAZE_LIMIT)
    if opening <= 0.0 or (abs(opening - 1.0) < 1e-3 and np.abs(shift).max() < 1e-3):
        return
    feather = FEATHER * eye.width
    pad = int(np.ceil(2 * feather)) + 2
    box = patch_round(lids, pad, frame.shape[:2])
    if box is None:
        return
    x0, y0, x1, y1 = box
    origin = np.array([x0, y0], np.float64)
    alpha = polygon_alpha(closed_curve(lids - origin), (y1 - y0, x1 - x0), feather) * min(1.0, 5.0 * opening)

    forward = (eye.solver @ rigid).T  # (2,3) source px -> frame px
    linear = forward[:, :2]
    across = linear @ (eye_axis := _axis(eye))
    length = float(np.linalg.norm(across)) or 1.0
    ex = across / length
    ey = np.array([-ex[1], ex[0]])
    if ey @ (linear @ np.array([-eye_axis[1], eye_axis[0]])) < 0:
        ey = -ey
    middle = forward @ np.append(eye.iris, 1.0)
    move = (ex * shift[0] + ey * shift[1]) * eye.width * length
    # x runs image-left to image-right for both eyes
    px = np.arange(x0, x1) + 0.5
    py = (np.arange(y0, y1) + 0.5)[:, None]
    aim = middle + move
    radius = eye.radius * length
    distance = np.sqrt((px - aim[0]) ** 2 + (py - aim[1]) ** 2) / radius
    fall = np.clip((IRIS_FALL[1] - distance) / (IRIS_FALL[1] - IRIS_FALL[0]), 0.0, 1.0)
    fall = fall * fall * (3.0 - 2.0 * fall)
    qx, qy = px - move[0] * fall, py - move[1] * fall
    if opening > 1.0:  # a wider eye shows its ball a little stretched, not new pixels
        centre = rigid.mean(axis=0)
        along = (qx - centre[0]) * ey[0] + (qy - centre[1]) * ey[1]
        squeeze = along * (1.0 / opening - 1.0)
        qx, qy = qx + squeeze * ey[0], qy + squeeze * ey[1]
    inverse = np.linalg.inv(linear)
    dx, dy = qx - forward[0, 2], qy - forward[1, 2]
    map_x = inverse[0, 0] * dx + inverse[0, 1] * dy - eye.origin[0] - 0.5
    map_y = inverse[1, 0] * dx + inverse[1, 1] * dy - eye.origin[1] - 0.5
    ball = cv2.remap(
        eye.texture,
        map_x.astype(np.float32),
        map_y.astype(np.float32),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    view = frame[y0:y1, x0:x1]
    mixed = view + (ball.astype(np.float32) - view) * alpha[..., None]
    view[:] = np.clip(mixed + 0.5, 0, 255).astype(np.uint8)


def _draw_lashes(frame: np.ndarray, eye: Eye, lids: np.ndarray, closed: float) -> None:
    """A soft dark line along the edge of a closing upper lid, thinner to the corners: the lashes, which the
    stretched lid leaves behind, and the shade between the lids.
    """
    strength = min(LASHES[0] + LASHES[1] * eye.lashes, LASHES[2]) * np.clip((closed - 0.4) / 0.45, 0.0, 1.0)
    if strength <= 0.0:
        return
    edge = closed_curve(lids)
    upper = np.concatenate([edge[4 * 8 :], edge[:1]])  # loop positions 8..16 run along the upper lid
    thickness = LASH_WIDTH * eye.width
    along = np.linspace(0.0, 1.0, len(upper))[:, None]
    half = 0.5 * thickness * np.sin(np.pi * along) ** 0.9
    across = upper[-1] - upper[0]
    across = np.array([-across[1], across[0]]) / (np.linalg.norm(across) or 1.0)
    line = np.concatenate([upper + half * across, (upper - half * across)[::-1]])
    box = patch_round(upper, int(np.ceil(3 * thickness)) + 2, frame.shape[:2])
    if box is None:
        return
    x0, y0, x1, y1 = box
    soft = polygon_alpha(line - (x0, y0), (y1 - y0, x1 - x0), max(0.45, 0.3 * thickness)) * np.float32(
        strength
    )
    view = frame[y0:y1, x0:x1]
    view[:] = (view * (1.0 - soft[..., None]) + 0.5).astype(np.uint8)


def _axis(eye: Eye) -> np.ndarray:
    """Unit vector of the eye's width in source pixels, from image-left to image-right."""
    rightmost = eye.loop[0] == 263
    # solver's columns follow the loop; corners are loop positions 0 (outer) and 8 (inner)
    base = np.linalg.pinv(eye.solver)
    axis = base[8, :2] - base[0, :2]
    axis = -axis if rightmost else axis
    return axis / (np.linalg.norm(axis) or 1.0)
