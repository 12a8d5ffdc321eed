# SPDX-License-Identifier: GPL-3.0-or-later
"""Clips made of one photograph: faces that move, cross, leave and come back."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from backend import media

FACE = (slice(10, 250), slice(124, 324))  # the astronaut's head, 200 x 240 px
GREY = 96


def head(astronaut: Path, other: bool = False, scale: float = 1.0) -> np.ndarray:
    """The astronaut's head (h,w,3); the `other` person is her mirror image in other colours."""
    rgb = media.read_picture(astronaut).rgb[FACE]
    if other:
        rgb = np.ascontiguousarray(rgb[:, ::-1, ::-1] // 2 + 20)
    return cv2.resize(rgb, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


def scene(
    size: tuple[int, int], placed: Iterable[tuple[np.ndarray, float, float]], level: int = GREY
) -> np.ndarray:
    """A grey picture (width, height) with heads whose middles lie at x, y; later ones are in front."""
    width, height = size
    frame = np.full((height, width, 3), level, np.uint8)
    for picture, x, y in placed:
        h, w = picture.shape[:2]
        left, top = round(x - w / 2), round(y - h / 2)
        x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + w, width), min(top + h, height)
        if x0 < x1 and y0 < y1:
            frame[y0:y1, x0:x1] = picture[y0 - top : y1 - top, x0 - left : x1 - left]
    return frame


def crossing(astronaut: Path, frames: int = 48) -> list[np.ndarray]:
    """Two people who walk past each other, the second one behind: she goes right, he goes left."""
    she, he = head(astronaut, scale=0.8), head(astronaut, other=True, scale=0.7)
    way = np.linspace(100, 540, frames)
    return [scene((640, 240), [(he, 640 - x, 120), (she, x, 125)]) for x in way]


def write_clip(
    path: Path, frames: Iterable[np.ndarray], fps: Fraction = Fraction(25), audio: Path | None = None
) -> Path:
    """An MP4 of frames of one size."""
    writer = None
    for frame in frames:
        if writer is None:
            writer = media.ClipWriter(path, fps, frame.shape[1], frame.shape[0], audio=audio).__enter__()
        writer.write(frame)
    assert writer is not None
    writer.__exit__(None, None, None)
    return path
