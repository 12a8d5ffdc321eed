# SPDX-License-Identifier: GPL-3.0-or-later
"""Blendshape channels back to implicit keypoints, ratios and gaze: output = neutral + channels @ matrix."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from backend.blendshape_names import CHANNELS
from backend.blendshapes_return import reading_as
from scripts.blendshape_fit.forward import FULL, INPUTS, RELEASED, Map, Sample, spread_of

GAZE = ("gaze_left_x", "gaze_left_y", "gaze_right_x", "gaze_right_y")
OUTPUTS = (*INPUTS, *GAZE)
PENALTY = 0.15  # of a channel's effect, in spreads of the output
#: Weight of coming back: channels that are turned into keypoints and read again should be the same.
RETURN = 1.0
MOVED = 0.03  # standard deviation that a channel must reach in some recording to have any effect
DROPPED = 0.02  # spreads of an output; smaller effects of a whole channel are left out


def full_scores() -> np.ndarray:
    """(52,) MediaPipe's score where ARKit's channel is 1."""
    return np.array([next((f for n, f in FULL.items() if name.startswith(n)), 1.0) for name in CHANNELS])


def fit(samples: Sequence[Sample], forward: np.ndarray) -> np.ndarray:
    """(52, len(OUTPUTS)): what a channel of 1 adds. forward (52, len(INPUTS)): the fitted map there.

    Within each recording, ridge regression of the inputs on the scores, together with: forward of it is the
    identity on the channels that are known.
    """
    spread = spread_of(samples)
    moved = np.array([max(s.scores[:, c].std() for s in samples) >= MOVED for c in range(len(CHANNELS))])
    full = full_scores()
    normal, right = np.zeros((len(CHANNELS),) * 2), np.zeros((len(CHANNELS), len(INPUTS)))
    gaze_normal, gaze_right = normal.copy(), np.zeros((len(CHANNELS), len(GAZE)))
    for s in samples:
        weight = (RELEASED if s.engine == "liveportrait" else 1.0) / len(s.x)
        scores = s.scores / full * moved
        scores = scores - scores.mean(axis=0)
        normal += weight * scores.T @ scores
        right += weight * scores.T @ ((s.x - s.x.mean(axis=0)) / spread)
        if s.gaze is not None:
            looks = scores * [name.startswith("eyeLook") for name in CHANNELS]
            gaze_normal += weight * looks.T @ looks
            gaze_right += weight * looks.T @ (s.gaze - s.gaze.mean(axis=0))
    known = forward.any(axis=1) & moved
    back = (forward * spread)[known]
    # normal B + B return^T return = right, a Sylvester equation: solved in the eigenvectors of both sides.
    size, left_vectors = np.linalg.eigh(normal + PENALTY * np.eye(len(CHANNELS)))
    gain, right_vectors = np.linalg.eigh(RETURN * back.T @ back)
    wanted = right.copy()
    wanted[known] += RETURN * back
    inner = left_vectors.T @ wanted @ right_vectors
    matrix = left_vectors @ (inner / (size[:, None] + gain)) @ right_vectors.T
    matrix[np.abs(matrix) < DROPPED] = 0.0
    matrix[~moved] = 0.0
    gaze = np.linalg.solve(gaze_normal + 0.01 * np.eye(len(CHANNELS)), gaze_right)
    return np.column_stack([matrix * spread, np.where(np.abs(gaze) < 0.005, 0.0, gaze)])


def back(values: np.ndarray, matrix: np.ndarray, fitted: Map, spread: np.ndarray) -> np.ndarray:
    """(n, len(INPUTS)) of channels (n,52), as backend.blendshapes goes back with these maps."""
    known = fitted.coefficients.any(axis=1)
    coefficients = fitted.coefficients[known]
    return reading_as(
        fitted.neutral + values @ matrix[:, : len(INPUTS)],
        values[:, known],
        coefficients,
        -coefficients @ fitted.neutral,
        spread,
        np.where([name.startswith("kp_") for name in INPUTS], -np.inf, 0.0),
    )
