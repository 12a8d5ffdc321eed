# SPDX-License-Identifier: GPL-3.0-or-later
"""The grain of places that are filled in: as strong and as coarse as that of the picture."""

from __future__ import annotations

import cv2
import numpy as np

from backend.engines.grain import fine_part, grain_of
from backend.engines.plate import make_plate


def film(strength: float, coarse: float, size: tuple[int, int] = (300, 320)) -> np.ndarray:
    """A grey picture (h,w,3) with grain of a standard deviation in levels and a size in px."""
    noise = np.random.default_rng(7).standard_normal(size)
    noise = np.asarray(cv2.GaussianBlur(noise, (0, 0), coarse), np.float64)
    noise *= strength / noise.std()
    return np.clip(128 + noise[..., None] * (1.0, 0.8, 0.6) + 0.5, 0, 255).astype(np.uint8)


def left_half(picture: np.ndarray) -> np.ndarray:
    known = np.zeros(picture.shape[:2], bool)
    known[:, : known.shape[1] // 2] = True
    return known


def test_grain_is_as_strong_coloured_and_coarse_as_the_pictures() -> None:
    for strength, coarse in ((12.0, 0.7), (6.0, 1.5)):
        picture = film(strength, coarse)
        made = grain_of(picture, left_half(picture), 4.0)
        assert made is not None
        real = fine_part(picture, 4.0)
        assert np.allclose(made.std(axis=(0, 1)), real.std(axis=(0, 1)), rtol=0.2)

        def step(values: np.ndarray) -> float:  # neighbours' difference: how fine it is
            return float(np.diff(values, axis=1).std() / values.std())

        assert abs(step(made) - step(real)) < 0.15 * step(real)


def test_a_smooth_picture_gets_no_grain() -> None:
    picture = np.broadcast_to(np.linspace(20, 220, 320).astype(np.uint8)[None, :, None], (300, 320, 3)).copy()
    made = grain_of(picture, left_half(picture), 4.0)
    assert made is None or np.abs(made).max() < 2


def test_lines_are_no_grain() -> None:
    picture = np.full((300, 320, 3), 150, np.uint8)
    picture[::20] = 20
    picture[:, ::20] = 20
    assert grain_of(picture, left_half(picture), 4.0) is None


def test_where_the_picture_is_smooth_the_grain_is_too() -> None:
    picture = film(12.0, 0.8)
    picture[:100] = 128
    made = grain_of(picture, left_half(picture), 4.0)
    assert made is not None
    assert made[:70].std() < 0.3 * made[150:].std()


def test_too_little_background_gives_none() -> None:
    picture = film(12.0, 0.8)
    known = np.zeros(picture.shape[:2], bool)
    known[:10, :10] = True
    assert grain_of(picture, known, 4.0) is None
    assert grain_of(picture[:8, :8], np.ones((8, 8), bool), 4.0) is None


def test_the_plate_behind_a_person_has_the_backgrounds_grain() -> None:
    picture = film(10.0, 0.8)
    person = np.zeros(picture.shape[:2], np.float32)
    cv2.ellipse(person, (160, 150), (60, 80), 0, 0, 360, (1.0,), -1)
    behind = person > 0.5
    picture[behind] = 60
    face = np.array([[130, 110], [190, 110], [190, 190], [130, 190]], np.float64)
    plate, _ = make_plate(picture, person, face, np.ones((100, 106), np.float32), 60.0)
    inner = cv2.erode(behind.astype(np.uint8), np.ones((15, 15), np.uint8)) > 0
    around = cv2.dilate(behind.astype(np.uint8), np.ones((41, 41), np.uint8)) == 0
    fine = fine_part(plate, 3.0)
    assert 0.7 < fine[inner].std() / fine[around].std() < 1.3
    assert np.abs(plate[inner].mean() - picture[around].mean()) < 12


def test_stripes_are_no_grain() -> None:
    """Wood or a curtain: even all over, but torn-off pieces of it would look like scratches."""
    noise = np.random.default_rng(3).standard_normal((300, 320))
    striped = cv2.GaussianBlur(noise, (0, 0), sigmaX=12, sigmaY=0.8)
    picture = np.clip(128 + striped[..., None] / striped.std() * 8 * np.ones(3), 0, 255).astype(np.uint8)
    assert grain_of(picture, left_half(picture), 4.0) is None
