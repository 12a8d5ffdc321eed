# SPDX-License-Identifier: GPL-3.0-or-later
"""Capture in chunks gives what the whole clip at once would give."""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from backend import media, pipeline
from backend.bench.face import drawn_face
from backend.capture import _Chunk, _filled, capture_stream, wants_crop
from backend.driving import open_driving
from backend.errors import Cancelled, InputError, MediaError
from backend.motion import FRAME_SHAPES, Motion
from backend.options import Options
from backend.spool import Spool
from tests.backend.fakes import FakeEngine
from tests.backend.synthetic_motion import make_motion


def chunks_of(motion: Motion, lengths: list[int]) -> Iterator[_Chunk]:
    """What the measuring gives: per chunk the rows with a face alone."""
    at = 0
    for length in lengths:
        valid = motion.valid[at : at + length].tolist()
        rows = [motion[at + i] for i, ok in enumerate(valid) if ok]
        joined = replace(Motion.concatenate(rows), start=0.0) if rows else None
        yield _Chunk(valid, joined, [False] * len(valid))
        at += length


@pytest.mark.parametrize("seed", range(6))
def test_frames_without_a_face_are_interpolated_across_chunks(seed: int) -> None:
    rng = random.Random(seed)
    lengths = [rng.randint(1, 7) for _ in range(12)]
    motion = make_motion(sum(lengths))
    motion.valid[:] = np.random.default_rng(seed).random(len(motion)) > 0.6
    motion.valid[rng.randrange(len(motion))] = True
    whole = motion.fill_invalid()
    parts = list(_filled(chunks_of(motion, lengths)))
    joined = Motion.concatenate(parts)
    assert len(joined) == len(motion)
    for name in FRAME_SHAPES:
        if name not in ("mouth", "cuts"):  # rows without a face have no mouth of their own
            assert_allclose(getattr(joined, name), getattr(whole, name), atol=1e-5, err_msg=name)
    assert all(part.valid[-1] for part in parts[:-1])


def test_a_clip_whose_face_never_comes_gives_nothing() -> None:
    motion = make_motion(9)
    motion.valid[:] = False
    assert list(_filled(chunks_of(motion, [4, 5]))) == []


def test_the_driving_is_cropped_when_it_is_not_square_unless_told() -> None:
    assert not wants_crop(Options(), 512, 512)
    assert wants_crop(Options(), 640, 512)
    assert wants_crop(Options(driving_crop=True), 512, 512)
    assert not wants_crop(Options(driving_crop=False), 640, 512)


def test_a_spool_gives_back_what_it_took() -> None:
    arrays = np.arange(5 * 6, dtype=np.float32).reshape(5, 2, 3)
    with Spool((2, 3), np.float32) as spool:
        spool.append(arrays[:2])
        assert_array_equal(spool.read([1, 0]), arrays[[1, 0]])
        spool.append(arrays[2:])
        assert_array_equal(spool.read(range(5)), arrays)
        assert len(spool) == 5
        with pytest.raises(IndexError):
            spool.read([5])
        with pytest.raises(ValueError, match="expected"):
            spool.append(np.zeros((1, 2, 3)))


LEVELS = (1.0, 0.9, None, 0.8, 0.7, 0.6)  # brightness of a clip's frames; None is a frame without a face


@pytest.fixture(scope="module")
def darkening(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sequence, 360 x 256, of a face that stands still while the light goes."""
    folder = tmp_path_factory.mktemp("darkening")
    face = cv2.copyMakeBorder(drawn_face(256), 0, 0, 70, 34, cv2.BORDER_REPLICATE)
    for number, level in enumerate(LEVELS):
        picture = np.full_like(face, 128) if level is None else (face * level).astype(np.uint8)
        cv2.imwrite(str(folder / f"{number}.png"), picture[:, :, ::-1])
    return folder


class Watching(FakeEngine):
    """Keeps the brightness of the crops that it is shown, as the scale of its motion."""

    def measure(self, crops: np.ndarray, landmarks: np.ndarray | None = None) -> Motion:
        motion = super().measure(crops, landmarks)
        return replace(motion, scale=crops.mean(axis=(1, 2, 3)))


@pytest.mark.parametrize("crop", [None, False], ids=["cropped", "whole"])
def test_an_engine_that_measures_pixels_sees_the_right_ones(darkening: Path, crop: bool | None) -> None:
    """With a crop the clip is read twice; a frame without a face must not shift the others."""
    engine = Watching(native=False)
    stream = capture_stream(open_driving(darkening), Options(driving_crop=crop), engine, mouths=True)
    motion = Motion.concatenate(list(stream.chunks))
    assert motion.valid.tolist() == [level is not None for level in LEVELS]
    assert motion.mouth is None
    assert engine.crops == [(5, 256, 256, 3)]
    brightness = motion.scale / motion.scale[0]
    assert_allclose(brightness, [1.0, 0.9, 0.85, 0.8, 0.7, 0.6], atol=0.02)


def test_an_engine_that_measures_landmarks_is_shown_no_pixels(darkening: Path) -> None:
    engine = FakeEngine()
    stream = capture_stream(open_driving(darkening), Options(), engine, mouths=True)
    motion = Motion.concatenate(list(stream.chunks))
    assert engine.crops == [(5, 0, 0, 3)]
    assert motion.mouth is not None and len(motion.mouth) == len(LEVELS)


def test_frames_are_counted_from_the_clips_first(darkening: Path) -> None:
    stream = capture_stream(open_driving(darkening), Options(frames=(3, 5)), FakeEngine())
    assert stream.start == pytest.approx(3 / 25)
    assert stream.total == 2
    assert sum(len(part) for part in stream.chunks) == 2


@pytest.mark.parametrize("rate", [Fraction(24), Fraction(30000, 1001), Fraction(60)])
def test_a_folders_pictures_are_one_a_frame_of_the_rate_asked_for(darkening: Path, rate: Fraction) -> None:
    motion = pipeline.capture(darkening, Options(fps=rate), FakeEngine())
    assert motion.fps == rate and motion.valid.tolist() == [level is not None for level in LEVELS]


@pytest.mark.parametrize("crop", [True, False])
def test_a_part_of_a_clip_keeps_its_place_in_time(darkening: Path, crop: bool) -> None:
    options = Options(frames=(2, None), driving_crop=crop)
    stream = capture_stream(open_driving(darkening), options, FakeEngine())
    motion = Motion.concatenate(list(stream.chunks))
    assert motion.start == pytest.approx(float(2 / motion.fps)) == stream.start > 0


def test_a_clip_that_changes_while_it_is_read_is_said(
    darkening: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = capture_stream(open_driving(darkening), Options(driving_crop=True), Watching(native=False))
    whole, passes = media.Clip.frames, iter([None, 1])  # how many frames there are each time

    def frames(clip: media.Clip, **part: Any) -> Iterator[np.ndarray]:
        yield from itertools.islice(whole(clip, **part), next(passes))

    monkeypatch.setattr(media.Clip, "frames", frames)
    with pytest.raises(MediaError, match="changed while it was read"):
        list(stream.chunks)


def test_a_range_without_frames_is_refused(darkening: Path) -> None:
    stream = capture_stream(open_driving(darkening), Options(frames=(90, None)), FakeEngine())
    with pytest.raises(InputError, match="--frames 90:"):
        list(stream.chunks)


def test_cancelling_ends_the_capture(darkening: Path) -> None:
    cancel = threading.Event()
    cancel.set()
    stream = capture_stream(open_driving(darkening), Options(), FakeEngine(), cancel=cancel)
    with pytest.raises(Cancelled):
        next(stream.chunks)
