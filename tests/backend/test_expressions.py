# SPDX-License-Identifier: GPL-3.0-or-later
"""Expression controls against the published numbers, written out here a second time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.errors import InputError
from backend.expressions import apply_controls, check_controls, controls, neutral_expression, ratio_targets
from backend.rotations import euler_from_rotation, rotation_from_euler

NAMES = ["smile", "wink", "brow", "gaze_x", "gaze_y", "pout", "purse", "grin", "lips_open", "pitch", "yaw",
         "roll", "move_x", "move_y", "zoom", "eyes_open", "lips_open_target", "blink", "blink_left",
         "blink_right"]  # fmt: skip
X, Y, Z = 0, 1, 2
# (control, value): {(keypoint, axis): change}, from the released editor's update_delta_new_* functions.
PUBLISHED = {
    ("smile", 1.0): {(20, Y): -0.01, (14, Y): -0.02, (17, Y): 0.0065, (17, Z): 0.003, (13, Y): -0.00275,
                     (16, Y): -0.00275, (3, Y): -0.0035, (7, Y): -0.0035},
    ("wink", 10.0): {(11, Y): 0.01, (13, Y): -0.003, (17, X): 0.003, (17, Y): 0.003, (3, Y): -0.003},
    ("brow", 10.0): {(1, Y): 0.01, (2, Y): -0.01},
    ("brow", -10.0): {(1, X): 0.01, (2, X): -0.01, (1, Y): -0.003, (2, Y): 0.003},
    ("gaze_x", 10.0): {(11, X): 0.007, (15, X): 0.01},
    ("gaze_x", -10.0): {(11, X): -0.01, (15, X): -0.007},
    # Upper lids by -0.001 v, then the editor's own blink of -v / 2 on top.
    ("gaze_y", 20.0): {(11, Y): -0.02 + 0.01, (15, Y): -0.02 + 0.01, (13, Y): -0.003, (16, Y): -0.003},
    ("pout", 0.05): {(19, X): 0.05},
    ("purse", 10.0): {(14, Y): 0.01, (3, Y): -0.005, (7, Y): -0.005, (17, Z): -0.005},
    ("grin", 10.0): {(20, Z): -0.01, (20, Y): -0.01, (14, Y): -0.01},
    ("lips_open", 100.0): {(19, Y): 0.1, (19, Z): 0.01, (17, Y): -0.01},
    ("move_x", 0.1): {(5, X): -0.1},
    ("move_y", 0.1): {(5, Y): 0.1},
    ("blink", -10.0): {(11, Y): 0.01, (13, Y): -0.003, (15, Y): 0.01, (16, Y): -0.003, (1, Y): 0.0025,
                       (2, Y): -0.0025},
}  # fmt: skip
RANGES = {
    "smile": (-0.3, 1.3), "wink": (0, 39), "brow": (-30, 30), "gaze_x": (-30, 30), "gaze_y": (-63, 63),
    "pout": (-0.09, 0.09), "purse": (-20, 15), "grin": (0, 15), "lips_open": (-90, 120), "pitch": (-15, 15),
    "yaw": (-25, 25), "roll": (-15, 15), "move_x": (-0.19, 0.19), "move_y": (-0.19, 0.19), "zoom": (0.9, 1.2),
    "eyes_open": (0, 0.8), "lips_open_target": (0, 0.8), "blink": (-20, 5), "blink_left": (-20, 5),
    "blink_right": (-20, 5),
}  # fmt: skip


def rest(n: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    r = np.random.default_rng(n)
    rotation = rotation_from_euler(*(5 * r.standard_normal((3, n))))
    return (
        0.01 * r.standard_normal((n, 21, 3)).astype(np.float32),
        rotation.astype(np.float32),
        (1.5 + 0.1 * r.standard_normal(n)).astype(np.float32),
        0.1 * r.standard_normal((n, 3)).astype(np.float32),
    )


def test_the_list_and_its_ranges() -> None:
    assert [control.name for control in controls()] == NAMES
    assert {c.name: (c.minimum, c.maximum) for c in controls()} == RANGES
    for control in controls():
        assert control.terms and control.label and control.published and control.step > 0
        assert control.flag == "--" + control.name.replace("_", "-")
        if control.default is not None:
            assert control.minimum <= control.default <= control.maximum


@pytest.mark.parametrize("name, value", PUBLISHED)
def test_published_numbers(name: str, value: float) -> None:
    given = rest()
    edited = apply_controls(*given, {name: value}, move_head=False)
    wanted = np.zeros((1, 21, 3))
    for (keypoint, axis), change in PUBLISHED[name, value].items():
        wanted[0, keypoint, axis] = change
    np.testing.assert_allclose(edited.expression - given[0], wanted, atol=1e-7)
    for before, after in zip(given[1:], edited[1:], strict=True):
        np.testing.assert_array_equal(before, after)


def test_moving_the_head_moves_all_of_it_as_far_as_the_neck_would_go_the_other_way() -> None:
    given = rest(3)
    values = {"move_x": np.array([0.1, 0.0, -0.1]), "move_y": 0.05, "zoom": 1.1}
    edited = apply_controls(*given, values)
    np.testing.assert_array_equal(edited.expression, given[0])
    alone = apply_controls(*given, values, move_head=False)
    as_far = (alone.scale[:, None, None] * (alone.expression - given[0]))[:, 5]
    np.testing.assert_allclose(edited.translation - given[3], -as_far, atol=1e-7)
    assert edited.translation[0, 0] > given[3][0, 0]  # to the right,
    assert (edited.translation[:, 1] < given[3][:, 1]).all()  # and up
    np.testing.assert_array_equal(alone.translation, given[3])


def test_every_expression_control_is_checked_against_the_published_numbers() -> None:
    moving = {c.name for c in controls() if any(term.target == "expression" for term in c.terms)}
    assert moving - {name for name, _ in PUBLISHED} == {"blink_left", "blink_right"}


@pytest.mark.parametrize("value", [-20.0, -7.0, 5.0])
def test_blink_is_its_two_eyes(value: float) -> None:
    given = rest()
    both = apply_controls(*given, {"blink": value}).expression
    apart = apply_controls(*given, {"blink_left": value, "blink_right": value}).expression
    np.testing.assert_allclose(both, apart, atol=1e-8)
    left = apply_controls(*given, {"blink_left": value}).expression - given[0]
    # The subject's left eye is image-right: keypoints 15 and 16.
    assert not left[0, [11, 13]].any() and left[0, 15, 1] == pytest.approx(-0.001 * value)


@pytest.mark.parametrize("index, name", list(enumerate(("pitch", "yaw", "roll"))))
def test_angles_are_added_in_degrees(index: int, name: str) -> None:
    given = rest(3)
    turned = apply_controls(*given, {name: 7.0}).rotation
    before, after = np.stack(euler_from_rotation(given[1])), np.stack(euler_from_rotation(turned))
    wanted = before.copy()
    wanted[index] += 7.0
    np.testing.assert_allclose(after, wanted, atol=1e-4)


def test_zoom_multiplies_the_scale() -> None:
    given = rest(2)
    np.testing.assert_allclose(apply_controls(*given, {"zoom": 1.2}).scale, given[2] * 1.2, rtol=1e-6)


@given(st.fixed_dictionaries({}, optional={
    name: st.floats(low, high, width=32) for name, (low, high) in RANGES.items()
    if np.float32(low) == low and np.float32(high) == high}))  # fmt: skip
def test_frames_are_independent(values: dict[str, float]) -> None:
    """One value for all frames, the value in every frame, and each frame for itself are the same."""
    given = rest(4)
    once = apply_controls(*given, values)
    repeated = apply_controls(*given, {name: np.full(4, value) for name, value in values.items()})
    for a, b in zip(once, repeated, strict=True):
        np.testing.assert_array_equal(a, b)
    alone = apply_controls(given[0][2:3], given[1][2:3], given[2][2:3], given[3][2:3], values)
    for a, b in zip(once, alone, strict=True):
        np.testing.assert_allclose(a[2:3], b, atol=1e-6)


def test_curves_spread_one_frame() -> None:
    given = rest(1)
    edited = apply_controls(*given, {"smile": np.linspace(0, 1, 5), "yaw": 3.0})
    assert [len(part) for part in edited] == [5, 5, 5, 5]
    np.testing.assert_allclose(
        edited.expression[:, 14, 1] - given[0][:, 14, 1], np.linspace(0, -0.02, 5), atol=1e-8
    )
    with pytest.raises(InputError, match="3 values for 4 frames"):
        apply_controls(*rest(4), {"smile": np.zeros(3) + 0.1})


def test_rest_changes_nothing() -> None:
    given = rest(3)
    values = {c.name: c.default for c in controls()}
    for before, after in zip(given, apply_controls(*given, values), strict=True):
        np.testing.assert_array_equal(before, after)
    assert check_controls(values) == {}


def test_targets_are_left_to_the_engine() -> None:
    given = rest(2)
    values = {"eyes_open": 0.3, "lips_open_target": 0.0, "smile": 0.5}
    assert {part: float(target) for part, target in ratio_targets(values).items()} == {
        "eyes": 0.3,
        "lips": 0.0,
    }
    edited = apply_controls(*given, {"eyes_open": 0.3, "lips_open_target": 0.0})
    np.testing.assert_array_equal(edited.expression, given[0])
    assert ratio_targets({"smile": 0.5, "eyes_open": None}) == {}


@pytest.mark.parametrize(
    "values, message",
    [
        ({"grimace": 1.0}, "no expression control 'grimace'.*lips_open_target"),
        ({"smile": 1.4}, "--smile 1.4 is outside its range. Use -0.3 to 1.3"),
        ({"yaw": -26}, "--yaw -26 is outside its range. Use -25 to 25 degrees"),
        ({"lips_open_target": [0.2, 0.9]}, "--lips-open-target 0.9 .* Use 0 to 0.8 ratio"),
        ({"zoom": float("nan")}, "--zoom is not a finite number. Use 0.9 to 1.2"),
        ({"pout": float("inf")}, "--pout is not a finite number"),
        ({"brow": "high"}, "--brow needs a number, not 'high'"),
        ({"brow": [[1.0]]}, "--brow needs one number"),
    ],
)
def test_wrong_values(values: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        apply_controls(*rest(2), values)


def test_neutral_expression_is_a_closed_mouth() -> None:
    neutral = neutral_expression()
    assert neutral.shape == (21, 3) and neutral.dtype == np.float32
    assert np.abs(neutral).max() == abs(neutral[19, 1]) == pytest.approx(0.0151, abs=1e-4)
    with pytest.raises(ValueError, match="read-only"):
        neutral[0, 0] = 1
