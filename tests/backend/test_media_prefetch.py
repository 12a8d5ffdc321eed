# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading ahead: same items, same errors, nothing left behind."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from backend.errors import MediaError
from backend.media import prefetch


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


def test_the_same_items_in_the_same_order() -> None:
    assert list(prefetch(range(1000), 3)) == list(range(1000))
    assert list(prefetch([])) == []


def test_items_are_made_on_another_thread() -> None:
    names = list(prefetch(threading.current_thread().name for _ in range(3)))
    assert threading.current_thread().name not in names


def test_no_more_than_depth_are_made_ahead() -> None:
    made = 0
    waiting = threading.Event()

    def items() -> Iterator[int]:
        nonlocal made
        for k in range(100):
            made += 1
            if made == 5:
                waiting.set()
            yield k

    with closing(prefetch(items(), 4)) as ahead:
        assert next(ahead) == 0
        assert waiting.wait(10)
        assert not threading.Event().wait(0.05)
        assert made == 5  # one was taken, four wait


def test_an_error_comes_after_the_items_before_it() -> None:
    def items() -> Iterator[int]:
        yield 1
        yield 2
        raise MediaError("broken")

    ahead = prefetch(items())
    assert [next(ahead), next(ahead)] == [1, 2]
    with pytest.raises(MediaError, match="broken"):
        next(ahead)


@pytest.mark.parametrize("taken", [0, 1, 5])
def test_a_consumer_that_stops_early_closes_the_source(taken: int) -> None:
    closed_by: list[str] = []

    def items() -> Iterator[int]:
        try:
            yield from range(10**9)
        finally:
            closed_by.append(threading.current_thread().name)

    ahead = prefetch(items(), 2)
    for _ in range(taken):
        next(ahead)
    ahead.close()
    assert closed_by == (["prefetch"] if taken else closed_by)


def test_a_consumer_that_fails_leaves_no_thread() -> None:
    with pytest.raises(ZeroDivisionError), closing(prefetch(iter(range(10**9)))) as ahead:
        for item in ahead:
            assert 1 / (item - 3)


def test_it_nests() -> None:
    ahead = prefetch(prefetch(range(10**9), 2), 2)
    assert next(ahead) == 0
    ahead.close()
