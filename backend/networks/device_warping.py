# SPDX-License-Identifier: GPL-3.0-or-later
"""W for a GPU: the same function as warping.WarpingModule with fewer and larger operations.

* What depends on the source alone is computed once (`prepare`).
* Batch normalisation is folded into the convolution before it; the hourglass' 110 and 142 channels and the
  22 proposals are widened by zeros to counts that tensor cores take.
* The proposals sample one volume, which is nowhere repeated; a Gaussian is a product of three along the
  axes; the mixed proposals are the grid plus mixed shifts.
* The occlusion map's 7x7 convolution over all depths to one channel is a matrix product with its 49 taps,
  which are then added up where they belong.

Keypoints, places, the softmax and the sampling are float32 in every precision: a place in half precision
would be off by up to a thirtieth of a voxel.
"""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .device_layers import Convolution, Place, doubled, halved, padded, rounded_up
from .layers import DownBlock3d, UpBlock3d, folded
from .warping import (
    COMPRESSED,
    HOURGLASS_IN,
    HOURGLASS_OUT,
    PROPOSALS,
    VARIANCE,
    WarpingModule,
    axis_grid,
    coordinate_grid,
)


class PreparedSource(NamedTuple):
    """A source, for any driving keypoints, float32: volume (1,32,16,64,64), its compressed form
    (1,4,16,64,64), keypoints x_s (1,21,3), their Gaussians (1,16,64,64,21), the grid (16,64,64,3).
    """

    volume: Tensor
    compressed: Tensor
    keypoints: Tensor
    bumps: Tensor
    grid: Tensor


def bumps(keypoints: Tensor, size: torch.Size) -> Tensor:
    """Keypoints (b,21,3) -> their Gaussians (b,d,h,w,21)."""
    away = (
        axis_grid(n, keypoints)[:, None] - keypoints[:, None, :, which]
        for n, which in zip(size, (2, 1, 0), strict=True)
    )
    z, y, x = (torch.exp(-0.5 / VARIANCE * distance.square()) for distance in away)  # each (b,n,21)
    return z[:, :, None, None] * (y[:, :, None] * x[:, None])[:, None]


class Occlusion:
    """The occlusion map: hourglass features (b,16,h,w,144) -> (b,h,w,1) in 0..1."""

    def __init__(self, convolution: nn.Conv2d, depth: int, place: Place) -> None:
        taps = convolution.weight[0].unflatten(0, (-1, depth)).transpose(0, 1)  # d,c,7,7
        self.kernel = taps.shape[-1]
        taps = taps.flip(2, 3).flatten(2)  # d,c,49, as a pixel hands its value on
        self.taps = place.put(padded(padded(taps, 1), 2))
        assert convolution.bias is not None
        self.bias = convolution.bias.detach().to(place.device)

    def __call__(self, x: Tensor) -> Tensor:
        """See the class."""
        height, width = x.shape[2:4]
        edge = self.kernel // 2
        answers = torch.matmul(x.flatten(2, 3), self.taps).sum(dim=1, dtype=torch.float32)  # b,hw,56
        columns = answers[..., : self.kernel**2].transpose(1, 2)
        spread = F.fold(columns, (height + 2 * edge, width + 2 * edge), self.kernel)
        return torch.sigmoid(spread[:, 0, edge : edge + height, edge : edge + width, None] + self.bias)


class DeviceWarping:
    """`prepare` a source once, then `run` it for batches of keypoints."""

    @torch.no_grad()
    def __init__(self, module: WarpingModule, place: Place) -> None:
        dense = module.dense_motion_network
        hourglass = dense.hourglass
        downs = cast("list[DownBlock3d]", list(hourglass.encoder.down_blocks))
        ups = cast("list[UpBlock3d]", list(hourglass.decoder.up_blocks))
        self.place = place
        exact = Place(place.device, torch.float32)
        self.compress = Convolution(*folded(dense.compress, dense.norm), exact)
        self.down = [Convolution(*folded(block.conv, block.norm), place, widen=True) for block in downs]
        self.up = [Convolution(*folded(block.conv, block.norm), place, widen=True) for block in ups]
        self.decode = Convolution(*folded(hourglass.decoder.conv, hourglass.decoder.norm), place, widen=True)
        self.mask = Convolution(dense.mask.weight, dense.mask.bias, place, widen=True)
        self.occlusion = Occlusion(dense.occlusion, dense.occlusion.in_channels // HOURGLASS_OUT, place)
        self.third = Convolution(*folded(module.third.conv, module.third.norm), place)
        self.slope = module.third.slope
        self.fourth = Convolution(module.fourth.weight, module.fourth.bias, place)

    def prepare(self, volume: Tensor, kp_source: Tensor) -> PreparedSource:
        """Feature volume (1,32,16,64,64) and keypoints x_s (1,21,3), float32."""
        size = volume.shape[2:]
        compressed = F.relu_(self.compress(volume.movedim(1, -1))).movedim(-1, 1).contiguous()
        return PreparedSource(
            volume, compressed, kp_source, bumps(kp_source, size), coordinate_grid(size, kp_source)
        )

    def run(self, source: PreparedSource, kp_driving: Tensor) -> Tensor:
        """Driving keypoints (b,21,3) float32 -> features for G (b,64,64,256)."""
        deformation, occlusion = self.motion(source, kp_driving)
        volume = source.volume.expand(len(kp_driving), -1, -1, -1, -1)
        warped = F.grid_sample(volume, deformation, align_corners=False).flatten(1, 2)
        x = self.third(warped.permute(0, 2, 3, 1).to(self.place.dtype, memory_format=torch.contiguous_format))
        x = self.fourth(F.leaky_relu_(x, self.slope))
        return x.mul_(occlusion.to(x.dtype))

    def motion(self, source: PreparedSource, kp_driving: Tensor) -> tuple[Tensor, Tensor]:
        """Deformation (b,16,64,64,3), where in the source each voxel comes from, and occlusion map
        (b,64,64,1), float32.
        """
        shifts = F.pad(source.keypoints - kp_driving, (0, 0, 1, 0))  # (b,22,3), the background's 0
        x = self._hourglass(self._hourglass_input(source, kp_driving, shifts))
        weights = self.mask(x)[..., :PROPOSALS].float().softmax(dim=-1)
        mixed = torch.bmm(weights.flatten(1, 3), shifts).view(*weights.shape[:-1], 3)
        return mixed.add_(source.grid), self.occlusion(x)

    def _hourglass_input(self, source: PreparedSource, kp_driving: Tensor, shifts: Tensor) -> Tensor:
        """(b,16,64,64,112): of each proposal the Gaussians' difference and four moved features; two zeros."""
        size = source.grid.shape[:3]
        depth, height, width = size
        proposals = source.grid + shifts[:, :, None, None, None]  # (b,22,16,64,64,3)
        as_one = proposals.view(1, -1, height, width, 3)
        moved = F.grid_sample(source.compressed, as_one, align_corners=False)
        moved = moved.view(COMPRESSED, len(shifts), PROPOSALS, depth, height, width)
        x = torch.zeros(
            *(len(shifts), depth, height, width, rounded_up(HOURGLASS_IN)),
            dtype=self.place.dtype,
            device=moved.device,
        )
        each = x[..., :HOURGLASS_IN].unflatten(-1, (PROPOSALS, COMPRESSED + 1))
        each[..., 1:, 0] = bumps(kp_driving, size) - source.bumps
        each[..., 1:] = moved.permute(1, 3, 4, 5, 2, 0)
        return x

    def _hourglass(self, x: Tensor) -> Tensor:
        """(b,d,h,w,112) -> (b,d,h,w,144)."""
        maps = [x]
        for convolution in self.down:
            maps.append(halved(F.relu_(convolution(maps[-1]))))
        y = maps.pop()
        for convolution, skip in zip(self.up, reversed(maps), strict=True):
            y = torch.cat([F.relu_(convolution(doubled(y))), skip], dim=-1)
        return F.relu_(self.decode(y))
