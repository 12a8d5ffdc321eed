# SPDX-License-Identifier: GPL-3.0-or-later
"""M, the motion extractor: ConvNeXt V2 "tiny" (Woo et al. 2023) with one linear head for each quantity of a
pose.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

DEPTHS = (3, 3, 9, 3)
WIDTHS = (96, 192, 384, 768)
HEADS = {"kp": 63, "scale": 1, "pitch": 66, "yaw": 66, "roll": 66, "t": 3, "exp": 63}
EPSILON = 1e-6


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation over the channels of (b,c,h,w)."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ResponseNorm(nn.Module):
    """Global response normalisation of (b,h,w,c): a channel grows with its share of the energy in the
    picture.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1, 1, 1, channels))
        self.beta = nn.Parameter(torch.zeros(1, 1, 1, channels))

    def forward(self, x: Tensor) -> Tensor:
        energy = torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True)
        share = energy / (energy.mean(dim=-1, keepdim=True) + EPSILON)
        return self.gamma * (x * share) + self.beta + x


class Block(nn.Module):
    """7x7 by channel, normalise, widen fourfold, GELU, response normalisation, narrow, add: (b,c,h,w) -> the
    same.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=EPSILON)
        self.pwconv1 = nn.Linear(channels, 4 * channels)
        self.grn = ResponseNorm(4 * channels)
        self.pwconv2 = nn.Linear(4 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.dwconv(x).permute(0, 2, 3, 1))
        y = self.pwconv2(self.grn(F.gelu(self.pwconv1(y))))
        return x + y.permute(0, 3, 1, 2)


class ConvNeXt(nn.Module):
    """Picture (b,3,256,256) -> {head: (b,numbers)} as HEADS names them."""

    def __init__(self) -> None:
        super().__init__()
        self.downsample_layers = nn.ModuleList(
            [nn.Sequential(nn.Conv2d(3, WIDTHS[0], 4, stride=4), ChannelNorm(WIDTHS[0]))]
        )
        for narrow, wide in zip(WIDTHS, WIDTHS[1:]):
            self.downsample_layers.append(
                nn.Sequential(ChannelNorm(narrow), nn.Conv2d(narrow, wide, 2, stride=2))
            )
        self.stages = nn.ModuleList(
            nn.Sequential(*(Block(width) for _ in range(depth))) for depth, width in zip(DEPTHS, WIDTHS)
        )
        self.norm = nn.LayerNorm(WIDTHS[-1], eps=EPSILON)
        for head, numbers in HEADS.items():
            self.add_module(f"fc_{head}", nn.Linear(WIDTHS[-1], numbers))

    def forward(self, picture: Tensor) -> dict[str, Tensor]:
        x = picture
        for downsample, stage in zip(self.downsample_layers, self.stages):
            x = stage(downsample(x))
        pooled = self.norm(x.mean(dim=(2, 3)))
        return {head: self.get_submodule(f"fc_{head}")(pooled) for head in HEADS}


class MotionExtractor(nn.Module):
    """Picture (b,3,256,256) in 0..1 -> canonical keypoints kp (b,63), exp (b,63), scale (b,1), t (b,3) and
    the angles pitch, yaw, roll (b,66) as scores of 66 bins of 3 degrees (see `degrees`). 28,118,728
    parameters.
    """

    def __init__(self) -> None:
        super().__init__()
        self.detector = ConvNeXt()

    def forward(self, picture: Tensor) -> dict[str, Tensor]:
        return self.detector(picture)


def degrees(scores: Tensor) -> Tensor:
    """Scores of the angle bins (b,66) -> degrees (b,): the expected bin times 3, less 97.5."""
    bins = torch.arange(scores.shape[-1], dtype=torch.float32, device=scores.device)
    return 3.0 * (scores.float().softmax(dim=-1) * bins).sum(dim=-1) - 97.5
