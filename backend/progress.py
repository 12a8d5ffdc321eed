# SPDX-License-Identifier: GPL-3.0-or-later
"""How a job tells what it is doing: a small interface, a bar for terminals, JSON lines for programs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from types import TracebackType
from typing import IO, Any, Protocol

JSON_INTERVAL = 0.1  # seconds; at most ten progress lines a second, like the protocol's notifications


class Progress(Protocol):
    """What the pipeline reports to. Calls may come from any one thread at a time and must return quickly."""

    def update(self, stage: str, done: int, total: int | None) -> None:
        """`done` of about `total` frames (None: not known) of "capture" or "render" are finished."""

    def warn(self, message: str) -> None:
        """Something the user should know that does not end the job."""


class Silent:
    """Reports nothing."""

    def update(self, stage: str, done: int, total: int | None) -> None:
        return None

    def warn(self, message: str) -> None:
        return None


class Rate:
    """Frames a second and remaining seconds of one stage, over its whole run."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._stage: str | None = None
        self._began = 0.0
        self._first = 0

    def measure(self, stage: str, done: int, total: int | None) -> tuple[float | None, float | None]:
        """(frames a second, seconds left) or None where nothing can be said yet."""
        now = self._clock()
        if stage != self._stage:
            self._stage, self._began, self._first = stage, now, done
            return None, None
        elapsed = now - self._began
        if elapsed <= 0 or done <= self._first:
            return None, None
        speed = (done - self._first) / elapsed
        left = None if total is None else max(total - done, 0) / speed
        return speed, left


class JsonLines:
    """One JSON object a line: progress (throttled), warnings, and whatever `emit` is given."""

    def __init__(self, stream: IO[str], clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._rate = Rate(clock)
        self._last: tuple[str, float] | None = None

    def update(self, stage: str, done: int, total: int | None) -> None:
        speed, left = self._rate.measure(stage, done, total)
        now = self._clock()
        finished = total is not None and done >= total
        if self._last and self._last[0] == stage and now - self._last[1] < JSON_INTERVAL and not finished:
            return
        self._last = (stage, now)
        self.emit(
            "progress",
            stage=stage,
            done=done,
            total=total,
            fps=None if speed is None else round(speed, 2),
            eta=None if left is None else round(left, 2),
        )

    def warn(self, message: str) -> None:
        self.emit("warning", message=message)

    def emit(self, event: str, **fields: Any) -> None:
        """Write {"event": event, **fields} as one line."""
        self._stream.write(json.dumps({"event": event, **fields}, ensure_ascii=False) + "\n")
        self._stream.flush()


class TextWarnings:
    """No bar (the output is a pipe or a file); warnings as one line each."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def update(self, stage: str, done: int, total: int | None) -> None:
        return None

    def warn(self, message: str) -> None:
        self._stream.write(f"warning: {message}\n")
        self._stream.flush()


class Bar:
    """A progress bar a stage on a terminal, by rich; a context manager."""

    LABELS = {"capture": "Reading the performance", "render": "Rendering"}

    def __init__(self, stream: IO[str]) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            SpinnerColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
        from rich.progress import Progress as RichProgress

        self._rate = Rate()
        self._tasks: dict[str, Any] = {}
        self._rich = RichProgress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[speed]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(file=stream),
            transient=False,
        )

    def __enter__(self) -> Bar:
        self._rich.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._rich.stop()

    def update(self, stage: str, done: int, total: int | None) -> None:
        if stage not in self._tasks:
            label = self.LABELS.get(stage, stage)
            self._tasks[stage] = self._rich.add_task(label, total=total, speed="")
        speed, _ = self._rate.measure(stage, done, total)
        self._rich.update(
            self._tasks[stage],
            completed=done,
            total=total,
            speed="" if speed is None else f"{speed:.1f} frames/s",
        )

    def warn(self, message: str) -> None:
        self._rich.console.print(f"warning: {message}", style="yellow", markup=False, highlight=False)
