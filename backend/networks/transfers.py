# SPDX-License-Identifier: GPL-3.0-or-later
"""Arrays to a device and back. CUDA copies from and to pinned memory by itself, beside what it computes."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def to_device(array: np.ndarray, device: str) -> Tensor:
    """A copy: float32, or uint8 as it is."""
    kind = np.uint8 if array.dtype == np.uint8 else np.float32
    copy = torch.from_numpy(np.array(array, kind))
    if device != "cuda":
        return copy.to(device)
    return copy.pin_memory().to(device, non_blocking=True)


class Homeward:
    """Brings `count` items back from a device in parts, each while the next is computed."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._items: Tensor | None = None
        self._stream: torch.cuda.Stream | None = None

    def send(self, part: Tensor, at: int) -> None:
        """Items `at`, `at` + 1, ... (k,...), on the device."""
        if self._items is None:
            shape = (self._count, *part.shape[1:])
            self._items = torch.empty(shape, dtype=part.dtype, pin_memory=part.is_cuda)
            self._stream = torch.cuda.Stream() if part.is_cuda else None
        room = self._items[at : at + len(part)]
        if self._stream is None:
            room.copy_(part)
            return
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            room.copy_(part, non_blocking=True)
        part.record_stream(self._stream)  # its memory is not given away before it is read

    def items(self) -> np.ndarray:
        """All (count,...), once they are here."""
        if self._stream is not None:
            self._stream.synchronize()
        assert self._items is not None, "nothing was sent"
        return self._items.numpy()
