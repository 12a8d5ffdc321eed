# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a clip cuts from one shot to the next."""

from __future__ import annotations

from collections import deque

import numpy as np

GRID = 24  # cells across and down in which pictures are compared
# Mean change of a cell's colour between two frames, in levels. Clips from a tripod change by up to 10 within
# a shot, from the hand by up to 18, but then their neighbours do so too; cuts between two portraits that look
# much alike start at 14.
LEAST = 12.0
ALWAYS = 45.0
BURST = 2.5  # times the largest change of the last frames, below which it is motion or a flicker
REMEMBERED, KNOWN = 8, 3  # frames that are compared with at most, and at least


class CutDetector:
    """Told the frames of a clip in turn, says which of them begin a new shot."""

    def __init__(self) -> None:
        self._before: np.ndarray | None = None
        self._changes: deque[float] = deque(maxlen=REMEMBERED)

    def is_cut(self, rgb: np.ndarray) -> bool:
        """Whether the next frame (h, w, 3 uint8) begins a new shot; the first frame does not."""
        height, width = rgb.shape[:2]
        step_y, step_x = max(height // GRID, 1), max(width // GRID, 1)
        # The mean of four points a cell: enough against noise, and no pass over the whole picture.
        cells = np.zeros(rgb[step_y // 4 :: step_y, step_x // 4 :: step_x].shape, np.float32)
        for y in (step_y // 4, 3 * step_y // 4):
            for x in (step_x // 4, 3 * step_x // 4):
                part = rgb[y::step_y, x::step_x]
                cells[: part.shape[0], : part.shape[1]] += part[: cells.shape[0], : cells.shape[1]]
        cells /= 4
        before, self._before = self._before, cells
        if before is None or before.shape != cells.shape:
            return before is not None
        change = float(np.abs(cells - before).mean())
        known = len(self._changes) >= KNOWN
        cut = change > ALWAYS or (known and change > LEAST and change > BURST * max(self._changes))
        if cut:
            self._changes.clear()
        else:
            self._changes.append(change)
        return cut
