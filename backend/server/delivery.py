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


async def deliver(session: Session, job: Job, folder: Path, wanted: Wanted) -> None:
    """Until everything has gone out, from `job.first_frame` on.

    A client that goes away is waited for: job.resume sets `job.restart`, and the delivery begins anew.
    """
    while True:
        job.restart.clear()
        try:
            if wanted.frames != "none":
                await _frames(session, job, folder, wanted.frames)
            while not job.made:
                await _grown(job)
            for name, place in wanted.files:
                await _file(session, job, name, folder / place, wanted.chunk)
            if not job.restart.is_set():
                return
        except Detached:
            await job.restart.wait()


async def _grown(job: Job) -> None:
    await job.grown.wait()
    job.grown.clear()


async def _frames(session: Session, job: Job, folder: Path, form: str) -> None:
    index = job.first_frame
    while not job.restart.is_set():
        made = job.made  # looked at before the folder: what was made before then is there
        while frame_file(folder, index).is_file() and not job.restart.is_set():
            header: dict[str, Any] = {"type": "frame", "job": job.number, "index": index, "format": form}
            message = await asyncio.to_thread(_frame, frame_file(folder, index), header)
            await session.send(message)
            index += 1
        if made:
            return
        await _grown(job)


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


async def _file(session: Session, job: Job, name: str, path: Path, chunk: int) -> None:
    size = (await asyncio.to_thread(path.stat)).st_size
    with path.open("rb") as stream:
        offset = 0
        while offset < size and not job.restart.is_set():
            piece = await asyncio.to_thread(stream.read, chunk)
            header = {"type": "file", "job": job.number, "name": name, "offset": offset, "size": size}
            await session.send(binary(header, piece))
            offset += len(piece)
