# SPDX-License-Identifier: GPL-3.0-or-later
"""Building blocks that several of LivePortrait's networks share. Attribute names are the released files'
keys.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SameBlock2d(nn.Module):
    """3x3 convolution, batch normalisation, ReLU with the given slope: (b,c,h,w) -> (b,c',h,w)."""

    def __init__(self, channels: int, out_channels: int, slope: float = 0.0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, out_channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(out_channels)
        self.slope = slope

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(self.norm(self.conv(x)), self.slope)


class DownBlock2d(nn.Module):
    """3x3 convolution, batch normalisation, ReLU, mean of 2x2: (b,c,h,w) -> (b,c',h/2,w/2)."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, out_channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(F.relu(self.norm(self.conv(x))), 2)


class ResBlock3d(nn.Module):
    """Two rounds of normalise, ReLU, 3x3x3 convolution, added to the input: (b,c,d,h,w) -> the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm3d(channels)
        self.conv1 = nn.Conv3d(channels, channels, 3, padding=1)
        self.norm2 = nn.BatchNorm3d(channels)
        self.conv2 = nn.Conv3d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(F.relu(self.norm1(x)))
        return x + self.conv2(F.relu(self.norm2(y)))


class DownBlock3d(nn.Module):
    """3x3x3 convolution, batch normalisation, ReLU, mean of 2x2 in the plane: (b,c,d,h,w) ->
    (b,c',d,h/2,w/2).
    """

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(channels, out_channels, 3, padding=1)
        self.norm = nn.BatchNorm3d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return halved(F.relu(self.norm(self.conv(x))))


def halved(volume: Tensor) -> Tensor:
    """Mean of 2x2 in the plane: (b,c,d,h,w) -> (b,c,d,h/2,w/2). 3-D pooling is not to be had everywhere."""
    return F.avg_pool2d(volume.flatten(1, 2), 2).unflatten(1, volume.shape[1:3])


class UpBlock3d(nn.Module):
    """Nearest upsampling by 2 in the plane, 3x3x3 convolution, normalisation, ReLU: (b,c,d,h,w) ->
    (b,c',d,2h,2w).
    """

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(channels, out_channels, 3, padding=1)
        self.norm = nn.BatchNorm3d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        x = F.interpolate(x, scale_factor=(1, 2, 2))
        return F.relu(self.norm(self.conv(x)))


def folded(
    convolution: nn.Conv2d | nn.Conv3d, norm: nn.BatchNorm2d | nn.BatchNorm3d
) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution that does the batch normalisation after it as well."""
    assert convolution.bias is not None and norm.running_mean is not None and norm.running_var is not None
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    weight = convolution.weight.double() * scale.view(-1, *[1] * (convolution.weight.dim() - 1))
    bias = (convolution.bias.double() - norm.running_mean.double()) * scale + norm.bias.double()
    return weight.float().detach(), bias.float().detach()


class SpectralConv2d(nn.Module):
    """Convolution whose kernel is divided by its spectral norm, estimated in training as u^T W v (Miyato et
    al. 2018).

    u and v come with the weights and stay as they are: the norm is read off, never iterated further. "Same"
    padding.
    """

    weight_u: Tensor
    weight_v: Tensor

    def __init__(self, channels: int, out_channels: int, kernel: int, bias: bool = True) -> None:
        super().__init__()
        self.weight_orig = nn.Parameter(torch.empty(out_channels, channels, kernel, kernel))
        self.bias = nn.Parameter(torch.empty(out_channels)) if bias else None
        self.register_buffer("weight_u", torch.empty(out_channels))
        self.register_buffer("weight_v", torch.empty(channels * kernel * kernel))
        nn.init.xavier_normal_(self.weight_orig)
        for vector in (self.weight_u, self.weight_v):
            nn.init.constant_(vector, vector.numel() ** -0.5)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def weight(self) -> Tensor:
        """The kernel that is convolved with: (out, in, k, k)."""
        return self.weight_orig / (self.weight_u @ self.weight_orig.flatten(1) @ self.weight_v)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight(), self.bias, padding=self.weight_orig.shape[-1] // 2)

    def plain(self) -> nn.Conv2d:
        """A convolution with that kernel, so that the division is done once."""
        out_channels, channels, kernel, _ = self.weight_orig.shape
        with torch.device("meta"):
            convolution = nn.Conv2d(
                channels, out_channels, kernel, padding=kernel // 2, bias=self.bias is not None
            )
        convolution.weight = nn.Parameter(self.weight().detach(), requires_grad=False)
        if self.bias is not None:
            convolution.bias = nn.Parameter(self.bias.detach(), requires_grad=False)
        return convolution


def fold_spectral_norms(network: nn.Module) -> None:
    """Put a plain convolution in every SpectralConv2d's place; the network cannot be loaded into any more."""
    for name, module in list(network.named_modules()):
        if isinstance(module, SpectralConv2d):
            parent, _, attribute = name.rpartition(".")
            setattr(network.get_submodule(parent), attribute, module.plain())
