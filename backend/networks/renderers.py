# SPDX-License-Identifier: GPL-3.0-or-later
"""W and G as one: a source is prepared once, then drawn for batches of keypoints. One form for CPUs and for
onnxruntime, one for GPUs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from .cpu_generator import CpuGenerator
from .cpu_warping import CpuWarping
from .device_generator import DeviceGenerator
from .device_layers import Place
from .device_warping import DeviceWarping, PreparedSource
from .generator import SpadeGenerator
from .warping import WarpingModule

PRECISIONS = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


class Renderer(Protocol):
    """Not for several threads at once."""

    def prepare(self, volume: Tensor, source: Tensor) -> Any:
        """Feature volume (1,32,16,64,64) and keypoints x_s (1,21,3), float32 -> what `draw` needs of a
        source.
        """

    def draw(self, state: Any, driving: Tensor) -> Tensor:
        """x_d (b,21,3) float32 -> pictures (b,3,512,512) float32 in 0..1."""


class Warping(Protocol):
    """W in two steps."""

    def prepare(self, volume: Tensor, source: Tensor) -> Any:
        """As Renderer.prepare."""

    def run(self, state: Any, driving: Tensor) -> Tensor:
        """x_d (b,21,3) -> features (b,256,64,64)."""


class PartsRenderer:
    """A form of W and a form of G, each as fast as it can be had: on a CPU, or through onnxruntime."""

    def __init__(self, warping: Warping, generator: Callable[[Tensor], Tensor]) -> None:
        self.warping, self.generator = warping, generator

    def prepare(self, volume: Tensor, source: Tensor) -> Any:
        """See Renderer."""
        return self.warping.prepare(volume, source)

    def draw(self, state: Any, driving: Tensor) -> Tensor:
        """See Renderer."""
        return self.generator(self.warping.run(state, driving))


def cpu_renderer(warping: WarpingModule, generator: SpadeGenerator) -> PartsRenderer:
    """float32 on the CPU, in less than half of the plain networks' time."""
    return PartsRenderer(CpuWarping(warping), CpuGenerator(generator))


class DeviceRenderer:
    """Their form for GPUs, in float16, bfloat16 or float32."""

    def __init__(
        self, warping: WarpingModule, generator: SpadeGenerator, device: torch.device, dtype: torch.dtype
    ) -> None:
        place = Place(device, dtype)
        self.warping, self.generator = DeviceWarping(warping, place), DeviceGenerator(generator, place)

    @torch.inference_mode()
    def prepare(self, volume: Tensor, source: Tensor) -> PreparedSource:
        """See Renderer."""
        return self.warping.prepare(volume, source)

    @torch.inference_mode()
    def draw(self, state: PreparedSource, driving: Tensor) -> Tensor:
        """See Renderer."""
        return self.generator(self.warping.run(state, driving))


class Forms:
    """W and G as a device draws with them, and as the CPU does."""

    def __init__(self, warping: WarpingModule, generator: SpadeGenerator, device: str) -> None:
        self._parts, self._device = (warping, generator), torch.device(device)

    def on_device(self, precision: str) -> Renderer:
        """In one of PRECISIONS."""
        return DeviceRenderer(*self._parts, self._device, PRECISIONS[precision])

    def on_cpu(self) -> Renderer:
        """See cpu_renderer."""
        return cpu_renderer(*self._parts)


def tune(device: str) -> None:
    """Set PyTorch up for drawing on a CUDA device, for the whole process, whose threads share these settings.

    cuDNN tries its algorithms on each new size and keeps the fastest. float32 stays float32: a keypoint that
    TF32 rounded would tremble by a quarter of a pixel.
    """
    if device == "cuda":
        torch.backends.cudnn.benchmark = True
        torch.backends.cudnn.allow_tf32 = False


def to_levels(pictures: Tensor) -> Tensor:
    """Pictures (b,3,h,w) in 0..1 -> (b,h,w,3) uint8, truncated as in the released program."""
    return (pictures * 255).clamp_(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def to_pictures(crops: Tensor) -> Tensor:
    """(n,h,w,3) uint8 -> (n,3,h,w) float32 in 0..1."""
    return crops.permute(0, 3, 1, 2).float().div_(255)
