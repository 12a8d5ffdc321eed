# SPDX-License-Identifier: GPL-3.0-or-later
"""Landmarks to delta: ridge regressions on real pairs, one for each group of implicit keypoints.

The groups' weights of feature blocks and penalties were chosen by the error on the paired clip left out; they
are few and round, since five clips cannot decide more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from backend.engines.mesh_maps import FEATURES, LANDMARKS, LIVE

LIPS = (61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291, 375, 321, 405, 314, 17, 84, 181, 91, 146, 78, 191,
80, 81,
        82, 13, 312, 311, 310, 415, 308, 324, 318, 402, 317, 14, 87, 178, 88, 95, 76, 184, 74, 73, 72, 11,
        302, 303, 304, 408, 306, 307, 320, 404, 315, 16, 85, 180, 90, 77, 62, 183, 42, 41, 38, 12, 268, 271,
        272, 407, 292, 325, 319, 403, 316, 15, 86, 179, 89, 96)  # fmt: skip
LIDS = (246, 161, 160, 159, 158, 157, 173, 7, 163, 144, 145, 153, 154, 155, 33, 133, 466, 388, 387, 386, 385,
384,
        398, 249, 390, 373, 374, 380, 381, 382, 263, 362)  # fmt: skip
AROUND_EYES = (247, 30, 29, 27, 28, 56, 190, 25, 110, 24, 23, 22, 26, 112, 467, 260, 259, 257, 258, 286, 414,
255,
               339, 254, 253, 252, 256, 341)  # fmt: skip
BROWS = (70, 63, 105, 66, 107, 300, 293, 334, 296, 336, 46, 53, 52, 65, 55, 276, 283, 282, 295, 285)
CHIN = (152, 148, 377, 176, 400, 149, 378, 175, 199, 200, 150, 379, 136, 365, 172, 397)
_NAMED = {*LIPS, *LIDS, *AROUND_EYES, *BROWS, *CHIN}
REST = tuple(i for i in range(468) if i not in _NAMED)


def _coordinates(landmarks: Sequence[int]) -> np.ndarray:
    return np.array([2 * i + axis for i in landmarks for axis in (0, 1)])


_AFTER = 2 * LANDMARKS
BLOCKS = {
    "lips": _coordinates(LIPS),
    "lids": _coordinates(LIDS),
    "around_eyes": _coordinates(AROUND_EYES),
    "brows": _coordinates(BROWS),
    "chin": _coordinates(CHIN),
    "rest": _coordinates(REST),
    "eye_opening": np.arange(_AFTER, _AFTER + 2),
    "lip_opening": np.arange(_AFTER + 2, _AFTER + 3),
    "gaze": np.arange(_AFTER + 3, _AFTER + 7),
    "angles": np.arange(_AFTER + 7, _AFTER + 10),
    "place": np.arange(_AFTER + 10, FEATURES),
}


@dataclass(frozen=True)
class Group:
    """keypoints share the weights of the blocks and the penalty; output j's is penalty * (largest / own
    variance)^variance_power, at most 300 times, with the variances over all templates: what moves much is
    believed sooner."""

    keypoints: tuple[int, ...]
    weights: dict[str, float]
    penalty: float
    variance_power: float = 0.5


_FACE = {"lips": 1.0, "lids": 1.0, "around_eyes": 1.0, "brows": 1.0, "chin": 1.0, "rest": 1.0}
GROUPS = (
    Group((11, 13, 15, 16), {**_FACE, "lids": 3.0, "around_eyes": 3.0, "gaze": 0.5, "place": 1.0}, 5e-5),
    Group(
        (14, 17, 19, 20),
        {**_FACE, "lips": 2.0, "lids": 2.0, "lip_opening": 0.5, "gaze": 0.5, "angles": 1.0, "place": 2.0},
        1e-4,
    ),
    Group((1, 2), {**_FACE, "brows": 3.0, "rest": 0.5, "gaze": 0.5, "place": 1.0}, 1e-4),
    Group((0, 3, 4, 5, 7, 10), {**_FACE, "gaze": 0.5, "angles": 1.0, "place": 3.0}, 1e-4),
)
#: The released model's pose minus the geometric one: rotation vector (3), log scale, shift over scale (2).
CORRECTION = Group(
    (), {**_FACE, "brows": 3.0, "chin": 3.0, "rest": 3.0, "angles": 2.0, "lip_opening": 2.0}, 2e-3, 0.0
)
CLIP_POWER = 0.75  # a clip of n frames counts n^(1 - 0.75): more than a frame, less than a person


@dataclass(frozen=True)
class Sample:
    """A paired clip: features (n,FEATURES), delta (n,36) of LIVE, correction (n,6)."""

    name: str
    features: np.ndarray
    delta: np.ndarray
    correction: np.ndarray


def weights_of_frames(lengths: Sequence[int]) -> np.ndarray:
    """Weight of every frame of clips of these lengths, sum 1."""
    weights = np.concatenate([np.full(n, float(n) ** -CLIP_POWER) for n in lengths])
    return weights / weights.sum()


def centred(clips: Sequence[np.ndarray]) -> np.ndarray:
    """The clips' rows, each minus its clip's mean, stacked: whose face it is drops out."""
    return np.concatenate([clip - clip.mean(axis=0) for clip in clips])


def ridge(inputs: np.ndarray, outputs: np.ndarray, weights: np.ndarray, penalties: np.ndarray) -> np.ndarray:
    """(p,q) that minimises sum_i w_i |y_i - x_i B|^2 + penalty_j |B_j|^2 for every output column j."""
    root = np.sqrt(weights)[:, None]
    left, singular, right = np.linalg.svd(inputs * root, full_matrices=False)
    projected = left.T @ (outputs * root)
    return right.T @ (singular[:, None] * projected / (singular[:, None] ** 2 + penalties[None]))


def pooled_variance(expressions: Sequence[np.ndarray]) -> np.ndarray:
    """(36,36) covariance within clips of delta (n,21,3) of the templates, each clip weighted as in the
    fit."""
    live = [e.reshape(-1, 63)[:, LIVE] for e in expressions]
    weights = weights_of_frames([len(e) for e in live])
    stacked = centred(live)
    return (stacked * weights[:, None]).T @ stacked


def fit_encoder(samples: Sequence[Sample], variance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Matrix (FEATURES, 42) and bias (42,): 36 of delta, 6 of the pose correction."""
    inputs = centred([s.features for s in samples])
    weights = weights_of_frames([len(s.features) for s in samples])
    matrix = np.zeros((FEATURES, len(LIVE) + 6))
    delta, correction = centred([s.delta for s in samples]), centred([s.correction for s in samples])
    for group in (*GROUPS, CORRECTION):
        gains = np.zeros(FEATURES)
        for block, gain in group.weights.items():
            gains[BLOCKS[block]] = gain
        used = gains > 0
        if group is CORRECTION:
            columns, outputs, penalties = (
                np.arange(len(LIVE), len(LIVE) + 6),
                correction,
                np.full(6, group.penalty),
            )
        else:
            columns = np.flatnonzero(np.isin(LIVE // 3, group.keypoints))
            own = np.diag(variance)[columns]
            ratio = np.minimum((own.max() / own) ** group.variance_power, 300.0)
            outputs, penalties = delta[:, columns], group.penalty * ratio
        block_matrix = ridge(inputs[:, used] * gains[used], outputs, weights, penalties)
        matrix[np.ix_(used, columns)] = gains[used, None] * block_matrix
    means = np.mean(
        [np.concatenate([s.delta.mean(axis=0), s.correction.mean(axis=0)]) for s in samples], axis=0
    )
    bias = means - np.mean([s.features.mean(axis=0) for s in samples], axis=0) @ matrix
    return matrix, bias
