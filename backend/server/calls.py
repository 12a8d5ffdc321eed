# SPDX-License-Identifier: GPL-3.0-or-later
"""What a method gets to answer a request, and what it answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from backend.server.params import Params
from backend.server.sessions import Job, Session

if TYPE_CHECKING:
    from backend.server.app import Server

Answer = dict[str, Any]


@dataclass(frozen=True)
class Call:
    """A request that is being answered."""

    server: Server
    session: Session
    identity: int | str
    params: Params


Method = Callable[[Call], Awaitable[Answer]]


def job_answer(job: Job) -> Answer:
    """JOB of PROTOCOL.md."""
    return {"job": job.number, "state": job.state, "key": job.key}


def ignore(told: Mapping[str, Any]) -> None:
    """Progress that nobody asked for."""
