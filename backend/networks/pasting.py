# SPDX-License-Identifier: GPL-3.0-or-later
"""Paste-back on the device that draws: only the changed region of a picture comes back from it.

The levels are those of backend.paste to one level: OpenCV's sampling takes places to the 32nd of a pixel, in
whole numbers, and so are they found here.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from backend.paste import PastePlan

STEPS = 32  # to a pixel: INTER_BITS is 5 in OpenCV's warpAffine
FINE = 1024  # in which it adds up what column and row contribute: AB_BITS is 10


def sampled_places(matrix: np.ndarray, width: int, height: int) -> np.ndarray:
    """Where OpenCV's warpAffine samples for each pixel, x and y in px: 2x3 forward -> (height,width,2) f8."""
    back = cv2.invertAffineTransform(matrix)
    by_column = np.rint(back[:, 0, None] * np.arange(width) * FINE)
    by_row = np.rint((back[:, 1, None] * np.arange(height) + back[:, 2, None]) * FINE)
    sums = by_row[:, :, None] + by_column[:, None] + FINE // STEPS // 2
    return np.floor(sums / (FINE // STEPS)).transpose(1, 2, 0) / STEPS


class DevicePaster:
    """Crops (b,s,s,3) uint8 on a device -> what they make of the plan's region, (b,h,w,3) uint8, or int32 for
    a picture of 16 bits, which has no type of its own on every device.
    """

    def __init__(self, plan: PastePlan, size: int, device: str) -> None:
        """size: s, px."""
        height, width = plan.weight.shape
        places = sampled_places(plan.matrix, width, height)
        across = (2 * places / (size - 1) - 1).astype(np.float32)  # corners at pixels' middles
        self._grid = torch.from_numpy(across)[None].to(device)
        weight = torch.from_numpy(plan.weight)[..., None]
        below = torch.from_numpy(plan.below.astype(np.float32))
        self._deep = plan.below.dtype == np.uint16
        self._rounding = 0.5 if plan.rounding else 0.0
        self._weight = (weight * (257.0 if self._deep else 1.0)).to(device)
        self._rest = ((1 - weight) * below + self._rounding).to(device)
        self._kept = (weight == 0).to(device)
        self._below = below.to(device, torch.int32 if self._deep else torch.uint8)

    def __call__(self, crops: Tensor) -> Tensor:
        """See the class. One crop at a time, since a region may be as large as a picture."""
        return torch.stack([self._paste(crop) for crop in crops])

    def _paste(self, crop: Tensor) -> Tensor:
        above = F.grid_sample(crop.permute(2, 0, 1)[None].float(), self._grid, align_corners=True)
        levels = above[0].permute(1, 2, 0).add_(0.5).floor_()
        mixed = torch.addcmul(self._rest, levels, self._weight).clamp_(0, 65535 if self._deep else 255)
        return torch.where(self._kept, self._below, mixed.to(self._below.dtype))
