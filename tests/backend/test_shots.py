# SPDX-License-Identifier: GPL-3.0-or-later
"""Cuts are found, motion and flashes are none, and a new shot starts from its own reference."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from backend import media
from backend.capture import capture_stream
from backend.driving import open_driving
from backend.motion import Motion
from backend.motion_files import load_motion, save_motion
from backend.options import Options
from backend.performance import Performance, performance_of, retargeted
from backend.shots import CutDetector, ShotMarks
from backend.takes import take_of
from tests.backend.fakes import FakeEngine
from tests.backend.moving_faces import head, scene, write_clip
from tests.backend.synthetic_motion import make_motion


def cuts_of(frames: list[np.ndarray]) -> list[int]:
    detector = CutDetector()
    return [number for number, frame in enumerate(frames) if detector.is_cut(frame)]


def two_shots(astronaut: Path) -> list[np.ndarray]:
    """She on the left before a dark wall, then on the right before a bright one."""
    she = head(astronaut)
    first = [scene((480, 270), [(she, 150 + k, 135)], level=60) for k in range(8)]
    return first + [scene((480, 270), [(she, 330 - k, 140)], level=150) for k in range(8)]


def cut_motion(n: int, *at: int) -> Motion:
    cuts = np.zeros(n, bool)
    cuts[list(at)] = True
    return make_motion(n, valid=np.ones(n, bool), cuts=cuts, mouth=None)


def test_a_cut_is_found_and_movement_is_none(astronaut: Path) -> None:
    assert cuts_of(two_shots(astronaut)) == [8]
    she = head(astronaut)
    assert cuts_of([scene((480, 270), [(she, 100 + 25 * k, 135)]) for k in range(12)]) == []


def test_real_clips_have_no_cuts_but_where_they_are_joined(shared_data: Path) -> None:
    joined = []
    for name in ("d0.mp4", "d10.mp4", "d12.mp4"):
        clip = media.Clip(shared_data / "driving" / name)
        joined.append(list(clip.frames(stop_frame=60)))
    for frames in joined:
        assert cuts_of(frames) == []
    assert cuts_of(joined[0] + joined[1]) == [len(joined[0])]


def test_a_captured_clip_carries_its_cuts_and_the_file_keeps_them(astronaut: Path, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "cut.mp4", two_shots(astronaut))
    motion = Motion.concatenate(list(capture_stream(open_driving(clip), Options(), FakeEngine()).chunks))
    assert motion.cuts is not None
    assert np.flatnonzero(motion.cuts).tolist() == [8]
    again = load_motion(save_motion(motion, tmp_path / "motion.npz"))
    assert again.cuts is not None
    assert_array_equal(again.cuts, motion.cuts)
    upstream = capture_stream(open_driving(clip), Options(compatibility="upstream"), FakeEngine())
    assert Motion.concatenate(list(upstream.chunks)).cuts is None


def test_a_motion_without_cuts_is_written_as_before(tmp_path: Path) -> None:
    motion = make_motion(4, cuts=np.zeros(4, bool))
    assert load_motion(save_motion(motion, tmp_path / "motion.npz")).cuts is None


def test_nothing_is_blended_across_a_cut() -> None:
    motion = cut_motion(12, 6)
    low = replace(
        motion, lip_ratio=np.repeat(np.array([0.0, 1.0], np.float32), 6), fps_numerator=25, fps_denominator=1
    )
    assert set(low.resample(60).lip_ratio.tolist()) == {0.0, 1.0}
    assert set(low.smooth(3.0).lip_ratio.tolist()) == {0.0, 1.0}
    lost = replace(low, valid=np.arange(12) % 6 < 4)
    assert_array_equal(lost.fill_invalid().lip_ratio, low.lip_ratio)
    resampled = low.resample(50)
    assert resampled.cuts is not None
    assert np.flatnonzero(resampled.cuts).tolist() == [12]
    halved = low.resample(10)
    assert halved.cuts is not None
    assert np.flatnonzero(halved.cuts).tolist() == [3]


@pytest.mark.parametrize("reference", [0, 13, "auto"])
def test_every_shot_starts_from_its_own_reference(reference: int) -> None:
    motion = cut_motion(24, 6, 18)
    motion.valid[6:8] = False
    take = take_of(motion, Options(reference_frame=reference))
    first, middle, last = take.references[:6], take.references[6:18], take.references[18:]
    for part, (start, stop) in zip((first, middle, last), ((0, 6), (6, 18), (18, 24)), strict=True):
        assert len(set(part.tolist())) == 1
        assert start <= part[0] < stop
    if reference == 0:
        assert (first[0], middle[0], last[0]) == (0, 8, 18)
    if reference == 13:
        assert middle[0] == 13
    upstream = take_of(motion, Options(compatibility="upstream"))
    assert set(upstream.references.tolist()) == {0}


@pytest.mark.parametrize("reference", [0, 7])
@pytest.mark.parametrize("length", [1, 5, 24])
def test_shots_in_a_stream_are_retargeted_as_the_whole(length: int, reference: int) -> None:
    motion = cut_motion(24, 6, 18)
    source = make_motion(1, valid=np.ones(1, bool), mouth=None)
    options = Options(reference_frame=reference)
    parts = (motion[start : start + length] for start in range(0, 24, length))
    stream = Performance(parts, motion.fps, motion.start)
    whole = performance_of(take_of(motion, options))
    found, wanted = (
        np.concatenate([done.driving for done, _ in retargeted(source, performance, options, FakeEngine())])
        for performance in (stream, whole)
    )
    assert_allclose(found, wanted, atol=1e-6)
    assert stream.notes == whole.notes and "3 shots" in whole.notes[-1]
    # At a reference frame the source looks as it does by itself.
    assert_allclose(wanted[18], source.keypoints()[0], atol=1e-4)


def test_a_flash_or_a_face_that_is_away_begins_no_shot(astronaut: Path) -> None:
    she = head(astronaut)
    there = scene((480, 270), [(she, 200, 135)])
    away, flash = scene((480, 270), []), np.full((270, 480, 3), 250, np.uint8)
    elsewhere = scene((480, 270), [(she, 300, 135)], level=190)
    frames = (
        [(there, True)] * 5 + [(away, False)] * 5 + [(there, True)] * 5 + [(flash, False)] + [(there, True)]
    )
    frames += [(there, True)] * 4 + [(away, False)] + [(elsewhere, True)] * 3
    marks = ShotMarks()
    begun = [number for number, (frame, face) in enumerate(frames) if marks.begins(frame, face)]
    assert begun == [len(frames) - 3]
