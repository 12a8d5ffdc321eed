# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the product moves a face better than the released program, rule by rule, and what is done with clips
of different lengths and with lips that shall rest.
"""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.cropping import CropRules
from backend.errors import InputError
from backend.expressions import neutral_expression
from backend.lip_silence import resting_lips, silence
from backend.motion import Motion
from backend.openings import LID_FACTORS, SHUT
from backend.options import Options
from backend.ratios import ratio_change
from backend.retargeting import Retargeted, retarget
from backend.retargeting_rules import LIP_KEYPOINTS, PRODUCT, UPSTREAM, Rules
from backend.rotations import rotation_from_euler
from backend.timeline import LENGTH_POLICIES, frames_of, frames_together, in_step

LIPS = list(LIP_KEYPOINTS)


class NoEngine:
    """Neither stitches nor retargets."""

    def stitch(self, source: np.ndarray, driving: np.ndarray) -> np.ndarray:
        return driving

    def retarget_eyes(self, source: np.ndarray, ratios: np.ndarray) -> np.ndarray:
        return np.zeros_like(source)

    retarget_lips = retarget_eyes


def still(**arrays: Any) -> Motion:
    """One frontal frame; arrays replace what it holds."""
    r = np.random.default_rng(3)
    values = {"scale": 1.5, "canonical": 0.3 * r.standard_normal((21, 3)), "eye_ratio": (0.3, 0.3)}
    return Motion.still(**{**values, **arrays})


def clip(n: int, **arrays: Any) -> Motion:
    first = still()
    repeated = Motion.concatenate([first] * n)
    values: dict[str, Any] = {name: np.asarray(value, np.float32) for name, value in arrays.items()}
    return replace(repeated, **values)


def run(source: Motion, driving: Motion, options: Options | None = None, **changes: Any) -> Retargeted:
    return retarget(source, driving, options or Options(), NoEngine(), **changes)


def test_each_rule_is_on_in_the_product_and_off_upstream() -> None:
    for rule in fields(Rules):
        assert getattr(PRODUCT, rule.name) is True
        assert getattr(UPSTREAM, rule.name) is False


class TestTranslationInSourceSize:
    """A driver far from the camera moves little in the crop; the source's head is larger."""

    @pytest.mark.parametrize("driver_scale", [0.75, 1.5, 3.0])
    def test_the_head_moves_by_the_same_share_of_its_size(self, driver_scale: float) -> None:
        way = np.array([[0, 0, 0], [0.1, -0.05, 0]])
        driving = clip(2, scale=[driver_scale] * 2, translation=way)
        done = run(still(), driving)
        moved = (done.driving[1] - done.driving[0]) / 1.5
        np.testing.assert_allclose(moved, np.tile(way[1] / driver_scale, (21, 1)), atol=1e-6)

    def test_theirs_adds_the_way_as_it_is(self) -> None:
        driving = clip(2, scale=[3.0, 3.0], translation=[[0, 0, 0], [0.1, 0, 0]])
        done = run(still(), driving, Options(compatibility="upstream"))
        np.testing.assert_allclose((done.driving[1] - done.driving[0])[:, 0], 0.1, atol=1e-6)

    def test_the_reference_gives_the_size_and_later_frames_do_not(self) -> None:
        driving = clip(3, scale=[1.0, 2.0, 1.0], translation=[[0, 0, 0], [0.1, 0, 0], [0.1, 0, 0]])
        done = run(still(), driving, Options(lock_scale=True))
        np.testing.assert_allclose(done.driving[1], done.driving[2], atol=1e-6)


def lids(eyes: Any) -> np.ndarray:
    """An expression (n, 21, 3) whose lids differ by ratios (n, 2) from the neutral one's."""
    unit = np.zeros((2, 21, 3), np.float32)
    unit[0, 11, 1] = unit[1, 15, 1] = 1
    each = ratio_change(unit).eye_ratio.diagonal()
    return np.einsum("ne,ekc->nkc", np.asarray(eyes) / each, unit).astype(np.float32)


class TestLidsCloseWithDriver:
    def _closed(self, own: Any, reference: Any, change: Any, **options: Any) -> np.ndarray:
        """By how much the source's eyes closed in frame 1; `change` is what the driver's did."""
        driving = clip(2, expression=lids([[0, 0], change]), eye_ratio=[reference, np.add(reference, change)])
        source = still(eye_ratio=own)
        done = run(source, driving, Options(**options))
        return ratio_change((done.driving[1:] - done.driving[:1]) / 1.5).eye_ratio[0]

    def test_narrow_eyes_shut_wide_ones(self) -> None:
        closed = self._closed((0.4, 0.36), (0.25, 0.28), (-0.2, -0.23))
        np.testing.assert_allclose(closed, [-0.35, -0.31], atol=1e-4)  # all but SHUT

    def test_wide_eyes_do_not_press_narrow_ones_together(self) -> None:
        closed = self._closed((0.25, 0.25), (0.35, 0.35), (-0.3, -0.15))
        np.testing.assert_allclose(closed, [-0.2, -0.1], atol=1e-4)

    def test_each_eye_for_itself(self) -> None:
        closed = self._closed((0.4, 0.4), (0.25, 0.25), (-0.2, 0))
        np.testing.assert_allclose(closed, [-0.35, 0], atol=1e-4)

    def test_opening_stays_as_it_is(self) -> None:
        closed = self._closed((0.4, 0.4), (0.25, 0.25), (0.1, 0.1))
        np.testing.assert_allclose(closed, [0.1, 0.1], atol=1e-4)

    def test_within_limits(self) -> None:
        closed = self._closed((0.8, 0.06), (0.2, 0.4), (-0.1, -0.1))
        np.testing.assert_allclose(closed, [-0.1 * LID_FACTORS[1], -0.1 * LID_FACTORS[0]], atol=1e-4)

    def test_a_blink_as_reference_counts_as_open_eyes(self) -> None:
        closed = self._closed((0.3, 0.3), (0.04, 0.14), (-0.02, -0.02))
        np.testing.assert_allclose(closed, [-0.02, -0.02], atol=1e-5)

    def test_off_where_it_does_not_belong(self) -> None:
        for options in (
            {"compatibility": "upstream"},
            {"relative": False},
            {"eye_retargeting": True},
        ):
            closed = self._closed((0.4, 0.4), (0.25, 0.25), (-0.2, -0.2), **options)
            np.testing.assert_allclose(closed, [-0.2, -0.2], atol=1e-4)
        assert not self._closed((0.4, 0.4), (0.25, 0.25), (-0.2, -0.2), region="lips").any()

    def test_nothing_but_the_lids_is_touched_and_frames_do_not_wait_for_each_other(self) -> None:
        r = np.random.default_rng(1)
        expression = 0.01 * r.standard_normal((6, 21, 3)) + lids(-r.uniform(0, 0.3, (6, 2)))
        expression[0] = 0
        driving = clip(6, expression=expression, eye_ratio=r.uniform(0.1, 0.4, (6, 2)))
        source = still(eye_ratio=(0.45, 0.2))
        on = run(source, driving).driving
        off = run(source, driving, rules=replace(PRODUCT, lids_close_with_driver=False)).driving
        touched = np.abs(on - off).max(axis=0) > 1e-6
        assert {tuple(place) for place in np.argwhere(touched)} == {(11, 1), (13, 1), (15, 1), (16, 1)}
        np.testing.assert_array_equal(run(source, driving[:4]).driving, on[:4])

    def test_shut_is_shut_for_every_pair(self) -> None:
        for own in (0.27, 0.3, 0.4):
            for reference in (0.27, 0.3, 0.4):
                closed = self._closed((own, own), (reference, reference), [SHUT - reference] * 2)
                np.testing.assert_allclose(own + closed, SHUT, atol=1e-4)


class TestLengthPolicies:
    def test_what_each_does_past_the_end(self) -> None:
        wanted = np.arange(9)
        assert frames_of(4, wanted, "constant").tolist() == [0, 1, 2, 3, 3, 3, 3, 3, 3]
        assert frames_of(4, wanted, "cycle").tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 0]
        assert frames_of(4, wanted, "mirror").tolist() == [0, 1, 2, 3, 2, 1, 0, 1, 2]
        with pytest.raises(InputError, match="no frame 8"):
            frames_of(4, wanted, "cut")

    @given(
        st.integers(1, 50),
        st.integers(1, 50),
        st.sampled_from(LENGTH_POLICIES),
    )
    def test_two_clips_in_step(self, source: int, driving: int, policy: Any) -> None:
        together = frames_together(source, driving, policy)
        assert together == (min if policy == "cut" else max)(source, driving)
        for count in (source, driving):
            shown = frames_of(count, np.arange(together), policy)
            assert len(shown) == together
            assert shown.min() == 0 and shown.max() == min(count, together) - 1
            own = min(count, together)
            assert shown[:own].tolist() == list(range(own))
            if policy == "mirror":
                assert np.abs(np.diff(shown)).max(initial=0) <= 1

    def test_a_single_frame_is_held(self) -> None:
        for policy in ("constant", "cycle", "mirror"):
            assert frames_of(1, np.arange(3), policy).tolist() == [0, 0, 0]

    def test_unknown_and_empty(self) -> None:
        with pytest.raises(InputError, match="no length policy 'stretch'"):
            frames_together(1, 2, "stretch")  # type: ignore[arg-type]
        with pytest.raises(InputError, match="without frames"):
            frames_of(0, np.arange(1), "cycle")

    @pytest.mark.parametrize("policy", LENGTH_POLICIES)
    def test_a_clip_source_meets_its_driving(self, policy: Any) -> None:
        source = clip(5, translation=np.arange(15).reshape(5, 3) / 100)
        driving = clip(3, rotation=rotation_from_euler(np.arange(3), 0, 0))
        done = run(source, driving, Options(length_policy=policy))
        paired = in_step(source, driving, policy)
        assert len(done.driving) == (3 if policy == "cut" else 5)
        np.testing.assert_array_equal(done.source, source.keypoints()[: len(done.source)])
        np.testing.assert_array_equal(done.driving, run(*paired).driving)
        assert done.notes == [
            "source and driving differ in length (5 and 3 frames):"
            f" {len(done.driving)} frames are made ({policy})"
        ]
        longer = run(driving, source, Options(length_policy=policy))
        assert len(longer.source) == len(done.source)


class TestSilence:
    def _talking(self, n: int = 40, closed: float = 0.02) -> Motion:
        """Every fifth frame the mouth is as closed as it gets."""
        r = np.random.default_rng(2)
        ratio = r.uniform(0.15, 0.4, n)
        ratio[::5] = closed
        expression = 0.01 * r.standard_normal((n, 21, 3))
        expression[::5, LIPS] = 0.004
        return clip(n, expression=expression, lip_ratio=ratio)

    def test_rests_at_this_person_own_closed_mouth(self) -> None:
        motion = self._talking()
        quiet = silence(motion)
        np.testing.assert_allclose(quiet.expression[:, LIPS], 0.004, atol=1e-7)
        np.testing.assert_allclose(quiet.lip_ratio, 0.02, atol=1e-7)
        others = [k for k in range(21) if k not in LIPS]
        np.testing.assert_array_equal(quiet.expression[:, others], motion.expression[:, others])
        np.testing.assert_array_equal(quiet.rotation, motion.rotation)

    def test_a_mouth_that_never_closes_gets_the_neutral_one(self) -> None:
        rest = resting_lips(self._talking(closed=0.2))
        np.testing.assert_array_equal(rest.expression, neutral_expression()[LIPS])
        assert rest.lip_ratio == 0

    def test_frames_without_a_face_do_not_count(self) -> None:
        motion = self._talking()
        motion.valid[::5] = False
        motion.lip_ratio[3] = 0.05
        np.testing.assert_allclose(resting_lips(motion).expression, motion.expression[3, LIPS])

    def test_parts_rest_like_the_whole(self) -> None:
        motion = self._talking()
        rest = resting_lips(motion)
        parts = Motion.concatenate([silence(motion[:7], rest), silence(motion[7:], rest)])
        np.testing.assert_array_equal(parts.expression, silence(motion).expression)

    def test_a_silent_clip_says_the_driver_words(self) -> None:
        source = self._talking(6)
        nothing = clip(6)
        options = Options(silence_lips=True)
        done = run(source, nothing, options)
        np.testing.assert_array_equal(done.source, source.keypoints())
        np.testing.assert_allclose(done.driving, silence(source).keypoints(), atol=1e-6)
        words = 0.01 * np.random.default_rng(5).standard_normal((6, 21, 3))
        words[0] = 0
        said = run(source, clip(6, expression=words), replace(options, region="lips")).driving
        change = (said - done.driving) / 1.5
        np.testing.assert_allclose(change[:, LIPS], words[:, LIPS], atol=1e-6)


def test_a_clip_source_is_steadied_without_leaving_its_pictures() -> None:
    r = np.random.default_rng(4)
    shake = 0.01 * r.standard_normal((40, 3)) * [1, 1, 0]
    source, driving = clip(40, translation=shake), clip(40)
    rough = run(source, driving)
    smooth = run(source, driving, Options(source_smoothing=2.0))
    np.testing.assert_array_equal(smooth.source, rough.source)
    np.testing.assert_allclose(smooth.driving, source.smooth(2.0).keypoints(), atol=1e-6)
    second = [np.abs(np.diff(done.driving, n=2, axis=0)).mean() for done in (rough, smooth)]
    assert second[1] < 0.2 * second[0]


@pytest.mark.parametrize("value", [-1.0, float("nan")])
def test_impossible_observation_variance(value: float) -> None:
    with pytest.raises(InputError, match="observation variance"):
        run(still(), clip(3), Options(observation_variance=value))


def test_options_without_effect_are_named() -> None:
    """Whoever asks for two things of which one wins is told which."""
    picture, clips = (still(), clip(3)), (clip(3), clip(3))
    upstream = Options(compatibility="upstream")
    for (source, driving), options, word in (
        (picture, Options(normalize_lips=True, relative=False), "normalize-lips"),
        (picture, Options(normalize_lips=True, lip_retargeting=True), "normalize-lips"),
        (picture, replace(upstream, normalize_lips=True, eye_retargeting=True), "normalize-lips"),
        (picture, Options(steady_source_eyes=True), "steady-source-eyes"),
        (clips, Options(steady_source_eyes=True, eye_retargeting=True), "steady-source-eyes"),
        (picture, Options(source_smoothing=1.0), "source-smoothing"),
        (picture, Options(lock_scale=True, relative=False), "lock-scale"),
        (picture, replace(upstream, eye_retargeting=True), "the driving motion"),
    ):
        notes = run(source, driving, options).notes
        assert [note for note in notes if note.startswith(f"without effect: {word}:")], (options, notes)
    for (source, driving), options in (
        (picture, Options(normalize_lips=True, eye_retargeting=True)),
        (clips, Options(steady_source_eyes=True, source_smoothing="auto", silence_lips=True)),
        (picture, Options(eye_retargeting=True, lip_retargeting=True)),
        (picture, Options(lock_scale=True)),
        (clips, upstream),
    ):
        assert run(source, driving, options).notes == []


def test_every_difference_has_its_line_in_the_documentation() -> None:
    text = (Path(__file__).parents[2] / "docs" / "compatibility.md").read_text(encoding="utf-8")
    for rule in (*fields(Rules), *fields(CropRules)):
        assert text.count(f"| `{rule.name}` |") == 1
