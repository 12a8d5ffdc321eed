# SPDX-License-Identifier: GPL-3.0-or-later
"""Turns at something that only one can have: owners take turns, whoever asked for more."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from backend.server.messages import RequestError


class Lane:
    """A fair lock on the event loop."""

    def __init__(self) -> None:
        self._taken = False
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    def waiting(self, owner: str | None = None) -> int:
        """How many wait, of one owner or of all."""
        if owner is not None:
            return len(self._waiting.get(owner, ()))
        return sum(map(len, self._waiting.values()))

    @asynccontextmanager
    async def turn(self, owner: str, cancel: asyncio.Event) -> AsyncIterator[None]:
        """Wait for one's turn. Raises RequestError "cancelled" once `cancel` is set."""
        if self._taken:
            await self._wait(owner, cancel)
        self._taken = True
        try:
            yield
        finally:
            self._taken = False
            self._next()

    async def _wait(self, owner: str, cancel: asyncio.Event) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(owner, deque()).append(turn)
        wish: asyncio.Future[Any] = asyncio.ensure_future(cancel.wait())
        try:
            both: set[asyncio.Future[Any]] = {turn, wish}
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if cancel.is_set():
                raise RequestError("cancelled", "Cancelled.", "It had not begun.")
        except BaseException:
            self._forget(owner, turn)
            if turn.done():  # the turn came as well: somebody else has to have it
                self._taken = False
                self._next()
            raise
        finally:
            wish.cancel()

    def _forget(self, owner: str, turn: asyncio.Future[None]) -> None:
        line = self._waiting.get(owner)
        if line is not None and turn in line:
            line.remove(turn)
            if not line:
                del self._waiting[owner]

    def _next(self) -> None:
        if self._taken or not self._waiting:
            return
        owner, line = next(iter(self._waiting.items()))
        turn = line.popleft()
        del self._waiting[owner]
        if line:
            self._waiting[owner] = line  # at the end: the others come first
        self._taken = True
        turn.set_result(None)
