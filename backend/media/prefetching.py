# SPDX-License-Identifier: GPL-3.0-or-later
"""An iterator that is read ahead by a thread of its own."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from concurrent.futures import Future
from queue import SimpleQueue
from threading import Event, Semaphore, Thread
from typing import TypeVar

T = TypeVar("T")
END = object()


def prefetch(items: Iterable[T], depth: int = 8) -> Generator[T, None, None]:
    """The same items, of which up to `depth` are made ahead by a thread.

    What `items` raises is raised here, after the items before it. When the consumer stops early (close(), a
    break, an exception) the thread ends, `items` is closed, and nothing is left behind; this waits for the
    one item that is just being made.
    """
    queue: SimpleQueue[object] = SimpleQueue()
    slots = Semaphore(max(depth, 1))
    stop = Event()
    outcome: Future[None] = Future()

    def produce() -> None:
        try:
            iterator = iter(items)
            try:
                while slots.acquire() and not stop.is_set():
                    try:
                        queue.put(next(iterator))
                    except StopIteration:
                        break
            finally:
                close = getattr(iterator, "close", None)
                if close is not None:
                    close()
            outcome.set_result(None)
        except BaseException as error:  # noqa: BLE001 - it belongs to the consumer
            outcome.set_exception(error)
        finally:
            queue.put(END)

    thread = Thread(target=produce, name="prefetch", daemon=True)
    thread.start()
    try:
        while (item := queue.get()) is not END:
            slots.release()
            yield item  # type: ignore[misc]  # only END is no T
    finally:
        stop.set()
        slots.release()
        thread.join()
    outcome.result()
