# SPDX-License-Identifier: GPL-3.0-or-later
"""A drawn face that the face model finds, so that speed and memory can be measured without any material."""

from __future__ import annotations

import cv2
import numpy as np

from backend.engines.mesh_maps import MeshMaps
from backend.engines.mesh_topology import EYES, topology

LIGHT = np.array([-0.35, -0.45, -0.82])  # towards the light, in the head frame
SKIN, LIPS, HAIR, BROWS = (225.0, 172.0, 148.0), (176, 92, 88), (60, 42, 32), (75, 52, 40)
IRIS, PUPIL, WHITE, LASHES = (70, 95, 120), (15, 15, 18), (238, 236, 232), (60, 35, 30)
OUTER_LIPS = [61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185]
EYEBROWS = (
    [70, 63, 105, 66, 107, 55, 65, 52, 53, 46],
    [300, 293, 334, 296, 336, 285, 295, 282, 283, 276],
)
SUB = 4  # fractional bits of the drawn coordinates


def drawn_face(size: int) -> np.ndarray:
    """A frontal face with hair and shoulders, (size, size, 3) uint8; the face is about half as wide."""
    points = MeshMaps.load().canonical_landmarks.astype(np.float64)
    unit = size * 0.62
    centre = np.array([size / 2, size * 0.52])
    flat = points[:, :2] * unit + centre
    picture = np.empty((size, size, 3), np.uint8)
    picture[:] = np.linspace((130, 150, 175), (170, 170, 175), size)[:, None]

    def oval(x: float, y: float, width: float, height: float, colour: tuple[int, int, int]) -> None:
        middle = (int(centre[0] + x * unit), int(centre[1] + y * unit))
        axes = (int(width * unit), int(height * unit))
        cv2.ellipse(picture, middle, axes, 0, 0, 360, colour, -1, cv2.LINE_AA)

    oval(0, 0.95, 0.62, 0.45, (60, 80, 120))
    oval(0, 0.45, 0.2, 0.35, (190, 140, 115))
    oval(0, -0.12, 0.42, 0.52, HAIR)
    _skin(picture, points, flat)
    cv2.GaussianBlur(picture, (0, 0), size / 150, dst=picture)
    _fill(picture, flat[OUTER_LIPS], LIPS)
    lips = np.round(flat[topology().inner_lips] * 2**SUB).astype(np.int32)
    cv2.polylines(picture, [lips], True, (110, 50, 50), max(1, size // 200), cv2.LINE_AA, SUB)
    for loop, eye in zip(topology().eye_loops, EYES, strict=True):
        _eye(picture, flat[loop], flat[list(eye.iris)])
    for brow in EYEBROWS:
        _fill(picture, flat[brow], BROWS)
    return picture


def _fill(picture: np.ndarray, outline: np.ndarray, colour: tuple[float, ...]) -> None:
    cv2.fillPoly(picture, [np.round(outline * 2**SUB).astype(np.int32)], colour, cv2.LINE_AA, SUB)


def _skin(picture: np.ndarray, points: np.ndarray, flat: np.ndarray) -> None:
    """The triangles of the face, far to near, shaded by the light."""
    triangles = np.concatenate([topology().triangles, topology().holes])
    corners = points[triangles]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    normal *= -np.sign(normal[:, 2:])
    brightness = np.clip(normal @ LIGHT, 0, 1) * 0.55 + 0.5
    for at in np.argsort(-corners[:, :, 2].mean(axis=1)):
        _fill(picture, flat[triangles[at]], tuple(float(level * brightness[at]) for level in SKIN))


def _eye(picture: np.ndarray, loop: np.ndarray, iris: np.ndarray) -> None:
    _fill(picture, loop, WHITE)
    opening = np.zeros(picture.shape[:2], np.uint8)
    cv2.fillPoly(opening, [np.round(loop * 2**SUB).astype(np.int32)], (255,), cv2.LINE_AA, SUB)
    ball = picture.copy()
    radius = float(np.linalg.norm(iris[0] - iris[1]))
    middle = (int(iris[0, 0] * 2**SUB), int(iris[0, 1] * 2**SUB))
    for share, colour in ((1.0, IRIS), (0.45, PUPIL)):
        cv2.circle(ball, middle, int(share * radius * 2**SUB), colour, -1, cv2.LINE_AA, SUB)
    cv2.copyTo(ball, opening, picture)
    edge = np.round(loop * 2**SUB).astype(np.int32)
    cv2.polylines(picture, [edge], True, LASHES, max(1, len(picture) // 150), cv2.LINE_AA, SUB)
