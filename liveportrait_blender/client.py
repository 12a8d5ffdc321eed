# SPDX-License-Identifier: GPL-3.0-or-later
"""A client of the backend: a thread for the socket, queues on both sides, frames to disk on arrival.

Nothing here knows Blender, and nothing that the caller does waits for the network unless it says so:

    client = Client(url, token); client.start()
    job = client.start_job("animate", folder, source=Path("anna.png"), driving={"library": "talk"})
    for event in client.drain(): ...          # on the caller's own thread

Backend/PROTOCOL.md is the contract. `websockets` is imported when a connection is made.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import os
import queue
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .client_jobs import BackendError, Event, Job, Reply, binary, connection, error_of, keep, unpacked

PROTOCOL = 1
DELAYS = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)  # seconds before a connection is tried again
CHUNK = 1 << 20

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
        self._jobs, self._naming = (
            dict[str, Job](),
            dict[int, Job](),
        )  # by number; by request that will name it
        self._lock = threading.Lock()
        self._ready, self._stopping = threading.Event(), threading.Event()
        self._outgoing: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    # --- for the caller -------------------------------------------------------------------------------------

    def start(self) -> None:
        """Connect, on a thread of its own."""
        self._thread = threading.Thread(target=self._run, name="liveportrait-client", daemon=True)
        self._thread.start()

    def wait_ready(self, timeout: float = 30.0) -> dict[str, Any]:
        """Wait for the connection: what hello told. Raises BackendError."""
        if not self._ready.wait(timeout) or self.error is not None:
            raise self.error or BackendError("timeout", "The backend cannot be reached.", "Is it running?")
        return self.welcome

    def close(self, timeout: float = 5.0) -> None:
        """End the connection and the thread."""
        self._stopping.set()
        socket = self._socket
        if socket is not None:
            socket.close()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout)

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
        """Send a request; returns at once."""
        return self._send_request(method, params or {}, None)

    def call(
        self, method: str, params: Mapping[str, Any] | None = None, timeout: float | None = None
    ) -> dict[str, Any]:
        """Send a request and wait. Raises BackendError."""
        return self.request(method, params).result(self._timeout if timeout is None else timeout)

    def preview(self, timeout: float | None = None, **params: Any) -> tuple[dict[str, Any], bytes]:
        """A preview and wait for it: (its header, PNG file or pixels). Raises BackendError."""
        reply = self.request("preview", params)
        reply.result(self._timeout if timeout is None else timeout)
        if reply.binary is None:
            raise BackendError("lost", "The preview has no picture.")
        return reply.binary

    def input(self, what: Path | Mapping[str, str]) -> dict[str, str]:
        """An input as the protocol has it; a file is uploaded to a backend on another machine. Waits."""
        if not isinstance(what, Path):
            return dict(what)
        if self.local:
            return {"path": str(what.absolute())}
        return {"sha256": self.upload(what)}

    def upload(self, path: Path) -> str:
        """Bring a file to the backend unless it is there: its SHA-256. Waits; raises BackendError."""
        try:
            with path.open("rb") as stream:
                sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
                size = stream.seek(0, os.SEEK_END)
                begun = self.call("upload.begin", {"sha256": sha256, "size": size, "name": path.name})
                if begun.get("have"):
                    return sha256
                offset = stream.seek(begun["offset"])
                while block := stream.read(min(begun["chunk"], CHUNK)):
                    header = {"type": "upload", "upload": begun["upload"], "offset": offset}
                    self._send_binary(header, block)
                    offset += len(block)
        except OSError as error:
            raise BackendError("bad-input", f"{path.name} cannot be read: {error.strerror}.") from error
        self.call("upload.finish", {"upload": begun["upload"]}, timeout=max(self._timeout, 120.0))
        return sha256

    def start_job(self, method: str, folder: Path, first_frame: int = 0, **params: Any) -> Job:
        """Begin a job; its inputs (Paths in `params`) are prepared on a thread. Returns at once."""
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
        threading.Thread(target=self._prepare, args=(job,), name="liveportrait-job", daemon=True).start()

    def _prepare(self, job: Job) -> None:
        try:
            job.folder.mkdir(parents=True, exist_ok=True)
            params = {
                name: self.input(value) if name in ("source", "driving") or isinstance(value, Path) else value
                for name, value in job.params.items()
            }
            if job.next_frame:
                params["first_frame"] = job.next_frame
            if job.cancelled:
                raise BackendError("cancelled", "Cancelled.")
            self._send_request(job.method, params, job).result(self._timeout)
        except BackendError as error:
            if error.code != "lost":  # then it is submitted again once there is a connection
                self._finish(job, "cancelled" if error.code == "cancelled" else "failed", None, error)
        except OSError as error:
            fault = BackendError("output", f"{job.folder} cannot be written: {error.strerror}.")
            self._finish(job, "failed", None, fault)

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
                if error.code in ("unauthorized", "protocol-mismatch", "unavailable"):
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
        from websockets.exceptions import ConnectionClosed

        who = {"name": self._name, "pid": os.getpid()}
        hello: dict[str, Any] = {"token": self._token, "protocol": PROTOCOL, "client": who}
        if self._session is not None:
            hello["session"] = self._session
        try:
            self.welcome = self._ask("hello", hello)
            self.local = self._prove() if self._try_local else False
        except ConnectionClosed as closed:
            if closed.rcvd is not None and closed.rcvd.code == 1008:
                raise BackendError(
                    "unauthorized", "The backend does not know this client.", "Check the token."
                ) from closed
            raise
        resumed, self._session = bool(self.welcome["resumed"]), str(self.welcome["session"])
        self._outgoing = queue.SimpleQueue()
        with self._lock:
            lost, unnamed = dict(self._jobs), list(self._naming.values())
            self._naming.clear()
            if not resumed:
                self._jobs.clear()
            self._ready.set()
        threading.Thread(
            target=self._send_all, args=(self._socket, self._outgoing), name="liveportrait-send", daemon=True
        ).start()
        self.events.put(Event("connected", None, self.welcome))
        # Go on with the jobs that the lost connection had.
        for number, job in lost.items():
            if resumed:
                self.request("job.resume", {"job": number, "first_frame": job.next_frame})
            else:
                self._submit(job)
        for job in unnamed:
            self._submit(job)

    def _ask(self, method: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """A request before anything else goes over the socket."""
        self._socket.send(json.dumps({"jsonrpc": "2.0", "id": 0, "method": method, "params": params}))
        message = json.loads(self._socket.recv(timeout=self._timeout))
        if "error" in message:
            raise error_of(message["error"])
        return dict(message["result"])

    def _prove(self) -> bool:
        try:
            nonce = Path(self.welcome["nonce_file"]).read_text("ascii")
        except (OSError, ValueError):
            return False
        try:
            return bool(self._ask("prove", {"nonce": nonce})["local"])
        except BackendError:
            return False

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

    def _send_request(self, method: str, params: Mapping[str, Any], job: Job | None) -> Reply:
        reply = Reply()
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

    def _send_all(self, socket: Any, outgoing: queue.SimpleQueue[str | None]) -> None:
        while (message := outgoing.get()) is not None:
            try:
                socket.send(message)
            except Exception:  # the thread that receives finds out what it was
                log.debug("Cannot send", exc_info=True)
                return

    def _receive(self) -> None:
        for message in self._socket:
            if isinstance(message, bytes):
                self._take_binary(*unpacked(message))
            else:
                self._take(json.loads(message))

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
        if header["type"] == "preview":
            with self._lock:
                reply = self._replies.get(header["request"])
            if reply is not None:
                reply.binary = (header, bytes(payload))
            return
        with self._lock:
            job = self._jobs.get(header["job"])
        if job is None:
            return
        try:
            path = keep(job, header, payload)
        except OSError as error:
            fault = BackendError(
                "output", f"{job.folder} cannot be written: {error.strerror}.", "Free space."
            )
            self.cancel(job)
            self._finish(job, "failed", None, fault)
            return
        if path is not None:
            self.events.put(Event(header["type"], job, {**header, "path": path}))
