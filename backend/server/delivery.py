# SPDX-License-Identifier: GPL-3.0-or-later
"""From the work folder to the client: frames as they become whole, then files, all in order."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backend.errors import MediaError
from backend.server.messages import binary
from backend.server.sessions import Detached, Job, Session
from backend.server.whole_frames import frame_file


@dataclass(frozen=True)
class Wanted:
    """What a client wants of a result. frames: png, raw or none. files: (name, place in the work folder)."""

    frames: str
    files: tuple[tuple[str, str], ...]
    chunk: int


class _Delivery:
    """One job's, to one connection: a later one gets nothing that it has not asked for with job.resume."""

    def __init__(self, session: Session, job: Job, cancel: asyncio.Event) -> None:
        self._session, self._job, self._cancel = session, job, cancel
        self._connection = session.connection

    @property
    def wanted(self) -> bool:
        return not (self._job.restart.is_set() or self._cancel.is_set())

    async def send(self, message: bytes) -> None:
        """Raises Detached."""
        if self._connection is None or self._session.connection is not self._connection:
            raise Detached
        if self.wanted:
            await self._session.send(message)

    async def grown(self) -> None:
        await self._job.grown.wait()
        self._job.grown.clear()


async def deliver(session: Session, job: Job, folder: Path, wanted: Wanted, cancel: asyncio.Event) -> None:
    """Until everything has gone out, from `job.first_frame` on, or `cancel` is set.

    A client that goes away is waited for: job.resume sets `job.restart`, and the delivery begins anew.
    """
    while True:
        job.restart.clear()
        line = _Delivery(session, job, cancel)
        try:
            if wanted.frames != "none":
                await _frames(line, job, folder, wanted.frames)
            while not job.made and line.wanted:
                await line.grown()
            for name, place in wanted.files:
                for each, path in _there(name, folder / place):
                    await _file(line, job, each, path, wanted.chunk)
            if cancel.is_set() or not job.restart.is_set():
                return
        except Detached:
            await job.restart.wait()


async def _frames(line: _Delivery, job: Job, folder: Path, form: str) -> None:
    index = job.first_frame
    while line.wanted:
        made = job.made  # looked at before the folder: what was made before then is there
        while line.wanted and frame_file(folder, index).is_file():
            header: dict[str, Any] = {"type": "frame", "job": job.number, "index": index, "format": form}
            await line.send(await asyncio.to_thread(_frame, frame_file(folder, index), header))
            index += 1
        if made:
            return
        await line.grown()


def _frame(path: Path, header: dict[str, Any]) -> bytes:
    if header["format"] == "png":
        return binary(header, path.read_bytes())
    import cv2
    import numpy as np

    pixels = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise MediaError(f"{path.name} of the result is damaged.", "Ask for it again.")
    pixels = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB if pixels.shape[2] == 3 else cv2.COLOR_BGRA2RGBA)
    height, width, channels = pixels.shape
    bits = 8 * pixels.dtype.itemsize
    if sys.byteorder == "big":
        pixels = pixels.byteswap()
    shape = {"width": width, "height": height, "channels": channels, "bits": bits}
    return binary({**header, **shape}, pixels.data.cast("B"))


def _there(name: str, path: Path) -> list[tuple[str, Path]]:
    """A file, or those of the faces where each has its own: motion_0.npz ... in place of motion.npz."""
    own = [] if path.exists() else sorted(path.parent.glob(f"{path.stem}_[0-9]*{path.suffix}"))
    return [(each.name, each) for each in own] or [(name, path)]


async def _file(line: _Delivery, job: Job, name: str, path: Path, chunk: int) -> None:
    if not line.wanted:
        return
    size = (await asyncio.to_thread(path.stat)).st_size
    with path.open("rb") as stream:
        offset = 0
        while offset < size and line.wanted:
            piece = await asyncio.to_thread(stream.read, chunk)
            header = {"type": "file", "job": job.number, "name": name, "offset": offset, "size": size}
            await line.send(binary(header, piece))
            offset += len(piece)
