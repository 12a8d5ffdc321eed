# SPDX-License-Identifier: GPL-3.0-or-later
"""The life of a job: its turn, the work, progress, and delivery as results come."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backend.errors import LivePortraitError
from backend.progress import Rate
from backend.results import write_atomically
from backend.server.delivery import Wanted, deliver
from backend.server.lanes import Lane
from backend.server.limits import Limits
from backend.server.messages import RequestError, error_data, notification, too_many
from backend.server.sessions import Detached, Job, Session
from backend.server.store import Store
from backend.server.whole_frames import frame_file, result_of
from backend.server.worker_process import WorkerProcess

PROGRESS_INTERVAL = 0.1  # seconds
ENDED_JOBS = 100  # that a session remembers

log = logging.getLogger("backend.server")
Progress = Callable[[Mapping[str, Any]], None]


@dataclass
class WorkSpec:
    """A job for the worker. `identify` reads the inputs: (key of the result, task for the worker)."""

    identify: Callable[[], Awaitable[tuple[str, dict[str, Any]]]]
    wanted: Wanted
    keeps: bool = False  # the first file is content for later requests, too


@dataclass
class Shared:
    """A work folder that jobs of this server use at the moment."""

    folder: Path
    stack: ExitStack
    users: int = 0
    working: asyncio.Lock = field(default_factory=asyncio.Lock)


class Jobs:
    """All jobs of all sessions."""

    def __init__(self, limits: Limits, store: Store, worker: WorkerProcess) -> None:
        self._limits, self._store, self._worker = limits, store, worker
        self.lane = Lane()
        self.quick = Lane()
        self._folders: dict[str, Shared] = {}
        self._open: set[asyncio.Task[None]] = set()
        self._posting: set[asyncio.Task[None]] = set()

    def submit(self, session: Session, method: str, spec: Any, first_frame: int = 0) -> Job:
        """Queue a job. `spec` is a WorkSpec, or a coroutine function (progress, cancel) -> result."""
        self._check_queue(session)
        ended = [number for number, job in session.jobs.items() if job.ended]
        for number in ended[: max(len(ended) - ENDED_JOBS + 1, 0)]:
            del session.jobs[number]
        job = Job(session.name("j"), method, spec, first_frame=first_frame)
        session.jobs[job.number] = job
        self._begin(session, job)
        return job

    def resume(self, session: Session, job: Job, first_frame: int) -> None:
        """Deliver again from `first_frame` on; what ended otherwise than well is done again."""
        if not job.ended:
            job.first_frame = first_frame
            job.restart.set()
            job.grown.set()
            return
        self._check_queue(session)
        job.state, job.first_frame, job.cancel = "queued", first_frame, asyncio.Event()
        self._begin(session, job)

    def cancel(self, session: Session, job: Job) -> None:
        if not job.ended:
            job.cancel.set()
            self._end(session, job, "cancelled", RequestError("cancelled", "Cancelled.", self._kept(job)))

    def _kept(self, job: Job) -> str:
        """What is said of finished frames, where there are any."""
        if job.key is None or job.key not in self._folders:
            return ""
        if not frame_file(self._folders[job.key].folder, 0).is_file():
            return ""
        return "The finished frames are kept: the same request goes on after them."

    def end_session(self, session: Session) -> None:
        for job in session.jobs.values():
            self.cancel(session, job)

    async def close(self) -> None:
        """Nothing is under way any more."""
        for task in list(self._open):
            task.cancel()
        if self._open:
            await asyncio.wait(set(self._open), timeout=5)

    def counts(self, session: Session) -> dict[str, int]:
        states = [job.state for job in session.jobs.values()]
        return {"running": states.count("running"), "queued": states.count("queued")}

    def _check_queue(self, session: Session) -> None:
        unfinished = [job for job in session.jobs.values() if not job.ended]
        if len(unfinished) > self._limits.queue:
            raise too_many("queue", "Too many of your jobs wait.")
        if len(self._open) >= self._limits.queue_total:
            raise too_many("queue_total", "Too many jobs wait.")

    def _begin(self, session: Session, job: Job) -> None:
        job.life = asyncio.create_task(self._live(session, job, job.life))
        self._open.add(job.life)
        job.life.add_done_callback(self._open.discard)

    async def _live(self, session: Session, job: Job, former: asyncio.Task[None] | None) -> None:
        cancel = job.cancel
        if former is not None:  # cancelled, but perhaps not at its end yet
            await asyncio.wait({former})
        job.made, job.result, job.error, job.warnings = False, None, None, []
        telling = asyncio.create_task(self._tell(session, job))
        try:
            await job.announced.wait()
            if isinstance(job.spec, WorkSpec):
                result = await self._work(session, job, job.spec, cancel)
            else:
                self._start(session, job)
                result = await job.spec(lambda told: self._moved(job, told), cancel)
            await self._stop_telling(session, job, telling)
            while job.restart.is_set() and isinstance(job.spec, WorkSpec) and not cancel.is_set():
                result = await self._work(session, job, job.spec, cancel)  # asked for anew at the last moment
            if not cancel.is_set():
                job.result = result
                self._end(session, job, "done")
        except (LivePortraitError, OSError) as error:
            await self._stop_telling(session, job, telling)
            if not cancel.is_set():
                self._end(session, job, "failed", _told(error))
        except Exception as error:
            log.exception("A job failed")
            if not cancel.is_set():
                what = f"Unexpected fault: {type(error).__name__}."
                self._end(session, job, "failed", RequestError("fault", what, "The server's log says more."))
        finally:
            telling.cancel()

    async def _work(
        self, session: Session, job: Job, spec: WorkSpec, cancel: asyncio.Event
    ) -> dict[str, Any]:
        """Make what is not on disk, and deliver everything."""
        key, task = await spec.identify()
        job.key = key
        async with self._folder(key) as shared:
            delivery = asyncio.create_task(deliver(session, job, shared.folder, spec.wanted, cancel))
            try:
                async with shared.working:
                    result = result_of(shared.folder)
                    if result is None:
                        result = await self._made(session, job, task, shared.folder, cancel)
                    else:
                        self._start(session, job)
                if spec.keeps:
                    name, place = spec.wanted.files[0]
                    kept = shared.folder / place
                    await asyncio.to_thread(self._store.keep, kept, str(result["sha256"]), name)
                job.made = True
                job.total = result.get("frames")
                job.grown.set()
                wish = asyncio.ensure_future(cancel.wait())
                await asyncio.wait({delivery, wish}, return_when=asyncio.FIRST_COMPLETED)
                wish.cancel()
                if delivery.done():
                    delivery.result()
                return result
            finally:
                delivery.cancel()
                await asyncio.wait({delivery})

    async def _made(
        self, session: Session, job: Job, task: dict[str, Any], folder: Path, cancel: asyncio.Event
    ) -> dict[str, Any]:
        async with self.lane.turn(session.number, cancel):
            self._start(session, job)
            await asyncio.to_thread(self._store.evict)
            task = {**task, "folder": str(folder)}
            if "target" in task:
                task["target"] = str(folder / task["target"])
            try:
                result, _ = await self._worker.run("job", task, lambda told: self._moved(job, told), cancel)
            except RequestError as error:
                if error.code == "worker-crashed" and (kept := self._kept(job)):
                    raise RequestError(error.code, error.message, f"{kept} {error.hint}") from error
                raise
        if "target" in task:
            await asyncio.to_thread(write_atomically, folder / "result.json", json.dumps(result))
        return result

    @asynccontextmanager
    async def _folder(self, key: str) -> AsyncIterator[Shared]:
        shared = self._folders.get(key)
        if shared is None:
            stack = ExitStack()
            shared = Shared(stack.enter_context(self._store.working(key)), stack)
            self._folders[key] = shared
        shared.users += 1
        try:
            yield shared
        finally:
            shared.users -= 1
            if shared.users == 0:
                del self._folders[key]
                shared.stack.close()
                await asyncio.to_thread(self._store.evict)

    def _start(self, session: Session, job: Job) -> None:
        if job.ended:
            raise RequestError("cancelled", "Cancelled.")
        job.state = "running"
        self._post(session, notification("job.started", {"job": job.number}))

    def _moved(self, job: Job, told: Mapping[str, Any]) -> None:
        if told["event"] == "warning":
            job.warnings.append(str(told["message"]))
        else:
            job.stage, job.done, job.total = told["stage"], told["done"], told["total"]
            job.grown.set()
        job.moved.set()

    async def _tell(self, session: Session, job: Job) -> None:
        """Progress, at most ten times a second; a slow client gets the newest."""
        rate, sent = Rate(), 0.0
        while True:
            await job.moved.wait()
            await asyncio.sleep(max(sent + PROGRESS_INTERVAL - time.monotonic(), 0))
            job.moved.clear()
            sent = time.monotonic()
            with suppress(Detached):
                await self._warn(session, job)
                if not job.stage or job.ended:
                    continue
                speed, left = rate.measure(job.stage, job.done, job.total)
                params = {
                    "job": job.number,
                    "stage": job.stage,
                    "done": job.done,
                    "total": job.total,
                    "fps": None if speed is None else round(speed, 2),
                    "eta": None if left is None else round(left, 2),
                }
                await session.send(notification("job.progress", params))

    async def _warn(self, session: Session, job: Job) -> None:
        while job.warnings:
            message = job.warnings.pop(0)
            await session.send(notification("job.warning", {"job": job.number, "message": message}))

    async def _stop_telling(self, session: Session, job: Job, telling: asyncio.Task[None]) -> None:
        """What has still to be said comes before the end."""
        telling.cancel()
        await asyncio.wait({telling})
        with suppress(Detached):
            await self._warn(session, job)

    def _end(self, session: Session, job: Job, state: str, error: LivePortraitError | None = None) -> None:
        """The state is known at once, its notification goes out by itself."""
        job.state = state
        job.grown.set()
        params: dict[str, Any] = {"job": job.number, "state": state}
        if error is not None:
            params["error"] = job.error = error_data(error)
        else:
            params["result"] = job.result
        self._post(session, notification("job.finished", params))

    def _post(self, session: Session, message: str) -> None:
        async def send() -> None:
            with suppress(Detached):
                await session.send(message)

        task = asyncio.create_task(send())
        self._posting.add(task)
        task.add_done_callback(self._posting.discard)


def _told(error: LivePortraitError | OSError) -> LivePortraitError:
    if isinstance(error, LivePortraitError):
        return error
    log.error("The system refused", exc_info=error)
    return RequestError("output", f"The system refused: {error.strerror}.", "See the server's log.")
