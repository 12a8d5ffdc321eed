# SPDX-License-Identifier: GPL-3.0-or-later
"""Where MediaPipe's landmarks lie in LivePortrait's canonical space."""

from __future__ import annotations

import numpy as np

from backend.engines.mesh_maps import crop_coordinates, lip_opening
from scripts.mesh_fit.material import SIZE, Clip

# Landmarks that the expression hardly moves, and their weight in the head pose. No jaw, mouth or cheek: an
# open jaw would read as 8 % of scale, a one-sided smile as roll.
NOSE = (168, 6, 197, 195, 5, 4, 122, 351, 196, 419, 3, 248, 8, 193, 417, 245, 465)
EYE_CORNERS = (33, 133, 263, 362, 130, 359, 243, 463)
TEMPLES = (127, 356, 162, 389, 21, 251, 234, 454, 93, 323, 139, 368, 34, 264, 143, 372)
FOREHEAD = (10, 338, 109, 67, 297, 103, 332, 54, 284, 151, 69, 299, 108, 337)
DEPTH_PRIOR = 0.3  # weight of MediaPipe's depth; the clips' small turns of the head weigh about 0.2 together


def rigid_weights() -> np.ndarray:
    """(478,) weights of the head pose."""
    weights = np.zeros(478)
    for indices, weight in ((NOSE, 1.0), (EYE_CORNERS, 1.0), (TEMPLES, 0.5), (FOREHEAD, 0.25)):
        weights[list(indices)] = weight
    return weights


def canonical_landmarks(clips: list[Clip]) -> tuple[np.ndarray, float]:
    """Rest positions (478,3) and the scale of MediaPipe's depth, from clips whose pose the released model
    measured.

    Least squares per landmark over all frames with the lips nearer to closed, each clip counting the same, so
    that s * (L R) + t meets the landmarks' x and y. The clips turn too little to tell the depth alone, so
    MediaPipe's depth, scaled and shifted as fits best, joins as a prior.
    """
    weights = rigid_weights()
    weights /= weights.sum()
    normal = np.zeros((3, 3))
    right = np.zeros((478, 3))
    depth = np.zeros(478)
    for clip in clips:
        assert clip.motion is not None
        points = crop_coordinates(clip.landmarks, SIZE)
        opening = lip_opening(points)
        calm = opening <= np.median(opening)
        share = (1.0 if len(clip) > 1 else 0.5) / calm.sum()
        rotation = clip.motion.rotation[calm].astype(np.float64)
        scale = clip.motion.scale[calm].astype(np.float64)[:, None, None]
        placed = (points[calm] - clip.motion.translation[calm].astype(np.float64)[:, None]) / scale
        seen = rotation[:, :, :2]
        normal += share * np.einsum("nab,ncb->ac", seen, seen)
        right += share * np.einsum("nab,nib->ia", seen, placed[:, :, :2])
        centred = placed - np.einsum("i,nij->nj", weights, placed)[:, None]
        depth += share * np.einsum("nib,nb->i", centred, rotation[:, 2])
    depth /= len([c for c in clips if len(c) > 1]) + 0.5 * len([c for c in clips if len(c) == 1])
    plain = np.linalg.solve(normal, right.T).T
    depth_scale, offset = np.polyfit(depth, plain[:, 2], 1)
    normal[2, 2] += DEPTH_PRIOR
    right[:, 2] += DEPTH_PRIOR * (depth_scale * depth + offset)
    return np.linalg.solve(normal, right.T).T, float(depth_scale)


def _assignment(cost: np.ndarray) -> np.ndarray:
    """Which column (n,) each row of cost (n,n) takes in the cheapest one-to-one assignment (Hungarian
    algorithm)."""
    n = len(cost)
    u, v = np.zeros(n + 1), np.zeros(n + 1)
    row_of = np.full(n + 1, -1)
    for row in range(n):
        row_of[n] = row
        column = n
        least, previous, used = np.full(n, np.inf), np.full(n, n), np.zeros(n + 1, bool)
        while row_of[column] >= 0:
            used[column] = True
            reduced = cost[row_of[column]] - u[row_of[column]] - v[:n]
            better = ~used[:n] & (reduced < least)
            least[better], previous[better] = reduced[better], column
            free = np.where(used[:n], np.inf, least)
            column = int(free.argmin())
            step = free[column]
            u[row_of[used]] += step
            v[used] -= step
            least[~used[:n]] -= step
        while column != n:
            row_of[column] = row_of[previous[column]]
            column = int(previous[column])
    result = np.empty(n, int)
    result[row_of[:n]] = np.arange(n)
    return result


def mirror_pairs(landmarks: np.ndarray) -> tuple[np.ndarray, float]:
    """Each landmark's partner (478,) on the other side and the x of the symmetry plane: the one-to-one
    assignment of the surface to its mirror image with the least squared distances; the irises' ten by their
    order."""
    middle = float(landmarks[[33, 263, 133, 362], 0].mean())
    mirrored = landmarks * (-1.0, 1.0, 1.0) + (2.0 * middle, 0.0, 0.0)
    surface = slice(0, 468)
    cost = ((mirrored[surface, None] - landmarks[None, surface]) ** 2).sum(axis=2)
    partner = _assignment(np.round(cost + cost.T, 12))
    # MediaPipe: centre, then right, top, left, bottom of the image-left iris, and so for the other.
    return np.concatenate([partner, [473, 476, 475, 474, 477, 468, 471, 470, 469, 472]]), middle


def symmetric(landmarks: np.ndarray, partner: np.ndarray) -> np.ndarray:
    """The landmarks (478,3) averaged with their mirror image."""
    middle = float(landmarks[[33, 263, 133, 362], 0].mean())
    mirrored = landmarks[partner] * (-1.0, 1.0, 1.0) + (2.0 * middle, 0.0, 0.0)
    return 0.5 * (landmarks + mirrored)
