# SPDX-License-Identifier: GPL-3.0-or-later
"""What belongs to a client: its jobs, sources and uploads. Nobody else can name them."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from backend.options import Options
from backend.server.limits import Limits
from backend.server.messages import RequestError, too_many
from backend.server.store import Upload


class Sender(Protocol):
    """A connection, as far as a session knows it."""

    async def send(self, message: str | bytes) -> None: ...


class Detached(Exception):
    """The client is not connected."""


@dataclass(frozen=True)
class Input:
    """A checked input: a file of this machine or of the store, or a name of the motion library."""

    path: Path | None
    library: str
    sha256: str

    def as_task(self) -> dict[str, str]:
        return {"path": str(self.path)} if self.path is not None else {"library": self.library}


@dataclass(frozen=True)
class OpenSource:
    """A source that the client opened: what the worker needs to open it again at any time."""

    file: Input
    options: Options
    given: Mapping[str, Any]


@dataclass
class Job:
    """Something that takes a while. `spec` is what its method made of the request."""

    number: str
    method: str
    spec: Any
    state: str = "queued"
    key: str | None = None
    stage: str = ""
    done: int = 0
    total: int | None = None
    first_frame: int = 0
    result: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    warnings: list[str] = field(default_factory=list)
    announced: asyncio.Event = field(default_factory=asyncio.Event)  # the client knows its number
    cancel: asyncio.Event = field(default_factory=asyncio.Event)
    moved: asyncio.Event = field(default_factory=asyncio.Event)  # progress to tell
    grown: asyncio.Event = field(default_factory=asyncio.Event)  # perhaps something to deliver
    restart: asyncio.Event = field(default_factory=asyncio.Event)  # deliver again from first_frame on
    made: bool = False  # the work is done, what is left is delivery
    life: asyncio.Task[None] | None = None

    @property
    def ended(self) -> bool:
        return self.state in ("done", "failed", "cancelled")

    def as_json(self) -> dict[str, Any]:
        names = ("method", "state", "key", "done", "total", "stage")
        return {"job": self.number, **{name: getattr(self, name) for name in names}}


class Session:
    """One client, across reconnections."""

    def __init__(self) -> None:
        self.number = secrets.token_hex(16)
        self.local = False
        self.nonce: tuple[Path, str] | None = None
        self.connection: Sender | None = None
        self.detached = time.monotonic()
        self.jobs: dict[str, Job] = {}
        self.sources: dict[str, OpenSource] = {}
        self.uploads: dict[str, Upload] = {}
        self.preview: asyncio.Event | None = None  # set to end the preview that waits
        self._count = 0

    def announce(self, number: str | None) -> None:
        """A job begins after the answer that names it; another answer says nothing of it."""
        if number in self.jobs:
            self.jobs[number].announced.set()

    def name(self, letter: str) -> str:
        self._count += 1
        return f"{letter}{self._count}"

    async def send(self, message: str | bytes) -> None:
        """Raises Detached."""
        if self.connection is None:
            raise Detached
        await self.connection.send(message)

    def job(self, number: str) -> Job:
        if number not in self.jobs:
            raise RequestError("not-found", "There is no such job.", "job.list names yours.")
        return self.jobs[number]

    def source(self, number: str) -> OpenSource:
        if number not in self.sources:
            raise RequestError("not-found", "There is no such source.", "Open it with source.open.")
        return self.sources[number]

    def upload(self, number: str) -> Upload:
        if number not in self.uploads:
            raise RequestError("not-found", "There is no such upload.", "Begin one with upload.begin.")
        return self.uploads[number]

    def forget_nonce(self) -> None:
        if self.nonce is not None:
            self.nonce[0].unlink(missing_ok=True)
            self.nonce = None


class Sessions:
    """All of them. Detached ones are kept for a while."""

    def __init__(self, limits: Limits, end: Callable[[Session], None]) -> None:
        """end: is called with a session that is given up."""
        self._limits, self._end = limits, end
        self._known: dict[str, Session] = {}

    def __iter__(self) -> Any:
        return iter(list(self._known.values()))

    def attach(self, connection: Sender, wanted: str | None) -> tuple[Session, bool]:
        """The client's former session, or a new one, and which it is. Raises RequestError (too-many)."""
        session = self._known.get(wanted or "")
        if session is not None and session.connection is None:
            session.connection = connection
            session.local = False
            return session, True
        if len(self._known) >= self._limits.sessions:
            away = [session for session in self._known.values() if session.connection is None]
            if not away:
                raise too_many("sessions", "Too many clients are connected.")
            self._give_up(min(away, key=lambda session: session.detached))
        session = Session()
        session.connection = connection
        self._known[session.number] = session
        return session, False

    def detach(self, session: Session) -> None:
        session.connection = None
        session.detached = time.monotonic()
        session.forget_nonce()

    def sweep(self) -> None:
        """Give up the sessions whose clients have been away too long."""
        now = time.monotonic()
        for session in list(self._known.values()):
            if session.connection is None and now - session.detached >= self._limits.detached_seconds:
                self._give_up(session)

    def _give_up(self, session: Session) -> None:
        del self._known[session.number]
        self._end(session)
        for upload in session.uploads.values():
            upload.close()
