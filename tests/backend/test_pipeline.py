# SPDX-License-Identifier: GPL-3.0-or-later
"""Streaming changes nothing, untouched pixels stay, and the cost of a frame does not grow."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from backend.errors import Cancelled, InputError
from backend.motion import Motion
from backend.options import Options
from backend.performance import Performance, retargeted
from backend.pipeline import capture, render
from backend.retargeting import retarget
from backend.source import Canvas, Source, open_source
from tests.backend.fakes import FakeEngine
from tests.backend.synthetic_motion import make_motion


@pytest.fixture(scope="module")
def portrait(astronaut: Path) -> Source:
    return open_source(astronaut, Options(), FakeEngine())


def valid_motion(n: int) -> Motion:
    return make_motion(n, valid=np.ones(n, bool))


def in_parts(motion: Motion, length: int) -> Iterator[Motion]:
    for start in range(0, len(motion), length):
        yield motion[start : start + length]


def streamed(source: Source, motion: Motion, options: Options, length: int) -> tuple[np.ndarray, list[str]]:
    performance = Performance(in_parts(motion, length), motion.fps, motion.start)
    engine = FakeEngine()
    parts = list(retargeted(source.motion, performance, options, engine))
    assert_array_equal(Motion.concatenate(performance.kept).rotation, motion.rotation)
    return np.concatenate([keypoints.driving for keypoints, _ in parts]), performance.notes


@pytest.mark.parametrize("length", [1, 4, 16, 100])
@pytest.mark.parametrize(
    "options",
    [
        Options(),
        Options(reference_frame=9),
        Options(relative=False),
        Options(region="lips", multiplier=0.5),
        Options(normalize_lips=True, lock_scale=True, controls={"yaw": 10.0, "smile": 0.5}),
    ],
    ids=["default", "reference 9", "absolute", "lips", "controls"],
)
def test_a_stream_is_retargeted_as_the_whole(portrait: Source, options: Options, length: int) -> None:
    motion = valid_motion(21)
    whole = retarget(portrait.motion, motion, options, FakeEngine())
    found, _ = streamed(portrait, motion, options, length)
    assert_allclose(found, whole.driving, atol=1e-6)


def test_a_lost_reference_frame_is_replaced_in_a_stream_as_in_the_whole(portrait: Source) -> None:
    motion = valid_motion(12)
    motion.valid[[0, 1]] = False
    whole = retarget(portrait.motion, motion, Options(), FakeEngine())
    found, notes = streamed(portrait, motion, Options(), 4)
    assert_allclose(found, whole.driving, atol=1e-6)
    assert notes == whole.notes != []


def test_a_stream_of_one_frame_is_a_picture(portrait: Source) -> None:
    motion = valid_motion(1)
    whole = retarget(portrait.motion, motion, Options(), FakeEngine())
    found, _ = streamed(portrait, motion, Options(), 4)
    assert_allclose(found, whole.driving, atol=1e-6)
    assert np.abs(found - whole.source).max() > 1e-3


def test_controls_with_a_value_a_frame_stay_in_step(portrait: Source) -> None:
    motion = valid_motion(40)
    options = Options(controls={"yaw": np.linspace(-20, 20, 40)})  # type: ignore[dict-item]
    whole = retarget(portrait.motion, motion, options, FakeEngine())
    found, _ = streamed(portrait, motion, options, 7)
    assert_allclose(found, whole.driving, atol=1e-6)


def test_a_reference_frame_beyond_the_end_is_refused(portrait: Source) -> None:
    with pytest.raises(InputError, match="reference frame 50"):
        streamed(portrait, valid_motion(12), Options(reference_frame=50), 4)


def test_rendering_from_the_middle_gives_the_same_frames(portrait: Source) -> None:
    motion = valid_motion(25)
    everything = [frame.copy() for frame in render(portrait, motion, Options(), FakeEngine())]
    rest = [frame.copy() for frame in render(portrait, motion, Options(), FakeEngine(), first=18)]
    assert len(everything) == 25
    assert_array_equal(np.stack(rest), np.stack(everything[18:]))


def test_smoothing_and_an_automatic_reference_see_the_whole_motion(portrait: Source) -> None:
    motion = valid_motion(40)
    options = Options(smoothing=1.0, reference_frame="auto")
    whole = retarget(portrait.motion, motion, options, FakeEngine())
    notes: list[str] = []
    levels = [int(f[150, 220, 0]) for f in render(portrait, motion, options, FakeEngine(), notes=notes)]
    moved = whole.driving[:, 20, 1] - whole.source[:, 20, 1]
    x0, y0, x1, y1 = portrait.window
    assert x0 <= 220 < x1 and y0 <= 150 < y1
    assert levels == np.clip(128 + 1000 * moved, 0, 255).astype(np.uint8).tolist()
    assert notes == whole.notes


def test_pixels_outside_the_face_stay_bit_identical(portrait: Source) -> None:
    x0, y0, x1, y1 = portrait.window
    frame = next(render(portrait, valid_motion(3), Options(), FakeEngine()))
    outside = np.ones(frame.shape[:2], bool)
    outside[y0:y1, x0:x1] = False
    assert outside.any()
    assert_array_equal(frame[outside], portrait.picture.rgb[outside])
    assert (frame[~outside] != portrait.picture.rgb[~outside]).any()


def test_an_engine_without_native_resolution_is_pasted_softly(astronaut: Path) -> None:
    engine = FakeEngine(native=False)
    source = open_source(astronaut, Options(), engine)
    assert engine.crops == [(1, 256, 256, 3)]
    frame = next(render(source, valid_motion(3), Options(), engine))
    assert frame.shape == source.picture.rgb.shape
    assert_array_equal(frame[-60:], source.picture.rgb[-60:])
    assert (frame[128, 224] != source.picture.rgb[128, 224]).any()
    alone = next(render(source, valid_motion(3), Options(paste_back=False), engine))
    assert alone.shape == (512, 512, 3)


def test_without_paste_back_frames_are_the_square_crop(portrait: Source) -> None:
    options = Options(paste_back=False)
    frame = next(render(portrait, valid_motion(2), options, FakeEngine()))
    assert frame.shape[:2] == portrait.output_size(options)[::-1]
    assert frame.shape[0] == frame.shape[1] and frame.shape[0] % 2 == 0


def test_without_crop_the_whole_picture_is_rendered(astronaut: Path) -> None:
    options = Options(crop=False)
    source = open_source(astronaut, options, FakeEngine())
    assert source.window == (0, 0, 512, 512)
    frame = next(render(source, valid_motion(2), options, FakeEngine()))
    assert frame.shape == (512, 512, 3)


def test_no_face_is_looked_for_when_nothing_needs_one(tmp_path: Path) -> None:
    path = tmp_path / "grey.png"
    cv2.imwrite(str(path), np.full((300, 400, 3), 99, np.uint8))
    engine = FakeEngine(native=False)
    source = open_source(path, Options(crop=False), engine)
    assert source.output_size(Options(crop=False)) == (512, 512)


def test_sixteen_bits_stay_where_nothing_is_rendered(astronaut: Path, tmp_path: Path) -> None:
    eight = cv2.imread(str(astronaut))
    rng = np.random.default_rng(0)
    deep = eight.astype(np.uint16) * 257 + rng.integers(0, 120, eight.shape, dtype=np.uint16)
    path = tmp_path / "deep.png"
    cv2.imwrite(str(path), np.minimum(deep, 65535))
    source = open_source(path, Options(), FakeEngine())
    assert source.picture.deep is not None
    canvas = Canvas(source, Options(), deep=True)
    assert canvas.bits == 16
    x0, y0, x1, y1 = source.window
    rendered = source.picture.rgb[y0:y1, x0:x1].copy()
    rendered[10:20, 10:20] = 7
    frame = canvas.frame(rendered)
    assert frame.dtype == np.uint16
    changed = (frame != source.picture.deep).any(axis=-1)
    assert changed[y0 + 10 : y0 + 20, x0 + 10 : x0 + 20].all()
    assert np.count_nonzero(changed) == 100
    assert (frame[y0 + 15, x0 + 15] == 7 * 257).all()


def test_transparency_is_cut_with_the_crop(astronaut: Path, tmp_path: Path) -> None:
    bgr = cv2.imread(str(astronaut))
    alpha = np.full(bgr.shape[:2], 255, np.uint8)
    alpha[:, :250] = 40
    path = tmp_path / "clear.png"
    cv2.imwrite(str(path), np.dstack([bgr, alpha]))
    source = open_source(path, Options(), FakeEngine())
    whole = Canvas(source, Options()).alpha
    assert whole is not None
    assert_array_equal(whole, alpha)
    flat = Canvas(source, Options(), flat=True)
    frame = next(render(source, valid_motion(1), Options(), FakeEngine()))
    x0, y0, x1, y1 = source.window
    on_black = flat.frame(frame[y0:y1, x0:x1].copy()).astype(float)
    assert_allclose(on_black, frame * (alpha[..., None] / 255), atol=0.51)
    cut = Canvas(source, Options(paste_back=False)).alpha
    assert cut is not None and cut.shape == (source.crop_size, source.crop_size)
    assert {40, 255} <= set(np.unique(cut).tolist())


def test_large_pictures_are_rendered_in_small_batches(astronaut: Path, tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    cv2.imwrite(str(path), cv2.resize(cv2.imread(str(astronaut)), (3072, 3072)))
    engine = FakeEngine()
    source = open_source(path, Options(), engine)
    for _ in itertools.islice(render(source, valid_motion(20), Options(), engine), 6):
        pass
    x0, y0, x1, y1 = source.window
    assert max(engine.batches) * 3 * (x1 - x0) * (y1 - y0) <= 17e6


def test_cancelling_ends_the_job_at_the_next_frame(portrait: Source) -> None:
    cancel = threading.Event()
    frames = render(portrait, valid_motion(64), Options(), FakeEngine(), cancel=cancel)
    next(frames)
    cancel.set()
    with pytest.raises(Cancelled):
        list(frames)


def test_a_known_motion_is_cut_and_resampled() -> None:
    motion = capture("talk", Options(frames=(10, 40), fps=None), FakeEngine())
    assert len(motion) == 30
    assert motion.start == pytest.approx(10 / motion.fps)
    half = capture("talk", Options(frames=(10, 40), fps=motion.fps / 2), FakeEngine())
    assert len(half) == 15
    assert_allclose(half.lip_ratio, motion.lip_ratio[::2], atol=1e-6)


def test_mouths_do_not_reach_what_is_kept(portrait: Source) -> None:
    motion = valid_motion(9)
    performance = Performance(in_parts(motion, 4), motion.fps, 0.0)
    parts = retargeted(portrait.motion, performance, Options(), FakeEngine())
    mouths = [mouth for _, mouth in parts if mouth is not None]
    assert all(part.mouth is None for part in performance.kept)
    assert motion.mouth is not None
    assert_array_equal(np.concatenate(mouths), motion.mouth)


def test_frames_of_a_motion_without_mouths_need_none(portrait: Source) -> None:
    motion = replace(valid_motion(4), mouth=None)
    assert len(list(render(portrait, motion, Options(), FakeEngine()))) == 4
