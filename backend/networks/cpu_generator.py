# SPDX-License-Identifier: GPL-3.0-or-later
"""G for a CPU: the same function as generator.SpadeGenerator in float32, in well under half of the
arithmetic.

* 3x3 convolutions by Winograd's method on tiles (winograd.py), those of gamma and beta as one.
* The hidden maps of all norms (mlp_shared) come from the same features: at 64x64 one convolution gives all
  twelve. On the features enlarged n-fold (nearest), a row of pixels is a cell's own value o, or that with a
  neighbour p or n:
      W o + w0 (p - o),  W o,  W o + w2 (n - o)      with W = w0 + w1 + w2
  so nine products per cell (o, p - o, n - o by rows and columns) give every pixel, whether n is 2 or 4.
* An enlarged map is normalised before it is enlarged: its mean and variance are the same.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .generator import SLOPE, Spade, SpadeBlock, SpadeGenerator
from .layers import SpectralConv2d
from .winograd import (
    TILE,
    Framed,
    TileConvolution,
    Workspace,
    frame,
    framed,
    from_tiles,
    over_rows,
    to_tiles,
)

# Rows: pixel phases of a cell. Columns: the products with o, p - o, n - o.
TWOFOLD = ((1.0, 1.0, 0.0), (1.0, 0.0, 1.0))
FOURFOLD = ((1.0, 1.0, 0.0), (1.0, 0.0, 0.0), (1.0, 0.0, 1.0))  # the middle two of four pixels are equal
WIDE = 128  # fewer output channels than this are not worth the transforms of Winograd's method


def normalise(tiles: Tensor) -> Tensor:
    """Each channel of (p,p,th,tw,c) to mean 0 and variance 1, as F.instance_norm does."""
    flat = tiles.view(-1, tiles.shape[-1])
    as_picture = flat.t().view(1, tiles.shape[-1], -1, tiles.shape[3])
    normal = F.batch_norm(as_picture, None, None, training=True)
    return normal.permute(0, 2, 3, 1).reshape(tiles.shape)


def cells_of(tiles: Tensor) -> Tensor:
    """The same map in tiles of 2x2 pixels, ready to be enlarged twofold: (4,4,th,tw,c) -> (2,2,2th,2tw,c)."""
    split = tiles.unflatten(1, (2, 2)).unflatten(0, (2, 2))  # half, pixel, half, pixel, th, tw, c
    return split.permute(1, 3, 4, 0, 5, 2, 6).flatten(4, 5).flatten(2, 3).contiguous()


def enlarged(cells: Tensor) -> Tensor:
    """(2,2,th,tw,c) as a view that repeats each pixel twofold: (2,2,2,2,th,tw,c), pixel and its copies by
    rows, columns.
    """
    return cells[:, None, :, None].expand(-1, 2, -1, 2, -1, -1, -1)


class Modulation:
    """Gamma and beta of one SPADE, applied: hidden tiles and a normalised map -> scaled and shifted, leaky
    ReLU.
    """

    def __init__(self, spade: Spade) -> None:
        gamma, beta = spade.mlp_gamma, spade.mlp_beta
        assert gamma.bias is not None and beta.bias is not None
        self.channels = gamma.out_channels
        self.convolution = TileConvolution(
            torch.cat([gamma.weight, beta.weight]), torch.cat([gamma.bias + 1, beta.bias])
        )

    def __call__(
        self, analysed: Tensor, normal: Tensor, out: Tensor, space: Workspace, slope: float
    ) -> Tensor:
        """analysed (36,t,128); normal and out (...,r,tw,c) with leading axes that count 16 -> out."""
        both = self.convolution.from_analysed(analysed, space).view(*out.shape[:-1], 2 * self.channels)
        torch.addcmul(both[..., self.channels :], normal, both[..., : self.channels], out=out)
        return out if slope == 1.0 else F.leaky_relu_(out, slope)


class FlatBlock:
    """A SpadeBlock whose size does not change: tiles (4,4,th,tw,c) -> the same."""

    def __init__(self, block: SpadeBlock) -> None:
        self.norms = (Modulation(block.norm_0), Modulation(block.norm_1))
        self.convolutions = (_tile_convolution(block.conv_0), _tile_convolution(block.conv_1))

    def __call__(self, tiles: Tensor, hidden: tuple[Framed, Framed], space: Workspace) -> Tensor:
        """hidden: for each of the two norms (4,4,th,tw,128)."""
        y = tiles
        for norm, convolution, maps in zip(self.norms, self.convolutions, hidden):
            y = convolution(modulate(norm, normalise(y), maps, space), space)
        return y.add_(tiles)


def modulate(norm: Modulation, normal: Tensor, hidden: Framed, space: Workspace) -> Framed:
    """Normalised tiles, or a view of so many pixels, (...,th,tw,c), and hidden tiles (p,p,th,tw,128) -> tiles
    (4,4,th,tw,c) after the leaky ReLU, valid until the next call.
    """
    height, width = hidden.size
    room = frame(space, "modulated", (TILE, TILE, height, width, norm.channels))
    out = room.tiles
    if normal.dim() > out.dim():
        out = out.unflatten(1, (2, 2)).unflatten(0, (2, 2))

    def apply(rows: slice, part: Tensor) -> None:
        norm(part, normal[..., rows, :, :], out[..., rows, :, :], space, SLOPE)

    over_rows(hidden, space, apply)
    return room


class DirectConvolution:
    """What TileConvolution does, without transforms."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self.weight, self.bias = weight.contiguous(memory_format=torch.channels_last), bias

    def __call__(self, source: Framed, space: Workspace) -> Tensor:
        """Tiles (4,4,th,tw,c) in their frame -> (4,4,th,tw,k)."""
        return to_tiles(F.conv2d(source.picture.permute(2, 0, 1)[None], self.weight, self.bias)[0])


class EnlargingBlock:
    """Nearest enlargement by two, then a SpadeBlock that narrows: tiles (4,4,th,tw,c) -> (4,4,2th,2tw,c')."""

    def __init__(self, block: SpadeBlock) -> None:
        self.norms = tuple(Modulation(norm) for norm in (block.norm_s, block.norm_0, block.norm_1))
        self.shortcut = block.conv_s.weight().flatten(1).t().contiguous()  # (c,c')
        kind = TileConvolution if block.conv_0.weight_orig.shape[0] >= WIDE else DirectConvolution
        self.convolutions = tuple(kind(conv.weight(), conv.bias) for conv in (block.conv_0, block.conv_1))

    def __call__(self, tiles: Tensor, hidden: tuple[Framed, ...], space: Workspace) -> Tensor:
        """hidden: for each of the three norms (p,p,2th,2tw,128)."""
        cells = normalise(cells_of(tiles))
        height, width, channels = cells.shape[2:]
        normal = enlarged(cells)
        short = torch.empty(TILE * TILE, height, width, self.shortcut.shape[1])

        def shortcut(rows: slice, part: Tensor) -> None:
            y = space.take("shortcut", 2, 2, 2, 2, rows.stop - rows.start, width, channels)
            self.norms[0](part, normal[..., rows, :, :], y, space, 1.0)
            short[:, rows] = (y.view(-1, channels) @ self.shortcut).view(16, -1, width, short.shape[-1])

        over_rows(hidden[0], space, shortcut)
        y = self.convolutions[0](modulate(self.norms[1], normal, hidden[1], space), space)
        y = self.convolutions[1](modulate(self.norms[2], normalise(y), hidden[2], space), space)
        return y.add_(short.view(TILE, TILE, height, width, -1))


class HiddenMaps:
    """The hidden maps of every norm of G from its features."""

    def __init__(self, generator: SpadeGenerator) -> None:
        flat = [norm for block in generator.middle() for norm in (block.norm_0, block.norm_1)]
        self.flat = TileConvolution(*_stacked(flat))
        enlarging = [
            norm
            for block in (generator.up_0, generator.up_1)
            for norm in (block.norm_s, block.norm_0, block.norm_1)
        ]
        weight, self.bias = _stacked(enlarging)
        taps = torch.stack([weight.sum(2), weight[:, :, 0], weight[:, :, 2]])  # by rows: o, p - o, n - o
        taps = torch.stack([taps.sum(3), taps[..., 0], taps[..., 2]], dim=1)  # (3,3,k,256)
        self.products = taps.flatten(0, 1).transpose(1, 2).contiguous()  # (9,256,k)
        self.hidden = enlarging[0].mlp_gamma.in_channels

    def at_64(self, features: Framed, space: Workspace) -> list[Framed]:
        """Features as tiles (4,4,16,16,256) -> twelve of (4,4,16,16,128)."""
        return self._apart(framed(self.flat(features, space).relu_(), space, "hidden.64"))

    def enlarged(self, features: Tensor, space: Workspace) -> tuple[list[Framed], list[Framed]]:
        """Features (256,64,64) -> three of (4,4,32,32,128) for up_0 and three of (3,3,64,64,128) for up_1."""
        height, width = features.shape[1:]
        x = features.permute(1, 2, 0)
        differences = space.take("differences", 3, 3, height, width, x.shape[-1])
        _differences(x, differences[:, 0], 0)
        for row in differences:
            _differences(row[0].clone(), row, 1)
        products = torch.bmm(differences.view(9, height * width, -1), self.products)
        products[0] += self.bias
        half = products.shape[-1] // 2
        phases = _combine(TWOFOLD, products[..., :half]).view(2, 2, height // 2, 2, width // 2, 2, half)
        twofold = frame(space, "hidden.128", (TILE, TILE, height // 2, width // 2, half))
        places = twofold.tiles.unflatten(1, (2, 2)).unflatten(
            0, (2, 2)
        )  # cell, phase, cell, phase, th, tw, k
        torch.clamp_min(phases.permute(3, 0, 5, 1, 2, 4, 6), 0, out=places)
        phases = _combine(FOURFOLD, products[..., half:]).view(3, 3, height, width, half)
        fourfold = frame(space, "hidden.256", phases.shape)
        torch.clamp_min(phases, 0, out=fourfold.tiles)
        return self._apart(twofold), self._apart(fourfold)

    def _apart(self, maps: Framed) -> list[Framed]:
        """The hidden maps of several norms, each alone."""
        count = maps.picture.shape[-1] // self.hidden
        return [maps.channels(k * self.hidden, self.hidden) for k in range(count)]


def _differences(x: Tensor, out: Tensor, axis: int) -> None:
    """x (h,w,c) -> out (3,h,w,c): x itself, the one before less x, the one after less x; zero outside."""
    size = x.shape[axis]
    out[0] = x
    out[1] = -x
    out[1].narrow(axis, 1, size - 1).add_(x.narrow(axis, 0, size - 1))
    out[2] = -x
    out[2].narrow(axis, 0, size - 1).add_(x.narrow(axis, 1, size - 1))


def _combine(phases: tuple[tuple[float, ...], ...], products: Tensor) -> Tensor:
    """Products (9,cells,k) -> every pixel phase (p*p,cells,k)."""
    by_axis = torch.tensor(phases)
    return (torch.kron(by_axis, by_axis) @ products.flatten(1)).view(-1, *products.shape[1:])


def _stacked(norms: list[Spade]) -> tuple[Tensor, Tensor]:
    """mlp_shared of several norms as one convolution: weight (128 n, 256, 3, 3), bias (128 n)."""
    convolutions = [cast(nn.Conv2d, norm.mlp_shared[0]) for norm in norms]
    biases = [c.bias for c in convolutions if c.bias is not None]
    return torch.cat([c.weight for c in convolutions]), torch.cat(biases)


def _tile_convolution(convolution: SpectralConv2d) -> TileConvolution:
    return TileConvolution(convolution.weight(), convolution.bias)


class CpuGenerator:
    """Features (b,256,64,64) -> picture (b,3,512,512) in 0..1, float32 on the CPU. Not thread-safe: it keeps
    buffers.
    """

    @torch.no_grad()
    def __init__(self, generator: SpadeGenerator) -> None:
        assert generator.fc.bias is not None
        self.space = Workspace()
        self.fc = TileConvolution(generator.fc.weight, generator.fc.bias)
        self.hidden = HiddenMaps(generator)
        self.middle = [FlatBlock(block) for block in generator.middle()]
        self.up = (EnlargingBlock(generator.up_0), EnlargingBlock(generator.up_1))
        self.last = generator.conv_img

    @torch.inference_mode()
    def __call__(self, features: Tensor) -> Tensor:
        return torch.cat([self._draw(item) for item in features])

    def _draw(self, features: Tensor) -> Tensor:
        """(256,64,64) -> (1,3,512,512)."""
        source = framed(to_tiles(features), self.space, "features")
        x = self.fc(source, self.space)
        hidden = self.hidden.at_64(source, self.space)
        for i, block in enumerate(self.middle):
            x = block(x, (hidden[2 * i], hidden[2 * i + 1]), self.space)
        for enlarging, maps in zip(self.up, self.hidden.enlarged(features, self.space)):
            x = enlarging(x, tuple(maps), self.space)
        picture = from_tiles(F.leaky_relu_(x, SLOPE))[None]
        return torch.sigmoid(self.last(picture))
