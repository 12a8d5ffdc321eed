# SPDX-License-Identifier: GPL-3.0-or-later
"""The background behind a person: what stays where it is while the head moves.

The person mask is coarse (256 pixels) and soft, so the plate is filled in a little beyond it, where hair
may still show. A picture at rest must come out unchanged all the same: the plate fades in with the head's
motion (see mesh_warp).
"""

from __future__ import annotations

import cv2
import numpy as np

from .filling import fill
from .grain import grain_of

FILLED = 0.10  # mask above which the plate is filled in
PLATE_SIDE = 384  # pixels: the filling is smooth but for its grain, so it is made small
EDGE = 0.07  # eye units within which the mask's edge is pulled on to the picture's
SMOOTHNESS = 1e-3  # of the guided filter: variance of brightness that counts as an edge
MARGIN = 0.05  # eye units beyond the mask up to which the plate is filled in
HALO = 0.04  # eye units of background that move along with the person
GRAIN = (2.0, 0.04)  # what is finer than so many pixels or eye units is grain
SEAM = (0.15, 0.45)  # mask between which a pixel goes from plate to person
REACH = 0.2  # share of the head's motion from which a place can be uncovered


def snap(mask: np.ndarray, picture: np.ndarray, radius: int) -> np.ndarray:
    """Pull the edges of a soft mask (h,w) float32 on to those of its picture (h,w,3) uint8.

    The guided filter (He, Sun, Tang 2010) with the picture's brightness as guide.
    """
    guide = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255.0
    size = (2 * radius + 1, 2 * radius + 1)

    def mean(values: np.ndarray) -> np.ndarray:
        return cv2.blur(values, size, borderType=cv2.BORDER_REFLECT)

    mean_guide, mean_mask = mean(guide), mean(mask)
    slope = (mean(guide * mask) - mean_guide * mean_mask) / (mean(guide * guide) - mean_guide**2 + SMOOTHNESS)
    return np.clip(mean(slope) * guide + mean(mean_mask - slope * mean_guide), 0.0, 1.0)


def make_plate(
    region: np.ndarray, person: np.ndarray, face: np.ndarray, follow: np.ndarray, unit: float
) -> tuple[np.ndarray, np.ndarray]:
    """Background and cover of a region (h,w,3) uint8.

    person (h,w) float 0..1; face (k,2) its hull in pixels; follow (map rows, map columns) 0..1: how much of
    the head's motion each place takes part in; unit: pixels of an eye unit. Returns plate (h,w,3) uint8 and
    cover (map rows, map columns) float32: 1 where the moving person is shown, 0 where the plate is.
    """
    full = (region.shape[1], region.shape[0])
    factor = min(1.0, PLATE_SIDE / max(full))
    coarse = (max(2, round(full[0] * factor)), max(2, round(full[1] * factor)))
    small = cv2.resize(region, coarse, interpolation=cv2.INTER_AREA)
    known = cv2.resize(person.astype(np.float32), coarse, interpolation=cv2.INTER_AREA)
    cv2.fillConvexPoly(known, cv2.convexHull((face * factor).astype(np.int32)), (1.0,))
    known = np.maximum(
        snap(known, small, max(1, round(EDGE * unit * factor))), (known > 0.9).astype(np.float32)
    )

    def grown(mask: np.ndarray, by: float) -> np.ndarray:
        size = 2 * max(1, round(by * unit * factor)) + 1
        return cv2.dilate(mask, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size)))

    unknown = grown((known > FILLED).astype(np.uint8), MARGIN)
    weight = cv2.resize(unknown.astype(np.float32), full, interpolation=cv2.INTER_LINEAR)
    smooth = cv2.resize(fill(small, unknown > 0), full, interpolation=cv2.INTER_LINEAR)
    grain = grain_of(region, weight <= 0.0, max(GRAIN[0], GRAIN[1] * unit))
    if grain is not None:
        smooth = np.clip(smooth + grain + 0.5, 0, 255).astype(np.uint8)
    plate = cv2.blendLinear(smooth, region, weight, 1.0 - weight)

    low, high = SEAM
    edge = cv2.resize(grown(known, HALO), follow.shape[::-1], interpolation=cv2.INTER_AREA)
    shown = np.clip((edge - low) / (high - low), 0.0, 1.0)
    shown = shown * shown * (3.0 - 2.0 * shown)
    still = 1.0 - np.clip(follow / REACH, 0.0, 1.0)
    return np.ascontiguousarray(plate), np.maximum(shown, still).astype(np.float32)
