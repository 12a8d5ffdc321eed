# SPDX-License-Identifier: GPL-3.0-or-later
"""Motion: the formula, cutting, joining, resampling, filling and smoothing of performances."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from backend.errors import InputError, MotionFileError, NoFaceError
from backend.motion import Motion
from backend.rotations import euler_from_rotation, rotation_from_euler, rotation_vector
from tests.backend import synthetic_motion

NTSC = Fraction(30000, 1001)


def make_motion(n: int = 12, **fields: Any) -> Motion:
    """A lively performance with every optional array, 25 frames a second from 0, all valid unless told."""
    usual = {"fps_numerator": 25, "fps_denominator": 1, "start": 0.0, "valid": None}
    return synthetic_motion.make_motion(n, **{**usual, **fields})


def mouths(motion: Motion) -> np.ndarray:
    assert motion.mouth is not None
    return motion.mouth


def acceleration(rotation: np.ndarray) -> float:
    """Mean size of the second difference of the head's angles, degrees."""
    angles = np.stack(euler_from_rotation(rotation), -1)
    return float(np.abs(np.diff(angles, n=2, axis=0)).mean())


def blink(n: int, at: int) -> np.ndarray:
    """Eyes open at .3 that blink for four frames."""
    ratio = np.full(n, 0.3)
    ratio[at : at + 4] = [0.15, 0.02, 0.06, 0.18]
    return ratio


def test_arrays_become_contiguous_float32_and_the_identity_is_repeated() -> None:
    motion = make_motion(5, canonical=np.ones((21, 3), np.float64))
    assert motion.canonical.shape == (5, 21, 3)
    assert motion.valid.all()
    for name in ("rotation", "expression", "scale", "translation", "canonical", "eye_ratio", "gaze"):
        array = getattr(motion, name)
        assert array.dtype == np.float32, name
        assert array.flags.c_contiguous, name


def test_keypoints_follow_the_formula_and_ignore_depth_translation() -> None:
    motion = make_motion(4, translation=np.tile([0.1, -0.2, 9.0], (4, 1)))
    x = motion.keypoints()
    for i in range(4):
        rotated = motion.canonical[i] @ motion.rotation[i]
        expected = motion.scale[i] * (rotated + motion.expression[i]) + [0.1, -0.2, 0.0]
        assert_allclose(x[i], expected, atol=1e-6)
    assert x.dtype == np.float32


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("expression", np.zeros((12, 20, 3))),
        ("scale", np.ones((12, 1))),
        ("gaze", np.zeros((11, 2, 2))),
        ("rotation", np.eye(3)),
        ("eye_ratio", np.full((12, 2), "a")),
    ],
)
def test_misshapen_arrays_are_named(field: str, value: np.ndarray) -> None:
    fields: dict[str, Any] = {field: value}
    with pytest.raises(MotionFileError, match=f"Motion field {field} "):
        make_motion(12, **fields)


@pytest.mark.parametrize(
    "field", ["rotation", "expression", "scale", "translation", "canonical", "lip_ratio"]
)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_validate_names_the_field_and_frame_of_a_number_that_is_none(field: str, value: float) -> None:
    motion = make_motion()
    getattr(motion, field)[7] = value
    with pytest.raises(MotionFileError, match=f"Motion field {field} .*frame 7"):
        motion.validate()


def test_validate_accepts_gaze_that_was_not_measured() -> None:
    motion = make_motion(gaze=np.full((12, 2, 2), np.nan))
    assert motion.validate() is motion


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"scale": np.zeros(12)}, "scale"),
        ({"rotation": np.tile(2 * np.eye(3), (12, 1, 1))}, "rotation"),
        ({"rotation": np.tile(np.diag([1, 1, -1]), (12, 1, 1))}, "rotation"),
        ({"format": "liveportrait-motion/2"}, "format"),
        ({"start": float("nan")}, "start"),
    ],
)
def test_validate_refuses_impossible_motion(change: dict[str, Any], match: str) -> None:
    with pytest.raises(MotionFileError, match=f"Motion field {match}"):
        make_motion(**change).validate()


@pytest.mark.parametrize("rate", [(0, 1), (-25, 1), (25, 0), (25, -1)])
def test_a_frame_rate_is_positive(rate: tuple[int, int]) -> None:
    with pytest.raises(MotionFileError, match="Motion field fps"):
        make_motion(fps_numerator=rate[0], fps_denominator=rate[1])


def test_slices_are_motions_on_the_same_timeline() -> None:
    motion = make_motion(10, fps_numerator=30000, fps_denominator=1001, start=0.5)
    part = motion[3:7]
    assert len(part) == 4
    assert part.fps == NTSC
    assert part.start == pytest.approx(0.5 + 3 * 1001 / 30000)
    assert_array_equal(part.expression, motion.expression[3:7])
    assert_array_equal(mouths(part), mouths(motion)[3:7])
    last = motion[-1]
    assert len(last) == 1
    assert_array_equal(last.rotation, motion.rotation[9:])
    assert motion[::2].fps == NTSC / 2


def test_empty_and_impossible_selections_are_refused() -> None:
    motion = make_motion(10)
    with pytest.raises(InputError, match="10 frames"):
        motion[12:20]
    with pytest.raises(IndexError):
        motion[10]
    with pytest.raises(ValueError, match="forwards"):
        motion[::-1]


def test_parts_join_to_the_whole() -> None:
    motion = make_motion(10, fps_numerator=24, start=2.0)
    joined = Motion.concatenate([motion[:4], motion[4:]])
    assert joined.fps == 24
    assert joined.start == 2.0
    for name in ("rotation", "canonical", "gaze", "mouth", "valid"):
        assert_array_equal(getattr(joined, name), getattr(motion, name))


def test_joining_marks_what_only_some_have() -> None:
    joined = Motion.concatenate(
        [make_motion(3), make_motion(2, gaze=None, mouth=None, engine="liveportrait", ratios_estimated=True)]
    )
    assert joined.mouth is None
    assert joined.gaze is not None
    assert np.isfinite(joined.gaze[:3]).all()
    assert np.isnan(joined.gaze[3:]).all()
    assert joined.engine == "mesh+liveportrait"
    assert joined.ratios_estimated


def test_joining_other_rates_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(InputError, match="Resample"):
        Motion.concatenate([make_motion(3), make_motion(3, fps_numerator=30)])
    with pytest.raises(InputError):
        Motion.concatenate([])


def test_resampling_meets_the_measured_frames_exactly() -> None:
    motion = make_motion(9, fps_numerator=25)
    doubled = motion.resample(50)
    assert doubled.fps == 50
    assert len(doubled) == 18
    for name in ("rotation", "expression", "scale", "eye_ratio", "gaze", "mouth"):
        assert_allclose(getattr(doubled, name)[::2], getattr(motion, name), atol=1e-6, err_msg=name)
    assert motion.resample(25) is motion


def test_resampling_turns_the_head_at_constant_speed_and_blends_the_rest() -> None:
    motion = make_motion(2, rotation=rotation_from_euler(0.0, [0.0, 60.0], 0.0), scale=[1.0, 2.0])
    finer = motion.resample(100)
    assert_allclose(euler_from_rotation(finer.rotation)[1][:5], [0, 15, 30, 45, 60], atol=1e-4)
    assert_allclose(finer.scale[:5], [1.0, 1.25, 1.5, 1.75, 2.0], atol=1e-6)
    assert_allclose(finer.scale[5:], 2.0, err_msg="the last frame is held")
    assert_array_equal(mouths(finer)[:3], mouths(motion)[[0, 0, 1]])


def test_a_frame_is_valid_only_if_all_it_was_made_from_was() -> None:
    motion = make_motion(4, valid=[True, False, True, True])
    assert motion.resample(50).valid.tolist() == [True, False, False, False, True, True, True, True]


def test_gaze_that_was_not_measured_stays_so_and_spreads_no_further() -> None:
    gaze = np.zeros((3, 2, 2))
    gaze[1, 0] = np.nan
    finer = make_motion(3, gaze=gaze).resample(50)
    assert np.isnan(finer.gaze[:, 0, 0]).tolist() == [False, True, True, True, False, False]  # type: ignore[index]
    assert np.isfinite(finer.gaze[:, 1]).all()  # type: ignore[index]


def test_an_hour_of_ntsc_does_not_drift() -> None:
    n = 107892  # an hour of 30000/1001 frames a second
    plain: dict[str, Any] = {"gaze": None, "mouth": None, "canonical": np.zeros((21, 3))}
    still = make_motion(1, **plain)
    motion = Motion.concatenate([still] * n)
    motion = replace(motion, scale=1 + np.arange(n) / n, fps_numerator=30000, fps_denominator=1001)
    at_24 = motion.resample(24)
    assert len(at_24) == 86400
    seconds = np.arange(len(at_24)) / 24
    expected = 1 + np.minimum(seconds * 30000 / 1001, n - 1) / n
    assert_allclose(at_24.scale, expected, atol=1e-6)


@given(
    st.fractions(Fraction(1), Fraction(120), max_denominator=1001),
    st.fractions(Fraction(1), Fraction(120), max_denominator=1001),
    st.integers(2, 40),
)
def test_resampling_covers_the_same_time_at_any_pair_of_rates(old: Fraction, new: Fraction, n: int) -> None:
    motion = make_motion(n, mouth=None, fps_numerator=old.numerator, fps_denominator=old.denominator)
    other = motion.resample(new)
    assert (len(other) - 1) / new < n / old <= len(other) / new
    assert other.validate().fps == new


def test_a_still_stays_one_frame() -> None:
    still = Motion.still(canonical=np.ones((21, 3)), scale=1.5, eye_ratio=(0.3, 0.2), engine="mesh")
    assert len(still.validate()) == 1
    assert len(still.resample(60)) == 1
    assert still.resample(60).fps == 60
    assert_allclose(still.keypoints()[0], 1.5)
    assert len(still.smooth(1.0)) == 1


@pytest.mark.parametrize("rate", [0, -24])
def test_resampling_to_no_rate_is_refused(rate: int) -> None:
    with pytest.raises(InputError, match="frame rate"):
        make_motion(3).resample(rate)


def test_lost_frames_are_interpolated_and_the_ends_held() -> None:
    yaw = np.array([99.0, 0.0, 99.0, 99.0, 30.0, 99.0])
    motion = make_motion(
        6,
        rotation=rotation_from_euler(0.0, yaw, 0.0),
        scale=[np.nan, 1.0, np.nan, np.nan, 4.0, np.nan],
        valid=[False, True, False, False, True, False],
    )
    filled = motion.fill_invalid()
    assert_allclose(filled.scale, [1, 1, 2, 3, 4, 4], atol=1e-6)
    assert_allclose(euler_from_rotation(filled.rotation)[1], [0, 0, 10, 20, 30, 30], atol=1e-4)
    assert_array_equal(mouths(filled), mouths(motion)[[1, 1, 1, 4, 4, 4]])
    assert_array_equal(filled.valid, motion.valid)
    filled.validate()


def test_a_clip_without_any_face_is_an_error() -> None:
    with pytest.raises(NoFaceError):
        make_motion(3, valid=np.zeros(3, bool)).fill_invalid()


def test_smoothing_steadies_the_head_without_lag() -> None:
    rng = np.random.default_rng(1)
    time = np.arange(120)
    yaw = 12 * np.sin(time / 15)
    noisy = rotation_from_euler(rng.normal(0, 0.3, 120), yaw + rng.normal(0, 0.3, 120), 0.0)
    motion = make_motion(120, rotation=noisy, mouth=None)
    steady = motion.smooth(1.0)
    assert acceleration(steady.rotation) < 0.5 * acceleration(noisy)
    # No lag: the smoothed head is where the head was, not where it was a frame before.
    got = euler_from_rotation(steady.rotation)[1]
    errors = [float(np.abs(got[5:-5] - np.roll(yaw, shift)[5:-5]).mean()) for shift in (-1, 0, 1)]
    assert errors[1] == min(errors)
    assert errors[1] < 0.3


@pytest.mark.parametrize("strength", [0.5, 1.0, 3.0])
def test_blinks_survive_smoothing(strength: float) -> None:
    n, at = 40, 17
    ratio = blink(n, at)
    expression = np.zeros((n, 21, 3))
    expression[:, [11, 15], 1] = (0.3 - ratio)[:, None] * 0.06
    motion = make_motion(n, eye_ratio=np.stack([ratio] * 2, 1), expression=expression, mouth=None)
    smooth = motion.smooth(strength)
    assert np.ptp(smooth.eye_ratio[:, 0]) >= 0.9 * np.ptp(ratio)
    assert np.argmin(smooth.eye_ratio[:, 0]) == np.argmin(ratio)
    for keypoint in (11, 15):
        assert np.ptp(smooth.expression[:, keypoint, 1]) >= 0.9 * np.ptp(expression[:, keypoint, 1])


def test_smoothing_leaves_a_motionless_clip_alone() -> None:
    motion = Motion.concatenate([make_motion(1)] * 30)
    smooth = motion.smooth(2.0)
    for name in ("rotation", "expression", "scale", "translation", "canonical", "eye_ratio", "gaze"):
        assert_allclose(getattr(smooth, name), getattr(motion, name), atol=1e-6, err_msg=name)


def test_smoothing_does_not_spread_gaze_that_was_not_measured() -> None:
    gaze = np.full((9, 2, 2), 0.1)
    gaze[4] = np.nan
    smooth = make_motion(9, gaze=gaze).smooth(1.0).gaze
    assert smooth is not None
    assert np.isnan(smooth[4]).all()
    assert_allclose(np.delete(smooth, 4, axis=0), 0.1, atol=1e-6)


def test_smoothing_a_turn_through_the_back_stays_a_turn() -> None:
    """Quaternions change sign at 180 degrees; the average must not jump there."""
    motion = make_motion(40, rotation=rotation_from_euler(0.0, 0.0, np.linspace(150, 210, 40)), mouth=None)
    smooth = motion.smooth(1.0)
    turn = np.swapaxes(smooth.rotation[:-1], 1, 2) @ smooth.rotation[1:]
    assert np.degrees(np.linalg.norm(rotation_vector(turn), axis=-1)).max() < 2.0


def test_automatic_smoothing_suits_the_shake() -> None:
    rng = np.random.default_rng(2)
    sway = 8 * np.sin(np.arange(100) / 20)
    steady = make_motion(100, rotation=rotation_from_euler(0.0, sway, 0.0), mouth=None)
    shaky = replace(steady, rotation=rotation_from_euler(0.0, sway + rng.normal(0, 0.4, 100), 0.0))
    assert acceleration(shaky.smooth("auto").rotation) < 0.5 * acceleration(shaky.rotation)
    # A steady head hardly changes, so neither does the rest of the performance.
    assert_allclose(steady.smooth("auto").expression, steady.expression, atol=1e-4)
    # Saying no is no noise.
    no = replace(steady, rotation=rotation_from_euler(0.0, 8 * np.sin(np.arange(100)), 0.0))
    assert_allclose(no.smooth("auto").rotation, no.rotation, atol=1e-4)


def test_no_smoothing_returns_the_motion_itself() -> None:
    motion = make_motion()
    assert motion.smooth("off") is motion
    assert motion.smooth(0.0) is motion


@pytest.mark.parametrize("strength", [-1.0, 1e9, float("nan"), float("inf")])
def test_impossible_smoothing_is_refused(strength: float) -> None:
    with pytest.raises(InputError, match="smoothing"):
        make_motion().smooth(strength)
