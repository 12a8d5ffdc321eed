# SPDX-License-Identifier: GPL-3.0-or-later
"""G, the generator: features become a picture, through spatially-adaptive normalisation (SPADE, Park et al.
2019).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers import SpectralConv2d

FEATURES = 256  # channels of the features that G draws from, at 64x64
HIDDEN = 128
SLOPE = 0.2


class Spade(nn.Module):
    """x (b,c,h,w) made flat by channel, then scaled and shifted voxel by voxel as features (b,256,64,64)
    say.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mlp_shared = nn.Sequential(nn.Conv2d(FEATURES, HIDDEN, 3, padding=1), nn.ReLU())
        self.mlp_gamma = nn.Conv2d(HIDDEN, channels, 3, padding=1)
        self.mlp_beta = nn.Conv2d(HIDDEN, channels, 3, padding=1)

    def forward(self, x: Tensor, features: Tensor) -> Tensor:
        hidden = self.mlp_shared(F.interpolate(features, size=x.shape[2:]))
        return F.instance_norm(x) * (1 + self.mlp_gamma(hidden)) + self.mlp_beta(hidden)


class SpadeBlock(nn.Module):
    """Two rounds of SPADE, leaky ReLU, 3x3 convolution, added to a shortcut: (b,c,h,w) -> (b,c',h,w).

    Where c' differs from c the shortcut has a SPADE and a 1x1 convolution of its own.
    """

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        middle = min(channels, out_channels)
        self.conv_0 = SpectralConv2d(channels, middle, 3)
        self.conv_1 = SpectralConv2d(middle, out_channels, 3)
        self.norm_0 = Spade(channels)
        self.norm_1 = Spade(middle)
        self.learned_shortcut = channels != out_channels
        if self.learned_shortcut:
            self.conv_s = SpectralConv2d(channels, out_channels, 1, bias=False)
            self.norm_s = Spade(channels)

    def forward(self, x: Tensor, features: Tensor) -> Tensor:
        shortcut = self.conv_s(self.norm_s(x, features)) if self.learned_shortcut else x
        y = self.conv_0(F.leaky_relu(self.norm_0(x, features), SLOPE))
        return shortcut + self.conv_1(F.leaky_relu(self.norm_1(y, features), SLOPE))


class SpadeGenerator(nn.Module):
    """Features (b,256,64,64) -> picture (b,3,512,512) in 0..1. 55,365,388 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Conv2d(FEATURES, 512, 3, padding=1)
        for i in range(6):
            self.add_module(f"G_middle_{i}", SpadeBlock(512, 512))
        self.up_0 = SpadeBlock(512, 256)
        self.up_1 = SpadeBlock(256, 64)
        self.conv_img = nn.Sequential(nn.Conv2d(64, 12, 3, padding=1), nn.PixelShuffle(2))

    def middle(self) -> list[SpadeBlock]:
        """The six blocks at 64x64."""
        return [getattr(self, f"G_middle_{i}") for i in range(6)]

    def forward(self, features: Tensor) -> Tensor:
        x = self.fc(features)
        for block in self.middle():
            x = block(x, features)
        x = self.up_0(F.interpolate(x, scale_factor=2), features)
        x = self.up_1(F.interpolate(x, scale_factor=2), features)
        return torch.sigmoid(self.conv_img(F.leaky_relu(x, SLOPE)))
