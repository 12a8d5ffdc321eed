# SPDX-License-Identifier: GPL-3.0-or-later
"""The background behind a person: what stays where it is while the head moves.

The person mask is coarse (256 pixels) and soft, so the plate is filled in a little beyond it, where hair
may still show. A picture at rest must come out unchanged all the same: the plate fades in with the head's
motion (see mesh_warp).
"""

from __future__ import annotations

import cv2
import numpy as np

FILLED = 0.08  # mask above which the plate is filled in,
MARGIN = 0.07  # and so many eye units further
SEAM = (0.05, 0.35)  # mask between which a pixel goes from plate to person
REACH = 0.2  # share of the head's motion from which a place can be uncovered


def fill(picture: np.ndarray, unknown: np.ndarray) -> np.ndarray:
    """Fill picture (h,w,3) uint8 where unknown (h,w) bool by push-pull: averages of the known, coarser with
    distance.
    """
    colours: list[np.ndarray] = [picture.astype(np.float32)]
    weights: list[np.ndarray] = [(~unknown).astype(np.float32)]
    colours[0] *= weights[0][..., None]
    while min(weights[-1].shape) > 2 and (weights[-1] <= 0).any():
        size = ((weights[-1].shape[1] + 1) // 2, (weights[-1].shape[0] + 1) // 2)
        colours.append(cv2.resize(colours[-1], size, interpolation=cv2.INTER_AREA))
        weights.append(cv2.resize(weights[-1], size, interpolation=cv2.INTER_AREA))
    coarse = colours[-1] / np.maximum(weights[-1], 1e-6)[..., None]
    for colour, weight in zip(colours[-2::-1], weights[-2::-1]):
        finer = cv2.resize(coarse, weight.shape[::-1], interpolation=cv2.INTER_LINEAR)
        trust = np.clip(weight * 2.0, 0.0, 1.0)[..., None]
        coarse = colour / np.maximum(weight, 1e-6)[..., None] * trust + finer * (1.0 - trust)
    return np.where(unknown[..., None], np.clip(coarse + 0.5, 0, 255).astype(np.uint8), picture)


def make_plate(
    region: np.ndarray, person: np.ndarray, face: np.ndarray, follow: np.ndarray, unit: float
) -> tuple[np.ndarray, np.ndarray]:
    """Background and cover of a region (h,w,3) uint8.

    person (h,w) float 0..1; face (k,2) its hull in pixels; follow (map rows, map columns) 0..1: how much of
    the head's motion each place takes part in; unit: pixels of an eye unit. Returns plate (h,w,3) uint8 and
    cover (map rows, map columns) float32: 1 where the moving person is shown, 0 where the plate is.
    """
    known = person.astype(np.float32).copy()
    cv2.fillConvexPoly(known, cv2.convexHull(face.astype(np.int32)), (1.0,))
    size = 2 * max(1, round(MARGIN * unit)) + 1
    ellipse = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
    plate = fill(region, cv2.dilate((known > FILLED).astype(np.uint8), ellipse) > 0)
    small = cv2.resize(known, follow.shape[::-1], interpolation=cv2.INTER_AREA)
    low, high = SEAM
    shown = np.clip((small - low) / (high - low), 0.0, 1.0)
    shown = shown * shown * (3.0 - 2.0 * shown)
    still = 1.0 - np.clip(follow / REACH, 0.0, 1.0)
    return np.ascontiguousarray(plate), np.maximum(shown, still).astype(np.float32)
