# SPDX-License-Identifier: GPL-3.0-or-later
"""W and G as one: a source is prepared once, then drawn for batches of keypoints. One form for CPUs and for
onnxruntime, one for GPUs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .cpu_generator import CpuGenerator
from .cpu_warping import CpuWarping
from .generator import SpadeGenerator
from .layers import fold_spectral_norms
from .warping import PreparedSource, WarpingModule

Network = TypeVar("Network", bound=nn.Module)
AGREEMENT = 0.02  # mean difference of pictures in 0..1 (five levels of 255) that half precision may make
SPREAD = 1e-3  # a picture that varies less than this is blank


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
    """The plain networks on a GPU, in float16 or float32; it takes over the modules that it is given."""

    def __init__(
        self, warping: WarpingModule, generator: SpadeGenerator, device: torch.device, dtype: torch.dtype
    ) -> None:
        with torch.no_grad():
            fold_spectral_norms(generator)
        self.dtype = dtype
        self.warping = warping.to(device, dtype)
        self.generator = self.layout(generator.to(device, dtype))

    @staticmethod
    def layout(network: Network) -> Network:
        """The same network, its pictures' channels last in memory: what tensor cores want."""
        for parameter in network.parameters():
            if parameter.dim() == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        return network

    @torch.inference_mode()
    def prepare(self, volume: Tensor, source: Tensor) -> PreparedSource:
        """See Renderer."""
        return self.warping.prepare(volume.to(self.dtype), source)

    @torch.inference_mode()
    def draw(self, state: PreparedSource, driving: Tensor) -> Tensor:
        """See Renderer."""
        features = self.warping.run(state, driving)
        return self.generator(features.contiguous(memory_format=torch.channels_last))


def to_levels(pictures: Tensor) -> Tensor:
    """Pictures (b,3,h,w) in 0..1 -> (b,h,w,3) uint8, truncated as in the released program."""
    return (pictures * 255).clamp_(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def to_pictures(crops: Tensor) -> Tensor:
    """(n,h,w,3) uint8 -> (n,3,h,w) float32 in 0..1."""
    return crops.permute(0, 3, 1, 2).float().div_(255)


def disagreement(got: Tensor, wanted: Tensor) -> str:
    """What is wrong with a picture drawn in half precision, beside the same in float32; "" where nothing
    is.
    """
    if not torch.isfinite(got).all():
        return "it gave numbers that are not finite"
    if float(got.std()) < SPREAD <= float(wanted.std()):
        return "it gave a blank picture"
    if float(F.l1_loss(got, wanted)) > AGREEMENT:
        return "its picture was far off"
    return ""
