# SPDX-License-Identifier: GPL-3.0-or-later
"""Implicit keypoints to ARKit's 52 channels and back."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from backend.blendshape_names import CHANNELS, INDEX, mirrored
from backend.blendshapes import DATA, INVERSE, channels, inverse, motion_of, neutral_inputs, table
from backend.driving import at_rest
from backend.errors import InputError
from backend.expressions import apply_controls
from backend.library import load_library
from backend.motion import Motion
from backend.motion_files import load_motion

ROOT = Path(__file__).resolve().parents[2]
TEMPLATES = ROOT.parent / "shared" / "data" / "templates"


def with_controls(**values: list[float]) -> Motion:
    """A neutral face with controls over the frames."""
    rest = at_rest().motion
    assert rest is not None
    frames = max(len(value) for value in values.values())
    arrays = {name: np.array(value) for name, value in values.items()}
    edited = apply_controls(rest.expression, rest.rotation, rest.scale, rest.translation, arrays)

    def repeated(array: np.ndarray) -> np.ndarray:
        return np.repeat(array, frames, axis=0)

    return replace(
        rest,
        expression=edited.expression,
        rotation=np.broadcast_to(edited.rotation, (frames, 3, 3)),
        scale=np.broadcast_to(edited.scale, (frames,)),
        translation=np.broadcast_to(edited.translation, (frames, 3)),
        canonical=repeated(rest.canonical),
        eye_ratio=repeated(rest.eye_ratio),
        lip_ratio=repeated(rest.lip_ratio),
        valid=np.ones(frames, np.bool_),
    )


def test_there_are_52_channels_and_each_side_has_its_mirror_image() -> None:
    assert len(set(CHANNELS)) == 52
    assert {mirrored(name) for name in CHANNELS} == set(CHANNELS)


@pytest.mark.parametrize("path", [DATA, INVERSE])
def test_both_sides_have_the_same_tables(path: Path) -> None:
    other = ROOT / "liveportrait_blender" / "data" / path.name
    assert path.read_bytes() == other.read_bytes()


def test_the_table_says_of_every_channel_whether_it_is_known_and_if_not_why() -> None:
    for row in json.loads(DATA.read_text(encoding="utf-8"))["channels"]:
        assert row["known"] == (not row["why_not"])
        assert bool(row["terms"]) == row["known"], row["name"]
        assert row["clamp"] == [0.0, 1.0]


def test_the_channels_the_map_was_made_for_are_known() -> None:
    wanted = ("jawOpen", "eyeBlink", "browDown", "mouthSmile", "mouthUpperUp", "mouthLowerDown")
    known = table().known
    assert all(known[i] for i, name in enumerate(CHANNELS) if name.startswith(wanted))
    assert not known[INDEX["tongueOut"]]


def test_left_out_correlations_meet_their_bounds() -> None:
    wanted = ("jawOpen", "eyeBlink", "browDown", "mouthSmile", "mouthUpperUp", "mouthLowerDown")
    rows = [
        row["left_out_correlation"]
        for row in json.loads(DATA.read_text(encoding="utf-8"))["channels"]
        if row["name"].startswith(wanted)
    ]
    for engine in ("liveportrait", "mesh"):
        assert np.mean([row[engine] for row in rows]) >= 0.8
        assert min(row[engine] for row in rows) >= 0.6


def test_a_neutral_face_does_nothing_and_unknown_channels_are_always_zero() -> None:
    motion = load_library("surprise")
    values = channels(motion, "first")
    assert not values[0].any()
    assert values.min() == 0.0 and values.max() <= 1.0
    assert not values[:, ~table().known].any()


@pytest.mark.parametrize(
    ("control", "value", "channel"),
    [
        ("smile", 1.3, "mouthSmileLeft"),
        ("smile", 1.3, "mouthSmileRight"),
        ("lips_open", 120.0, "jawOpen"),
        ("brow", -30.0, "browDownLeft"),
        ("brow", 30.0, "browInnerUp"),
        ("wink", 39.0, "eyeBlinkRight"),
        ("gaze_x", 30.0, "eyeLookOutLeft"),
        ("gaze_x", -30.0, "eyeLookOutRight"),
    ],
)
def test_published_expression_controls_move_the_channels_of_their_names(
    control: str, value: float, channel: str
) -> None:
    """The map was fitted without them."""
    values = channels(with_controls(**{control: [0.0, value]}), "first")
    assert values[1, INDEX[channel]] > 0.6


def test_a_wink_closes_the_subjects_right_eye_only() -> None:
    values = channels(with_controls(wink=[0.0, 39.0]), "first")[1]
    assert values[INDEX["eyeBlinkRight"]] > 0.8
    assert values[INDEX["eyeBlinkLeft"]] < 0.1


def test_turning_the_head_moves_no_channel() -> None:
    turned = with_controls(yaw=[0.0, 25.0], pitch=[0.0, -15.0], roll=[0.0, 15.0])
    assert not channels(turned, "first").any()


def test_the_own_neutral_is_the_clips_calm_part() -> None:
    opening = [0.0] * 10 + list(np.linspace(0, 120, 40)) + [120.0] * 10
    motion = with_controls(lips_open=opening)
    values = channels(motion)
    assert values[:5, INDEX["jawOpen"]].max() < 0.05
    assert values[-1, INDEX["jawOpen"]] > 0.8
    # However the clip starts.
    assert channels(motion[10:][::2])[0, INDEX["jawOpen"]] < 0.1


def test_neutrals_can_be_chosen() -> None:
    motion = with_controls(smile=[0.0, 0.4, 0.8, 1.2])
    smile = INDEX["mouthSmileLeft"]
    assert not channels(motion, 2)[2].any()
    assert channels(motion, 2)[3, smile] > 0.1
    above_mean = channels(motion, "mean")[3, smile]
    assert above_mean == pytest.approx(0.75 * channels(motion, "first")[2, smile], rel=0.01)
    named = dict(zip(table().inputs, neutral_inputs(motion, "first"), strict=True))
    np.testing.assert_array_equal(channels(motion, named), channels(motion, "first"))
    # Too short a motion to look for a neutral in.
    np.testing.assert_array_equal(channels(motion), channels(motion, "average"))


@pytest.mark.parametrize("neutral", ["calm", 4, -1, {"kp_99.x": 0.0}])
def test_a_neutral_that_does_not_exist_is_one_clear_line(neutral: object) -> None:
    with pytest.raises(InputError, match="There is no"):
        channels(with_controls(smile=[0.0, 0.4, 0.8, 1.2]), neutral)  # type: ignore[arg-type]


def test_channels_come_back_from_the_motion_made_of_them() -> None:
    tried = ("eyeBlinkLeft", "eyeBlinkRight", "jawOpen", "mouthSmileLeft", "browDownRight", "eyeLookInLeft")
    values = np.zeros((1 + len(tried), 52), np.float32)
    for i, name in enumerate(tried, 1):
        values[i, INDEX[name]] = 1.0
    again = channels(motion_of(values), "first")
    for i, name in enumerate(tried, 1):
        assert again[i, INDEX[name]] > 0.25, name
    blink_left, blink_right = again[1], again[2]
    assert blink_left[INDEX["eyeBlinkLeft"]] > 2 * blink_left[INDEX["eyeBlinkRight"]]
    assert blink_right[INDEX["eyeBlinkRight"]] > 2 * blink_right[INDEX["eyeBlinkLeft"]]


@pytest.mark.parametrize("name", ["smile", "surprise", "talk", "wink", "nod"])
def test_what_was_read_of_a_motion_is_read_again_from_the_motion_made_of_it(name: str) -> None:
    values = channels(load_library(name))
    again = channels(motion_of(values))  # of a motion made of channels, neutral is the average face
    error = np.abs(again - values)
    assert error.mean() < 0.006 and error.max() < 0.15
    # What is large comes back as large.
    for channel in np.flatnonzero(values.max(axis=0) > 0.5):
        large = values[:, channel] > 0.5
        assert again[large, channel].mean() > 0.8 * values[large, channel].mean(), CHANNELS[channel]


def test_channels_that_no_face_has_at_once_leave_the_keypoints_where_faces_have_them() -> None:
    values = np.random.default_rng(5).random((200, 52)).astype(np.float32)
    made = motion_of(values).expression
    spread = dict(zip(inverse().outputs, inverse().spread, strict=True))
    moved = [
        np.abs(made[:, int(name[3:5]), "xyz".index(name[-1])] - neutral).max() / spread[name]
        for name, neutral in zip(inverse().outputs, inverse().neutral, strict=True)
        if name.startswith("kp_")
    ]
    assert max(moved) < 15.0
    assert np.isfinite(made).all() and (motion_of(values).eye_ratio >= 0.0).all()


def test_a_smooth_recording_becomes_a_smooth_performance() -> None:
    """Also where channels meet their limits, and where trust goes over into doubt."""
    values = np.zeros((401, 52), np.float32)
    ramp = np.linspace(0.0, 1.0, 401)
    for name in ("mouthSmileLeft", "mouthSmileRight", "eyeBlinkLeft", "jawOpen", "browOuterUpLeft"):
        values[:, INDEX[name]] = ramp
    values[:, INDEX["mouthPucker"]] = 1.0 - ramp
    steps = np.abs(np.diff(motion_of(values).expression.reshape(401, 63), axis=0))
    assert steps.sum(axis=0).max() > 0.05 and steps.max() < 0.001


def test_channels_become_ratios_and_gaze_of_the_right_side() -> None:
    values = np.zeros((5, 52), np.float32)
    values[1, INDEX["eyeBlinkRight"]] = 1.0
    values[2, INDEX["jawOpen"]] = 1.0
    values[3, [INDEX["eyeLookInLeft"], INDEX["eyeLookOutRight"]]] = 1.0  # to the subject's right
    values[4, [INDEX["eyeLookOutLeft"], INDEX["eyeLookInRight"]]] = 1.0
    motion = motion_of(values)
    assert motion.engine == "arkit" and motion.ratios_estimated
    change = motion.eye_ratio - motion.eye_ratio[0]
    assert change[1, 0] < -0.2 and abs(change[1, 1]) < 0.1  # image-left is the subject's right
    assert motion.lip_ratio[2] - motion.lip_ratio[0] > 0.3
    assert motion.gaze is not None
    assert (motion.gaze[3, :, 0] < -0.05).all() and (motion.gaze[4, :, 0] > 0.05).all()


def test_the_way_back_names_live_inputs_only() -> None:
    keypoints = {name[3:5] for name in inverse().outputs if name.startswith("kp_")}
    assert keypoints.isdisjoint({"06", "08", "09", "12", "18"})


templates = pytest.mark.skipif(not TEMPLATES.is_dir(), reason="the real templates are not here")


@templates
def test_the_real_wink_closes_the_subjects_right_eye() -> None:
    values = channels(load_motion(TEMPLATES / "wink.pkl"), "first")
    right, left = values[:, INDEX["eyeBlinkRight"]], values[:, INDEX["eyeBlinkLeft"]]
    assert right.max() > 0.5
    assert left[right.argmax()] < 0.5 * right.max()  # the other eye narrows too, as the clip shows


@templates
def test_real_templates_do_what_they_are_called() -> None:
    laugh = channels(load_motion(TEMPLATES / "laugh.pkl"))
    assert laugh[:, INDEX["jawOpen"]].max() > 0.5
    assert laugh[:, [INDEX["mouthSmileLeft"], INDEX["mouthSmileRight"]]].max(axis=0).min() > 0.25
    assert channels(load_motion(TEMPLATES / "open_lip.pkl"))[:, INDEX["jawOpen"]].max() > 0.15
