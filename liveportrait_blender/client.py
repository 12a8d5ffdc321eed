# SPDX-License-Identifier: GPL-3.0-or-later
"""A client of the backend: a thread for the socket, queues on both sides, frames to disk on arrival.

Nothing here knows Blender, and nothing that the caller does waits for the network unless it says so:

    client = Client(url, token); client.start()
    job = client.start_job("animate", folder, source=Path("anna.png"), driving={"library": "talk"})
    for event in client.drain(): ...          # on the caller's own thread

Backend/PROTOCOL.md is the contract. `websockets` is imported when a connection is made.
"""

from __future__ import annotations

import itertools
import json
import logging
import queue
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .client_greeting import greet
from .client_jobs import (
    NOT_A_BACKEND,
    BackendError,
    Event,
    Job,
    Reply,
    binary,
    cannot_write,
    connection,
    end_connection,
    error_of,
    keep,
    on_thread,
    send_all,
    unpacked,
)
from .client_upload import has_files, upload, with_inputs

DELAYS = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)  # seconds before a connection is tried again

log = logging.getLogger(__name__)


class Client:
    """A connection that is made again when it is lost, and what goes over it."""

    def __init__(
        self,
        url: str,
        token: str,
        *,
        name: str = "liveportrait_blender",
        context: ssl.SSLContext | None = None,
        timeout: float = 30.0,
        attempts: int | None = None,
        local: bool = True,
    ) -> None:
        """context: for wss. timeout: seconds for an answer of `call`. attempts: in a row, None for ever.

        local: try to prove that this is the backend's machine.
        """
        self._url, self._token, self._name, self._context = url, token, name, context
        self._timeout, self._attempts, self._try_local = timeout, attempts, local
        self.events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self.welcome: dict[str, Any] = {}
        self.local = False
        self.error: BackendError | None = None
        self._socket: Any = None
        self._session: str | None = None
        self._numbers = itertools.count(1)
        self._replies: dict[int, Reply] = {}
        self._jobs: dict[str, Job] = {}  # by number
        self._naming: dict[int, Job] = {}  # by the request that will name it
        self._lock = threading.Lock()
        self._ready, self._stopping = threading.Event(), threading.Event()
        self._outgoing: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    # --- for the caller -------------------------------------------------------------------------------------

    def start(self) -> None:
        """Connect, on a thread of its own; once is enough."""
        if self._thread is not None:
            return
        self._thread = on_thread("client", self._run)

    def wait_ready(self, timeout: float = 30.0) -> dict[str, Any]:
        """Wait for the connection: what hello told. Raises BackendError."""
        if not self._ready.wait(timeout) or self.error is not None:
            raise self.error or BackendError("timeout", "The backend cannot be reached.", "Is it running?")
        return self.welcome

    @property
    def connected(self) -> bool:
        return self._ready.is_set() and self.error is None

    def move(self, url: str, token: str) -> None:
        """The backend is somewhere else now: where the next connection goes."""
        self._url, self._token = url, token

    def close(self, timeout: float = 5.0) -> None:
        """End the connection and the thread; waits no longer than so, whatever the backend does."""
        end = time.monotonic() + timeout
        self._stopping.set()
        if self._socket is not None:
            end_connection(self._socket, timeout / 2)
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(max(end - time.monotonic(), 0.0))

    def __enter__(self) -> Client:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def drain(self, seconds: float = 0.01) -> Iterator[Event]:
        """What has happened since, for about so long."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                yield self.events.get_nowait()
            except queue.Empty:
                return

    def request(self, method: str, params: Mapping[str, Any] | None = None) -> Reply:
        """Send a request; returns at once. Paths in it become inputs, on a thread if they are uploaded."""
        given, reply = params or {}, Reply()
        if has_files(given) and not self.local:
            on_thread("ask", self._request_files, method, given, reply)
        else:
            self._send_request(method, with_inputs(given, self.input), None, reply)
        return reply

    def _request_files(self, method: str, params: Mapping[str, Any], reply: Reply) -> None:
        try:
            self._send_request(method, with_inputs(params, self.input), None, reply)
        except BackendError as error:
            reply.settle(None, error)

    def call(
        self, method: str, params: Mapping[str, Any] | None = None, timeout: float | None = None
    ) -> dict[str, Any]:
        """Send a request and wait. Raises BackendError."""
        return self.request(method, params).result(self._timeout if timeout is None else timeout)

    def preview(self, timeout: float | None = None, **params: Any) -> tuple[dict[str, Any], bytes]:
        """A preview and wait for it: (its header, PNG file or pixels). Raises BackendError."""
        reply = self.request("preview", params)
        reply.result(self._timeout if timeout is None else timeout)
        if not reply.pictures:
            raise BackendError("lost", "The preview has no picture.")
        return reply.pictures[0]

    def input(self, what: Path | Mapping[str, str]) -> dict[str, str]:
        """An input as the protocol has it; a file is uploaded to a backend on another machine. Waits."""
        if not isinstance(what, Path):
            return dict(what)
        if self.local:
            return {"path": str(what.absolute())}
        return {"sha256": self.upload(what)}

    def upload(self, path: Path) -> str:
        """Bring a file to the backend unless it is there: its SHA-256. Waits; raises BackendError."""
        return upload(path, self.call, self._send_binary, max(self._timeout, 120.0))

    def start_job(self, method: str, folder: Path, first_frame: int = 0, **params: Any) -> Job:
        """Begin a job; its inputs (Paths in `params`, in `faces` too) are prepared on a thread. Returns at
        once.
        """
        job = Job(method, folder, params)
        job.next_frame = first_frame
        self._submit(job)
        return job

    def cancel(self, job: Job) -> None:
        """Ask for its end; "finished" comes soon."""
        job.cancelled = True
        if job.number is not None and not job.ended():
            self.request("job.cancel", {"job": job.number})

    # --- jobs -----------------------------------------------------------------------------------------------

    def _submit(self, job: Job) -> None:
        on_thread("job", self._prepare, job)

    def _prepare(self, job: Job) -> None:
        sent = False
        try:
            job.folder.mkdir(parents=True, exist_ok=True)
            params = with_inputs(job.params, self.input)
            if job.next_frame:
                params["first_frame"] = job.next_frame
            if job.cancelled:
                raise BackendError("cancelled", "Cancelled.")
            sent = True
            self._send_request(job.method, params, job).result(self._timeout)
        except BackendError as error:
            if error.code != "lost":
                self._finish(job, "cancelled" if error.code == "cancelled" else "failed", None, error)
            elif not sent:
                self._submit_again(job)
        except OSError as error:
            self._finish(job, "failed", None, cannot_write(job, error))

    def _submit_again(self, job: Job) -> None:
        """The connection was lost while its inputs went over; the next one has it."""
        self._stopping.wait(0.2)
        with self._lock:
            error, ready = self.error, self._ready.is_set()
            if error is None and not ready:
                self._naming[next(self._numbers)] = job
        if error is not None:
            self._finish(job, "failed", None, error)
        elif ready:
            self._submit(job)

    def _finish(
        self, job: Job, state: str, result: dict[str, Any] | None, error: BackendError | None
    ) -> None:
        with self._lock:
            if job.number is not None:
                self._jobs.pop(job.number, None)
        job.end(state, result, error)
        self.events.put(Event("finished", job, {"state": state, "result": result}))

    # --- the thread -----------------------------------------------------------------------------------------

    def _run(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            try:
                with connection(self._url, self._context) as self._socket:
                    self._greet()
                    failures = 0
                    self._receive()
                reason = "the connection ended"
            except BackendError as error:
                if error.code in ("unauthorized", "protocol-mismatch", "unavailable", "not-a-backend"):
                    self._give_up(error)
                    return
                reason = error.message
            except Exception as error:  # websockets has many, and whatever it is, the way on is the same
                log.debug("Connection lost", exc_info=True)
                reason = f"{type(error).__name__}: {error}"
            self._lose(reason)
            failures += 1
            if self._attempts is not None and failures >= self._attempts:
                self._give_up(BackendError("lost", f"The backend cannot be reached ({reason}).", "Start it."))
                return
            self._stopping.wait(DELAYS[min(failures - 1, len(DELAYS) - 1)])
        self._give_up(BackendError("lost", "The connection was closed."), quiet=True)

    def _greet(self) -> None:
        self.welcome, self.local = greet(
            self._socket, self._token, self._name, self._session, self._try_local, self._timeout
        )
        resumed, self._session = bool(self.welcome.get("resumed")), str(self.welcome["session"])
        self._outgoing = queue.SimpleQueue()
        with self._lock:
            lost, unnamed = dict(self._jobs), list(self._naming.values())
            self._naming.clear()
            if not resumed:
                self._jobs.clear()
            self._ready.set()
        on_thread("send", send_all, self._socket, self._outgoing)
        self.events.put(Event("connected", None, self.welcome))
        # Go on with the jobs that the lost connection had.
        for number, job in lost.items():
            if resumed and job.cancelled:
                self.request("job.cancel", {"job": number})
            elif resumed:
                self.request("job.resume", {"job": number, "first_frame": job.next_frame})
            else:
                self._submit(job)
        for job in unnamed:
            self._submit(job)

    def _lose(self, reason: str) -> None:
        was_ready = self._ready.is_set()
        self._ready.clear()
        self._outgoing.put(None)
        with self._lock:
            replies, self._replies = self._replies, {}
        for reply in replies.values():
            reply.settle(None, BackendError("lost", "The connection was lost.", "It is being made again."))
        if was_ready:
            self.events.put(Event("disconnected", None, {"reason": reason}))

    def _give_up(self, error: BackendError, quiet: bool = False) -> None:
        self.error = error
        self._lose(error.message)
        with self._lock:
            jobs = [*self._jobs.values(), *self._naming.values()]
        for job in jobs:
            self._finish(job, "failed", None, error)
        if not quiet:
            self.events.put(Event("disconnected", None, {"reason": error.message, "code": error.code}))
        self._ready.set()

    # --- messages -------------------------------------------------------------------------------------------

    def _send_request(
        self, method: str, params: Mapping[str, Any], job: Job | None, reply: Reply | None = None
    ) -> Reply:
        reply = reply or Reply()
        with self._lock:
            number = next(self._numbers)
            if self.error is not None:
                reply.settle(None, self.error)
                return reply
            if job is not None:
                self._naming[number] = job
            if not self._ready.is_set():
                lost = BackendError("lost", "There is no connection to the backend.", "Try again.")
                reply.settle(None, lost)
                return reply
            self._replies[number] = reply
            outgoing = self._outgoing
        outgoing.put(json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params}))
        return reply

    def _send_binary(self, header: Mapping[str, Any], payload: bytes) -> None:
        try:
            self._socket.send(binary(header, payload))
        except Exception as error:  # any of websockets': the thread that receives finds out what it was
            raise BackendError("lost", "The connection was lost during an upload.") from error

    def _receive(self) -> None:
        for message in self._socket:
            try:
                if isinstance(message, bytes):
                    self._take_binary(*unpacked(message))
                else:
                    self._take(json.loads(message))
            except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
                log.warning("Not the protocol: %r", message[:200], exc_info=True)
                raise NOT_A_BACKEND from error

    def _take(self, message: dict[str, Any]) -> None:
        if "method" in message:
            self._take_notification(str(message["method"]), message["params"])
            return
        number = message.get("id") or 0
        with self._lock:
            reply, job = self._replies.pop(number, None), self._naming.pop(number, None)
            if job is not None and "result" in message:
                job.number, job.state = message["result"]["job"], "queued"
                self._jobs[message["result"]["job"]] = job
        if job is not None and job.cancelled and job.number is not None:
            self.request("job.cancel", {"job": job.number})
        if reply is None:
            log.debug("Backend: %s", message)
        elif "error" in message:
            reply.settle(None, error_of(message["error"]))
        else:
            reply.settle(message["result"])

    def _take_notification(self, method: str, params: dict[str, Any]) -> None:
        if method == "server.closing":
            self.events.put(Event("closing", None, params))
            return
        with self._lock:
            job = self._jobs.get(params.get("job", ""))
        if job is None or not method.startswith("job."):
            return
        kind = method.removeprefix("job.")
        if kind == "finished":
            error = None if "error" not in params else error_of({**params["error"], "data": params["error"]})
            self._finish(job, params["state"], params.get("result"), error)
            return
        if kind == "started":
            job.state = "running"
        self.events.put(Event(kind, job, params))

    def _take_binary(self, header: dict[str, Any], payload: memoryview) -> None:
        if header["type"] in ("preview", "thumbnail"):
            with self._lock:
                reply = self._replies.get(header["request"])
            if reply is not None:
                reply.pictures.append((header, bytes(payload)))
            return
        with self._lock:
            job = self._jobs.get(header["job"])
        if job is None:
            return
        try:
            path = keep(job, header, payload)
        except OSError as error:
            self.cancel(job)
            self._finish(job, "failed", None, cannot_write(job, error))
            return
        if path is not None:
            self.events.put(Event(header["type"], job, {**header, "path": path}))
