# SPDX-License-Identifier: GPL-3.0-or-later
"""The server: listens, keeps everything together, ends in order."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import http
import json
import logging
import os
import signal
import ssl
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

from backend import __version__
from backend.errors import InputError
from backend.options import Options
from backend.server.connection import Connection, Guard
from backend.server.jobs import Jobs
from backend.server.lifecycle import watch_parent, watch_stdin
from backend.server.limits import Limits
from backend.server.messages import PROTOCOL, notification
from backend.server.nonces import Nonces
from backend.server.sessions import Detached, Session, Sessions
from backend.server.store import Store
from backend.server.worker_process import WorkerProcess

ENGINES_AGE = 10.0  # seconds that the look at the weights holds
THREADS = 6  # for what blocks: reading frames for clients, hashing inputs, a download
SWEEP = 1.0  # seconds between two looks at what has expired
GOING_AWAY = 1001

log = logging.getLogger("backend.server")


@dataclass(frozen=True)
class Settings:
    """How to serve; see PROTOCOL.md."""

    token: str
    cache: Path
    log_file: Path | None = None
    host: str = "127.0.0.1"
    port: int = 0
    tls: ssl.SSLContext | None = None
    parent_pid: int | None = None
    watch_stdin: bool = False
    unload_after: float = 600.0
    limits: Limits = Limits()


class Server:
    """One process of it. Everything but `Store` and threads of jobs happens on the event loop."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.limits = settings.limits
        self.guard = Guard(settings.token)
        self.store = Store(settings.cache, settings.limits.store_bytes)
        self.worker = WorkerProcess(settings.limits.source_bytes)
        self.jobs = Jobs(settings.limits, self.store, self.worker)
        self.sessions = Sessions(settings.limits, self.jobs.end_session)
        self.strangers: dict[Connection, float] = {}  # in order of arrival
        self.downloading = asyncio.Lock()
        self.ending = False
        self._connections: set[Connection] = set()
        self._closing: asyncio.Future[str] | None = None
        self._began = time.monotonic()
        self._nonces = Nonces()
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="backend")
        self._engines: tuple[float, dict[str, Any]] | None = None

    def close(self, reason: str) -> None:
        """Begin to end."""
        if self._closing is not None and not self._closing.done():
            self._closing.set_result(reason)

    async def run(self) -> None:
        """Until the end. Raises InputError when the address cannot be had."""
        loop = asyncio.get_running_loop()
        loop.set_default_executor(_started(self._threads))
        self._closing = loop.create_future()
        settings = self._settings
        tasks: list[asyncio.Task[None]] = []
        try:
            async with contextlib.AsyncExitStack() as stack:
                try:
                    listening = await stack.enter_async_context(
                        serve(
                            self._serve,
                            settings.host,
                            settings.port,
                            ssl=settings.tls,
                            origins=[None],  # no browser
                            compression=None,
                            process_request=self._admit,
                            max_size=self.limits.message_bytes,
                            max_queue=4,
                            open_timeout=self.limits.hello_seconds,
                            close_timeout=2,
                            ping_interval=20,
                            ping_timeout=60,
                            server_header=None,
                            logger=_quiet(),
                        )
                    )
                except (OSError, OverflowError) as error:
                    raise _no_address(settings, error) from error
                tasks.append(asyncio.create_task(self._sweep()))
                self._watch(loop, tasks)
                port = next(iter(listening.sockets)).getsockname()[1]
                self._announce(port)
                reason = await self._closing
                log.info("Ending: %s", reason)
                await self._say_goodbye(reason)
        finally:
            for task in tasks:
                task.cancel()
            await self.worker.stop()
            self._nonces.close()

    def _watch(self, loop: asyncio.AbstractEventLoop, tasks: list[asyncio.Task[None]]) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            try:
                loop.add_signal_handler(number, self.close, "signal")
            except NotImplementedError:  # Windows
                signal.signal(number, lambda *_: loop.call_soon_threadsafe(self.close, "signal"))
        if self._settings.parent_pid is not None:
            tasks.append(asyncio.create_task(watch_parent(self._settings.parent_pid, self.close)))
        if self._settings.watch_stdin:
            watch_stdin(loop, self.close)

    def _announce(self, port: int) -> None:
        host = self._settings.host
        shown = f"[{host}]" if ":" in host else host
        ready = {
            "event": "ready",
            "protocol": PROTOCOL,
            "version": __version__,
            "url": f"{'wss' if self._settings.tls else 'ws'}://{shown}:{port}",
            "host": host,
            "port": port,
            "pid": os.getpid(),
            "log": str(self._settings.log_file) if self._settings.log_file else None,
        }
        sys.stdout.write(json.dumps(ready) + "\n")
        sys.stdout.flush()
        log.info("Listening on %s", ready["url"])

    async def _say_goodbye(self, reason: str) -> None:
        self.ending = True
        for connection in list(self._connections):
            if connection not in self.strangers:
                with contextlib.suppress(Detached, TimeoutError):
                    async with asyncio.timeout(0.5):
                        await connection.send(notification("server.closing", {"reason": reason}))
        for session in self.sessions:
            self.jobs.end_session(session)
        await self.worker.stop()
        await self.jobs.close()

    # --- connections ----------------------------------------------------------------------------------------

    def _admit(self, socket: ServerConnection, request: Request) -> Response | None:
        if len(self._connections) >= self.limits.connections:
            return socket.respond(http.HTTPStatus.SERVICE_UNAVAILABLE, "too many connections\n")
        return None

    async def _serve(self, socket: ServerConnection) -> None:
        connection = Connection(self, socket)
        if len(self._connections) >= self.limits.connections:
            return
        while len(self.strangers) >= self.limits.strangers:
            oldest = next(iter(self.strangers))
            del self.strangers[oldest]
            await oldest.close(1008, "hello refused")
        self._connections.add(connection)
        self.strangers[connection] = time.monotonic()
        try:
            await connection.run()
        finally:
            self.strangers.pop(connection, None)
            self._connections.discard(connection)

    # --- answers --------------------------------------------------------------------------------------------

    async def introduction(self, session: Session, resumed: bool) -> dict[str, Any]:
        """The result of hello."""
        session.forget_nonce()
        session.nonce = self._nonces.new()
        engines = await self._look_at_engines()
        return {
            "protocol": PROTOCOL,
            "version": __version__,
            "pid": os.getpid(),
            "session": session.number,
            "resumed": resumed,
            "nonce_file": str(session.nonce[0]),
            **engines,
            "limits": asdict(self.limits),
        }

    def same_nonce(self, session: Session, nonce: str) -> bool:
        expected = "" if session.nonce is None else session.nonce[1]
        given = nonce.encode("utf-8", "surrogatepass")
        return hmac.compare_digest(given, expected.encode()) and bool(expected)

    async def status(self, session: Session) -> dict[str, Any]:
        return {
            "version": __version__,
            "pid": os.getpid(),
            "uptime": round(time.monotonic() - self._began, 1),
            "worker": {
                "running": self.worker.pid is not None,
                "pid": self.worker.pid,
                "restarts": self.worker.restarts,
            },
            "jobs": self.jobs.counts(session),
            "connections": len(self._connections),
            "sources": len(session.sources),
            "store_bytes": await asyncio.to_thread(self.store.bytes_used),
        }

    async def _look_at_engines(self) -> dict[str, Any]:
        now = time.monotonic()
        if self._engines is None or now - self._engines[0] > ENGINES_AGE:
            self._engines = (now, await asyncio.to_thread(_engines))
        return self._engines[1]

    async def _sweep(self) -> None:
        """Ends what has been left: sessions, and a worker without work."""
        while True:
            await asyncio.sleep(SWEEP)
            self.sessions.sweep()
            idle = time.monotonic() - self.worker.used
            after = self._settings.unload_after
            if after and idle > after and self.worker.pid is not None and not self.worker.busy:
                log.info("Nothing to do: unloading")
                await self.worker.stop()


def _started(pool: ThreadPoolExecutor) -> ThreadPoolExecutor:
    """With all its threads, so that one more than at the start is a leak and nothing else."""
    together = threading.Barrier(THREADS)
    for _ in range(THREADS):
        pool.submit(together.wait)
    return pool


def _engines() -> dict[str, Any]:
    """What hello tells of the engines."""
    from backend.models import FoundModels, find

    mesh = {"available": True, "why": "embedded", "advice": ""}
    found = find(Options())
    if isinstance(found, FoundModels):
        neural = {"available": True, "why": found.why, "advice": ""}
        return {"engines": {"mesh": mesh, "neural": neural}, "device": found.device}
    neural = {"available": False, "why": found.why, "advice": found.advice}
    return {"engines": {"mesh": mesh, "neural": neural}, "device": "cpu"}


def _no_address(settings: Settings, error: Exception) -> InputError:
    where = f"{settings.host} port {settings.port}"
    if getattr(error, "errno", None) in (48, 98, 10048):
        return InputError(f"{where} is in use, perhaps by another server.", "Use --port 0 for a free port.")
    return InputError(f"Cannot listen on {where}: {error}.", "Check --host and --port.")


def _quiet() -> logging.Logger:
    """websockets reports every failed handshake with a trace; a line at debug level will do."""
    quiet = logging.getLogger("backend.server.socket")
    quiet.setLevel(logging.CRITICAL)
    return quiet
