# SPDX-License-Identifier: GPL-3.0-or-later
"""The smoothing that the released LivePortrait applies to clips as source: for parity, not for quality."""

from __future__ import annotations

import numpy as np

PROCESS_VARIANCE = 1e-5  # released src/utils/filter.py


def kalman_smooth(
    values: np.ndarray, observation_variance: float, process_variance: float = PROCESS_VARIANCE
) -> np.ndarray:
    """Kalman filter and Rauch-Tung-Striebel smoother of a random walk, each element of (n, ...) for itself.

    Initial mean values[0], initial variance 1, unit transition and observation. Rotation matrices smoothed
    this way are no rotations any more, as in the released program. Computed in float64, returned as given.
    """
    observed = np.asarray(values, dtype=np.float64)
    n = len(observed)
    predicted_variance, variance = np.empty(n), np.empty(n)
    spread = 1.0
    for i in range(n):  # scalars: the gains are the same for every element
        predicted_variance[i] = spread
        variance[i] = spread * observation_variance / (spread + observation_variance)
        spread = variance[i] + process_variance
    gain = predicted_variance / (predicted_variance + observation_variance)
    mean = observed.copy()
    for i in range(1, n):
        mean[i] = mean[i - 1] + gain[i] * (observed[i] - mean[i - 1])
    smooth = mean.copy()
    for i in range(n - 2, -1, -1):
        smooth[i] += variance[i] / predicted_variance[i + 1] * (smooth[i + 1] - mean[i])
    return smooth.astype(values.dtype)
