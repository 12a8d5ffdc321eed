# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a clip cuts from one shot to the next."""

from __future__ import annotations

import math
from collections import deque

import numpy as np

GRID = 24  # cells across and down in which pictures are compared
# Mean change of a cell's colour between two frames, in levels. Clips from a tripod change by up to 10 within
# a shot, from the hand by up to 18, but then their neighbours do so too; cuts between two portraits that look
# much alike start at 14.
LEAST = 12.0
ALWAYS = 45.0
BURST = 2.5  # times the largest change of the last frames, below which it is motion or a flicker
ELSEWHERE = 25.0  # change over some frames without a face from which this is not the same place any more
REMEMBERED, KNOWN = 8, 3  # frames that are compared with at most, and at least


class CutDetector:
    """Told the frames of a clip in turn, says which of them begin a new shot."""

    def __init__(self) -> None:
        self._before: np.ndarray | None = None
        self._changes: deque[float] = deque(maxlen=REMEMBERED)

    def is_cut(self, rgb: np.ndarray) -> bool:
        """Whether the next frame (h, w, 3 uint8) begins a new shot; the first frame does not."""
        before, self._before = self._before, coarse(rgb)
        change = _change(before, self._before)
        known = len(self._changes) >= KNOWN
        cut = change > ALWAYS or (known and change > LEAST and change > BURST * max(self._changes))
        if cut:
            self._changes.clear()
        else:
            self._changes.append(change)
        return cut


class ShotMarks:
    """Which frames with a face begin a new shot. A flash, or somebody who walks through, begins none: when
    the face is back in the picture that it was in before, that is the same shot.
    """

    def __init__(self) -> None:
        self._detector = CutDetector()
        self._last: np.ndarray | None = None  # the last frame with a face
        self._away = False  # frames without a face came after it
        self._pending = False  # and a cut was among them

    def begins(self, rgb: np.ndarray, has_face: bool) -> bool:
        """Whether the next frame (h, w, 3 uint8) has a face and begins a new shot."""
        self._pending |= self._detector.is_cut(rgb)
        if not has_face:
            self._away = True
            return False
        before, self._last = self._last, coarse(rgb)
        pending, away = self._pending, self._away
        self._pending = self._away = False
        return pending and before is not None and (not away or _change(before, self._last) > ELSEWHERE)


def coarse(rgb: np.ndarray) -> np.ndarray:
    """The picture's cells, about (24, 24, 3) f4."""
    height, width = rgb.shape[:2]
    step_y, step_x = max(height // GRID, 1), max(width // GRID, 1)
    # The mean of four points a cell: enough against noise, and no pass over the whole picture.
    cells = np.zeros(rgb[step_y // 4 :: step_y, step_x // 4 :: step_x].shape, np.float32)
    for y in (step_y // 4, 3 * step_y // 4):
        for x in (step_x // 4, 3 * step_x // 4):
            part = rgb[y::step_y, x::step_x]
            cells[: part.shape[0], : part.shape[1]] += part[: cells.shape[0], : cells.shape[1]]
    cells /= 4
    return cells


def _change(before: np.ndarray | None, after: np.ndarray) -> float:
    """Mean change of a cell's colour, in levels; 0 without a frame before, endless for another size."""
    if before is None:
        return 0.0
    return float(np.abs(after - before).mean()) if before.shape == after.shape else math.inf
