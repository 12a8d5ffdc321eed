# SPDX-License-Identifier: GPL-3.0-or-later
"""Live driving is causal, one picture for each, and its filter is calm at rest and quick in motion."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from backend.engines import choose
from backend.errors import InputError
from backend.one_euro import MotionFilter, OneEuro
from backend.options import Options
from backend.pipeline import live
from backend.rotations import geodesic_degrees, rotation_from_euler
from backend.source import open_source
from tests.backend.fakes import FakeEngine
from tests.backend.moving_faces import head, scene
from tests.backend.synthetic_motion import make_motion


def test_the_filter_follows_the_published_formula() -> None:
    one = OneEuro(rest=1.0, speed=0.0, rate=60.0)
    share = 1 / (1 + 60 / (2 * np.pi))
    assert one(np.array([0.0])) == 0
    assert one(np.array([1.0])) == pytest.approx(share)
    assert one(np.array([1.0])) == pytest.approx(share + share * (1 - share))


def test_noise_at_rest_is_damped_and_a_turn_is_hardly_late() -> None:
    rng = np.random.default_rng(3)
    n = 120
    yaw = np.where(np.arange(n) < 60, 0.0, np.minimum((np.arange(n) - 60) * 3.0, 30.0))
    noise = rng.normal(0, 0.3, n)
    raw = rotation_from_euler(np.zeros(n), yaw + noise, np.zeros(n))
    motion = make_motion(n, rotation=raw, gaze=None, mouth=None)
    steady = MotionFilter(1.0, 25.0)
    out = np.concatenate([steady(motion[k]).rotation for k in range(n)])
    rest = slice(10, 60)
    assert np.diff(out[rest], n=2, axis=0).std() < 0.4 * np.diff(raw[rest], n=2, axis=0).std()
    true = rotation_from_euler(np.zeros(n), yaw, np.zeros(n))
    assert geodesic_degrees(out[60:72], true[60:72]).max() < 7  # two frames at 3 degrees a frame
    assert_allclose(out @ out.transpose(0, 2, 1), np.tile(np.eye(3), (n, 1, 1)), atol=1e-5)


def test_blinks_keep_their_depth() -> None:
    ratio = np.full((40, 2), 0.3)
    ratio[20:24] = [[0.15], [0.02], [0.05], [0.2]]
    motion = make_motion(40, eye_ratio=ratio, mouth=None)
    steady = MotionFilter(1.0, 25.0)
    out = np.concatenate([steady(motion[k]).eye_ratio for k in range(40)])
    assert out.min() < 0.3 - 0.8 * 0.28


def test_strength_nought_changes_nothing() -> None:
    motion = make_motion(3)
    assert MotionFilter(0.0, 25.0)(motion[1]).rotation is not None
    assert_array_equal(MotionFilter(0.0, 25.0)(motion[1]).rotation, motion.rotation[1:2])


def driver(astronaut: Path, asked: list[int]) -> Iterator[np.ndarray]:
    she = head(astronaut)
    for number in range(12):
        asked.append(number)
        yield scene((320, 260), [] if number in (0, 1, 6) else [(she, 150 + 4 * number, 130)])


@pytest.mark.parametrize("native", [True, False])
def test_each_picture_is_made_before_the_next_is_asked_for(astronaut: Path, native: bool) -> None:
    engine = FakeEngine(native)
    source = open_source(astronaut, Options(), engine)
    asked: list[int] = []
    made = live(source, Options(smoothing="auto"), engine, driver(astronaut, asked))
    pictures = []
    for number, picture in enumerate(made):
        assert asked[-1] == number
        pictures.append(picture.copy())
    assert len(pictures) == 12
    assert_array_equal(pictures[0], source.picture.rgb)
    assert (pictures[2] != source.picture.rgb).any()
    assert_array_equal(pictures[6], pictures[5])


def test_live_driving_moves_a_real_portrait(astronaut: Path) -> None:
    engine = choose(Options(engine="mesh")).engine
    source = open_source(astronaut, Options(), engine)
    pictures = [picture.copy() for picture in live(source, Options(), engine, driver(astronaut, []))]
    at_first = np.abs(pictures[2].astype(int) - source.picture.rgb).mean()
    later = np.abs(pictures[11].astype(int) - source.picture.rgb).mean()
    assert at_first < 0.5 < later  # the first face is the reference; then the driver's head goes right


def test_what_needs_the_whole_performance_is_refused(astronaut: Path) -> None:
    source = open_source(astronaut, Options(), FakeEngine())
    for options in (Options(reference_frame="auto"), Options(frames=(2, 5))):
        with pytest.raises(InputError, match="first frame"):
            next(live(source, options, FakeEngine(), iter([])))
    crop = replace(Options(), paste_back=False)
    blank = [np.full((200, 200, 3), 90, np.uint8)]
    shown = next(live(source, crop, FakeEngine(), blank))
    assert shown.shape[:2] == source.output_size(crop)[::-1]
