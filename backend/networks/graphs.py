# SPDX-License-Identifier: GPL-3.0-or-later
"""CUDA graphs: all kernels of a batch started by one call, so that a GPU never waits for Python.

A graph reads and writes the same memory each time, so there is one for each size of batch. Those are powers
of two, and a batch between them is filled up.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from .device_warping import PreparedSource
from .renderers import Renderer

WARM_UPS = 2  # in which cuDNN chooses its algorithms and memory is taken


def first_line(error: Exception) -> str:
    """What PyTorch says went wrong, without the advice that it adds."""
    return str(error).strip().partition("\n")[0]


class Recording(Protocol):
    """A call that has been recorded; `output` is overwritten by each replay."""

    output: Tensor

    def replay(self) -> None:
        """Do it again with what lies in its inputs now."""


class CudaRecording:
    """See Recording."""

    def __init__(self, call: Callable[[], Tensor], pool: Any) -> None:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UPS):
                call()
        torch.cuda.current_stream().wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        # Other threads of the process may use the GPU meanwhile.
        with torch.cuda.graph(self._graph, pool=pool, capture_error_mode="thread_local"):
            self.output = call()

    def replay(self) -> None:
        """See Recording."""
        self._graph.replay()


class CudaRecorder:
    """Records calls that never run at the same time, so that they share memory for what lies between."""

    def __init__(self) -> None:
        self._pool: Any = None

    def __call__(self, call: Callable[[], Tensor]) -> Recording:
        """RuntimeError where the device or its driver cannot record it, OutOfMemoryError."""
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        return CudaRecording(call, self._pool)


class GraphedRenderer:
    """A Renderer whose drawing is recorded when a size of batch is first met, and replayed from then on.

    Pictures are valid until the next ones are drawn. Where recording fails it draws without, and `note` says
    why. OutOfMemoryError is passed on, with all recordings given up.
    """

    def __init__(
        self, renderer: Renderer, record: Callable[[Callable[[], Tensor]], Recording] | None = None
    ) -> None:
        self.note = ""
        self._renderer, self._record = renderer, record or CudaRecorder()
        self._recordings: dict[int, Recording] = {}
        self._inputs: dict[int, Tensor] = {}
        self._state: PreparedSource | None = None  # what the recordings read
        self._given: Any = None  # what was last copied there

    def prepare(self, volume: Tensor, source: Tensor) -> Any:
        """See Renderer."""
        return self._renderer.prepare(volume, source)

    def draw(self, state: PreparedSource, driving: Tensor) -> Tensor:
        """See Renderer."""
        count = len(driving)
        size = 1 << (count - 1).bit_length()
        if not self.note and size not in self._recordings:
            self._begin(state, driving, size)
        if self.note:
            return self._renderer.draw(state, driving)
        self._take(state)
        self._inputs[size][:count].copy_(driving)
        self._inputs[size][count:].copy_(driving[-1])
        self._recordings[size].replay()
        return self._recordings[size].output[:count]

    def _begin(self, state: PreparedSource, driving: Tensor, size: int) -> None:
        """Record a size of batch, or note why that is not possible."""
        fixed = self._state = self._state or PreparedSource(*(value.clone() for value in state))
        keypoints = self._inputs[size] = driving[-1:].repeat(size, 1, 1)
        try:
            self._recordings[size] = self._record(lambda: self._renderer.draw(fixed, keypoints))
        except torch.OutOfMemoryError:
            self._forget()
            raise
        except RuntimeError as error:
            self._forget()
            self.note = f"drawing goes on without CUDA graphs, a little slower: {first_line(error)}"

    def _take(self, state: PreparedSource) -> None:
        """Let the recordings read this source."""
        if self._given is state or self._state is None:
            return
        for fixed, given in zip(self._state, state, strict=True):
            fixed.copy_(given)
        self._given = state

    def _forget(self) -> None:
        self._recordings.clear()
        self._inputs.clear()
        self._state = self._given = None
