# SPDX-License-Identifier: GPL-3.0-or-later
"""What every way of making frames gives to the writer."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from backend.cropping import SourceCrop
from backend.motion import Motion
from backend.results import Sound


@dataclass
class Staged:
    """Frames on their way: (h,w,3) RGB of `size` (width, height), each valid until the next is asked for.

    alpha (h,w) uint8: the transparency of every frame. bits: 8 or 16. first: number of the first frame that
    is made. total: frames in all, perhaps an estimate. motions: by file name, and warnings: both known once
    all frames are made. face: where the first face is, see `face_in_frames`.
    """

    frames: Generator[np.ndarray, None, None]
    fps: Fraction
    size: tuple[int, int]
    total: int | None
    sound: Sound | None
    motions: Callable[[], Mapping[str, Motion]]
    warnings: Callable[[], list[str]]
    alpha: np.ndarray | None = None
    bits: int = 8
    first: int = 0
    face: Mapping[str, Any] | None = None


def face_in_frames(motion: Motion, crop: SourceCrop, whole: bool, size: tuple[int, int]) -> dict[str, Any]:
    """For result.json, so that others can put something on the face: placement (2,3), coordinates of the crop
    [-1, 1] to pixels of the frames, and scale and translation (2,) of the source's own motion (its first
    frame). whole: frames of `size` (width, height) are whole pictures, else the crop alone."""
    half = 0.5 * np.array(size)
    placement = crop.placement if whole else np.column_stack([np.diag(half), half])
    return {
        "placement": np.round(placement, 3).tolist(),
        "scale": round(float(motion.scale[0]), 5),
        "translation": [round(float(value), 5) for value in motion.translation[0, :2]],
    }
