# SPDX-License-Identifier: GPL-3.0-or-later
"""Capture in chunks gives what the whole clip at once would give."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from backend.capture import _Chunk, _filled, wants_crop
from backend.motion import FRAME_SHAPES, Motion
from backend.options import Options
from backend.spool import Spool
from tests.backend.synthetic_motion import make_motion


def chunks_of(motion: Motion, lengths: list[int]) -> Iterator[_Chunk]:
    """What the measuring gives: per chunk the rows with a face alone."""
    at = 0
    for length in lengths:
        valid = motion.valid[at : at + length].tolist()
        rows = [motion[at + i] for i, ok in enumerate(valid) if ok]
        yield _Chunk(valid, replace(Motion.concatenate(rows), start=0.0) if rows else None)
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
        if name != "mouth":  # rows without a face have no mouth of their own
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
