# SPDX-License-Identifier: GPL-3.0-or-later
"""The server's side of the worker process: starts it, sends tasks, survives its end."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from backend.server import pipes
from backend.server.messages import RemoteError, RequestError

ROOT = Path(__file__).resolve().parents[2]
ENDING = 2.0  # seconds that the worker has to end by itself
CANCELLING = 5.0  # seconds that a cancelled task has to end by itself
PATIENCE = (0.0, 0.5, 2.0, 5.0)  # seconds before a start after so many crashes in a row
STEADY = 30.0  # seconds without a crash that forgive earlier ones

log = logging.getLogger("backend.server")
Told = Callable[[Mapping[str, Any]], None]


class WorkerProcess:
    """One process at a time, started when there is a task. All of it on the event loop."""

    def __init__(self, source_bytes: int) -> None:
        self._source_bytes = source_bytes
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._starting = asyncio.Lock()
        self._waiting: dict[int, tuple[asyncio.Future[tuple[dict[str, Any], bytes]], Told]] = {}
        self._count = 0
        self._crashes = 0
        self._crashed = 0.0
        self.restarts = 0
        self.used = time.monotonic()

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    @property
    def busy(self) -> bool:
        return bool(self._waiting)

    async def run(
        self, lane: str, task: Mapping[str, Any], told: Told, cancel: asyncio.Event
    ) -> tuple[dict[str, Any], bytes]:
        """Carry out a task: (result, bulk data).

        `told` gets progress and warnings. Raises RemoteError for what the task raised, RequestError
        "worker-crashed" when the process died, "cancelled" soon after `cancel` is set.
        """
        await self._start()
        assert self._process is not None and self._process.stdin is not None
        process = self._process
        self._count += 1
        number = self._count
        future: asyncio.Future[tuple[dict[str, Any], bytes]] = asyncio.get_running_loop().create_future()
        self._waiting[number] = (future, told)
        self._send({**task, "lane": lane, "task": number})
        wish = asyncio.ensure_future(cancel.wait())
        try:
            both: set[asyncio.Future[Any]] = {future, wish}
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if not future.done():
                self._send({"do": "cancel", "task": number})
                await asyncio.wait({future}, timeout=CANCELLING)
                if not future.done() and self._process is process:
                    log.warning("The worker does not end a cancelled task; it is started again")
                    await self.stop()
            if not future.done():
                raise RequestError("cancelled", "Cancelled.")
            return future.result()
        finally:
            wish.cancel()
            self._waiting.pop(number, None)
            if future.done() and not future.cancelled():
                future.exception()  # seen, whoever asks
            self.used = time.monotonic()

    async def stop(self) -> None:
        """End the process; tasks that it has fail with "worker-crashed"."""
        process = self._process
        if process is None:
            return
        assert process.stdin is not None
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), ENDING)
        except TimeoutError:
            process.kill()
            await process.wait()
        if self._reading is not None:
            await asyncio.wait({self._reading})
        self._process = None

    async def _start(self) -> None:
        async with self._starting:
            if self._process is not None and self._process.returncode is None:
                return
            if self._reading is not None:
                await asyncio.wait({self._reading})
            if time.monotonic() - self._crashed > STEADY:
                self._crashes = 0
            await asyncio.sleep(PATIENCE[min(self._crashes, len(PATIENCE) - 1)])
            environment = {key: value for key, value in os.environ.items() if key != "LIVEPORTRAIT_TOKEN"}
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "backend.server.worker",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                cwd=ROOT,
                limit=4 << 20,
                env=environment,
            )
            self._send({"source_bytes": self._source_bytes})
            self._reading = asyncio.create_task(self._read(self._process))

    def _send(self, message: Mapping[str, Any]) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.write(pipes.packed(message))  # small; nothing is gained by waiting

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        try:
            while True:
                head, body = pipes.lengths(await process.stdout.readexactly(pipes.LENGTHS))
                message = json.loads(await process.stdout.readexactly(head))
                self._take(message, await process.stdout.readexactly(body))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        code = await process.wait()
        if self._waiting:
            self._crashes += 1
            self._crashed = time.monotonic()
            self.restarts += 1
            log.error("The worker process ended with %s", code)
        for future, _ in self._waiting.values():
            if not future.done():
                future.set_exception(
                    RequestError(
                        "worker-crashed",
                        f"The worker process ended unexpectedly ({_ending(code)}).",
                        "Try again. The server's log may say more.",
                    )
                )
        if self._process is process:
            self._process = None

    def _take(self, message: dict[str, Any], payload: bytes) -> None:
        event = message["event"]
        waiting = self._waiting.get(message.get("task", 0))
        if waiting is None:
            return
        future, told = waiting
        if event == "done" and not future.done():
            future.set_result((message["result"], payload))
        elif event == "failed" and not future.done():
            future.set_exception(RemoteError(message["error"]))
        elif event in ("progress", "warning"):
            told(message)


def _ending(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"
