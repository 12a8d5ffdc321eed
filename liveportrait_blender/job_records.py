# SPDX-License-Identifier: GPL-3.0-or-later
"""What is known of a job, from when it is asked for until it is removed from the list. Imports no bpy."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from .client import BackendError, Event, Job
from .option_words import spoken

WAITING, RUNNING = ("waiting", "preparing", "queued"), ("running",)
ENDED = ("done", "failed", "cancelled")
MOST_WARNINGS = 20

_keys = itertools.count(1)


class Request(Protocol):
    """What can be submitted: see requests.py."""

    @property
    def method(self) -> str: ...
    @property
    def label(self) -> str: ...
    @property
    def folder(self) -> Path: ...
    @property
    def landing(self) -> Any: ...
    def params(self) -> Mapping[str, Any]: ...


@dataclass
class JobRecord:
    """A job. `state` is one of WAITING, RUNNING and ENDED; `done` of `total` (or None) in `stage`, at `fps`
    frames a second, `eta` seconds to go. `error` and `hint` are sentences. `result` is what result.json
    holds.

    `landing` says where in the file its result belongs; None once that file is closed.
    """

    request: Request
    key: str
    label: str
    folder: Path
    landing: Any = None
    state: str = "waiting"
    stage: str = ""
    done: int = 0
    total: int | None = None
    fps: float | None = None
    eta: float | None = None
    error: str = ""
    hint: str = ""
    code: str = ""
    details: Any = ""
    warnings: list[str] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    result: dict[str, Any] | None = None
    landed: bool = False
    settled: bool = False  # it has ended, and what was to be done about that is done
    job: Job | None = field(default=None, repr=False)

    @classmethod
    def of(cls, request: Request) -> JobRecord:
        # The number of the process keeps keys apart that end up in a file.
        key = f"{os.getpid():x}-{next(_keys)}"
        return cls(request, key, request.label, request.folder, request.landing)

    @property
    def method(self) -> str:
        return self.request.method

    @property
    def ended(self) -> bool:
        return self.state in ENDED

    @property
    def frames(self) -> int:
        """Frames that lie whole in the folder."""
        return 0 if self.job is None else self.job.next_frame

    @property
    def factor(self) -> float:
        """How much is done, 0 to 1; 0 while that is not known."""
        if self.state == "done":
            return 1.0
        return min(self.done / self.total, 1.0) if self.total else 0.0

    @property
    def text(self) -> str:
        """One line for a progress bar."""
        if self.ended:
            return {"done": "Done", "cancelled": "Cancelled", "failed": self.error or "Failed"}[self.state]
        if self.state != "running":
            return "Waiting"
        stage = {"capture": "Reading the driving", "render": "Rendering", "download": "Downloading"}
        told = stage.get(self.stage, "Starting")
        if self.total and self.stage == "download":  # bytes
            told += f" {self.done / 1e6:.0f} of {self.total / 1e6:.0f} MB"
        elif self.total:
            told += f" {self.done} of {self.total}"
        if self.eta is not None:
            told += f", {_span(self.eta)} left"
        # Last, as a narrow sidebar cuts off the end.
        return told + (f", {self.fps:.0f} fps" if self.fps and self.stage != "download" else "")

    def take(self, event: Event) -> None:
        """Note what an event of the client tells."""
        facts = event.facts
        if event.kind == "started":
            self.state = "running"
        elif event.kind == "progress":
            self.state = "running"
            self.stage = str(facts.get("stage", ""))
            self.done = int(_number(facts.get("done")) or 0)
            total = _number(facts.get("total"))
            self.total = None if total is None else int(total)
            self.fps, self.eta = _number(facts.get("fps")), _number(facts.get("eta"))
        elif event.kind == "warning":
            message = spoken(str(facts.get("message", ""))[:500])
            if message not in self.warnings and len(self.warnings) < MOST_WARNINGS:
                self.warnings.append(message)
        elif event.kind == "file":
            self.files.append(Path(facts["path"]))
        elif event.kind == "finished" and event.job is not None:
            self.end(event.job.state, event.job.error, event.job.result)

    def end(self, state: str, error: BackendError | None, result: dict[str, Any] | None = None) -> None:
        """It is over: "done", "failed" or "cancelled"."""
        self.state, self.result = state if state in ENDED else "failed", result
        self.eta = self.fps = None
        if error is not None and state != "done":
            self.error, self.hint = spoken(error.message), spoken(error.hint)
            self.code, self.details = error.code, error.details
        if self.state == "cancelled":
            self.error = self.hint = ""
        if self.state != "done" and self.frames:
            self.hint = f"{self.hint} {self.frames} finished frames are kept.".strip()


def _number(value: Any) -> float | None:
    """A number that a backend told, whatever it really sent."""
    good = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e12
    return float(value) if good else None


def _span(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{int(seconds // 60)} min {int(seconds % 60):02d} s"
    return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60):02d} min"
