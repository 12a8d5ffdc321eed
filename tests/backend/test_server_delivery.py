# SPDX-License-Identifier: GPL-3.0-or-later
"""Frames on their way to a client whose connection changes, or who has had enough, between two of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from backend.server.delivery import Wanted, deliver
from backend.server.sessions import Job, Session

FRAMES = 5


class Line:
    """A connection that notes which frames went over it; `after` happens with one of them."""

    def __init__(self, at: int = -1, after: Callable[[], None] = lambda: None) -> None:
        self.seen: list[int] = []
        self._at, self._after = at, after

    async def send(self, message: str | bytes) -> None:
        assert isinstance(message, bytes)
        header = json.loads(message[4 : 4 + int.from_bytes(message[:4], "big")])
        self.seen.append(header["index"])
        if header["index"] == self._at:
            self._after()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "frames").mkdir()
    for index in range(FRAMES):
        (tmp_path / "frames" / f"{index:06d}.png").write_bytes(b"a frame")
    return tmp_path


def test_a_new_connection_gets_nothing_before_it_asks(folder: Path) -> None:
    async def run() -> None:
        session, job, second = Session(), Job("j1", "animate", None, made=True), Line()

        def reconnect() -> None:
            session.connection = second

        first = Line(1, reconnect)
        session.connection = first
        delivery = asyncio.create_task(deliver(session, job, folder, Wanted("png", (), 1), asyncio.Event()))
        done, _ = await asyncio.wait({delivery}, timeout=0.3)
        assert not done and second.seen == []
        job.first_frame = 1  # frame 1 was lost on the way
        job.restart.set()
        await asyncio.wait_for(delivery, 30)
        assert first.seen == [0, 1] and second.seen == [1, 2, 3, 4]

    asyncio.run(run())


def test_nothing_is_sent_after_a_cancel(folder: Path) -> None:
    async def run() -> None:
        session, job, cancel = Session(), Job("j1", "animate", None), asyncio.Event()

        def end() -> None:
            cancel.set()
            job.grown.set()

        session.connection = line = Line(2, end)
        await asyncio.wait_for(deliver(session, job, folder, Wanted("png", (), 1), cancel), 30)
        assert line.seen == [0, 1, 2]

    asyncio.run(run())


def test_a_delivery_begins_anew_where_it_is_asked_to(folder: Path) -> None:
    async def run() -> None:
        session, job = Session(), Job("j1", "animate", None, made=True)

        def again() -> None:
            if not job.first_frame:
                job.first_frame = 2
                job.restart.set()

        session.connection = line = Line(3, again)
        await asyncio.wait_for(deliver(session, job, folder, Wanted("png", (), 1), asyncio.Event()), 30)
        assert line.seen == [0, 1, 2, 3, 2, 3, 4]

    asyncio.run(run())
