# SPDX-License-Identifier: GPL-3.0-or-later
"""G for a GPU: the same function as generator.SpadeGenerator with fewer and larger operations.

* Spectral norms are folded; gamma and beta are one convolution, its bias holding the 1 of 1 + gamma.
* The hidden maps of all norms (mlp_shared) come from the same features: one convolution gives the twelve at
  64x64, one each the three of an enlarging block, read off the small features (EnlargedConvolution).
* A map is normalised before it is enlarged, as its statistics stay the same, and what is enlarged is only
  ever a view.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .device_layers import Convolution, EnlargedConvolution, Place, normalised, x_first
from .generator import SLOPE, Spade, SpadeBlock, SpadeGenerator
from .layers import SpectralConv2d


class Modulation:
    """Gamma and beta of one SPADE, applied: hidden map (b,h,w,128) and normalised map -> scaled, shifted."""

    def __init__(self, spade: Spade, place: Place) -> None:
        gamma, beta = spade.mlp_gamma, spade.mlp_beta
        assert gamma.bias is not None and beta.bias is not None
        weight = torch.cat([gamma.weight, beta.weight])
        self.convolution = Convolution(weight, torch.cat([gamma.bias + 1, beta.bias]), place)
        self.channels = gamma.out_channels

    def __call__(self, hidden: Tensor, normal: Tensor) -> Tensor:
        """normal: (b,h,w,c) of the hidden map's size, or of half of it, which is enlarged -> (b,h,w,c)."""
        both = self.convolution(hidden)
        size = both.shape[:3]
        if normal.shape[1] != size[1]:
            both = both.unflatten(2, (-1, 2)).unflatten(1, (-1, 2))  # (b,h/2,2,w/2,2,2c)
            normal = normal[:, :, None, :, None]
        gamma, beta = both[..., : self.channels], both[..., self.channels :]
        return torch.addcmul(beta, normal, gamma).view(*size, self.channels)


class FlatBlock:
    """A SpadeBlock whose size does not change: (b,h,w,c) -> the same."""

    def __init__(self, block: SpadeBlock, place: Place) -> None:
        self.norms = (Modulation(block.norm_0, place), Modulation(block.norm_1, place))
        self.convolutions = (_spectral(block.conv_0, place), _spectral(block.conv_1, place))

    def __call__(self, x: Tensor, hidden: tuple[Tensor, ...]) -> Tensor:
        """hidden: of its two norms."""
        y = x
        for norm, convolution, maps in zip(self.norms, self.convolutions, hidden, strict=True):
            y = convolution(F.leaky_relu_(norm(maps, normalised(y)), SLOPE))
        return y.add_(x)


class EnlargingBlock:
    """Nearest enlargement by two, then a SpadeBlock that narrows: (b,h,w,c) -> (b,2h,2w,c')."""

    def __init__(self, block: SpadeBlock, place: Place) -> None:
        self.norms = [Modulation(norm, place) for norm in (block.norm_s, block.norm_0, block.norm_1)]
        self.shortcut = _spectral(block.conv_s, place)
        self.convolutions = (_spectral(block.conv_0, place), _spectral(block.conv_1, place))

    def __call__(self, x: Tensor, hidden: tuple[Tensor, ...]) -> Tensor:
        """hidden: of norm_s, norm_0 and norm_1, at the enlarged size."""
        normal = normalised(x)
        short = self.shortcut(self.norms[0](hidden[0], normal))
        y = self.convolutions[0](F.leaky_relu_(self.norms[1](hidden[1], normal), SLOPE))
        y = self.convolutions[1](F.leaky_relu_(self.norms[2](hidden[2], normalised(y)), SLOPE))
        return y.add_(short)


class DeviceGenerator:
    """Features (b,64,64,256) in the place's precision -> pictures (b,3,512,512) float32 in 0..1."""

    @torch.no_grad()
    def __init__(self, generator: SpadeGenerator, place: Place) -> None:
        flat = [norm for block in generator.middle() for norm in (block.norm_0, block.norm_1)]
        self.first = Convolution(generator.fc.weight, generator.fc.bias, place)
        self.shared = Convolution(*_stacked(flat), place)
        self.middle = [FlatBlock(block, place) for block in generator.middle()]
        ups = generator.up_0, generator.up_1
        self.enlarged = [
            EnlargedConvolution(*_stacked([up.norm_s, up.norm_0, up.norm_1]), 2 ** (at + 1), place)
            for at, up in enumerate(ups)
        ]
        self.up = [EnlargingBlock(up, place) for up in ups]
        last = cast(nn.Conv2d, generator.conv_img[0])
        self.last = Convolution(last.weight, last.bias, place)
        self.hidden = flat[0].mlp_gamma.in_channels

    def __call__(self, features: Tensor) -> Tensor:
        """See the class."""
        x = self.first(features)
        hidden = self._apart(self.shared(features))
        for at, block in enumerate(self.middle):
            x = block(x, hidden[2 * at : 2 * at + 2])
        for enlarged, up in zip(self.enlarged, self.up, strict=True):
            x = up(x, self._apart(enlarged(features)))
        y = F.pixel_shuffle(x_first(self.last(F.leaky_relu_(x, SLOPE))), 2)
        return torch.sigmoid(y.float())

    def _apart(self, maps: Tensor) -> tuple[Tensor, ...]:
        """The hidden maps (b,h,w,128) of several norms."""
        return F.relu_(maps).split(self.hidden, dim=-1)


def _spectral(convolution: SpectralConv2d, place: Place) -> Convolution:
    return Convolution(convolution.weight(), convolution.bias, place)


def _stacked(norms: list[Spade]) -> tuple[Tensor, Tensor]:
    """mlp_shared of several norms as one convolution: weight (128 n, 256, 3, 3), bias (128 n)."""
    convolutions = [cast(nn.Conv2d, norm.mlp_shared[0]) for norm in norms]
    biases = [c.bias for c in convolutions if c.bias is not None]
    return torch.cat([c.weight for c in convolutions]), torch.cat(biases)
