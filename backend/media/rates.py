# SPDX-License-Identifier: GPL-3.0-or-later
"""Constant rate out of timestamps: which rate a clip has, which picture each frame shows. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from math import ceil
from statistics import median
from typing import TypeVar

T = TypeVar("T")

NTSC = Fraction(1000, 1001)
STANDARD_RATES = tuple(
    Fraction(rate)
    for rate in (5, 6, 8, 10, 12, Fraction(25, 2), 15, 20, 24, 25, 30, 48, 50, 60, 90, 100, 120, 240)
)
BROADCAST_RATES = tuple(rate * NTSC for rate in (24, 30, 48, 60, 120, 240))
LOWEST, HIGHEST = Fraction(1), Fraction(240)  # what is taken as a rate
USUAL_HIGHEST = Fraction(60)  # for clips whose timestamps follow no rate
GRID = Fraction(1, 5)  # of a frame: how far a timestamp may lie from its place
STEADY = 0.6  # share of steps that are one frame long, else the rate is too fine


def guess_rate(
    times: Sequence[Fraction], tick: Fraction, declared: Iterable[Fraction | None]
) -> tuple[Fraction, bool]:
    """The constant rate of a clip with pictures at `times` (seconds, ascending), and whether they follow it.

    The first declared, standard or broadcast rate on whose grid all timestamps lie (a dropped picture leaves
    a hole; the container rounds to `tick` seconds); else, the rate being variable, the standard one nearest
    to the median step, at most 60.
    """
    possible = [rate for rate in declared if rate is not None and LOWEST <= rate <= HIGHEST]
    steps = [after - before for before, after in zip(times, times[1:]) if after > before]
    if not steps:
        return (possible[0] if possible else Fraction(25)), True
    for rate in (*possible, *STANDARD_RATES, *BROADCAST_RATES):
        if _on_grid(times, steps, rate, tick):
            return rate, True
    typical = min(max(1 / median(steps), LOWEST), USUAL_HIGHEST)
    return min(STANDARD_RATES, key=lambda rate: abs(rate - typical)), False


def _on_grid(times: Sequence[Fraction], steps: Sequence[Fraction], rate: Fraction, tick: Fraction) -> bool:
    rounding = Fraction(0) if _whole_ticks(rate, tick) else tick * rate
    places = [(time - times[0]) * rate for time in times]
    if any(abs(place - round(place)) > GRID + rounding for place in places):
        return False
    frames = [round(step * rate) for step in steps]
    return GRID + rounding < Fraction(1, 2) and 0 not in frames and frames.count(1) >= STEADY * len(frames)


def _whole_ticks(rate: Fraction, tick: Fraction) -> bool:
    return (1 / (rate * tick)).denominator == 1


def tolerance(native: Fraction, tick: Fraction) -> Fraction:
    """Seconds by which a timestamp may be late: what the container's ticks round away, else nothing.

    Only where a native frame is no whole number of ticks, as with Matroska's milliseconds.
    """
    if _whole_ticks(native, tick):
        return Fraction(0)
    return min(tick, 1 / (4 * native))


def frame_count(duration: Fraction, fps: Fraction, late: Fraction = Fraction(0)) -> int:
    """How many frames k begin before the last picture ends, `duration` seconds after the first one began."""
    return max(ceil((duration - late) * fps), 1)


def constant_rate(
    pictures: Iterable[tuple[Fraction, Fraction, T]],
    fps: Fraction,
    start: Fraction,
    first: int = 0,
    stop: int | None = None,
    late: Fraction = Fraction(0),
) -> Iterator[tuple[T, bool]]:
    """Frames `first` to `stop` (None: the end) at a constant rate, each with whether it repeats the last one.

    pictures: (timestamp, duration, picture) in ascending order, seconds. Frame k is the last picture with
    timestamp <= start + k/fps (+ `late`); before the first picture it is the first. The last frame begins
    before the last picture ends.
    """
    k = first
    current: T | None = None
    end = start
    given = False
    have = False
    for time, duration, picture in pictures:
        # Everything before this picture shows the one that came before.
        while have and start + k / fps + late < time:
            if stop is not None and k >= stop:
                return
            yield current, given  # type: ignore[misc]  # there is one: `have`
            given = True
            k += 1
        if stop is not None and k >= stop:
            return
        current, given, have = picture, False, True
        end = time + duration
    while have and (stop is None or k < stop) and start + k / fps + late < end:
        yield current, given  # type: ignore[misc]
        given = True
        k += 1
