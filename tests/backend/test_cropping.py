# SPDX-License-Identifier: GPL-3.0-or-later
"""Crops and paste-back: the released program's numbers, and what the product does better.

tests/data/crop_oracle.npz was recorded from the released implementation (src/utils/crop.py): rectangles and
maps for seven landmark layouts, crops of and a paste into the pictures of `waves`.
"""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.cropping import (
    Rect,
    average_boxes,
    average_rectangle,
    crop,
    crop_at,
    crop_matrix,
    crop_rectangle,
    invert,
    source_crop,
    transform_points,
    whole_picture,
)
from backend.paste import Paster, paste_back, soft_mask

ORACLE = np.load(Path(__file__).parents[1] / "data" / "crop_oracle.npz", allow_pickle=False)
LAYOUTS = [f"{count}{tilt}" for count in (203, 106, 478, 101, 68, 5, 9) for tilt in ("", ".tilt")]
SETTINGS = [("default", 2.3, -0.125, 512), ("lmk", 1.5, -0.1, 224)]


def waves(height: int, width: int) -> np.ndarray:
    """The picture that the oracle was recorded with: triangle waves in integers."""
    y, x = np.mgrid[0:height, 0:width].astype(np.int64)
    value = np.stack([3 * x + 5 * y + (x * y) // 97, 7 * x - 2 * y + 4000, (x * x) // 61 + 3 * y], -1) % 512
    return np.minimum(value, 511 - value).astype(np.uint8)


def error(got: object, want: np.ndarray) -> float:
    """Largest difference, in standard deviations of what is wanted."""
    return float(np.abs(np.asarray(got, np.float64) - want).max() / want.std())


def pasted_crop() -> np.ndarray:
    return np.ascontiguousarray(waves(512, 512)[:, ::-1])


# ------------------------------------------------------------------ rectangles and maps


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("name", "scale", "vy", "size"), SETTINGS)
def test_upstream_rectangles_and_maps(layout: str, name: str, scale: float, vy: float, size: int) -> None:
    points = ORACLE[f"crop.{layout}.pts"]
    rect = crop_rectangle(points, scale, 0.3, vy, compatibility="upstream")  # vx is not heeded there
    want = ORACLE[f"crop.{layout}.{name}.rect"]
    assert error([rect.cx, rect.cy, rect.size, rect.size, rect.angle], want) < 1e-6
    assert error(crop_matrix(rect, size), ORACLE[f"crop.{layout}.{name}.M_o2c"]) < 1e-6


@pytest.mark.parametrize("layout", LAYOUTS)
def test_upstream_without_rotation_and_from_the_eyes_alone(layout: str) -> None:
    points = ORACLE[f"crop.{layout}.pts"]
    upright = crop_rectangle(points, rotate=False, compatibility="upstream")
    assert error(crop_matrix(upright, 512), ORACLE[f"crop.{layout}.norot.M_o2c"]) < 1e-6
    by_eyes = crop_rectangle(points, use_lips=False, compatibility="upstream")
    assert error(crop_matrix(by_eyes, 512), ORACLE[f"crop.{layout}.nolip.M_o2c"]) < 1e-6


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name.endswith("tilt") and "478" not in name])
def test_the_product_heeds_the_horizontal_shift(layout: str) -> None:
    rect = crop_rectangle(ORACLE[f"crop.{layout}.pts"], vx=0.1)
    assert error(crop_matrix(rect, 512), ORACLE[f"crop.{layout}.vx.M_o2c"]) < 1e-6


@pytest.mark.parametrize("tilt", ["", ".tilt"])
def test_the_product_crops_a_mesh_as_the_203_points_of_the_same_face(tilt: str) -> None:
    mesh = crop_rectangle(ORACLE[f"crop.478{tilt}.pts"])
    points = crop_rectangle(ORACLE[f"crop.203{tilt}.pts"])
    assert math.hypot(mesh.cx - points.cx, mesh.cy - points.cy) < 0.005 * points.size
    assert mesh.size == pytest.approx(points.size, rel=0.01)
    assert mesh.angle == pytest.approx(points.angle, abs=math.radians(0.5))
    misread = crop_rectangle(ORACLE[f"crop.478{tilt}.pts"], compatibility="upstream")
    assert abs(misread.angle - points.angle) > math.radians(20)


@given(
    angle=st.floats(-3.1, 3.1),
    scale=st.floats(0.2, 5),
    x=st.floats(-500, 500),
    y=st.floats(-500, 500),
    vx=st.floats(-0.4, 0.4),
)
def test_the_crop_moves_with_the_face(angle: float, scale: float, x: float, y: float, vx: float) -> None:
    points = ORACLE["crop.478.pts"]
    cos, sin = math.cos(angle) * scale, math.sin(angle) * scale
    move = np.array([[cos, -sin, x], [sin, cos, y]])
    still = crop_matrix(crop_rectangle(points, vx=vx))
    moved = crop_matrix(crop_rectangle(transform_points(points, move), vx=vx))
    before, after = transform_points(points, still), transform_points(transform_points(points, move), moved)
    np.testing.assert_allclose(after, before, atol=1e-6)


def test_a_face_lies_in_the_middle_of_its_crop() -> None:
    place = source_crop(ORACLE["crop.478.tilt.pts"])
    points = place.landmarks_in_crop(ORACLE["crop.478.tilt.pts"])
    left, right = points[[33, 133]].mean(0), points[[362, 263]].mean(0)
    assert left[0] < 128 < right[0]
    assert abs(right[1] - left[1]) < 2
    assert 0.25 < (points[152] - points[10])[1] / 256 < 0.6


def test_placement_takes_crop_coordinates_to_the_picture() -> None:
    place = crop_at(Rect(300, 200, 128, math.radians(90)))
    corners = transform_points(np.array([[0.0, 0], [-1, -1], [1, -1]]), place.placement)
    np.testing.assert_allclose(corners, [[300, 200], [364, 136], [364, 264]], atol=1e-9)
    np.testing.assert_allclose(
        transform_points(corners, place.matrix(512)), [[256, 256], [0, 0], [512, 0]], atol=1e-9
    )
    np.testing.assert_allclose(
        transform_points(np.array([[-1.0, -1], [1, 1]]), whole_picture((640, 480)).placement),
        [[0, 0], [640, 480]],
    )


def test_depth_grows_with_the_map() -> None:
    place = crop_at(Rect(300, 200, 64, 0.7))
    moved = place.landmarks_in_crop(np.array([[300, 200, 10.0]], np.float32))
    assert moved.dtype == np.float32
    np.testing.assert_allclose(moved, [[128, 128, 40]], rtol=1e-5)


def test_one_upright_square_for_a_driving_clip() -> None:
    boxes = [
        Rect((a + c) / 2, (b + d) / 2, c - a, 0.1 * i) for i, (a, b, c, d) in enumerate(ORACLE["bbox.in"])
    ]
    mean = average_boxes(boxes)
    want = ORACLE["bbox.avg"]
    half = mean.size / 2
    np.testing.assert_allclose(
        [mean.cx - half, mean.cy - half, mean.cx + half, mean.cy + half], want, rtol=1e-12
    )
    assert error(crop_matrix(mean, 512), ORACLE["bbox.M_o2c"][:2]) < 1e-6
    points = ORACLE["crop.203.pts"]
    pair = average_rectangle([points, points + (20, 10)])
    one = crop_rectangle(points, 2.2, 0, -0.1)
    assert (pair.cx, pair.cy, pair.angle) == pytest.approx((one.cx + 10, one.cy + 5, 0))
    with pytest.raises(ValueError, match="no rectangles"):
        average_boxes([])


def test_unknown_layouts_and_flat_maps_are_refused() -> None:
    with pytest.raises(ValueError, match="layout of 77 points"):
        crop_rectangle(np.zeros((77, 2)))
    with pytest.raises(ValueError, match="no inverse"):
        invert(np.zeros((2, 3)))
    with pytest.raises(ValueError, match="compatibility"):
        crop_rectangle(ORACLE["crop.203.pts"], compatibility="uptream")


# ------------------------------------------------------------------ pixels


def test_upstream_crops_are_the_released_pixels() -> None:
    picture = waves(720, 1280)
    cut = crop(picture, ORACLE["cropimg.M_o2c"], 512, compatibility="upstream")
    np.testing.assert_array_equal(cut[::10, ::10], ORACLE["cropimg.img_crop_s10"])
    small = cv2.resize(cut, (256, 256), interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(small[::6, ::6], ORACLE["cropimg.img_crop_256_s6"])


@pytest.mark.parametrize("size", [40, 333, 2600])
def test_product_crops_lie_where_their_map_says(size: int) -> None:
    """A ramp shows where a pixel was taken: at its centre, however much the picture is reduced."""
    height, width = 900, 1200
    y, x = np.mgrid[0:height, 0:width] + 0.5
    ramp = np.stack([x, y, x + y], -1).astype(np.float32)
    matrix = crop_matrix(Rect(600, 450, 500, 0.3), size)
    cut = crop(ramp, matrix, size)
    middle = slice(size // 4, 3 * size // 4)
    v, u = np.mgrid[0:size, 0:size] + 0.5
    want = transform_points(np.stack([u, v], -1), invert(matrix))
    np.testing.assert_allclose(cut[middle, middle, :2], want[middle, middle], atol=0.05 * max(1, 500 / size))


def test_a_reduced_crop_averages_instead_of_sampling() -> None:
    stripes = np.zeros((800, 800, 3), np.uint8)
    stripes[:, ::2] = 255
    cut = crop(stripes, crop_matrix(Rect(400, 400, 600, 0.0), 64), 64)
    assert abs(cut.astype(int) - 127).max() <= 2


def test_the_soft_mask_is_the_released_one() -> None:
    np.testing.assert_array_equal(np.round(soft_mask(512, "upstream") * 255), ORACLE["mask.template"])


@pytest.mark.parametrize("size", [64, 512, 1001])
def test_the_product_mask_closes_on_all_sides(size: int) -> None:
    mask = soft_mask(size)
    np.testing.assert_array_equal(mask, mask[::-1])
    np.testing.assert_array_equal(mask, mask.T)
    assert not mask[0].any()
    assert mask[size // 2, size // 2] == 1


def test_upstream_paste_back() -> None:
    out = paste_back(waves(720, 1280), pasted_crop(), ORACLE["cropimg.M_c2o"], compatibility="upstream")
    assert abs(out[::10, ::10].astype(int) - ORACLE["paste.out_s10"]).max() <= 1
    assert int(out.sum(dtype=np.int64)) == pytest.approx(int(ORACLE["paste.sum"][0]), rel=1e-6)


@pytest.mark.parametrize("compatibility", ["product", "upstream"])
@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_paste_back_touches_only_what_changes(compatibility: str, depth: type) -> None:
    random = np.random.default_rng(1)
    picture: np.ndarray = random.integers(0, np.iinfo(depth).max, (400, 600, 3), endpoint=True).astype(depth)
    inverse = invert(crop_matrix(Rect(420, 90, 250, 0.4), 128))  # partly outside the picture
    before = picture.copy()
    paster = Paster((600, 400), inverse, 128, compatibility=compatibility)
    out = paster.paste(picture, np.full((128, 128, 3), 90, np.uint8))
    np.testing.assert_array_equal(picture, before)
    x0, y0, x1, y1 = paster.region
    assert y0 == 0 and (x1 - x0) * (y1 - y0) < 0.6 * 400 * 600
    outside = np.ones((400, 600), bool)
    outside[y0:y1, x0:x1] = False
    # Beyond the turned square, too, although inside its bounding rectangle.
    v, u = np.mgrid[0:400, 0:600] + 0.5
    local = transform_points(np.stack([u, v], -1), invert(inverse))
    outside |= (local < -2).any(-1) | (local > 130).any(-1)
    np.testing.assert_array_equal(out[outside], picture[outside])
    inside = ((local > 8) & (local < 120)).all(-1)
    assert abs(out[inside].astype(int) - 90 * (np.iinfo(depth).max // 255)).max() <= 1
    other = paster.paste(picture, np.zeros((128, 128, 3), np.uint8))
    again = paster.paste(picture, np.full((128, 128, 3), 90, np.uint8), out=other)
    assert again is other
    np.testing.assert_array_equal(again, out)


def test_pasting_what_was_cut_changes_nothing_visible() -> None:
    y, x = np.mgrid[0:480, 0:640]
    channels = [128 + 100 * np.sin(x / 40 + k) * np.cos(y / 35) for k in range(3)]
    picture: np.ndarray = np.stack(channels, -1).astype(np.uint8)
    matrix = crop_matrix(Rect(300, 240, 300, 0.2), 512)
    out = paste_back(picture, crop(picture, matrix, 512), invert(matrix))
    difference = out.astype(int) - picture
    assert abs(difference).max() <= 2
    assert abs(difference.mean()) < 0.02


def test_pasted_pixels_lie_where_their_map_says() -> None:
    v, u = np.mgrid[0:128, 0:128]
    ramp: np.ndarray = np.stack([u + 0.5, v + 0.5, u * 0], -1).round().astype(np.uint8)
    inverse = invert(crop_matrix(Rect(500, 500, 640, -0.5), 128))
    out = paste_back(np.zeros((1000, 1000, 3), np.uint8), ramp, inverse).astype(float)
    y, x = np.mgrid[0:1000, 0:1000] + 0.5
    want = transform_points(np.stack([x, y], -1), invert(inverse))
    inside = ((want > 8) & (want < 120)).all(-1)
    shift = (out[..., :2] - want)[inside].mean(0)  # rounding to even adds nothing on average
    np.testing.assert_allclose(shift, 0, atol=0.02)


def test_equal_levels_stay_equal_where_crop_and_picture_mix() -> None:
    inverse = invert(crop_matrix(Rect(101.3, 98.2, 90, 0.4), 64))
    for level in (1, 77, 254, 255):
        picture = np.full((200, 200, 3), level, np.uint8)
        patch = np.full((64, 64, 3), level, np.uint8)
        np.testing.assert_array_equal(paste_back(picture, patch, inverse), picture)


def test_a_crop_beside_the_picture_pastes_nothing() -> None:
    picture = waves(100, 120)
    away = invert(crop_matrix(Rect(-500, 50, 100), 64))
    np.testing.assert_array_equal(paste_back(picture, np.zeros((64, 64, 3), np.uint8), away), picture)


def test_a_mask_of_ones_own() -> None:
    picture, patch = waves(200, 200), np.full((64, 64, 3), 7, np.uint8)
    inverse = invert(crop_matrix(Rect(100, 100, 64), 64))
    mask = np.zeros((64, 64), np.uint8)
    mask[20:40, 10:30] = 255
    want = picture.copy()
    want[88:108, 78:98] = 7
    np.testing.assert_array_equal(paste_back(picture, patch, inverse, mask), want)
    np.testing.assert_array_equal(paste_back(picture, patch, inverse, mask * 0), picture)
    with pytest.raises(ValueError, match="mask"):
        paste_back(picture, patch, inverse, mask[:50])
