# SPDX-License-Identifier: GPL-3.0-or-later
"""3x3 convolutions with a quarter of the multiplications: Winograd's F(4x4, 3x3) (Lavin and Gray 2016), in
float32.

A picture is kept as tiles of 4x4 pixels, a tensor (4,4,h/4,w/4,c) whose first two axes are the place in the
tile: what a convolution gives is already in the layout the next one reads. The points 0, +-3/4, +-3/2 and
infinity round less than half as much as the textbook's 0, +-1, +-2: 1e-6 of the result's standard deviation
(root mean square), five times a plain float32 convolution's. One picture at a time: a CPU gains nothing from
batches. Buffers that are needed again and again come from a Workspace, since fresh memory costs more than the
arithmetic. Kernels take four times the memory of the plain ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

TILE, REACH = 4, 6  # pixels a tile, pixels it reads
POINTS = (0.0, 0.75, -0.75, 1.5, -1.5)
TILES_AT_ONCE = 256  # so that a layer's intermediate results stay in the processor's cache


class Workspace:
    """Named buffers that grow and are used again. What `take` gave is overwritten by the next `take` of that
    name.
    """

    def __init__(self) -> None:
        self._buffers: dict[str, Tensor] = {}

    def take(self, name: str, *shape: int) -> Tensor:
        """Uninitialised float32 tensor."""
        needed = math.prod(shape)
        buffer = self._buffers.get(name)
        if buffer is None or buffer.numel() < needed:
            buffer = self._buffers[name] = torch.empty(needed)
        return buffer[:needed].view(shape)


@cache
def matrices() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(analysis (6,6), kernel (6,3), synthesis (4,6)), float64: correlation of 6 pixels with 3 taps, in 6
    products.

    Toom-Cook: polynomials evaluated at POINTS and infinity, multiplied there and interpolated.
    """
    analysis, kernel, synthesis = np.zeros((REACH, REACH)), np.zeros((REACH, 3)), np.zeros((TILE, REACH))
    for i, point in enumerate(POINTS):
        others = [other for other in POINTS if other != point]
        coefficients = np.poly(others)[::-1]
        analysis[i, : len(coefficients)] = coefficients
        kernel[i] = point ** np.arange(3) / np.prod([point - other for other in others])
        synthesis[:, i] = point ** np.arange(TILE)
    analysis[-1] = np.poly(POINTS)[::-1]
    kernel[-1, -1] = synthesis[-1, -1] = 1.0
    return analysis, kernel, synthesis


@cache
def analysis_matrix(phases: int) -> Tensor:
    """(36, (phases+2)^2): 6x6 transform of tiles with `phases` different pixels a side: 4, or 3 where the
    middle two are equal, as in a picture enlarged fourfold and convolved once.
    """
    analysis = matrices()[0]
    if phases == 3:
        analysis = np.column_stack([analysis[:, :2], analysis[:, 2] + analysis[:, 3], analysis[:, 4:]])
    return torch.from_numpy(np.kron(analysis, analysis)).float()


@cache
def synthesis_matrix() -> Tensor:
    """(16, 37): back from 36 products to 4x4 pixels; the last column adds the bias."""
    synthesis = matrices()[2]
    return torch.from_numpy(np.column_stack([np.kron(synthesis, synthesis), np.ones(TILE * TILE)])).float()


def kernel_transform(weight: Tensor) -> Tensor:
    """Kernels (k,c,3,3) -> (36,c,k)."""
    kernel = torch.from_numpy(np.kron(matrices()[1], matrices()[1]))
    taps = weight.permute(2, 3, 1, 0).flatten(0, 1)
    return (kernel @ taps.double().flatten(1)).float().view(REACH * REACH, *taps.shape[1:])


def to_tiles(picture: Tensor) -> Tensor:
    """(c,h,w) -> (4,4,h/4,w/4,c)."""
    split = picture.unflatten(2, (-1, TILE)).unflatten(1, (-1, TILE))
    return split.permute(2, 4, 1, 3, 0).contiguous()


def from_tiles(tiles: Tensor) -> Tensor:
    """(4,4,th,tw,c) -> (c,4th,4tw), channels last in memory."""
    _, _, height, width, channels = tiles.shape
    return tiles.permute(2, 0, 3, 1, 4).reshape(TILE * height, TILE * width, channels).permute(2, 0, 1)


def rows_at_once(tile_rows: int, tile_columns: int) -> Iterator[slice]:
    """Slices of tile rows, each of at most TILES_AT_ONCE tiles."""
    step = max(1, TILES_AT_ONCE // tile_columns)
    for start in range(0, tile_rows, step):
        yield slice(start, min(start + step, tile_rows))


@dataclass(frozen=True)
class Framed:
    """A map within a border of one zero, as convolutions read it: picture (p*th+2, p*tw+2, c), where p is the
    number of different pixels a tile has along each side.
    """

    picture: Tensor
    phases: int = TILE

    @property
    def tiles(self) -> Tensor:
        """The map without its border, a view (p,p,th,tw,c) to be written to."""
        inner = self.picture[1:-1, 1:-1]
        split = inner.unflatten(1, (-1, self.phases)).unflatten(0, (-1, self.phases))
        return split.permute(1, 3, 0, 2, 4)

    @property
    def size(self) -> tuple[int, int]:
        """Tiles down and across."""
        height, width = self.picture.shape[:2]
        return (height - 2) // self.phases, (width - 2) // self.phases

    def channels(self, first: int, count: int) -> Framed:
        """Some of the channels, a view."""
        return Framed(self.picture[..., first : first + count], self.phases)


def frame(space: Workspace, name: str, shape: tuple[int, ...] | torch.Size) -> Framed:
    """Room for tiles of this shape (p,p,th,tw,c), p = 4 or 3, with a zero border."""
    phases, _, height, width, channels = shape
    picture = space.take(name, phases * height + 2, phases * width + 2, channels)
    for axis in (0, 1):
        picture.select(axis, 0).zero_()
        picture.select(axis, -1).zero_()
    return Framed(picture, phases)


def framed(tiles: Tensor, space: Workspace, name: str) -> Framed:
    """A copy of tiles (p,p,th,tw,c) within its border."""
    room = frame(space, name, tiles.shape)
    room.tiles.copy_(tiles)
    return room


def analyse(source: Framed, rows: slice, space: Workspace) -> Tensor:
    """Transforms (36, r*tw, c) of some rows of tiles."""
    phases, reach = source.phases, source.phases + 2
    tiles = source.picture.unfold(0, reach, phases).unfold(1, reach, phases)[rows].permute(3, 4, 0, 1, 2)
    read = space.take("read", *tiles.shape).copy_(tiles)
    out = space.take("analysed", REACH * REACH, read[0, 0, ..., 0].numel(), read.shape[-1])
    torch.mm(analysis_matrix(phases), read.flatten(0, 1).flatten(1), out=out.flatten(1))
    return out


class TileConvolution:
    """3x3 convolution with "same" padding of tiles (4,4,th,tw,c) -> (4,4,th,tw,k)."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        """weight (k,c,3,3), bias (k) or None."""
        self.kernel = kernel_transform(weight)
        self.bias = torch.zeros(len(weight)) if bias is None else bias.detach().float().clone()

    def from_analysed(self, analysed: Tensor, space: Workspace, out: Tensor | None = None) -> Tensor:
        """(36,t,c) -> (16,t*k), written to `out` where given (rows may lie apart)."""
        tiles, channels = analysed.shape[1], self.kernel.shape[2]
        products = space.take("products", REACH * REACH + 1, tiles, channels)
        torch.bmm(analysed, self.kernel, out=products[:-1])
        products[-1] = self.bias
        if out is None:
            out = space.take("synthesised", TILE * TILE, tiles * channels)
        return torch.mm(synthesis_matrix(), products.flatten(1), out=out)

    def __call__(self, source: Framed, space: Workspace) -> Tensor:
        """Tiles (4,4,th,tw,c) in their frame -> (4,4,th,tw,k), a fresh tensor."""
        height, width = source.size
        channels = self.kernel.shape[2]
        out = torch.empty(TILE, TILE, height, width, channels)
        flat = out.view(TILE * TILE, height, width * channels)
        for rows in rows_at_once(height, width):
            self.from_analysed(analyse(source, rows, space), space, flat[:, rows].flatten(1))
        return out


def over_rows(source: Framed, space: Workspace, use: Callable[[slice, Tensor], object]) -> None:
    """Hand every slice of tile rows and its transform (36,t,c) to `use`."""
    for rows in rows_at_once(*source.size):
        use(rows, analyse(source, rows, space))
