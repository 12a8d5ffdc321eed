# SPDX-License-Identifier: GPL-3.0-or-later
"""Whose pixels are whose where several faces of one picture perform."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from backend.cropping import SourceCrop
from backend.engines.filling import fill
from backend.options import Options

Window = tuple[int, int, int, int]
Place = tuple[float, float, float]

BORDER = 0.25  # face sizes over which one face's territory goes over into the other's
COARSE = 4  # px: territories are smooth, so they are drawn small
FILL_SIDE = 256  # px: what is filled in is smooth, so it is made small


def place_of(crop: SourceCrop, options: Options, size: tuple[int, int]) -> Place:
    """A face's middle (px) and size (px) in a picture of size (width, height)."""
    rect = crop.rect
    if rect is None:
        return size[0] / 2, size[1] / 2, float(max(size))
    cos, sin = np.cos(rect.angle), np.sin(rect.angle)
    x, y = options.crop_x * rect.size, options.crop_y * rect.size
    middle = (rect.cx - cos * x + sin * y, rect.cy - sin * x - cos * y)
    return float(middle[0]), float(middle[1]), rect.size / options.crop_scale


def territory(window: Window, place: Place, others: Sequence[Place]) -> np.ndarray:
    """How far each pixel of a window x0, y0, x1, y1 belongs to the face at `place`, (h,w) f4 0..1: to the one
    that is nearest in its own sizes, softly at the border. Of two faces the weights add up to 1.
    """
    x0, y0, x1, y1 = window
    columns, rows = max((x1 - x0) // COARSE, 2), max((y1 - y0) // COARSE, 2)
    x = x0 + (np.arange(columns) + 0.5) * ((x1 - x0) / columns)
    y = y0 + (np.arange(rows) + 0.5) * ((y1 - y0) / rows)

    def distance(face: Place) -> np.ndarray:
        return np.asarray(np.hypot(x[None] - face[0], y[:, None] - face[1]) / face[2])

    weight = np.ones((rows, columns))
    for other in others:
        nearer = distance(other) - distance(place)
        weight = np.minimum(weight, np.clip(0.5 + nearer / BORDER, 0.0, 1.0))
    return cv2.resize(weight.astype(np.float32), (x1 - x0, y1 - y0), interpolation=cv2.INTER_LINEAR)


def alone(picture: np.ndarray, window: Window, place: Place, others: Sequence[Place]) -> np.ndarray:
    """A window of a picture (h,w,3) uint8 in which the others' territories are filled in from around them, so
    that an engine takes nobody else for a part of this head. The window itself where it holds no territory of
    others.
    """
    x0, y0, x1, y1 = window
    region = picture[y0:y1, x0:x1]
    if not others or not region.size:
        return region
    strange = territory(window, place, others) <= 0
    if not strange.any() or strange.all():
        return region
    factor = min(1.0, FILL_SIDE / max(region.shape[:2]))
    size = (max(2, round(region.shape[1] * factor)), max(2, round(region.shape[0] * factor)))
    small = cv2.resize(region, size, interpolation=cv2.INTER_AREA)
    unknown = cv2.resize(strange.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
    filled = cv2.resize(fill(small, unknown), region.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    return np.where(strange[..., None], filled, region)
