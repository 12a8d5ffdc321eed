# SPDX-License-Identifier: GPL-3.0-or-later
"""The form in which a GPU computes W and G, run on the CPU: the same function, in each precision."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the networks need torch, which is not in this environment")

import torch.nn.functional as F  # noqa: E402
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from backend.engines.neural import known_crop  # noqa: E402
from backend.errors import EngineError  # noqa: E402
from backend.networks import device_layers as layers  # noqa: E402
from backend.networks.device_generator import DeviceGenerator, EnlargingBlock, FlatBlock  # noqa: E402
from backend.networks.device_layers import Place  # noqa: E402
from backend.networks.device_warping import DeviceWarping, PreparedSource  # noqa: E402
from backend.networks.generator import SpadeBlock  # noqa: E402
from backend.networks.graphs import GraphedRenderer  # noqa: E402
from backend.networks.renderers import PRECISIONS, DeviceRenderer  # noqa: E402
from backend.networks.self_test import candidates, check_against_cpu, choose_form, disagreement  # noqa: E402
from backend.networks.warping import WarpingModule  # noqa: E402
from tests.backend.networks_oracle import ORACLE, error, generator_input, network, warping_input  # noqa: E402

pytestmark = pytest.mark.usefixtures("no_gradients")
PLAIN = Place(torch.device("cpu"), torch.float32)
CLOSE = 2e-5  # of the wanted values' standard deviation: a few float32 roundings


@pytest.fixture
def no_gradients() -> object:
    torch.manual_seed(3)
    with torch.inference_mode():
        yield


def apart(got: Tensor, want: Tensor) -> float:
    assert got.shape == want.shape
    return float((got.double() - want).abs().max() / want.double().std())


def first(x: Tensor) -> Tensor:
    return x.movedim(-1, 1)


@settings(max_examples=12, deadline=None)
@given(
    batch=st.integers(1, 3),
    size=st.integers(1, 7),
    channels=st.integers(1, 20),
    out_channels=st.integers(1, 20),
    widen=st.booleans(),
)
def test_a_convolution_with_channels_last(
    batch: int, size: int, channels: int, out_channels: int, widen: bool
) -> None:
    """Channels that are added to reach a multiple of eight are zero, and what lies in them is not read."""
    convolution = nn.Conv2d(channels, out_channels, 3, padding=1)
    ours = layers.Convolution(convolution.weight, convolution.bias, PLAIN, widen=widen)
    x = torch.randn(batch, size + 1, size + 2, channels)
    given_channels = layers.rounded_up(channels) if widen else channels
    got = ours(F.pad(x, (0, given_channels - channels), value=0.0))
    assert got.shape[-1] == (layers.rounded_up(out_channels) if widen else out_channels)
    assert not got[..., out_channels:].any()
    want = convolution.double()(first(x).double())
    assert float((first(got[..., :out_channels]) - want).abs().max()) < 1e-5


@pytest.mark.parametrize("times", [2, 4])
def test_a_convolution_of_an_enlarged_map_reads_the_small_one(times: int) -> None:
    convolution = nn.Conv2d(6, 5, 3, padding=1)
    x = torch.randn(2, 7, 9, 6)
    assert convolution.bias is not None
    ours = layers.EnlargedConvolution(convolution.weight, convolution.bias, times, PLAIN)
    enlarged = F.interpolate(first(x), scale_factor=times)
    assert apart(first(ours(x)), convolution.double()(enlarged.double())) < CLOSE


def test_instance_normalisation_far_from_zero() -> None:
    """A channel whose mean is a thousand times its spread, in half precision too."""
    x = torch.randn(2, 16, 16, 3) * 0.1 + torch.tensor([0.0, 10.0, 100.0])
    want = F.instance_norm(first(x).double())
    assert apart(first(layers.normalised(x)), want) < 2e-3
    half = x.half()
    want = F.instance_norm(first(half).double())
    assert apart(first(layers.normalised(half)), want) < 2e-3


def test_planes_are_halved_and_doubled_alone() -> None:
    x = torch.randn(2, 3, 8, 4, 5)
    assert torch.equal(first(layers.halved(x)), F.avg_pool3d(first(x), (1, 2, 2)))
    assert torch.equal(first(layers.doubled(x)), F.interpolate(first(x), scale_factor=(1, 2, 2)))


@pytest.mark.parametrize(("kind", "widths"), [(FlatBlock, (512, 512)), (EnlargingBlock, (16, 8))])
def test_a_block_of_the_generator(kind: Any, widths: tuple[int, int]) -> None:
    block = SpadeBlock(*widths)
    x, features = torch.randn(2, widths[0], 4, 4), torch.randn(2, 256, 4, 4)
    times = 2 if kind is EnlargingBlock else 1
    want = block.double()(F.interpolate(x, scale_factor=times).double(), features.double())
    block.float()
    norms = [block.norm_0, block.norm_1]
    if times == 2:
        norms.insert(0, block.norm_s)
    at_size = F.interpolate(features, scale_factor=times)
    hidden = tuple(norm.mlp_shared(at_size).movedim(1, -1) for norm in norms)
    got = kind(block, PLAIN)(x.movedim(1, -1).contiguous(), hidden)
    assert apart(first(got), want) < CLOSE


@pytest.mark.slow
@pytest.mark.parametrize("item", [0, 1])
def test_warping_is_the_released_one(item: int) -> None:
    volume, source, driving = warping_input(item)
    warping = DeviceWarping(network("warping_module"), PLAIN)
    state = warping.prepare(volume, source)
    deformation, occlusion = warping.motion(state, driving)
    assert error(deformation[:, ::3, ::3, ::3], ORACLE[f"W{item}.deformation"]) < 1e-4
    assert error(first(occlusion), ORACLE[f"W{item}.occlusion_map"]) < 1e-3
    features = first(warping.run(state, driving))
    if item == 0:
        assert error(features[:, :, ::5, ::5], ORACLE["W0.out"]) < 1e-3
    # Item 1 leaves the volume, where the order of a convolution's additions shows (1.2e-3 with oneDNN's for
    # channels last); what is made of a deformation is the same.
    plain = network("warping_module")
    warped = F.grid_sample(volume, deformation, align_corners=False).flatten(1, 2)
    assert apart(features, plain.fourth(plain.third(warped)) * first(occlusion)) < CLOSE


@pytest.mark.slow
def test_generator_is_the_released_one() -> None:
    features = generator_input().movedim(1, -1).contiguous()
    drawn = DeviceGenerator(network("spade_generator"), PLAIN)(features)
    assert error(drawn[:, :, ::5, ::5], ORACLE["G.out"]) < 1e-3
    assert error(F.avg_pool2d(drawn, 16), ORACLE["G.block16"]) < 1e-3


def test_places_stay_exact_in_half_precision() -> None:
    """With weights and maps of half precision the deformation is still that of float32."""
    module = WarpingModule().eval()
    module.dense_motion_network.mask.weight.zero_()  # an even mixture of the proposals, whatever the features
    volume = torch.randn(1, 32, 16, 32, 32)
    source, driving = torch.rand(1, 21, 3) - 0.5, torch.rand(2, 21, 3) - 0.5
    exact, _ = module.dense_motion_network(volume.expand(2, -1, -1, -1, -1), source, driving)
    warping = DeviceWarping(module, Place(torch.device("cpu"), torch.bfloat16))
    rough, _ = warping.motion(warping.prepare(volume, source), driving)
    assert rough.dtype == torch.float32
    assert float((rough - exact).abs().max()) < 1e-3 * 2 / 32  # of a voxel


@pytest.mark.slow
def test_pictures_agree_in_half_precision() -> None:
    volume, source, driving = warping_input(0)
    drawn = {}
    for name, dtype in PRECISIONS.items():
        renderer = DeviceRenderer(
            network("warping_module"), network("spade_generator"), torch.device("cpu"), dtype
        )
        drawn[name] = renderer.draw(renderer.prepare(volume, source), driving)
    for name in ("float16", "bfloat16"):
        assert disagreement(drawn[name], drawn["float32"]) == "", name


def test_a_picture_drawn_otherwise_is_noticed() -> None:
    wanted = torch.rand(1, 3, 8, 8)
    assert disagreement(wanted + 0.01, wanted) == ""
    assert "far off" in disagreement(wanted.flip(2), wanted)
    assert "blank" in disagreement(torch.zeros_like(wanted), wanted)
    assert "not finite" in disagreement(wanted * torch.nan, wanted)


class Drawing:
    """A renderer whose pictures are its keypoints, spoilt as told."""

    def __init__(self, spoil: Callable[[Tensor], Tensor] = lambda x: x) -> None:
        self.spoil = spoil
        self.drawn: list[int] = []

    def prepare(self, volume: Tensor, source: Tensor) -> Any:
        return PreparedSource(volume, volume, source, source, source)

    def draw(self, state: Any, driving: Tensor) -> Tensor:
        self.drawn.append(len(driving))
        return self.spoil(driving + state.keypoints)


class Made:
    """Forms of such renderers: by precision, and the CPU's."""

    def __init__(self, cpu: Drawing | None = None, **on_device: Drawing) -> None:
        self.by_precision, self.cpu = on_device, cpu or Drawing()

    def on_device(self, precision: str) -> Any:
        return self.by_precision.get(precision, Drawing())

    def on_cpu(self) -> Any:
        return self.cpu


def forms(cpu: Drawing | None = None, **on_device: Drawing) -> Any:
    return Made(cpu, **on_device)


SPOILT: dict[str, Callable[[Tensor], Tensor]] = {
    "black": lambda x: x * 0,
    "nan": lambda x: x * torch.nan,
    "far": lambda x: x + 1,
    "fine": lambda x: x + 0.001,
}


def refuse(x: Tensor) -> Tensor:
    raise RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED\nmore")


SPOILT["refused"] = refuse


@pytest.mark.parametrize(
    ("half", "brain", "chosen", "said"),
    [
        ("fine", "fine", "float16", ""),
        (
            "black",
            "fine",
            "bfloat16",
            "bfloat16 is used; float16 failed its test .* blank picture",
        ),
        ("refused", "fine", "bfloat16", "bfloat16 is used; float16 failed .*: cuDNN error: \\w+_SUPPORTED"),
        ("nan", "far", "float32", "float32 is used; float16 .* not finite; bfloat16 .* far off"),
    ],
)
def test_the_fastest_precision_that_draws_right_is_chosen(
    half: str, brain: str, chosen: str, said: str
) -> None:
    made = {
        "float32": Drawing(),
        "float16": Drawing(SPOILT[half]),
        "bfloat16": Drawing(SPOILT[brain]),
    }
    found = choose_form(forms(**made), ("float16", "bfloat16"), torch.rand(1, 1), torch.rand(1, 21, 3))
    assert found.precision == chosen and found.renderer is made[chosen]
    note = "; ".join(found.notes)
    assert note == "" if not said else re.fullmatch(said, note)


def test_without_cuda_nothing_is_tried() -> None:
    assert candidates("cpu") == candidates("mps") == ()


class Taped:
    """Stands in for a CUDA graph: replaying computes into the same memory again."""

    def __init__(self, call: Callable[[], Tensor]) -> None:
        self.call, self.output = call, call().clone()

    def replay(self) -> None:
        self.output.copy_(self.call())


def test_recorded_drawing_gives_every_frame_of_every_source() -> None:
    plain = Drawing()
    graphed = GraphedRenderer(plain, Taped)
    states = [plain.prepare(torch.zeros(1), torch.full((1, 21, 3), level)) for level in (0.0, 100.0)]
    frames = torch.arange(7.0)[:, None, None].expand(-1, 21, 3)
    for state, count in ((0, 1), (1, 3), (0, 7), (1, 7), (0, 2), (1, 1), (0, 3)):
        drawn = graphed.draw(states[state], frames[:count])
        assert torch.equal(drawn, frames[:count] + 100.0 * state)
    assert set(plain.drawn) == {1, 2, 4, 8}, "a batch is filled up to a power of two"
    assert graphed.note == ""


def chosen_with(record: Callable[[Callable[[], Tensor]], Any]) -> Any:
    """The form of a GPU that knows float32 alone and records in this way."""
    known = torch.rand(1, 1), torch.rand(1, 21, 3)
    return choose_form(forms(), (), *known, lambda renderer: GraphedRenderer(renderer, record))


def test_where_nothing_can_be_recorded_it_draws_all_the_same() -> None:
    def fail(call: Callable[[], Tensor]) -> Any:
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nmore")

    graphed = GraphedRenderer(Drawing(), fail)
    state = graphed.prepare(torch.zeros(1), torch.zeros(1, 21, 3))
    frames = torch.rand(3, 21, 3)
    assert torch.equal(graphed.draw(state, frames), frames)
    assert "without CUDA graphs" in graphed.note and "\n" not in graphed.note
    found = chosen_with(fail)
    assert isinstance(found.renderer, Drawing) and "without CUDA graphs" in found.notes[0]


def test_recorded_pictures_are_tested_too() -> None:
    class Wrong(Taped):
        def replay(self) -> None:
            self.output.zero_()

    found = chosen_with(Wrong)
    assert isinstance(found.renderer, Drawing) and "blank" in found.notes[0]


def test_too_little_memory_for_a_recording_is_passed_on() -> None:
    """The engine halves its batch then."""

    def record(call: Callable[[], Tensor]) -> Any:
        taped = Taped(call)
        if len(taped.output) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return taped

    graphed = GraphedRenderer(Drawing(), record)
    state = graphed.prepare(torch.zeros(1), torch.zeros(1, 21, 3))
    frames = torch.rand(4, 21, 3)
    with pytest.raises(torch.OutOfMemoryError):
        graphed.draw(state, frames)
    assert torch.equal(graphed.draw(state, frames[:2]), frames[:2]) and not graphed.note


def test_a_device_that_draws_otherwise_than_the_cpu_is_not_used() -> None:
    volume, keypoints = torch.rand(1, 2, 2, 4, 4), torch.rand(1, 21, 3)
    check_against_cpu(forms(), Drawing(), volume, keypoints)
    for spoil, said in (("black", "blank"), ("far", "far off")):
        with pytest.raises(EngineError, match=f"does not draw right on the cpu device: .*{said}") as caught:
            check_against_cpu(forms(), Drawing(SPOILT[spoil]), volume, keypoints)
        assert "--engine mesh" in caught.value.hint


def test_too_little_memory_for_any_recording_is_no_fault() -> None:
    def record(call: Callable[[], Tensor]) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    found = chosen_with(record)
    assert isinstance(found.renderer, Drawing) and "memory is too small" in found.notes[0]


def test_levels_of_a_known_frame_are_numbers() -> None:
    crop = known_crop()
    assert crop.shape == (256, 256, 3) and crop.dtype == np.uint8 and crop.std() > 30
