# SPDX-License-Identifier: GPL-3.0-or-later
"""W for a CPU: the same function as warping.WarpingModule in float32, in less than half of the time.

* What depends on the source alone is computed once (`prepare`).
* A keypoint's proposal moves the whole volume, so sampling it is three small matrix products, one for each
  axis, and the mixed proposals are the grid plus mixed shifts. A Gaussian is a product of three as well.
* Batch normalisation is folded into the convolution before it.
* A 3x3 convolution of a twofold enlarged map (nearest) reads 2x2 pixels of the small one for each of its four
  phases.
* The two large convolutions go by Fourier transforms (fourier.py), `third` by Winograd's method
  (winograd.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .fourier import FourierConvolution
from .layers import DownBlock3d, UpBlock3d, folded, halved
from .warping import HOURGLASS_IN, HOURGLASS_OUT, VARIANCE, WIDTHS, WarpingModule, axis_grid
from .winograd import TileConvolution, Workspace, framed, from_tiles, to_tiles

UP = WIDTHS[0] // 2  # channels of the last enlarged map
SMALL = 2  # decoder blocks, at 2x2 and 4x4, that gain nothing from phases


@dataclass(frozen=True)
class WarpingState:
    """A source: its volume (1,32,16,64,64), the compressed one (4,16,64,64), keypoints (21,3), their
    Gaussians (21,16,64,64) and the background's part of the hourglass' input (4,16,64,64).
    """

    volume: Tensor
    compressed: Tensor
    keypoints: Tensor
    bumps: Tensor
    background: Tensor


def axes_of(size: torch.Size) -> tuple[Tensor, Tensor, Tensor]:
    """Coordinates -1..1 along z, y, x."""
    depth, height, width = (axis_grid(n, torch.empty(0)) for n in size)
    return depth, height, width


def bumps(keypoints: Tensor, size: torch.Size) -> Tensor:
    """Keypoints (21,3) -> their Gaussians (21,d,h,w)."""
    z, y, x = (
        torch.exp(-0.5 / VARIANCE * (axis - keypoints[:, which, None]).square())
        for axis, which in zip(axes_of(size), (2, 1, 0))
    )
    return z[:, :, None, None] * (y[:, :, None] * x[:, None, :])[:, None]


def moved(volume: Tensor, source: Tensor, driving: Tensor) -> Tensor:
    """Volume (c,d,h,w) as n keypoint pairs (n,3) would move it: linear interpolation, zero outside ->
    (n,c,d,h,w).
    """
    channels, depth, height, width = volume.shape
    count = len(source)
    hats = []
    for axis, which in zip(axes_of(volume.shape[1:]), (2, 1, 0)):
        size = len(axis)
        place = ((axis - driving[:, which, None] + source[:, which, None] + 1) * size - 1) / 2
        hats.append((1 - (place[:, :, None] - torch.arange(size)).abs()).clamp_(min=0))  # (n, wanted, given)
    by_z, by_y, by_x = hats
    x = torch.matmul(volume.view(1, -1, width), by_x.transpose(1, 2)).view(count, -1, height, width)
    x = torch.matmul(by_y[:, None], x).view(count, channels, depth, -1)
    return torch.matmul(by_z[:, None], x).view(count, channels, depth, height, width)


class PlainEnlarging:
    """UpBlock3d as it is, for the smallest maps, where reading the kernels is what takes time."""

    def __init__(self, block: UpBlock3d) -> None:
        self.weight, self.bias = folded(block.conv, block.norm)
        self.channels = len(self.bias)

    def __call__(self, x: Tensor, out: Tensor) -> None:
        """x (1,c,d,h,w), out (k,d,2h,2w)."""
        enlarged = F.interpolate(x, scale_factor=(1, 2, 2))
        out.copy_(F.conv3d(enlarged, self.weight, self.bias, padding=1)[0].relu_())


class PhaseEnlarging:
    """UpBlock3d by phases: (1,c,d,h,w) -> (1,k,d,2h,2w), written where it is wanted."""

    def __init__(self, block: UpBlock3d) -> None:
        weight, bias = folded(block.conv, block.norm)
        first = torch.stack([weight[..., 0], weight[..., 1] + weight[..., 2]], dim=-1)
        second = torch.stack([weight[..., 0] + weight[..., 1], weight[..., 2]], dim=-1)
        phases = [
            torch.stack([rows[..., 0, :], rows[..., 1, :] + rows[..., 2, :]], dim=-2)
            if y == 0
            else torch.stack([rows[..., 0, :] + rows[..., 1, :], rows[..., 2, :]], dim=-2)
            for y in (0, 1)
            for rows in (first, second)
        ]
        self.weight, self.bias = torch.cat(phases), bias.repeat(4)
        self.channels = len(bias)

    def __call__(self, x: Tensor, out: Tensor) -> None:
        """x (1,c,d,h,w), out (k,d,2h,2w) of any strides."""
        height, width = x.shape[3:]
        every = F.conv3d(x, self.weight, self.bias, padding=1)[0].relu_()  # (4k, d, h+1, w+1)
        for phase, y in enumerate(every.split(self.channels)):
            down, right = divmod(phase, 2)
            out[:, :, down::2, right::2] = y[:, :, down : down + height, right : right + width]


class Occlusion:
    """7x7 convolution of (16 x 142) channels to one: a product for each tap, then the taps' shifted sum."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        taps = convolution.weight.detach()[0].unflatten(0, (HOURGLASS_OUT, -1))  # c, d, 7, 7
        self.taps = taps.flip(2, 3).flatten(2).permute(1, 0, 2).contiguous()  # d, c, 49
        self.kernel = taps.shape[-1]
        assert convolution.bias is not None
        self.bias = convolution.bias.detach()

    def __call__(self, volume: Tensor) -> Tensor:
        """(d,h,w,142) -> (1,1,h,w) in 0..1."""
        height, width = volume.shape[1:3]
        edge = self.kernel // 2
        columns = torch.bmm(volume.flatten(1, 2), self.taps).sum(dim=0).t()[None]
        spread = F.fold(columns, (height + 2 * edge, width + 2 * edge), self.kernel)
        return torch.sigmoid(spread[:, :, edge : edge + height, edge : edge + width] + self.bias)


class CpuWarping:
    """`prepare` a source once, then `run` it for any keypoints. float32. Not thread-safe: it keeps
    buffers.
    """

    @torch.no_grad()
    def __init__(self, module: WarpingModule) -> None:
        dense = module.dense_motion_network
        hourglass = dense.hourglass
        self.space = Workspace()
        self.compress = folded(dense.compress, dense.norm)
        downs = cast("list[DownBlock3d]", list(hourglass.encoder.down_blocks))
        ups = cast("list[UpBlock3d]", list(hourglass.decoder.up_blocks))
        self.down = [folded(block.conv, block.norm) for block in downs]
        self.up: list[PlainEnlarging | PhaseEnlarging] = [PlainEnlarging(block) for block in ups[:SMALL]]
        self.up += [PhaseEnlarging(block) for block in ups[SMALL:]]
        self.decode = FourierConvolution(*folded(hourglass.decoder.conv, hourglass.decoder.norm))
        assert dense.mask.bias is not None
        self.mask = FourierConvolution(dense.mask.weight, dense.mask.bias)
        self.occlusion = Occlusion(dense.occlusion)
        self.third = TileConvolution(*folded(module.third.conv, module.third.norm))
        self.slope = module.third.slope
        self.fourth = module.fourth

    @torch.inference_mode()
    def prepare(self, volume: Tensor, kp_source: Tensor) -> WarpingState:
        """Feature volume (1,32,16,64,64) and keypoints (1,21,3) of the source."""
        compressed = F.conv3d(volume, *self.compress)[0].relu_()
        still = torch.zeros(1, 3)
        return WarpingState(
            volume,
            compressed,
            kp_source[0],
            bumps(kp_source[0], compressed.shape[1:]),
            moved(compressed, still, still)[0],
        )

    @torch.inference_mode()
    def run(self, state: WarpingState, kp_driving: Tensor) -> Tensor:
        """Driving keypoints (b,21,3) -> features for G (b,256,64,64)."""
        return torch.cat([self._run(state, keypoints) for keypoints in kp_driving])

    def _run(self, state: WarpingState, driving: Tensor) -> Tensor:
        deformation, occlusion = self.motion(state, driving)
        warped = F.grid_sample(state.volume, deformation[None], align_corners=False)
        source = framed(to_tiles(warped.flatten(1, 2)[0]), self.space, "warped")
        tiles = self.third(source, self.space)
        features = from_tiles(F.leaky_relu_(tiles, self.slope))[None]
        return self.fourth(features) * occlusion

    @torch.inference_mode()
    def motion(self, state: WarpingState, driving: Tensor) -> tuple[Tensor, Tensor]:
        """Keypoints (21,3) -> deformation (16,64,64,3) and occlusion map (1,1,64,64), as DenseMotionNetwork
        gives them.
        """
        decoded = self._hourglass(self._hourglass_input(state, driving))
        depth, height, width = decoded.shape[:3]
        weights = self.mask(self._framed("mask", decoded, self.mask), self.space).softmax(dim=-1)
        z, y, x = axes_of(decoded.shape[:3])
        shifts = F.pad(state.keypoints - driving, (0, 0, 1, 0))
        deformation = torch.mm(weights.view(-1, len(shifts)), shifts).view(depth, height, width, 3)
        deformation[..., 0] += x
        deformation[..., 1] += y[:, None]
        deformation[..., 2] += z[:, None, None]
        return deformation, self.occlusion(decoded)

    def _hourglass_input(self, state: WarpingState, driving: Tensor) -> Tensor:
        """(1,110,16,64,64): for each proposal the Gaussians' difference and the moved features."""
        size = state.compressed.shape[1:]
        x = self.space.take("input", HOURGLASS_IN // 5, 5, *size)
        x[0, 0] = 0.0
        x[0, 1:] = state.background
        torch.sub(bumps(driving, size), state.bumps, out=x[1:, 0])
        x[1:, 1:] = moved(state.compressed, state.keypoints, driving)
        return x.view(1, HOURGLASS_IN, *size)

    def _hourglass(self, x: Tensor) -> Tensor:
        """(1,110,d,h,w) -> (d,h,w,142)."""
        maps = [x]
        for weight, bias in self.down:
            maps.append(halved(F.conv3d(maps[-1], weight, bias, padding=1).relu_()))
        y = maps.pop()
        for block, skip in zip(self.up[:-1], maps[:0:-1]):
            depth, height, width = skip.shape[2:]
            joined = torch.empty(1, block.channels + skip.shape[1], depth, height, width)
            block(y, joined[0, : block.channels])
            joined[0, block.channels :] = skip[0]
            y = joined
        room, inside = self._frame("decode", self.decode, x.shape[2:])
        self.up[-1](y, inside[..., :UP].permute(3, 0, 1, 2))
        inside[..., UP:] = x[0].permute(1, 2, 3, 0)
        return self.decode(room, self.space).relu_()

    def _framed(self, name: str, volume: Tensor, convolution: FourierConvolution) -> Tensor:
        room, inside = self._frame(name, convolution, volume.shape[:3])
        inside.copy_(volume)
        return room

    def _frame(self, name: str, convolution: FourierConvolution, size: torch.Size) -> tuple[Tensor, Tensor]:
        """A buffer with the zero border that a convolution reads, (d,h+n-1,w+n-1,142), and the volume's place
        in it.
        """
        edge = convolution.margin
        depth, height, width = size
        room = self.space.take(f"framed.{name}", depth, height + 2 * edge, width + 2 * edge, HOURGLASS_OUT)
        for axis in (1, 2):
            room.narrow(axis, 0, edge).zero_()
            room.narrow(axis, room.shape[axis] - edge, edge).zero_()
        return room, room[:, edge : edge + height, edge : edge + width]
