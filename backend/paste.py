# SPDX-License-Identifier: GPL-3.0-or-later
"""Animated crops back into the picture they were cut from: only what changes is touched."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from backend.cropping import CropRules, transform_points
from backend.face_region import between_pixel_centres

_FEATHER = 16 / 512  # of the crop's side


def soft_mask(size: int = 512, compatibility: str = "product") -> np.ndarray:
    """(size, size) f4: 1 inside, falling linearly to 0 over the outer 32nd of the side, corners rounded.

    With `compatibility="upstream"` it is, at 512 px, the released program's mask_template.png divided by 255.
    """
    last = size - 1 if CropRules.of(compatibility).closed_mask else size
    feather = max(size * _FEATHER, 1.0)
    index = np.arange(size, dtype=np.float64)
    beyond = np.maximum(0, np.maximum(feather - index, index - (last - feather)))
    distance = np.hypot(beyond[:, None], beyond[None, :])
    level = np.floor(255 * np.maximum(0, 1 - distance / feather))
    return (level / 255).astype(np.float32)


@dataclass(frozen=True)
class PastePlan:
    """What a Paster does, for one picture, to be done elsewhere: on the device that draws the crops.

    matrix: 2x3, px of the crop -> px of the region. weight: (h, w) f4 in 0..1 of the crop's pixels; where it
    is 0 the picture's own stay. below: (h, w, 3) uint8 or uint16, the picture there. rounding: to the
    nearest level, else down.
    """

    matrix: np.ndarray
    weight: np.ndarray
    below: np.ndarray
    rounding: bool


class Paster:
    """Pastes crops of one size at one place of pictures of one size: everything that does not change with the
    frame is computed once.

    picture_size: (width, height). M_c2o: 2x3, px of the crop -> px of the picture. crop_size: its side in px.
    mask: (crop_size, crop_size) f4 in 0..1 or uint8; soft_mask without. `compatibility="upstream"` gives the
    released program's levels; see CropRules.
    """

    def __init__(
        self,
        picture_size: tuple[int, int],
        M_c2o: np.ndarray,
        crop_size: int,
        mask: np.ndarray | None = None,
        compatibility: str = "product",
    ) -> None:
        self._rules = CropRules.of(compatibility)
        self._picture_size, self._crop_size = picture_size, crop_size
        weight = soft_mask(crop_size, compatibility) if mask is None else np.asarray(mask)
        if weight.shape != (crop_size, crop_size):
            raise ValueError(f"the mask is {weight.shape}, the crop {crop_size} px square")
        if weight.dtype == np.uint8:
            weight = weight.astype(np.float32) / 255
        matrix = np.asarray(M_c2o, np.float64)[:2]
        x0, y0, x1, y1 = _reach(matrix, crop_size, picture_size)
        if self._rules.pixel_centres:
            matrix = between_pixel_centres(matrix)
        self._matrix = matrix - np.array([[0, 0, x0], [0, 0, y0]])
        weight = self._warp(weight.astype(np.float32), x1 - x0, y1 - y0)
        used_y, used_x = np.flatnonzero(weight.any(1)), np.flatnonzero(weight.any(0))
        if not len(used_y):
            x1, y1, used_x, used_y = x0, y0, np.array([0]), np.array([0])
        else:
            x1, y1 = x0 + int(used_x[-1]) + 1, y0 + int(used_y[-1]) + 1
        x0, y0 = x0 + int(used_x[0]), y0 + int(used_y[0])
        self._matrix = self._matrix - np.array([[0, 0, used_x[0]], [0, 0, used_y[0]]])
        weight = weight[used_y[0] : used_y[0] + y1 - y0, used_x[0] : used_x[0] + x1 - x0]
        self.region: tuple[int, int, int, int] = (x0, y0, x1, y1)
        self._weight = np.ascontiguousarray(weight)
        self._rest = 1 - self._weight
        self._kept = self._weight == 0

    def _warp(self, image: np.ndarray, width: int, height: int) -> np.ndarray:
        if width <= 0 or height <= 0:
            return np.zeros((0, 0, *image.shape[2:]), image.dtype)
        return cv2.warpAffine(image, self._matrix, (width, height), flags=cv2.INTER_LINEAR)

    def paste(self, picture: np.ndarray, crop: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """A new picture (h, w, 3; uint8 or uint16) with the crop (crop_size, crop_size, 3; uint8) in place.

        Pixels where the mask is 0 are the picture's own, bit for bit; `region` (x0, y0, x1, y1) holds all
        others. `out`, when given, is written and returned: an array that holds the picture outside `region`,
        as an earlier call leaves it (or the picture itself), so that only the region costs time.
        """
        if picture.shape[:2] != self._picture_size[::-1] or crop.shape[:2] != (self._crop_size,) * 2:
            raise ValueError(f"made for other sizes than {picture.shape[:2]} and {crop.shape[:2]}")
        if out is None:
            out = picture.copy()
        x0, y0, x1, y1 = self.region
        if x1 <= x0 or y1 <= y0:
            return out
        below = np.ascontiguousarray(picture[y0:y1, x0:x1])
        above = self._warp(np.ascontiguousarray(crop), x1 - x0, y1 - y0)
        if picture.dtype == np.uint8 and self._rules.rounding:
            mixed = cv2.blendLinear(above, below, self._weight, self._rest)
        else:
            mixed = self._mix(above, below)
        # Where the mask is 0 rounding must not even have the chance to change a level.
        cv2.copyTo(below, self._kept.view(np.uint8), mixed)
        out[y0:y1, x0:x1] = mixed
        return out

    def plan(self, picture: np.ndarray) -> PastePlan:
        """For pictures of `region` (as the array's [y0:y1, x0:x1]) that are made elsewhere."""
        x0, y0, x1, y1 = self.region
        below = np.ascontiguousarray(picture[y0:y1, x0:x1])
        return PastePlan(self._matrix, self._weight, below, self._rules.rounding)

    def _mix(self, above: np.ndarray, below: np.ndarray) -> np.ndarray:
        top = np.iinfo(below.dtype).max
        gain = np.float32(top / np.iinfo(above.dtype).max)
        mixed = self._weight[..., None] * (above * gain) + self._rest[..., None] * below
        if self._rules.rounding:
            mixed += np.float32(0.5)
        return np.clip(mixed, 0, top).astype(below.dtype)


def paste_back(
    picture: np.ndarray,
    crop: np.ndarray,
    M_c2o: np.ndarray,
    mask: np.ndarray | None = None,
    compatibility: str = "product",
) -> np.ndarray:
    """One crop into one picture; see Paster, which is faster for many."""
    height, width = picture.shape[:2]
    return Paster((width, height), M_c2o, crop.shape[0], mask, compatibility).paste(picture, crop)


def _reach(matrix: np.ndarray, crop_size: int, picture_size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The picture's rectangle (x0, y0, x1, y1) that the crop can touch, with a margin for sampling."""
    corners = transform_points(np.array([(0, 0), (1, 0), (1, 1), (0, 1)], np.float64) * crop_size, matrix)
    low, high = corners.min(0), corners.max(0)
    width, height = picture_size
    x0, y0 = max(math.floor(low[0]) - 2, 0), max(math.floor(low[1]) - 2, 0)
    x1, y1 = min(math.ceil(high[0]) + 2, width), min(math.ceil(high[1]) + 2, height)
    return x0, y0, max(x1, x0), max(y1, y0)
