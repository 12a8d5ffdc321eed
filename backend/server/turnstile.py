# SPDX-License-Identifier: GPL-3.0-or-later
"""One engine for two threads: a preview passes between two batches of the job that is being rendered."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

CALLS = (
    *("refine", "measure", "encode", "stitch", "retarget_eyes", "retarget_lips", "mouth_patch", "render"),
    "render_pasted",
)


class Turnstile:
    """A lock at which those in a hurry go first."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._taken = False
        self._hurried = 0

    @contextmanager
    def passing(self, urgent: bool) -> Iterator[None]:
        with self._changed:
            self._hurried += urgent
            self._changed.wait_for(lambda: not self._taken and (urgent or self._hurried == 0))
            self._hurried -= urgent
            self._taken = True
        try:
            yield
        finally:
            with self._changed:
                self._taken = False
                self._changed.notify_all()


class SharedEngine:
    """An Engine whose every call passes a turnstile; everything else is the engine's own."""

    def __init__(self, engine: Any, turnstile: Turnstile, urgent: bool) -> None:
        self._engine, self._turnstile, self._urgent = engine, turnstile, urgent

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._engine, name)
        if name not in CALLS:
            return found
        return self._guarded(found)

    def _guarded(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def guarded(*given: Any, **named: Any) -> Any:
            with self._turnstile.passing(self._urgent):
                return call(*given, **named)

        return guarded
