# SPDX-License-Identifier: GPL-3.0-or-later
"""Building blocks of the networks' form for GPUs: maps lie in memory with their channels last, pictures as
(b,h,w,c) and volumes as (b,d,h,w,c), which is what tensor cores read; convolutions see the same memory as
(b,c,h,w) and (b,c,d,h,w).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

EPSILON = 1e-5  # of instance normalisation, as PyTorch's
MULTIPLE = 8  # half-precision tensor cores take channels by eights; other counts run on slow kernels


class Place(NamedTuple):
    """Where weights and maps are, and their precision."""

    device: torch.device
    dtype: torch.dtype

    def put(self, tensor: Tensor) -> Tensor:
        """A copy there, channels last."""
        there = tensor.detach().to(self.device, self.dtype)
        layouts = {4: torch.channels_last, 5: torch.channels_last_3d}
        return there.contiguous(memory_format=layouts.get(there.dim(), torch.contiguous_format))


def rounded_up(channels: int) -> int:
    """The next count that tensor cores take."""
    return -(-channels // MULTIPLE) * MULTIPLE


def padded(tensor: Tensor, axis: int) -> Tensor:
    """Zeros at the end of an axis up to `rounded_up`: channels that say nothing and are not heard."""
    missing = rounded_up(tensor.shape[axis]) - tensor.shape[axis]
    before = [0, 0] * (tensor.dim() - 1 - axis % tensor.dim())
    return F.pad(tensor, (*before, 0, missing))


class Convolution:
    """Convolution of a map with its channels last that keeps its size: (b,h,w,c) -> (b,h,w,k), or
    (b,d,h,w,c) alike.

    Counts of channels are those of `weight` (k,c,...), rounded up where `widen` is given.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, place: Place, *, widen: bool = False) -> None:
        if widen:
            weight = padded(padded(weight, 1), 0)
            bias = None if bias is None else padded(bias, 0)
        self.weight = place.put(weight)
        self.bias = None if bias is None else place.put(bias)
        self.margin = weight.shape[-1] // 2

    def __call__(self, x: Tensor) -> Tensor:
        """See the class."""
        convolve = F.conv2d if x.dim() == 4 else F.conv3d
        # Of a part of the channels cuDNN makes such a copy itself; Apple's convolutions read it wrongly
        # (PyTorch issue 180984).
        whole = x_first(x.contiguous())
        return x_last(convolve(whole, self.weight, self.bias, padding=self.margin))


def x_first(x: Tensor) -> Tensor:
    """(b,...,c) seen as (b,c,...), the same memory."""
    return x.movedim(-1, 1)


def x_last(x: Tensor) -> Tensor:
    """(b,c,...) -> (b,...,c), the same memory where the channels lie last in it."""
    return x.movedim(1, -1).contiguous()


class EnlargedConvolution:
    """3x3 convolution of a map that is enlarged n-fold (nearest) first, without the enlarged map.

    Enlarging is a transposed convolution with n x n ones, so both are one of (n+2) x (n+2) and stride n: for
    n = 4 a pixel then costs 2.25 taps instead of 9. (b,h,w,c) -> (b,nh,nw,k).
    """

    def __init__(self, weight: Tensor, bias: Tensor, times: int, place: Place) -> None:
        kernel = weight.shape[-1]
        ones = torch.ones(times, times, dtype=torch.float64)
        whole = F.conv2d(
            weight.double().flatten(0, 1)[:, None].flip(2, 3), ones[None, None], padding=times - 1
        )
        joined = whole[:, 0].unflatten(0, weight.shape[:2]).transpose(0, 1)  # (c,k,n+2,n+2)
        self.weight, self.bias = place.put(joined), place.put(bias)
        self.times, self.margin = times, kernel // 2

    def __call__(self, x: Tensor) -> Tensor:
        """See the class."""
        return x_last(
            F.conv_transpose2d(x_first(x), self.weight, self.bias, stride=self.times, padding=self.margin)
        )


def normalised(x: Tensor) -> Tensor:
    """(b,h,w,c), each channel of each picture to mean 0 and variance 1, computed in float32.

    The mean goes first: a variance found as mean square less squared mean would lose a channel whose mean
    is far from zero.
    """
    plane = (1, 2)
    mean = x.mean(dim=plane, keepdim=True, dtype=torch.float32)
    centred = torch.sub(x, mean, out=torch.empty_like(x))
    length = torch.linalg.vector_norm(centred, dim=plane, keepdim=True, dtype=torch.float32)
    scale = (length.square() / (x.shape[1] * x.shape[2]) + EPSILON).rsqrt()
    return torch.mul(centred, scale, out=centred)


def by_planes(x: Tensor) -> Tensor:
    """A volume (b,d,h,w,c) as pictures (b*d,c,h,w), the same memory."""
    return x.flatten(0, 1).permute(0, 3, 1, 2)


def halved(x: Tensor) -> Tensor:
    """Mean of 2x2 in the plane: (b,d,h,w,c) -> (b,d,h/2,w/2,c)."""
    return x_last(F.avg_pool2d(by_planes(x), 2)).unflatten(0, x.shape[:2])


def doubled(x: Tensor) -> Tensor:
    """Nearest enlargement by two in the plane: (b,d,h,w,c) -> (b,d,2h,2w,c)."""
    return x_last(F.interpolate(by_planes(x), scale_factor=2)).unflatten(0, x.shape[:2])
