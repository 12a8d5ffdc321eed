# SPDX-License-Identifier: GPL-3.0-or-later
"""Delta to displacements of the landmarks: one ridge regression a landmark, in which near keypoints count
most."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from backend.engines.mesh_maps import LANDMARKS, LIVE
from scripts.mesh_fit.encoder import AROUND_EYES, BROWS, CHIN, LIDS, LIPS, centred, weights_of_frames

Pair = tuple[np.ndarray, np.ndarray]

HAIRLINE = (10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 93, 234, 127, 162, 21, 54, 103, 67, 109)
JAW = (172, 136, 150, 149, 176, 148, 152, 377, 400, 378, 379, 365, 397)
# LIDS and AROUND_EYES name the image-left eye's landmarks first.
_EYE_LEFT = (*LIDS[:16], *AROUND_EYES[:14], *range(468, 473))
_EYE_RIGHT = (*LIDS[16:], *AROUND_EYES[14:], *range(473, 478))
#: Keypoints, the landmarks they are about, how far beyond these they reach (canonical units; a face is .62
#: wide) and how much of their say they keep far away. Keypoint 5 has none: it holds the shoulders.
REACH = (
    ((14, 17, 19, 20), (*LIPS, *CHIN, *JAW), 0.14, 0.2),
    ((11, 13), _EYE_LEFT, 0.07, 0.1),
    ((15, 16), _EYE_RIGHT, 0.07, 0.1),
    ((1, 2), (*BROWS,), 0.12, 0.2),
    ((0, 3, 4, 7, 10), (), 0.0, 0.4),
)
PENALTY = 5e-7
REAL_SHARE = (
    0.3  # of the weight, for pairs that the released model measured; the rest is read by the encoder itself
)


def says(rest: np.ndarray) -> np.ndarray:
    """(478,36): how much each live number of delta may say about each landmark, 0..1."""
    result = np.zeros((LANDMARKS, len(LIVE)))
    for keypoints, about, reach, far in REACH:
        gain = np.full(LANDMARKS, far)
        if about:
            gap = np.linalg.norm(rest[:, None, :2] - rest[None, list(about), :2], axis=2).min(axis=1)
            gain = far + (1.0 - far) * np.exp(-((gap / reach) ** 2))
        result[:, np.isin(LIVE // 3, keypoints)] = gain[:, None]
    return result


def fit_decoder(real: Sequence[Pair], read: Sequence[Pair], rest: np.ndarray) -> np.ndarray:
    """(36, 478*3). Pairs of delta (n,36) and head-frame landmarks (n,478,3), a clip each: `real` as the
    released model measured them, `read` as this engine's own encoder does, mirrored ones among them.

    Fitted on both, it undoes what the encoder's shrinkage loses, so that a performance this engine captured
    comes back whole, and still reads templates."""
    share = {True: REAL_SHARE, False: 1.0 - REAL_SHARE}
    weights, inputs, outputs = [], [], []
    for pairs, is_real in ((real, True), (read, False)):
        if not pairs:
            continue
        weights.append(share[is_real] * weights_of_frames([len(d) for d, _ in pairs]))
        inputs.append(centred([d for d, _ in pairs]))
        outputs.append(centred([p.reshape(len(p), -1) for _, p in pairs]))
    w = np.concatenate(weights)[:, None]
    x, y = np.concatenate(inputs), np.concatenate(outputs)
    normal, right = x.T @ (x * w), x.T @ (y * w)
    gains = says(rest)
    decoder = np.zeros((len(LIVE), LANDMARKS, 3))
    right = right.reshape(len(LIVE), LANDMARKS, 3)
    for landmark, gain in enumerate(gains):
        used = gain > 0
        g = gain[used]
        own = normal[np.ix_(used, used)] * np.outer(g, g) + PENALTY * np.eye(len(g))
        solved = np.linalg.solve(own, right[used, landmark] * g[:, None])
        decoder[used, landmark] = solved * g[:, None]
    return (decoder * holds()[:, None]).reshape(len(LIVE), -1)


def holds() -> np.ndarray:
    """(478,): how freely a landmark follows the expression. At the hairline and before the ears MediaPipe's
    mesh follows the brows; the head's outline does not."""
    free = np.ones(LANDMARKS)
    free[list(HAIRLINE)] = 0.3
    return free


def live_limits(expressions: Sequence[np.ndarray]) -> np.ndarray:
    """(36,): twice the furthest that each live number of delta (n,21,3) goes from a template's median, at
    least .01: where what a control asks of it levels off."""
    live = [e.reshape(-1, 63)[:, LIVE] for e in expressions]
    far = np.max([np.abs(e - np.median(e, axis=0)).max(axis=0) for e in live], axis=0)
    return np.maximum(2.0 * far, 0.01)


def limits(pairs: Sequence[Pair]) -> np.ndarray:
    """(478,): how far each landmark goes from a clip's mean in 99.9 % of the frames of the clip where it goes
    furthest, times 1.5, at least .03 canonical units: where displacements of extreme controls level off."""
    far = [np.quantile(np.linalg.norm(p - p.mean(axis=0), axis=2), 0.999, axis=0) for _, p in pairs]
    return np.maximum(1.5 * np.max(far, axis=0), 0.03)
