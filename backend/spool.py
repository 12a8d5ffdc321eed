# SPDX-License-Identifier: GPL-3.0-or-later
"""Per-frame arrays kept on disk while a job runs, so that its memory does not grow with the clip."""

from __future__ import annotations

import math
import tempfile
from types import TracebackType

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from backend.errors import OutputError


class Spool:
    """A list of equal arrays in a nameless temporary file; a context manager that deletes it.

    One thread at a time. Raises OutputError when the disk is full.
    """

    def __init__(self, shape: tuple[int, ...], dtype: DTypeLike) -> None:
        self._shape = shape
        self._dtype = np.dtype(dtype)
        self._bytes = math.prod(shape) * self._dtype.itemsize
        self._file = tempfile.TemporaryFile(prefix="liveportrait-")  # noqa: SIM115 - closed by close()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __enter__(self) -> Spool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()

    def append(self, arrays: np.ndarray) -> None:
        """Add (k, *shape) of the spool's type."""
        if arrays.shape[1:] != self._shape or arrays.dtype != self._dtype:
            raise ValueError(
                f"expected (k, {self._shape}) of {self._dtype}, got {arrays.shape} of {arrays.dtype}"
            )
        try:
            self._file.seek(self._count * self._bytes)
            self._file.write(np.ascontiguousarray(arrays).data)
            self._file.flush()
        except OSError as error:
            raise OutputError(
                f"Cannot write to {tempfile.gettempdir()}: {error.strerror}.", "Free some space there."
            ) from error
        self._count += len(arrays)

    def read(self, index: ArrayLike) -> np.ndarray:
        """The arrays of the given numbers (k,), as (k, *shape)."""
        numbers = np.asarray(index, np.intp)
        found = np.empty((len(numbers), *self._shape), self._dtype)
        for place, number in enumerate(numbers):
            if not 0 <= number < self._count:
                raise IndexError(int(number))
            self._file.seek(int(number) * self._bytes)
            found[place] = np.frombuffer(self._file.read(self._bytes), self._dtype).reshape(self._shape)
        return found
