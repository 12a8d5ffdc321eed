# SPDX-License-Identifier: GPL-3.0-or-later
"""Picture sequences out: 000000.png, 000001.png, ..., encoded on threads."""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Lock, Semaphore
from types import TracebackType
from typing import Literal, Self

import numpy as np

from backend.errors import LivePortraitError, OutputError
from backend.media.pictures import DEEP
from backend.media.png import encode_png

THREADS = 2
WAITING_BYTES = 64 << 20  # of frames between the renderer and the encoders


class SequenceWriter:
    """Writes PNGs: `with SequenceWriter(folder) as writer: writer.write(rgb)`.

    A file appears whole or not at all, and there is never one behind one that is missing. Frames that are
    finished stay, whatever ends the job.
    """

    def __init__(
        self,
        folder: Path | str,
        bits: Literal[8, 16] | int = 8,
        alpha: np.ndarray | None = None,
        start_index: int = 0,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """bits: of a channel in the files. alpha: (h,w) uint8 or uint16, the same for every frame.

        metadata: title, comment, ... Raises OutputError when the folder cannot be made.
        """
        self.folder = Path(folder)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"Cannot make the folder {self.folder}: {error.strerror}.", "Choose another output."
            ) from error
        self._dtype = np.dtype(np.uint8 if bits == 8 else np.uint16)
        self._alpha = None if alpha is None else _converted(alpha, self._dtype)
        self._metadata = dict(metadata or {})
        self._index = start_index
        self._broken: int | None = None  # the first frame that could not be written
        self._error: LivePortraitError | None = None
        self._lock = Lock()
        self._slots: Semaphore | None = None
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="png")

    def write(self, rgb: np.ndarray) -> None:
        """Add a frame, (h,w,3) RGB, uint8 or uint16; it is copied. Waits when the encoders are behind.

        Raises OutputError when a frame before it could not be written.
        """
        if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype not in (np.uint8, np.uint16):
            raise ValueError(f"a frame of {rgb.shape} {rgb.dtype}")
        if self._alpha is not None and self._alpha.shape != rgb.shape[:2]:
            raise ValueError(f"a frame of {rgb.shape} with alpha of {self._alpha.shape}")
        if self._slots is None:
            self._slots = Semaphore(int(np.clip(WAITING_BYTES // rgb.nbytes, THREADS, 8)))
        self._slots.acquire()
        if self._error is not None:
            self._slots.release()
            raise self._error
        self._pool.submit(self._work, self._index, rgb.copy())
        self._index += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True)
        if self._broken is not None:
            for index in range(self._broken, self._index):
                with suppress(OSError):
                    self._file(index).unlink(missing_ok=True)
        if error is None and self._error is not None:
            raise self._error

    def _file(self, index: int) -> Path:
        return self.folder / f"{index:06d}.png"

    def _work(self, index: int, rgb: np.ndarray) -> None:
        try:
            if self._error is None:
                self._save(index, rgb)
        except (OSError, MemoryError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            self._fail(
                index,
                OutputError(
                    f"Cannot write {self._file(index)}: {reason}.",
                    "Free some space or choose another output"
                    + ("; the frames before it are kept." if index else "."),
                    details=repr(error),
                ),
            )
        except BaseException as error:  # noqa: BLE001 - a thread has nobody else to tell
            self._fail(index, LivePortraitError(f"The PNG encoder failed: {error!r}.", "Please report this."))
        finally:
            assert self._slots is not None
            self._slots.release()

    def _fail(self, index: int, error: LivePortraitError) -> None:
        with self._lock:
            if self._broken is None or index < self._broken:
                self._broken, self._error = index, error

    def _save(self, index: int, rgb: np.ndarray) -> None:
        pixels = _converted(rgb, self._dtype)
        if self._alpha is not None:
            pixels = np.dstack([pixels, self._alpha])
        temporary = self.folder / f".{index:06d}.{os.getpid()}.tmp"
        try:
            temporary.write_bytes(encode_png(pixels, self._metadata))
            temporary.replace(self._file(index))
        except OSError:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise


def _converted(levels: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """8-bit levels as 16-bit ones and the other way round (nearest)."""
    if levels.dtype == dtype:
        return levels
    if dtype == np.uint16:
        return levels.astype(np.uint16) * np.uint16(DEEP)
    return ((levels.astype(np.uint32) + DEEP // 2) // DEEP).astype(np.uint8)
