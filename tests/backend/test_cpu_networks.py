# SPDX-License-Identifier: GPL-3.0-or-later
"""The ways in which a CPU computes W and G are exact: each against the plain operation, in float64."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="the networks need torch, which is not in this environment")

import torch.nn.functional as F  # noqa: E402
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from backend.networks import cpu_generator, cpu_warping, warping, winograd  # noqa: E402
from backend.networks.fourier import FourierConvolution  # noqa: E402
from backend.networks.generator import FEATURES, HIDDEN, Spade  # noqa: E402
from backend.networks.layers import SpectralConv2d, UpBlock3d  # noqa: E402

pytestmark = pytest.mark.usefixtures("no_gradients")
CLOSE = 2e-5  # of the wanted values' standard deviation: a few float32 roundings


@pytest.fixture
def no_gradients() -> object:
    torch.manual_seed(3)
    with torch.no_grad():
        yield


def error(got: Tensor, want: Tensor) -> float:
    assert got.shape == want.shape
    return float((got.double() - want).abs().max() / want.double().std())


def parameters(convolution: nn.Module) -> tuple[Tensor, Tensor]:
    weight, bias = convolution.parameters()
    return weight, bias


def convolve(x: Tensor, convolution: nn.Module, dimensions: int) -> Tensor:
    """Convolution with "same" padding in float64."""
    weight, bias = parameters(convolution)
    operation = F.conv2d if dimensions == 2 else F.conv3d
    return operation(x.double(), weight.double(), bias.double(), padding=weight.shape[-1] // 2)


@settings(max_examples=12)
@given(
    rows=st.integers(1, 5),
    columns=st.integers(1, 5),
    channels=st.integers(1, 9),
    out_channels=st.integers(1, 9),
)
def test_winograd_is_a_convolution(rows: int, columns: int, channels: int, out_channels: int) -> None:
    picture = torch.randn(channels, 4 * rows, 4 * columns)
    convolution = nn.Conv2d(channels, out_channels, 3)
    tiles = winograd.to_tiles(picture)
    assert torch.equal(winograd.from_tiles(tiles), picture)
    by_tiles = winograd.TileConvolution(convolution.weight, convolution.bias)
    got = winograd.from_tiles(by_tiles(framed(tiles), winograd.Workspace()))
    assert error(got, convolve(picture[None], convolution, 2)[0]) < CLOSE


def test_winograd_in_several_strips_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(winograd, "TILES_AT_ONCE", 7)
    convolution, space = nn.Conv2d(5, 6, 3), winograd.Workspace()
    by_tiles = winograd.TileConvolution(convolution.weight, convolution.bias)
    for size in ((20, 12), (8, 28), (20, 12)):  # the workspace serves several sizes
        picture = torch.randn(5, *size)
        got = winograd.from_tiles(by_tiles(framed(winograd.to_tiles(picture), space), space))
        assert error(got, convolve(picture[None], convolution, 2)[0]) < CLOSE


def test_winograd_rounds_little() -> None:
    """The textbook's points would give 2.4e-6 here, and W's deformations would then miss their tolerance."""
    picture, convolution = torch.randn(1, 512, 32, 32).relu(), nn.Conv2d(512, 64, 3, padding=1)
    by_tiles = winograd.TileConvolution(convolution.weight, convolution.bias)
    got = winograd.from_tiles(by_tiles(framed(winograd.to_tiles(picture[0])), winograd.Workspace()))[None]
    want = convolve(picture, convolution, 2)
    assert float((got.double() - want).square().mean().sqrt() / want.std()) < 1.5e-6


def test_a_fourfold_enlarged_map_is_read_from_its_three_phases() -> None:
    small = torch.randn(
        3, 3, 4, 4, 6
    )  # phases y and x, cells, channels: the middle two pixels of four are equal
    places = torch.tensor([0, 1, 1, 2])
    tiles = small[places][:, places].contiguous()
    space = winograd.Workspace()
    every = slice(0, 4)
    want = winograd.analyse(framed(tiles), every, space).clone()
    assert error(winograd.analyse(framed(small), every, space), want) < CLOSE


@pytest.mark.parametrize(("taps", "channels", "out_channels"), [(3, 5, 7), (7, 4, 3)])
@pytest.mark.parametrize("size", [(4, 16, 16), (3, 48, 32)])
def test_fourier_is_a_convolution(
    taps: int, channels: int, out_channels: int, size: tuple[int, int, int]
) -> None:
    volume, convolution = torch.randn(1, channels, *size), nn.Conv3d(channels, out_channels, taps)
    fourier = FourierConvolution(*parameters(convolution))
    edge = fourier.margin
    framed = F.pad(volume[0].permute(1, 2, 3, 0), (0, 0, edge, edge, edge, edge))
    got = fourier(framed, winograd.Workspace()).permute(3, 0, 1, 2)[None]
    assert error(got, convolve(volume, convolution, 3)) < CLOSE


def framed(tiles: Tensor, space: winograd.Workspace | None = None) -> winograd.Framed:
    return winograd.framed(tiles, space or winograd.Workspace(), "source")


def randomise(norm: nn.BatchNorm3d) -> None:
    nn.init.uniform_(norm.weight, 0.5, 1.5)
    nn.init.normal_(norm.bias)
    norm.running_mean = torch.randn(norm.num_features)
    norm.running_var = torch.rand(norm.num_features) + 0.5


@pytest.mark.parametrize("kind", [cpu_warping.PlainEnlarging, cpu_warping.PhaseEnlarging])
def test_enlarging_blocks(kind: type) -> None:
    block = UpBlock3d(6, 4).eval()
    randomise(block.norm)
    x = torch.randn(1, 6, 5, 3, 4)
    out = torch.empty(5, 6, 8, 9)[..., 2:6].permute(3, 0, 1, 2)  # strides as in the buffer it is written into
    kind(block)(x, out)
    assert error(out[None], block.double()(x.double())) < CLOSE


def test_keypoints_move_the_volume_as_the_sampler_does() -> None:
    volume = torch.randn(1, 4, 16, 32, 24)
    source, driving = torch.rand(1, 21, 3) * 2 - 1, torch.rand(1, 21, 3) * 3 - 1.5  # some leave the volume
    grid = warping.coordinate_grid(volume.shape[2:], volume)
    want = warping.move(volume, warping.propose(grid, source, driving))[0, 1:]
    assert error(cpu_warping.moved(volume[0], source[0], driving[0]), want) < CLOSE
    want = warping.gaussians(source, grid)[0]
    assert error(cpu_warping.bumps(source[0], volume.shape[2:]), want) < CLOSE


def test_occlusion() -> None:
    volume, convolution = torch.randn(4, 16, 12, 142).relu(), nn.Conv2d(4 * 142, 1, 7)
    channels = volume.permute(3, 0, 1, 2).flatten(0, 1)[None]
    want = torch.sigmoid(convolve(channels, convolution, 2))
    assert error(cpu_warping.Occlusion(convolution)(volume), want) < CLOSE


@pytest.mark.slow
def test_hidden_maps_of_enlarged_features() -> None:
    generator = cpu_generator.SpadeGenerator()
    features = torch.randn(FEATURES, 16, 16)
    twofold, fourfold = cpu_generator.HiddenMaps(generator).enlarged(features, winograd.Workspace())
    for block, maps, scale in ((generator.up_0, twofold, 2), (generator.up_1, fourfold, 4)):
        enlarged = F.interpolate(features[None], scale_factor=scale)
        for norm, got in zip((block.norm_s, block.norm_0, block.norm_1), maps):
            want = convolve(enlarged, norm.mlp_shared[0], 2).relu()[0]
            tiles = got.tiles
            if scale == 4:
                places = torch.tensor([0, 1, 1, 2])
                tiles = tiles[places][:, places]
            assert error(winograd.from_tiles(tiles), want) < CLOSE


def test_modulation_is_spade_and_leaky_relu() -> None:
    spade, space = Spade(6), winograd.Workspace()
    x, hidden = torch.randn(1, 6, 8, 8), torch.randn(1, HIDDEN, 8, 8).relu()
    gamma, beta = convolve(hidden, spade.mlp_gamma, 2), convolve(hidden, spade.mlp_beta, 2)
    want = F.leaky_relu(F.instance_norm(x.double()) * (1 + gamma) + beta, 0.2)
    normal = cpu_generator.normalise(winograd.to_tiles(x[0]))
    got = cpu_generator.modulate(
        cpu_generator.Modulation(spade), normal, framed(winograd.to_tiles(hidden[0])), space
    )
    assert error(winograd.from_tiles(got.tiles)[None], want) < CLOSE


def test_cells_are_the_pixels_of_a_map_to_be_enlarged() -> None:
    picture = torch.randn(3, 16, 8)
    cells = cpu_generator.enlarged(cpu_generator.cells_of(winograd.to_tiles(picture)))
    tiles = cells.reshape(4, 4, 8, 4, 3)
    assert torch.equal(winograd.from_tiles(tiles), F.interpolate(picture[None], scale_factor=2)[0])


def test_spectral_norm_is_read_off_not_iterated() -> None:
    convolution = SpectralConv2d(3, 4, 3)
    nn.init.normal_(convolution.weight_u)
    nn.init.normal_(convolution.weight_v)
    sigma = convolution.weight_u @ convolution.weight_orig.reshape(4, 27) @ convolution.weight_v
    assert error(convolution.weight() * sigma, convolution.weight_orig) < CLOSE
