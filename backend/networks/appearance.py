# SPDX-License-Identifier: GPL-3.0-or-later
"""F, the appearance feature extractor: a picture of the source becomes a volume of features."""

from __future__ import annotations

from torch import Tensor, nn

from .layers import DownBlock2d, ResBlock3d, SameBlock2d

CHANNELS, DEPTH = 32, 16


class AppearanceFeatureExtractor(nn.Module):
    """Picture (b,3,256,256) in 0..1 -> feature volume (b,32,16,64,64). 836,224 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.first = SameBlock2d(3, 64)
        self.down_blocks = nn.Sequential(DownBlock2d(64, 128), DownBlock2d(128, 256))
        self.second = nn.Conv2d(256, CHANNELS * DEPTH, 1)
        self.resblocks_3d = nn.Sequential()
        for i in range(6):
            self.resblocks_3d.add_module(f"3dr{i}", ResBlock3d(CHANNELS))

    def forward(self, picture: Tensor) -> Tensor:
        flat = self.second(self.down_blocks(self.first(picture)))
        return self.resblocks_3d(flat.unflatten(1, (CHANNELS, DEPTH)))
