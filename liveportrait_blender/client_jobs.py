# SPDX-License-Identifier: GPL-3.0-or-later
"""What the client hands out: answers, jobs, events; and how frames and files come to disk."""

from __future__ import annotations

import contextlib
import json
import logging
import queue
import re
import ssl
import threading
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from socket import SHUT_RDWR
from typing import Any

LARGEST_MESSAGE = 256 << 20
PNG = b"\x89PNG\r\n\x1a\n"
FILES = ("motion.npz", "motion.pkl", "result.mp4")  # that a job may send
FACE_FILE = re.compile(r"motion_[0-9]{1,3}\.npz")  # of a face with a driving of its own

log = logging.getLogger(__name__)


class BackendError(Exception):
    """An error that the backend told, or "lost", "timeout", "unauthorized". `hint` says what to do."""

    def __init__(self, code: str, message: str, hint: str = "", details: Any = "") -> None:
        super().__init__(f"{message} {hint}".strip())
        self.code, self.message, self.hint, self.details = code, message, hint, details


NOT_A_BACKEND = BackendError(
    "not-a-backend",
    "What answers is no backend of this add-on.",
    "Check the address; update the add-on and the backend to the same version.",
)


@dataclass(frozen=True)
class Event:
    """What happened: "connected", "disconnected", "closing", or of a job "started", "progress", "warning",
    "frame", "file", "finished". `facts` are the protocol's params; a frame's or file's have "path".
    """

    kind: str
    job: Job | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


class Reply:
    """An answer that is awaited."""

    def __init__(self) -> None:
        self._come = threading.Event()
        self._result: dict[str, Any] = {}
        self._error: BackendError | None = None
        # The pixels of a preview, the PNG files of thumbnails: (header, content). All there once it is done.
        self.pictures: list[tuple[dict[str, Any], bytes]] = []

    def done(self) -> bool:
        return self._come.is_set()

    def result(self, timeout: float | None = None) -> dict[str, Any]:
        """Wait for it. Raises BackendError."""
        if not self._come.wait(timeout):
            raise BackendError("timeout", "The backend has not answered in time.", "Try again.")
        if self._error is not None:
            raise self._error
        return self._result

    def settle(self, result: dict[str, Any] | None, error: BackendError | None = None) -> None:
        self._result, self._error = result or {}, error
        self._come.set()


class Job:
    """A job of the backend. Its frames land in `folder` as 000000.png ..., its files under their names."""

    def __init__(self, method: str, folder: Path, params: Mapping[str, Any]) -> None:
        self.method, self.folder, self.params = method, folder, dict(params)
        self.number: str | None = None
        self.state = "preparing"
        self.next_frame = 0
        self.result: dict[str, Any] | None = None
        self.error: BackendError | None = None
        self.cancelled = False
        self._ended = threading.Event()

    def ended(self) -> bool:
        return self._ended.is_set()

    def wait(self, timeout: float | None = None) -> dict[str, Any]:
        """Wait for its end. Raises BackendError."""
        if not self._ended.wait(timeout):
            raise BackendError("timeout", "The job has not ended in time.")
        if self.error is not None:
            raise self.error
        return self.result or {}

    def end(self, state: str, result: dict[str, Any] | None, error: BackendError | None) -> None:
        self.state, self.result, self.error = state, result, error
        self._ended.set()


def on_thread(name: str, target: Callable[..., object], *given: Any) -> threading.Thread:
    """Call it on a thread of its own, which does not keep the program alive."""
    thread = threading.Thread(target=target, args=given, name=f"liveportrait-{name}", daemon=True)
    thread.start()
    return thread


def cannot_write(job: Job, error: OSError) -> BackendError:
    why = error.strerror or error
    return BackendError("output", f"{job.folder} cannot be written: {why}.", "Free space, or choose another.")


def connection(url: str, context: ssl.SSLContext | None) -> Any:
    """A connection to enter. Raises BackendError where websockets is absent."""
    try:
        from websockets.sync.client import connect
    except ImportError as error:
        raise BackendError("unavailable", "websockets is not installed.", "Reinstall the add-on.") from error
    return connect(
        url,
        ssl=context,
        compression=None,
        max_size=LARGEST_MESSAGE,
        proxy=None,  # a proxy of the system has no business on this machine
        open_timeout=10,
        close_timeout=2,
    )


def end_connection(socket: Any, timeout: float) -> None:
    """Close it, waiting no longer than so; where the other side hangs the line is cut.

    In order that takes a message there and back, and whoever is sending has to finish first.
    """
    closing = on_thread("close", socket.close)
    closing.join(timeout)
    if closing.is_alive():
        with contextlib.suppress(OSError):
            socket.socket.shutdown(SHUT_RDWR)


def send_all(socket: Any, outgoing: queue.SimpleQueue[str | None]) -> None:
    """Send what is put there until None comes or the connection ends."""
    while (message := outgoing.get()) is not None:
        try:
            socket.send(message)
        except Exception:  # any of websockets': the thread that receives finds out what it was
            log.debug("Cannot send", exc_info=True)
            return


def binary(header: Mapping[str, Any], payload: bytes) -> bytes:
    """A binary message of the protocol."""
    head = json.dumps(header).encode()
    return b"".join((len(head).to_bytes(4, "big"), head, payload))


def unpacked(message: bytes) -> tuple[dict[str, Any], memoryview]:
    """The header and the payload of a binary message."""
    length = int.from_bytes(message[:4], "big")
    return json.loads(message[4 : 4 + length]), memoryview(message)[4 + length :]


def keep(job: Job, header: Mapping[str, Any], payload: memoryview) -> Path | None:
    """Write a frame, or a part of a file: its path once it is whole.

    Raises OSError, and ValueError or another of such a kind for what no backend sends.
    """
    if header["type"] == "frame":
        suffix = "png" if header["format"] == "png" else "raw"
        index = header["index"]
        if type(index) is not int or not 0 <= index <= job.next_frame:
            raise ValueError(f"a frame that is not the next: {index!r}")
        if suffix == "png" and payload[:8] != PNG:
            raise ValueError("a frame that is no PNG file")
        path = job.folder / f"{index:06d}.{suffix}"
        _write(path, payload)
        job.next_frame = index + 1
        return path
    if header["type"] != "file":
        return None
    name, offset, size = header["name"], header["offset"], header["size"]
    if name not in FILES and not FACE_FILE.fullmatch(name):  # never out of the folder, whatever it says
        raise ValueError(f"a file that was not asked for: {name!r}")
    part = job.folder / f".{name}.part"
    there = part.stat().st_size if offset and part.exists() else 0
    if not 0 <= offset <= there or size < 0:
        raise ValueError("a part of a file that does not follow the last")
    with part.open("r+b" if offset else "wb") as stream:
        stream.seek(offset)
        stream.write(payload)
    if offset + len(payload) < size:
        return None
    part.replace(job.folder / name)
    return job.folder / name


def _write(path: Path, content: memoryview) -> None:
    """A file that appears whole or not at all."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def error_of(told: Mapping[str, Any]) -> BackendError:
    data = told.get("data") or {}
    return BackendError(
        str(data.get("code", "fault")),
        str(told.get("message", "")),
        str(data.get("hint", "")),
        data.get("details", ""),
    )
