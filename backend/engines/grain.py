# SPDX-License-Identifier: GPL-3.0-or-later
"""The grain of a picture, film's or canvas's, made anew for places that are filled in.

A random texture with the spectrum and colours of one plain patch of the picture (spot noise: Galerne,
Gousseau, Morel, "Random phase textures", 2011): it has a grain's look, and no seams or repeated marks as
copies have.
"""

from __future__ import annotations

import cv2
import numpy as np

from .filling import fill

TILE = 192  # pixels after which the texture repeats
SIDES = (
    96,
    64,
    48,
    32,
    24,
)  # pixels of the patch it is taken from, the largest that the picture has room for
PLAIN = (0.5, 0.3, 0.7, 0.1)  # of the patches, from the plainest on: which are looked at, in turn
STRIPED = 0.5  # from which on a patch's structure tensor says it is stripes, wood or cloth: no grain
UNEVEN = 4.5  # mean square of the energy over its mean's above which a patch has lines or edges: no grain
LEAST = 0.7  # levels: weaker grain is not seen
LOCAL_SIDE = 48  # pixels: how strong the grain is where is smooth, so it is looked at small
STRONGER = 2.0  # than in the patch it may become elsewhere
STEP = 8  # pixels between patches that are looked at; divides SIDES
_SEED = 2011


def fine_part(picture: np.ndarray, sigma: float) -> np.ndarray:
    """What is finer than about sigma px in a picture (h,w,3) uint8, (h,w,3) float32 around 0."""
    height, width = picture.shape[:2]
    size = max(2, round(width / sigma)), max(2, round(height / sigma))
    coarse = cv2.GaussianBlur(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), (3, 3), 0.7)
    coarse = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
    return cv2.subtract(picture, coarse, dtype=cv2.CV_32F)


def grain_of(picture: np.ndarray, known: np.ndarray, sigma: float) -> np.ndarray | None:
    """Grain (h,w,3) float32 around 0 for a picture (h,w,3) uint8, like that of its known places (h,w) bool:
    what is finer than sigma px there, near each place as strong as in the known ones round it. None where no
    known place is plain and large enough.
    """
    fine = fine_part(picture, sigma)
    energy = cv2.transform(cv2.multiply(fine, fine), np.full((1, 3), 1 / 3, np.float32))
    place = _plain_patch(fine, energy, known)
    if place is None:
        return None
    x, y, side = place
    patch = fine[y : y + side, x : x + side]
    if float(patch.std()) < LEAST:
        return None
    tile = _tile(patch)
    height, width = known.shape
    times = -(-height // TILE), -(-width // TILE)
    strength = _strength(energy, known) / max(float(tile.std()), 1e-6)
    return np.tile(tile, (*times, 1))[:height, :width] * np.minimum(strength, STRONGER)[..., None]


def _tile(patch: np.ndarray) -> np.ndarray:
    """A tile (TILE,TILE,3) float32 of the grain of a patch (n,n,3); it can be repeated without a seam."""
    patch = patch - patch.mean(axis=(0, 1))
    side = len(patch)
    window = np.hanning(side + 2)[1:-1].astype(np.float32) ** 0.5
    spot = np.zeros((TILE, TILE, 3), np.float32)
    spot[:side, :side] = patch * window[:, None, None] * window[None, :, None]
    white = np.random.default_rng(_SEED).standard_normal((TILE, TILE)).astype(np.float32)
    spectrum = np.fft.rfft2(spot, axes=(0, 1)) * np.fft.rfft2(white)[..., None]
    tile = np.fft.irfft2(spectrum, s=(TILE, TILE), axes=(0, 1)).astype(np.float32)
    tile -= tile.mean(axis=(0, 1))
    return np.asarray(tile * (patch.std(axis=(0, 1)) / np.maximum(tile.std(axis=(0, 1)), 1e-6)))


def _strength(energy: np.ndarray, known: np.ndarray) -> np.ndarray:
    """The grain's standard deviation (h,w) float32 at each place, from the known ones; single lines and edges
    do not count.
    """
    height, width = known.shape
    factor = min(1.0, LOCAL_SIDE / max(height, width))
    size = max(2, round(width * factor)), max(2, round(height * factor))
    small = cv2.resize(np.where(known, energy, 0.0).astype(np.float32), size, interpolation=cv2.INTER_AREA)
    share = cv2.resize(known.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    sure = share > 0.5
    local = np.sqrt(small / np.maximum(share, 0.5)) * 4.0
    usual = int(np.median(local[sure])) if sure.any() else 0
    local = cv2.medianBlur(np.where(sure, np.clip(local, 0, 255), usual).astype(np.uint8), 5)
    filled = fill(np.repeat(local[..., None], 3, axis=2), ~sure)[..., 0].astype(np.float32) / 4.0
    soft = cv2.GaussianBlur(filled, (0, 0), 1.5)
    return cv2.resize(soft, (width, height), interpolation=cv2.INTER_LINEAR)


def _plain_patch(fine: np.ndarray, energy: np.ndarray, known: np.ndarray) -> tuple[int, int, int] | None:
    """Column, row and side of a patch that is known throughout, even, and not striped."""
    size = known.shape[1] // STEP, known.shape[0] // STEP
    if min(size) < 1:
        return None
    part = np.s_[: size[1] * STEP, : size[0] * STEP]
    planes = (known.astype(np.float32), energy, cv2.multiply(energy, energy))
    tables = [
        cv2.integral(cv2.resize(plane[part], size, interpolation=cv2.INTER_AREA), sdepth=cv2.CV_64F)
        for plane in planes
    ]
    for side in (side // STEP for side in SIDES):
        if side > min(size):
            continue
        count, first, second = (_total(table, side).ravel() / side**2 for table in tables)
        even = np.flatnonzero((count > 1 - 1e-6) & (second < UNEVEN * first**2 + 1e-3))
        if len(even):
            order = even[np.argsort(first[even], kind="stable")]
            for share in PLAIN:
                row, column = divmod(int(order[int(share * len(order))]), size[0] - side + 1)
                x, y, n = STEP * column, STEP * row, STEP * side
                if _striped(fine[y : y + n, x : x + n]) < STRIPED:
                    return x, y, n
    return None


def _striped(patch: np.ndarray) -> float:
    """How much a patch (n,n,3) float32 runs in one direction: 0 not at all, 1 stripes."""
    light = patch.mean(axis=-1)
    down, along = np.gradient(light)
    a, b, c = float((along**2).sum()), float((along * down).sum()), float((down**2).sum())
    return float(np.hypot(a - c, 2 * b) / max(a + c, 1e-9))


def _total(table: np.ndarray, side: int) -> np.ndarray:
    """Sums over all squares of a side, out of an integral image."""
    return np.asarray(
        table[side:, side:] - table[:-side, side:] - table[side:, :-side] + table[:-side, :-side]
    )
