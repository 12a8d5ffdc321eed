# SPDX-License-Identifier: GPL-3.0-or-later
"""One connection: nothing is answered before hello; then requests, each on its own, and uploads."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import time
from typing import TYPE_CHECKING

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from backend.errors import LivePortraitError, OutputError
from backend.server.calls import Call
from backend.server.messages import (
    INTERNAL,
    PROTOCOL,
    UNKNOWN_METHOD,
    Request,
    RequestError,
    answer,
    failure,
    id_of,
    invalid,
    read_binary,
    read_request,
    too_many,
)
from backend.server.methods import METHODS
from backend.server.params import Params
from backend.server.sessions import Detached, Session

if TYPE_CHECKING:
    from backend.server.app import Server

REFUSED = 1008
FORGIVING = 60.0  # seconds after which wrong tokens do not count any more
FIRST_DELAY, LONGEST_DELAY = 0.1, 5.0  # seconds that a wrong token waits for its end, doubled each time
# Bytes of a WebSocket frame. A message of many MB in one frame is copied at its whole size five times on its
# way; in frames that fit into a processor's cache it goes nearly twice as fast.
FRAGMENT = 256 << 10

log = logging.getLogger("backend.server")


class Guard:
    """Compares tokens; makes those who guess wait."""

    def __init__(self, token: str) -> None:
        self._token = token.encode()
        self._wrong: list[float] = []

    def admits(self, token: str) -> bool:
        return hmac.compare_digest(token.encode("utf-8", "surrogatepass"), self._token)

    async def punish(self) -> None:
        now = time.monotonic()
        self._wrong = [when for when in self._wrong if now - when < FORGIVING][-100:] + [now]
        await asyncio.sleep(min(FIRST_DELAY * 2.0 ** min(len(self._wrong) - 1, 20), LONGEST_DELAY))


class Connection:
    """A client's socket; the session behind it may outlive it."""

    def __init__(self, server: Server, socket: ServerConnection) -> None:
        self._server, self._socket = server, socket
        self._answering: set[asyncio.Task[None]] = set()

    async def send(self, message: str | bytes) -> None:
        """Waits while the client is behind. Raises Detached."""
        try:
            if isinstance(message, str) or len(message) <= FRAGMENT:
                await self._socket.send(message)
            else:
                await self._send_fragments(memoryview(message))
        except ConnectionClosed:
            raise Detached from None

    async def _send_fragments(self, message: memoryview) -> None:
        """Whoever asked may be cancelled; half a message would be the end of the connection."""
        pieces = [message[at : at + FRAGMENT] for at in range(0, len(message), FRAGMENT)]
        sending = asyncio.ensure_future(self._socket.send(pieces))
        sending.add_done_callback(lambda task: task.cancelled() or task.exception())  # seen, whoever asks
        await asyncio.shield(sending)

    async def close(self, code: int, reason: str) -> None:
        await self._socket.close(code, reason)

    async def run(self) -> None:
        """Until the connection ends."""
        session = None
        try:
            session = await self._greet()
            if session is None:
                await self._socket.close(REFUSED, "hello refused")
                return
            async for message in self._socket:
                await self._take(session, message)
        except (ConnectionClosed, Detached):
            pass
        finally:
            for task in self._answering:
                task.cancel()
            if session is not None and session.connection is self:
                self._server.sessions.detach(session)

    async def _greet(self) -> Session | None:
        """The session after a good hello, else None."""
        try:
            async with asyncio.timeout(self._server.limits.hello_seconds):
                message = await self._socket.recv()
        except TimeoutError:
            return None
        try:
            if not isinstance(message, str):
                return None
            request = read_request(message, self._server.limits)
            params = Params(request.params)
            token = params.text("token", longest=1000)
        except RequestError:
            return None
        if request.method != "hello" or request.id is None:
            return None
        if not self._server.guard.admits(token):
            log.warning("A client without the right token was refused")
            await self._server.guard.punish()
            return None
        self._server.strangers.pop(self, None)
        return await self._welcome(request, params)

    async def _welcome(self, request: Request, params: Params) -> Session | None:
        assert request.id is not None
        session = None
        try:
            protocol = params.integer("protocol")
            client = params.mapping("client")
            wanted = params.text("session", longest=64) if params.has("session") else None
            params.end()
            if protocol != PROTOCOL:
                raise _mismatch(protocol)
            session, resumed = self._server.sessions.attach(self, wanted)
            told = await self._server.introduction(session, resumed)
        except RequestError as error:
            await self.send(failure(request.id, error))
            return None
        except BaseException:
            if session is not None:
                self._server.sessions.detach(session)
            raise
        log.info("A client said hello: %s", ascii(client.get("name", ""))[:80])
        try:
            await self.send(answer(request.id, told))
        except Detached:
            self._server.sessions.detach(session)
            raise
        return session

    async def _take(self, session: Session, message: str | bytes) -> None:
        limits = self._server.limits
        if isinstance(message, bytes):
            await self._upload(session, message)
            return
        try:
            request = read_request(message, limits)
        except RequestError as error:
            await self.send(failure(id_of(message[: limits.text_bytes], limits.nesting), error))
            return
        if request.id is None:
            return
        if len(self._answering) >= limits.requests:
            full = too_many("requests", "Too many requests wait for their answers.")
            await self.send(failure(request.id, full))
            return
        task = asyncio.create_task(self._answer(session, request.id, request))
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    async def _answer(self, session: Session, identity: int | str, request: Request) -> None:
        job = None
        try:
            if self._server.ending:
                raise RequestError("closing", "The server is ending.", "Start it again.")
            method = METHODS.get(request.method)
            if method is None:
                what = f"There is no method {ascii(request.method[:60])}."
                raise RequestError("unknown-method", what, "See PROTOCOL.md.", number=UNKNOWN_METHOD)
            result = await method(Call(self._server, session, identity, Params(request.params)))
            job = result.get("job")
            told = answer(identity, result)
        except Detached:
            return
        except LivePortraitError as error:
            told = failure(identity, error)
        except OSError as error:
            log.exception("The system refused")
            told = failure(identity, OutputError(f"The system refused: {error.strerror}.", "See the log."))
        except Exception:
            log.exception("A request failed")
            what = "A fault of the server."
            told = failure(identity, RequestError("internal", what, "Its log says more.", number=INTERNAL))
        try:
            with contextlib.suppress(Detached):
                await self.send(told)
        finally:
            session.announce(job)

    async def _upload(self, session: Session, message: bytes) -> None:
        try:
            header, payload = read_binary(message, self._server.limits)
            params = Params(header)
            if params.text("type") != "upload":
                raise invalid("A binary message to the server is part of an upload.")
            number, offset = params.text("upload"), params.integer("offset")
            params.end()
            upload = session.upload(number)
            if offset != upload.offset or offset + len(payload) > upload.size:
                del session.uploads[number]
                await asyncio.to_thread(self._server.store.drop, upload)
                raise RequestError(
                    "upload", "The part does not follow what came.", "Begin again.", {"upload": number}
                )
            await asyncio.to_thread(upload.add, payload)
        except LivePortraitError as error:
            await self.send(failure(None, error))
        except OSError as error:
            await self.send(failure(None, OutputError(f"The upload failed: {error.strerror}.")))


def _mismatch(client: int) -> RequestError:
    side = "server" if client > PROTOCOL else "client"
    return RequestError(
        "protocol-mismatch",
        f"The client speaks protocol {client}, the server {PROTOCOL}.",
        f"Update the {side}.",
        {"server": PROTOCOL, "client": client, "update": side},
    )
