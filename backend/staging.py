# SPDX-License-Identifier: GPL-3.0-or-later
"""What every way of making frames gives to the writer."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from backend.motion import Motion
from backend.results import Sound


@dataclass
class Staged:
    """Frames on their way: (h,w,3) RGB of `size` (width, height), each valid until the next is asked for.

    alpha (h,w) uint8: the transparency of every frame. bits: 8 or 16. first: number of the first frame that
    is made. total: frames in all, perhaps an estimate. motions: by file name, and warnings: both known once
    all frames are made.
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
