# SPDX-License-Identifier: GPL-3.0-or-later
"""Unknown parts of a picture, filled in smoothly from what is round them."""

from __future__ import annotations

import cv2
import numpy as np


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
