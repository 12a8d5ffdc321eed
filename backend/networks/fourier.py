# SPDX-License-Identifier: GPL-3.0-or-later
"""Large 3-D convolutions on a CPU by discrete Fourier transforms of tiles in the plane, in float32.

A tile of 16x16 pixels reads (15 + k)^2 pixels of the volume, whose spectrum is multiplied with the kernel's;
the taps in depth are summed afterwards. The transforms are small, so they are matrix products, and a
frequency's complex product takes three real ones (Gauss): with a = re, b = im, k1 = ur (a + b), k2 = (ui -
ur) a, k3 = (ur + ui) b, it is k1 - k3 + i (k1 + k2). A 7x7x7 convolution needs a twelfth of the
multiplications, a 3x3x3 convolution a third; rounding errors stay those of float32.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .winograd import Workspace

TILE = 16
TILE_ROWS_AT_ONCE = 2


class FourierConvolution:
    """Convolution with "same" padding of volumes (d,h,w,c) -> (d,h,w,k), framed in zeros; h and w are
    multiples of 16.
    """

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        """weight (k,c,n,n,n) with n odd, bias (k)."""
        self.out_channels, self.channels, self.taps = weight.shape[:3]
        self.size = TILE + self.taps - 1
        self.margin = self.taps // 2
        self.bias = bias.detach().float().clone()
        self.by_y, self.by_x, self.back_x, self.back_y = _matrices(self.size)
        self.kernel = self._spectrum(weight)

    def _spectrum(self, weight: Tensor) -> Tensor:
        """(k,c,n,n,n) -> Gauss's three kernels (frequencies*3, c, n*k), depth taps and k last."""
        spectrum = torch.fft.fft2(weight.double(), s=(self.size, self.size)).conj()
        spectrum = spectrum[..., : self.size // 2 + 1, :].permute(3, 4, 1, 2, 0).flatten(3)  # ky, kx, c, n*k
        real, imaginary = spectrum.real, spectrum.imag
        gauss = torch.stack([real, imaginary - real, imaginary + real], dim=2)
        return gauss.flatten(0, 2).float().contiguous()

    def __call__(self, framed_volume: Tensor, space: Workspace) -> Tensor:
        """(d,h+n-1,w+n-1,c), the border zero -> (d,h,w,k), a fresh tensor."""
        depth = len(framed_volume)
        height, width = (side - 2 * self.margin for side in framed_volume.shape[1:3])
        tiles = framed_volume.unfold(1, self.size, TILE).unfold(2, self.size, TILE)  # d, ty, tx, c, y, x
        out = torch.empty(depth, height // TILE, TILE, width // TILE, TILE, self.out_channels)
        for row in range(0, tiles.shape[1], TILE_ROWS_AT_ONCE):
            rows = slice(row, min(row + TILE_ROWS_AT_ONCE, tiles.shape[1]))
            part = tiles[:, rows].permute(4, 5, 0, 1, 2, 3)
            read = space.take("fourier.read", *part.shape).copy_(part)
            summed = self._sum_depth(self._products(read, space), depth, space)
            result = self._synthesise(summed, space).view(TILE, TILE, *part.shape[2:5], self.out_channels)
            torch.add(result.permute(2, 3, 0, 4, 1, 5), self.bias, out=out[:, rows])
        return out.view(depth, height, width, self.out_channels)

    def _products(self, read: Tensor, space: Workspace) -> Tensor:
        """(y,x,d,ty,tx,c) -> (frequencies*3, d, ty*tx, n, k), still apart by depth tap."""
        size, half = self.size, self.size // 2 + 1
        by_y = space.take("fourier.y", half * 2, size * read[0, 0].numel())
        torch.mm(self.by_y, read.flatten(1), out=by_y)
        by_x = space.take("fourier.x", half, 3 * size, read[0, 0].numel())
        torch.bmm(self.by_x.expand(half, -1, -1), by_y.view(half, 2 * size, -1), out=by_x)
        analysed = by_x.view(half * size * 3, -1, self.channels)
        products = space.take("fourier.products", *analysed.shape[:2], self.kernel.shape[2])
        torch.bmm(analysed, self.kernel, out=products)
        return products.view(len(products), read.shape[2], -1, self.taps, self.out_channels)

    def _sum_depth(self, products: Tensor, depth: int, space: Workspace) -> Tensor:
        """(f,d,t,n,k) -> (f,d,t,k): tap j of a plane belongs to the plane `margin - j` further."""
        summed = space.take("fourier.summed", *products.shape[:3], self.out_channels)
        summed.copy_(products[:, :, :, self.margin])
        for tap in range(self.taps):
            ahead = tap - self.margin
            if ahead:
                to = slice(max(0, -ahead), depth - max(0, ahead))
                given = slice(max(0, ahead), depth - max(0, -ahead))
                summed[:, to] += products[:, given, :, tap]
        return summed

    def _synthesise(self, summed: Tensor, space: Workspace) -> Tensor:
        """(frequencies*3, d, t, k) -> (16 y, 16 x * d * t * k)."""
        half = self.size // 2 + 1
        spectra = summed.view(half, 3 * self.size, -1)
        by_x = space.take("fourier.back", half, 2 * TILE, spectra.shape[-1])
        torch.bmm(self.back_x.expand(half, -1, -1), spectra, out=by_x)
        return self.back_y @ by_x.view(2 * half, -1)


def _matrices(size: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Transforms of `size` (even) real pixels a side and back to TILE, as real matrices:

    by_y (half*2, size): y -> ky, (re, im)
    by_x (size*3, 2*size): (re, im), x -> kx, (a + b, a, b)
    back_x (2*TILE, size*3): kx, Gauss's products -> (re, im), x
    back_y (TILE, half*2): ky, (re, im) -> y
    """
    half = size // 2 + 1
    angle = 2 * np.pi / size * np.outer(np.arange(size), np.arange(size))  # frequency, pixel
    cosine, sine = np.cos(angle), np.sin(angle)
    by_y = np.stack([cosine[:half], -sine[:half]], axis=1).reshape(2 * half, size)
    real, imaginary = np.hstack([cosine, sine]), np.hstack([-sine, cosine])
    by_x = np.stack([real + imaginary, real, imaginary], axis=1).reshape(3 * size, 2 * size)
    # k1 - k3 + i (k1 + k2), times e^(i angle)
    c, s = cosine.T[:TILE] / size, sine.T[:TILE] / size  # pixel, frequency
    back_x = np.stack([np.stack([c - s, -s, -c], axis=-1), np.stack([s + c, c, -s], axis=-1)]).reshape(
        2 * TILE, 3 * size
    )
    twice = np.full(half, 2.0 / size)
    twice[[0, -1]] = 1.0 / size  # the other frequencies stand for their mirror images as well
    back_y = np.stack([c * size, -s * size], axis=-1)[:, :half] * twice[:, None]
    matrices = (by_y, by_x, back_x, back_y.reshape(TILE, 2 * half))
    first, second, third, fourth = (torch.from_numpy(np.ascontiguousarray(m)).float() for m in matrices)
    return first, second, third, fourth
