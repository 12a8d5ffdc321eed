# SPDX-License-Identifier: GPL-3.0-or-later
"""Which picture a frame of constant rate shows, and which rate a clip is taken to have."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.media.rates import constant_rate, frame_count, guess_rate, tolerance

NTSC = Fraction(30000, 1001)
TICK = Fraction(1, 90000)
RATES = st.sampled_from([Fraction(24), Fraction(25), NTSC, Fraction(30), Fraction(60), Fraction(15, 2)])
STEPS = st.lists(st.integers(1, 9000), min_size=1, max_size=40)


def timed(stamps: list[int], start: Fraction) -> list[tuple[Fraction, Fraction, int]]:
    """(time, duration, index) of pictures with these ticks between them; the last one lasts one such step."""
    times = [start + sum(stamps[:k]) * TICK for k in range(len(stamps))]
    return [(time, step * TICK, k) for k, (time, step) in enumerate(zip(times, stamps))]


@given(STEPS, RATES, st.integers(0, 10), st.one_of(st.none(), st.integers(0, 60)), st.integers(-5, 5))
def test_frame_k_is_the_last_picture_that_has_begun(
    steps: list[int], fps: Fraction, first: int, stop: int | None, start: int
) -> None:
    pictures = timed(steps, Fraction(start))
    end = pictures[-1][0] + pictures[-1][1]
    frames = range(first, 10_000 if stop is None else stop)
    expected = []
    for k in frames:
        time = start + k / fps
        if time >= end:
            break
        expected.append(max(index for begin, _, index in pictures if begin <= time))
    shown = list(constant_rate(pictures, fps, Fraction(start), first, stop))
    assert [picture for picture, _ in shown] == expected
    repeats = [again for _, again in shown]
    assert repeats == [k > 0 and expected[k] == expected[k - 1] for k in range(len(expected))]
    if first == 0 and stop is None:
        assert len(shown) == frame_count(end - start, fps)


@given(st.integers(1, 200), RATES)
def test_a_clip_at_its_own_rate_shows_every_picture_once(count: int, fps: Fraction) -> None:
    pictures = ((5 + k / fps, 1 / fps, k) for k in range(count))
    assert [k for k, _ in constant_rate(pictures, fps, Fraction(5))] == list(range(count))


@given(st.integers(2, 400), st.sampled_from([NTSC, Fraction(24), Fraction(24000, 1001), Fraction(60)]))
def test_rounded_timestamps_neither_drop_nor_double_pictures(count: int, fps: Fraction) -> None:
    """Matroska keeps whole milliseconds."""
    unit = Fraction(1, 1000)
    times = [round(k / fps / unit) * unit for k in range(count)]
    pictures = ((time, 1 / fps, k) for k, time in enumerate(times))
    shown = [k for k, _ in constant_rate(pictures, fps, Fraction(0), late=tolerance(fps, unit))]
    assert shown == list(range(count))


def test_pictures_are_taken_one_at_a_time() -> None:
    taken = 0

    def pictures():
        nonlocal taken
        for k in range(1000):
            taken += 1
            yield Fraction(k, 25), Fraction(1, 25), k

    frames = constant_rate(pictures(), Fraction(25), Fraction(0))
    assert [next(frames)[0] for _ in range(3)] == [0, 1, 2]
    assert taken <= 4


def grid(fps: Fraction, count: int, unit: Fraction = TICK) -> list[Fraction]:
    return [round(k / fps / unit) * unit for k in range(count)]


@pytest.mark.parametrize(
    "fps", [NTSC, Fraction(24000, 1001), Fraction(25), Fraction(30), Fraction(60), Fraction(17)]
)
@pytest.mark.parametrize("unit", [TICK, Fraction(1, 1000), Fraction(1, 600)])
def test_a_constant_rate_stays_what_it_is(fps: Fraction, unit: Fraction) -> None:
    assert guess_rate(grid(fps, 300, unit), unit, [fps]) == (fps, True)


def test_dropped_pictures_leave_the_rate() -> None:
    times = [time for k, time in enumerate(grid(Fraction(30), 300)) if k % 11]
    assert guess_rate(times, TICK, [Fraction(90000), Fraction(27268, 1000)]) == (30, True)


def test_a_phones_jitter_becomes_the_rate_it_means() -> None:
    random = np.random.default_rng(1)
    steps = [Fraction(int(step), 90000) for step in random.normal(3000, 500, 300)]
    times = [sum(steps[:k], Fraction(0)) for k in range(300)]
    assert guess_rate(times, TICK, [Fraction(90000), Fraction(29873, 1000)]) == (30, False)


def test_twice_the_rate_that_a_container_declares_is_not_taken() -> None:
    assert guess_rate(grid(Fraction(30), 100), TICK, [Fraction(60), Fraction(30)]) == (30, True)


def test_one_picture_has_the_declared_rate_and_nonsense_has_25() -> None:
    assert guess_rate([Fraction(0)], TICK, [NTSC])[0] == NTSC
    assert guess_rate([Fraction(0)], TICK, [None, Fraction(0), Fraction(90000)])[0] == 25
    assert guess_rate([], TICK, [])[0] == 25


@given(st.lists(st.fractions(0, 1000), max_size=30), st.lists(st.fractions(-10, 10**6), max_size=3))
def test_any_timestamps_give_a_sane_rate(times: list[Fraction], declared: list[Fraction]) -> None:
    assert 1 <= guess_rate(sorted(times), TICK, declared)[0] <= 240
