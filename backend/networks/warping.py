# SPDX-License-Identifier: GPL-3.0-or-later
"""W, the warping module: the feature volume moves as the keypoints do, and a map says what was hidden before.

Each keypoint proposes a translation of the whole volume, the background none; an hourglass network looks at
the features as each proposal would place them and mixes the proposals, voxel by voxel (Siarohin et al. 2019,
Wang et al. 2021).

These are the plain networks: what is loaded, exported and measured against. The forms that draw are in
cpu_warping.py and device_warping.py.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .appearance import CHANNELS, DEPTH
from .layers import DownBlock3d, SameBlock2d, UpBlock3d

KEYPOINTS = 21
PROPOSALS = KEYPOINTS + 1  # the background first
COMPRESSED = 4
VARIANCE = 0.01  # of a keypoint's Gaussian, in squared crop coordinates
WIDTHS = (64, 128, 256, 512, 1024)
HOURGLASS_IN = PROPOSALS * (COMPRESSED + 1)  # 110
HOURGLASS_OUT = WIDTHS[0] // 2 + HOURGLASS_IN  # 142


def axis_grid(size: int, like: Tensor) -> Tensor:
    """`size` coordinates from -1 to 1, both included, rounded as the released weights were trained with."""
    return 2 * (torch.arange(size, dtype=like.dtype, device=like.device) / (size - 1)) - 1


def coordinate_grid(size: torch.Size, like: Tensor) -> Tensor:
    """Size (depth, height, width) -> (depth,height,width,3) of x, y, z, each from -1 to 1 with both ends."""
    z, y, x = (axis_grid(n, like) for n in size)
    return torch.stack(torch.meshgrid(z, y, x, indexing="ij")[::-1], dim=-1)


def gaussians(keypoints: Tensor, grid: Tensor) -> Tensor:
    """Keypoints (b,k,3), grid (d,h,w,3) -> a bump of height 1 around each keypoint (b,k,d,h,w)."""
    away = grid - keypoints[:, :, None, None, None, :]
    return torch.exp(-0.5 / VARIANCE * away.square().sum(dim=-1))


class Encoder(nn.Module):
    """(b,110,d,h,w) -> the input and five halvings of it, down to (b,1024,d,h/32,w/32)."""

    def __init__(self) -> None:
        super().__init__()
        self.down_blocks = nn.ModuleList(
            DownBlock3d(narrow, wide) for narrow, wide in zip((HOURGLASS_IN, *WIDTHS), WIDTHS)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = [x]
        for block in self.down_blocks:
            maps.append(block(maps[-1]))
        return maps


class Decoder(nn.Module):
    """The encoder's six maps -> (b,142,d,h,w); each doubling is followed by the encoder's map of the same
    size.
    """

    def __init__(self) -> None:
        super().__init__()
        after_skip = (WIDTHS[-1], *(2 * width for width in WIDTHS[-2::-1]))
        self.up_blocks = nn.ModuleList(
            UpBlock3d(wide, narrow) for wide, narrow in zip(after_skip, (*WIDTHS[-2::-1], WIDTHS[0] // 2))
        )
        self.conv = nn.Conv3d(HOURGLASS_OUT, HOURGLASS_OUT, 3, padding=1)
        self.norm = nn.BatchNorm3d(HOURGLASS_OUT)

    def forward(self, maps: list[Tensor]) -> Tensor:
        x = maps[-1]
        for block, skip in zip(self.up_blocks, maps[-2::-1]):
            x = torch.cat([block(x), skip], dim=1)
        return F.relu(self.norm(self.conv(x)))


class Hourglass(nn.Module):
    """(b,110,d,h,w) -> (b,142,d,h,w)."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder()
        self.decoder = Decoder()

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.encoder(x))


class DenseMotionNetwork(nn.Module):
    """Volume (b,32,16,64,64), keypoints (b,21,3) of source and driving -> deformation (b,16,64,64,3), where
    in the source each voxel comes from (x,y,z in -1..1), and occlusion map (b,1,64,64) in 0..1.
    """

    def __init__(self) -> None:
        super().__init__()
        self.hourglass = Hourglass()
        self.mask = nn.Conv3d(HOURGLASS_OUT, PROPOSALS, 7, padding=3)
        self.compress = nn.Conv3d(CHANNELS, COMPRESSED, 1)
        self.norm = nn.BatchNorm3d(COMPRESSED)
        self.occlusion = nn.Conv2d(HOURGLASS_OUT * DEPTH, 1, 7, padding=3)

    def forward(self, volume: Tensor, kp_source: Tensor, kp_driving: Tensor) -> tuple[Tensor, Tensor]:
        compressed = F.relu(self.norm(self.compress(volume)))
        grid = coordinate_grid(volume.shape[2:], kp_source)
        proposals = propose(grid, kp_source, kp_driving)
        bumps = gaussians(kp_driving, grid) - gaussians(kp_source, grid)
        x = self.hourglass(hourglass_input(bumps, move(compressed, proposals)))
        weights = self.mask(x).softmax(dim=1)
        deformation = (proposals * weights[..., None]).sum(dim=1)
        occlusion = torch.sigmoid(self.occlusion(x.flatten(1, 2)))
        return deformation, occlusion


def propose(grid: Tensor, kp_source: Tensor, kp_driving: Tensor) -> Tensor:
    """Where each keypoint alone would fetch every voxel from: grid (d,h,w,3), keypoints (b,21,3) ->
    (b,22,d,h,w,3).
    """
    source, driving = (F.pad(kp, (0, 0, 1, 0))[:, :, None, None, None, :] for kp in (kp_source, kp_driving))
    return grid - driving + source


def move(volume: Tensor, proposals: Tensor) -> Tensor:
    """Volume (b,c,d,h,w) sampled at every proposal (b,22,d,h,w,3), nothing outside -> (b,22,c,d,h,w)."""
    batch, count = proposals.shape[:2]
    repeated = volume[:, None].expand(-1, count, -1, -1, -1, -1).flatten(0, 1)
    moved = F.grid_sample(repeated, proposals.flatten(0, 1), align_corners=False)
    return moved.unflatten(0, (batch, count))


def hourglass_input(bumps: Tensor, moved: Tensor) -> Tensor:
    """Gaussians' difference (b,21,d,h,w) and moved features (b,22,4,d,h,w) -> (b,110,d,h,w), five for each
    proposal.
    """
    bumps = F.pad(bumps, (0, 0, 0, 0, 0, 0, 1, 0))
    return torch.cat([bumps[:, :, None], moved], dim=2).flatten(1, 2)


class WarpingModule(nn.Module):
    """Feature volume (b,32,16,64,64), keypoints (b,21,3) of source and driving -> features as the driving
    keypoints pose them (b,256,64,64). 45,529,829 parameters.
    """

    def __init__(self) -> None:
        super().__init__()
        self.dense_motion_network = DenseMotionNetwork()
        self.third = SameBlock2d(CHANNELS * DEPTH, 256, slope=0.01)
        self.fourth = nn.Conv2d(256, 256, 1)

    def forward(self, volume: Tensor, kp_source: Tensor, kp_driving: Tensor) -> Tensor:
        deformation, occlusion = self.dense_motion_network(volume, kp_source, kp_driving)
        warped = F.grid_sample(volume, deformation, align_corners=False)
        return self.fourth(self.third(warped.flatten(1, 2))) * occlusion
