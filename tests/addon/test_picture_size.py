# SPDX-License-Identifier: GPL-3.0-or-later
"""The size of a picture from its first bytes is what a decoder finds; what is none has no size."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from backend import large_pictures
from liveportrait_blender import picture_size
from liveportrait_blender.picture_size import cost_of, size_of

SUFFIXES = [".png", ".jpg", ".webp", ".bmp"]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("quality", [100, 101])  # of WebP: above 100 it is lossless
def test_the_size_of_a_file(tmp_path: Path, suffix: str, quality: int) -> None:
    path = tmp_path / f"picture{suffix}"
    pixels = np.random.default_rng(0).integers(0, 255, (33, 471, 3), np.uint8)
    assert cv2.imwrite(str(path), pixels, [cv2.IMWRITE_WEBP_QUALITY, quality])
    assert size_of(path) == (471, 33)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_cut_off_anywhere_it_has_no_size_or_the_right_one(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"picture{suffix}"
    assert cv2.imwrite(str(path), np.zeros((33, 471, 3), np.uint8))
    whole = path.read_bytes()
    for length in range(0, 200):
        path.write_bytes(whole[:length])
        assert size_of(path) in ((0, 0), (471, 33))


def test_what_is_large_is_what_the_backend_calls_large() -> None:
    assert picture_size.LARGE == large_pictures.LARGE
    assert picture_size.MEMORY == large_pictures.BYTES_OF_MEMORY
    assert picture_size.DISK == large_pictures.BYTES_OF_FRAME
    assert cost_of(4096, 4096) == "" and cost_of(0, 0) == ""
    assert "12000 x 12000" in cost_of(12000, 12000) and "3.9 GB" in cost_of(12000, 12000)
