# SPDX-License-Identifier: GPL-3.0-or-later
"""Rendered faces back into one picture: several may share pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from backend import cropping
from backend.options import Options
from backend.paste import Paster
from backend.source import RENDERED_CROP, Source
from backend.territories import Place, Window, place_of, territory


@dataclass(frozen=True)
class Patch:
    """Pixels (h,w,3) uint8 that replace a window x0, y0, x1, y1 of a picture; place: the face's middle (px)
    and size (px).
    """

    window: Window
    pixels: np.ndarray
    place: Place


def patch_of(source: Source, rendered: np.ndarray, picture: np.ndarray, options: Options) -> Patch:
    """What a rendered face changes of a picture (h,w,3) uint8."""
    height, width = picture.shape[:2]
    place = place_of(source.crop, options, (width, height))
    if source.native:
        return Patch(source.window, rendered, place)
    back = cropping.invert(source.crop.matrix(RENDERED_CROP))
    paster = Paster((width, height), back, RENDERED_CROP, compatibility=options.compatibility)
    x0, y0, x1, y1 = paster.region
    return Patch(paster.region, paster.paste(picture, rendered)[y0:y1, x0:x1], place)


def compose(picture: np.ndarray, patches: Sequence[Patch]) -> np.ndarray:
    """The picture (h,w,3) uint8, which is written to and returned, with every patch.

    Where windows overlap each pixel belongs to the face it is nearest to in face sizes, softly at the border;
    what a face changes there counts by that, so that nobody's face is painted over with its neighbour's
    surroundings.
    """
    alone = [
        patch
        for patch in patches
        if not any(_overlap(patch, other) for other in patches if other is not patch)
    ]
    shared = [patch for patch in patches if all(patch is not other for other in alone)]
    for patch in alone:
        x0, y0, x1, y1 = patch.window
        picture[y0:y1, x0:x1] = patch.pixels
    if not shared:
        return picture
    x0, y0, x1, y1 = _around(shared)
    below = picture[y0:y1, x0:x1].astype(np.float32)
    sum_ = below.copy()
    for patch in shared:
        left, top, right, bottom = patch.window
        part = (slice(top - y0, bottom - y0), slice(left - x0, right - x0))
        weight = territory(patch.window, patch.place, [other.place for other in shared if other is not patch])
        sum_[part] += weight[..., None] * (patch.pixels.astype(np.float32) - below[part])
    picture[y0:y1, x0:x1] = np.clip(sum_ + np.float32(0.5), 0, 255).astype(np.uint8)
    return picture


def _overlap(patch: Patch, other: Patch) -> bool:
    a, b = patch.window, other.window
    return min(a[2], b[2]) > max(a[0], b[0]) and min(a[3], b[3]) > max(a[1], b[1])


def _around(patches: Sequence[Patch]) -> tuple[int, int, int, int]:
    windows = np.array([patch.window for patch in patches])
    low, high = windows[:, :2].min(axis=0), windows[:, 2:].max(axis=0)
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])
