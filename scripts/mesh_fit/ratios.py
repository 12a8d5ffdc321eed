# SPDX-License-Identifier: GPL-3.0-or-later
"""How delta opens the eyes and the lips and turns the gaze, and how landmarks measure the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from backend.engines.mesh_maps import LIVE

#: Columns of the ratio decoder: eye ratios image-left and -right, lip ratio, gaze x, y of the left, of the
#: right.
COLUMNS = 7
SEEN = 0.15  # eye ratio under which the iris is hidden and its position means nothing
GAZE_PENALTY = 1e-6
#: Gaze per unit of .3 upper + lower lid: the published eyeball control moves 11.y, 15.y by -.0005 and 13.y,
#: 16.y by -.00015 a unit, a blink by +.001 and -.0003, which this combination cannot see. Its end, 63 units,
#: is taken for a look up of .15 eye widths; the clips look up and down too little to tell.
GAZE_Y = 8.0


@dataclass(frozen=True)
class RatioSample:
    """A paired clip: delta (n,36) of LIVE; eye (n,2), lip (n,) of LivePortrait; openings (n,3) and gaze
    (n,2,2) of the landmarks."""

    delta: np.ndarray
    eye: np.ndarray
    lip: np.ndarray
    openings: np.ndarray
    gaze: np.ndarray


def live(keypoint: int, axis: int) -> int:
    """Where a number of delta lies among the live ones."""
    return int(np.flatnonzero(3 * keypoint + axis == LIVE)[0])


def _solve(parts: list[tuple[np.ndarray, np.ndarray]], penalty: float = 0.0) -> np.ndarray:
    """Least squares over clips, each centred and counting the same."""
    inputs = np.concatenate([(x - x.mean(axis=0)) / np.sqrt(len(x)) for x, _ in parts])
    outputs = np.concatenate([(y - y.mean(axis=0)) / np.sqrt(len(y)) for _, y in parts])
    return np.linalg.solve(inputs.T @ inputs + penalty * np.eye(inputs.shape[1]), inputs.T @ outputs)


def fit_ratio_decoder(samples: Sequence[RatioSample]) -> np.ndarray:
    """(36,7). Eyes: each from its own two lids, one law for both. Lips: from 19.y and 20.y (more numbers fit
    the two clips that speak better and others worse). Gaze x: from 11.x and 15.x, one law for both eyes."""
    x, y = 0, 1
    lids = ((live(11, y), live(13, y)), (live(15, y), live(16, y)))
    lips = (live(19, y), live(20, y))
    sides = ((live(11, x), live(15, x)), (live(15, x), live(11, x)))
    eye = _solve([(s.delta[:, lids[i]], s.eye[:, i]) for s in samples for i in (0, 1)])
    lip = _solve([(s.delta[:, lips], s.lip) for s in samples])
    parts = []
    for s in samples:
        seen = s.eye.min(axis=1) > SEEN
        if seen.sum() > 3:
            parts += [(s.delta[seen][:, sides[i]], s.gaze[seen, i, 0]) for i in (0, 1)]
    across = _solve(parts, GAZE_PENALTY)
    decoder = np.zeros((len(LIVE), COLUMNS))
    for i in (0, 1):
        decoder[lids[i], i] = eye
        decoder[sides[i], 3 + 2 * i] = across
        for eye_lids in lids:
            decoder[eye_lids, 4 + 2 * i] = 0.5 * GAZE_Y * np.array([0.3, 1.0])
    decoder[lips, 2] = lip
    return decoder


def fit_calibration(samples: Sequence[RatioSample]) -> tuple[np.ndarray, np.ndarray]:
    """Scale and offset (3,) that take the landmarks' openings to LivePortrait's ratios; both eyes share
    theirs. The lips' come from the clips that speak."""
    scale, offset = np.empty(3), np.empty(3)
    opening = np.concatenate([s.openings[:, :2].ravel() for s in samples])
    scale[:2], offset[:2] = np.polyfit(opening, np.concatenate([s.eye.ravel() for s in samples]), 1)
    speaking = [s for s in samples if np.ptp(s.lip) > 0.1]
    opening = np.concatenate([s.openings[:, 2] for s in speaking])
    scale[2], offset[2] = np.polyfit(opening, np.concatenate([s.lip for s in speaking]), 1)
    return scale, offset


def consistency(decoder: np.ndarray, variance: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Gain (7,36) of the correction delta + (measured - delta @ decoder) @ gain: the least change, in the
    metric of delta's own variance, that makes delta decode to the measured ratios; noise (7,) leaves it some
    freedom."""
    spread = decoder.T @ variance @ decoder + np.diag(noise**2)
    return np.linalg.solve(spread, decoder.T @ variance)
