# SPDX-License-Identifier: GPL-3.0-or-later
"""Calibration: neutral, ranges, examples, smoothing, and the solver under them."""

from __future__ import annotations

import itertools
from types import ModuleType

import bpy
import numpy as np
import pytest

from liveportrait_blender import (
    calibration,
    channel_samples,
    key_reduction,
    keypoint_rig,
    least_squares,
    rig_channels,
    rig_smoothing,
    shape_key_drivers,
)
from liveportrait_blender.names import UserError
from tests.blender.performances import motion
from tests.blender.test_shape_key_bake import follower, performer, played


def best_of_all_faces(a: np.ndarray, b: np.ndarray, low: np.ndarray, high: np.ndarray) -> float:
    """The least squares over all ways of putting unknowns on a bound."""
    least = np.inf
    for way in itertools.product(range(3), repeat=a.shape[1]):
        free = np.array(way) == 2
        x = np.where(np.array(way) == 0, low, high)
        if free.any():
            x[free] = np.linalg.lstsq(a[:, free], b - a[:, ~free] @ x[~free], rcond=None)[0]
        if (x >= low - 1e-9).all() and (x <= high + 1e-9).all():
            least = min(least, float(np.square(a @ x - b).sum()))
    return least


@pytest.mark.parametrize("seed", range(60))
def test_the_solver_finds_the_least_within_the_bounds(seed: int) -> None:
    random = np.random.default_rng(seed)
    count, rows = int(random.integers(1, 6)), int(random.integers(1, 9))
    a, b = random.normal(size=(rows, count)), 2 * random.normal(size=rows)
    if seed % 4 == 0 and count > 1:
        a[:, 1] = a[:, 0]  # which of the two is a matter of taste
    low, high = -random.uniform(0, 1, count), random.uniform(0, 1, count)
    if seed % 5 == 0:
        low[0] = high[0] = 0.25
    x = least_squares.bounded(a, b, low, high)
    assert (x >= low).all() and (x <= high).all()
    assert np.square(a @ x - b).sum() <= best_of_all_faces(a, b, low, high) + 1e-9


def test_the_solver_without_bounds_unknowns_or_sense() -> None:
    a = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.5]])
    b = np.array([1.0, -2.0, 0.5])
    ends = np.full(2, np.inf)
    np.testing.assert_allclose(least_squares.bounded(a, b, -ends, ends), np.linalg.lstsq(a, b, rcond=None)[0])
    assert least_squares.bounded(np.empty((3, 0)), b, np.empty(0), np.empty(0)).shape == (0,)
    with pytest.raises(ValueError, match="wrong way round"):
        least_squares.bounded(a, b, np.ones(2), np.zeros(2))
    with pytest.raises(ValueError, match="shapes"):
        least_squares.bounded(a, b[:2], np.zeros(2), np.ones(2))


@pytest.mark.parametrize("tolerance", [1e-4, 0.01, 0.3])
def test_what_reduction_promises_holds(tolerance: float) -> None:
    random = np.random.default_rng(5)
    frames = np.cumsum(random.uniform(0.2, 1.5, 3000))
    values = np.cumsum(random.normal(0, 0.02, 3000))
    kept = key_reduction.reduced(frames, values, tolerance)
    assert key_reduction.largest_error(frames, values, kept) <= tolerance
    assert kept[0] == 0 and kept[-1] == 2999 and (np.diff(kept) > 0).all()
    straight = key_reduction.reduced(frames, 3 + 0.001 * frames, 1e-3)
    assert straight.tolist() == [0, 2999]
    assert len(key_reduction.reduced(frames, values, 0.0)) == 3000
    assert key_reduction.reduced(frames, np.full(3000, 0.5), tolerance).tolist() == [0]
    assert [len(key_reduction.reduced(frames[:k], values[:k], tolerance)) for k in (0, 1, 2)] == [0, 1, 2]


def test_a_clip_fills_the_ranges_of_what_it_moves(addon: ModuleType) -> None:
    rig = performer("wink")
    head = follower(rig)
    frames = range(1, 40)
    samples = channel_samples.sample(rig, frames)
    entries = {entry.shape_key: entry for entry in head.liveportrait.shape_keys.entries}
    found = calibration.ranges_from_clip(head, samples)
    assert "eyeBlinkRight" in found
    blink = played(head, frames)[:, list(entries).index("eyeBlinkRight")]
    low, high = np.percentile(blink, (5, 98))
    assert low == pytest.approx(0.0, abs=2e-3) and high == pytest.approx(1.0, abs=2e-3)
    for name in set(entries) - set(found):
        assert (entries[name].gain, entries[name].offset) == (1.0, 0.0)
    assert len(found) < len(entries)
    entries["eyeBlinkRight"].dead_zone = 0.2
    calibration.ranges_from_clip(head, samples)
    again = played(head, frames)[:, list(entries).index("eyeBlinkRight")]
    assert np.percentile(again, 98) == pytest.approx(1.0, abs=2e-3)
    with pytest.raises(UserError, match="wrong way round"):
        calibration.ranges_from_clip(head, samples, 90, 10)


def test_examples_bring_back_the_gains_that_made_them(addon: ModuleType) -> None:
    rig = performer("talk")
    head = follower(rig)
    key = head.data.shape_keys
    entries = {entry.shape_key: entry for entry in head.liveportrait.shape_keys.entries}
    samples = channel_samples.sample(rig, range(1, 60))
    frames = [1 + int(k) for k in np.argsort(samples.values["jawOpen"])[[0, 30, -1]]]
    calibration.pose_by_hand(head, True)
    assert calibration.is_posed_by_hand(head)
    for frame in frames:
        bpy.context.scene.frame_set(frame)
        for name in entries:
            key.key_blocks[name].value = float(np.clip(0.05 + 0.6 * samples.values[name][frame - 1], 0, 1))
        calibration.add_example(head, frame)
        calibration.add_example(head, frame)  # again: in its place
    assert len(head.liveportrait.calibration.examples) == 3
    solved = calibration.solve_examples(head, prior=1e-4)
    assert solved.after < 0.1 * solved.before and "jawOpen" in solved.shape_keys
    assert entries["jawOpen"].gain == pytest.approx(0.6, abs=0.02)
    assert entries["jawOpen"].offset == pytest.approx(0.05, abs=0.01)
    calibration.pose_by_hand(head, False)
    bpy.context.scene.frame_set(frames[-1])
    assert key.key_blocks["jawOpen"].value == pytest.approx(
        0.05 + 0.6 * samples.values["jawOpen"][frames[-1] - 1], abs=0.02
    )


def test_examples_stay_within_bounds_and_near_the_present_gains(addon: ModuleType) -> None:
    rig = performer("wink")
    head = follower(rig)
    entries = {entry.shape_key: entry for entry in head.liveportrait.shape_keys.entries}
    samples = channel_samples.sample(rig, range(1, 40))
    shut = 1 + int(np.argmax(samples.values["eyeBlinkRight"]))
    key = head.data.shape_keys
    calibration.pose_by_hand(head, True)
    for frame, jaw in ((1, 0.0), (shut, 1.0)):
        bpy.context.scene.frame_set(frame)
        for name in entries:
            key.key_blocks[name].value = 0.0
        key.key_blocks["eyeBlinkRight"].value = jaw
        calibration.add_example(head, frame)
    entries["eyeBlinkRight"].gain = 4.0  # far beyond the end of the range, which is as the example wants it
    calibration.solve_examples(head)
    assert entries["eyeBlinkRight"].gain == pytest.approx(4.0, abs=0.05)
    assert all(0 <= entry.gain <= calibration.LARGEST_GAIN for entry in entries.values())
    still = [name for name in entries if abs(samples.values[name][[0, shut - 1]]).max() < 1e-3]
    assert still and all(entries[name].gain == pytest.approx(1.0) for name in still)
    head.liveportrait.calibration.examples.clear()
    with pytest.raises(UserError, match="no examples"):
        calibration.solve_examples(head)


def test_two_channels_of_one_key_are_solved_together(addon: ModuleType) -> None:
    rig = performer("talk")
    head = follower(rig)
    other = head.liveportrait.shape_keys.entries.add()
    other.shape_key, other.channel, other.gain = "jawOpen", "mouthUpperUpLeft", 0.2
    shape_key_drivers.drive(head)
    first = next(entry for entry in head.liveportrait.shape_keys.entries if entry.shape_key == "jawOpen")
    samples = channel_samples.sample(rig, range(1, 60))
    x = np.stack([samples.values["jawOpen"], samples.values["mouthUpperUpLeft"]], 1)
    assert np.linalg.svd(x - x.mean(0), compute_uv=False)[1] > 0.05
    calibration.pose_by_hand(head, True)
    for frame in range(1, 60, 3):
        bpy.context.scene.frame_set(frame)
        head.data.shape_keys.key_blocks["jawOpen"].value = float(x[frame - 1] @ (0.5, 0.8))
        calibration.add_example(head, frame)
    calibration.solve_examples(head, prior=1e-5)
    assert (first.gain, other.gain) == (pytest.approx(0.5, abs=0.05), pytest.approx(0.8, abs=0.05))


def test_the_neutral_face_of_a_range_is_its_calmest(addon: ModuleType) -> None:
    rig = performer("talk")
    rig["smile"] = 0.6  # the whole performance smiles: that is this face's rest
    rig.update_tag()
    before = channel_samples.sample(rig, range(1, 60)).values["mouthSmileLeft"]
    calibration.neutral_from_clip(rig, range(1, 60))
    after = channel_samples.sample(rig, range(1, 60)).values
    calmest = np.argsort(before)[:6]
    assert before[calmest].mean() > 0.1 > 0.03 > after["mouthSmileLeft"][calmest].mean()
    calm = rig_channels.neutral_inputs(keypoint_rig.sample(rig, range(1, 60)))
    assert rig_channels.neutral_of(rig) == pytest.approx(calm)


@pytest.mark.parametrize("part", [rig_smoothing.ALL, rig_smoothing.FACE, rig_smoothing.HEAD_ONLY])
def test_smoothing_is_a_new_action_and_keeps_cuts(part: str) -> None:
    random = np.random.default_rng(2)
    clean = motion(80)
    noise = random.normal(0, 0.003, clean.expression.shape).astype(np.float32)
    expression = clean.expression + noise
    expression[40:] += 0.2
    shaky = motion(80, expression=expression, cuts=np.arange(80) == 40)
    bpy.context.scene.render.fps = 25
    rig = keypoint_rig.build(bpy.context, shaky, "Shaky", first_frame=1)
    first = rig.animation_data.action
    copy = rig_smoothing.smooth(rig, 1.5, part)
    assert rig.animation_data.action == copy != first and first.use_fake_user
    shown = keypoint_rig.sample(rig, range(1, 81))
    wanted = clean.expression.copy()
    wanted[40:] += 0.2
    ratio = np.std(shown.expression - wanted) / np.std(noise)
    assert ratio < 0.75 if part != rig_smoothing.HEAD_ONLY else ratio == pytest.approx(1, abs=1e-3)
    if part != rig_smoothing.HEAD_ONLY:  # nothing of the next shot in the last frame of this one
        assert np.abs(shown.expression[39] - wanted[39]).max() < 0.02
    moved = np.abs(shown.translation - shaky.translation).max()
    assert moved < 1e-5 if part == rig_smoothing.FACE else moved > 1e-5
    assert copy["liveportrait"]["frames"] == 80


def test_smoothing_leaves_straight_lines_alone() -> None:
    at = np.arange(30.0)
    holds = np.zeros(30, bool)
    np.testing.assert_allclose(rig_smoothing.smoothed(at, 2 * at + 1, holds, 2.0), 2 * at + 1, atol=1e-12)
    step = np.where(at < 15, 0.0, 1.0)
    holds[14] = True
    np.testing.assert_allclose(rig_smoothing.smoothed(at, step, holds, 2.0), step)
    assert rig_smoothing.smoothed(at, step, np.zeros(30, bool), 2.0)[14] > 0.2


def test_posing_needs_drivers(addon: ModuleType) -> None:
    head = follower(performer("wink"), drive=False)
    with pytest.raises(UserError, match="does not follow"):
        calibration.pose_by_hand(head, True)
