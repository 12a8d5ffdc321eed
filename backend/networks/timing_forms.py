# SPDX-License-Identifier: GPL-3.0-or-later
"""What is timed: each network as the engine runs it, straightforwardly, and in onnxruntime; and whole frames.

A form is a maker: given inputs on the CPU it lays them out on the device and returns the call to time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from . import onnx_files, onnx_sessions
from .checkpoints import fill, read_parts
from .cpu_generator import CpuGenerator
from .cpu_warping import CpuWarping
from .device_generator import DeviceGenerator
from .device_layers import Place
from .device_warping import DeviceWarping
from .graphs import GraphedRenderer
from .random_weights import DRAW, WARP, loaded
from .renderers import PRECISIONS, DeviceRenderer, Renderer, cpu_renderer, to_levels, to_pictures
from .retargeting import COORDINATES, KEYPOINTS, STITCHING_SIZES, Perceptron

BASELINE = "straightforward eager float32"
AUTOCAST = "straightforward eager float16 autocast"
WHOLE = "M, W, G and S, data on the device"
ON_CPU = ("float32", "bfloat16")  # float16 is slower there than float32
Call = Callable[[], object]
Maker = Callable[[Sequence[Tensor]], Call]


class Form(NamedTuple):
    """name: what it is called. make: see the module. slow: not to be timed in large batches on a CPU."""

    name: str
    make: Maker
    slow: bool = False


def precisions(device: str) -> Mapping[str, torch.dtype]:
    """Those that are timed on a device."""
    return {name: dtype for name, dtype in PRECISIONS.items() if device != "cpu" or name in ON_CPU}


def inputs_of(name: str, batch: int) -> list[Tensor]:
    """Random inputs of a network, or pictures for WHOLE."""
    generator = torch.Generator().manual_seed(1)
    if name == WHOLE:
        return [torch.randint(0, 256, (batch, 256, 256, 3), generator=generator, dtype=torch.uint8)]
    return [
        torch.rand(batch, *shape, generator=generator) - (0.0 if what == "picture" else 0.5)
        for what, shape in onnx_files.FILES[name].inputs.items()
    ]


def forms(
    name: str, files: Mapping[str, Path], device: str, baseline: bool, onnx: Path | None
) -> Iterator[Form]:
    """Of one network."""
    network = loaded(files, name)
    if baseline:
        yield Form(BASELINE, _straight(network, device, None), slow=True)
        if device == "cuda":
            yield Form(AUTOCAST, _straight(network, device, torch.float16))
    for label, dtype in precisions(device).items():
        if name in (WARP, DRAW):
            yield Form(label, _drawing(name, network, device, dtype))
        elif dtype == torch.float32:  # the engine keeps the others in it: they measure
            yield Form(label, _straight(network, device, None))
    if onnx is not None:
        session = onnx_sessions.OnnxNetwork(onnx, device)
        yield Form(f"onnxruntime, {session.provider}", _session(session), slow=True)


def _straight(network: nn.Module, device: str, cast: torch.dtype | None) -> Maker:
    def make(inputs: Sequence[Tensor]) -> Call:
        placed, there = network.to(device), [value.to(device) for value in inputs]

        def call() -> object:
            with torch.autocast(device, cast or torch.float16, enabled=cast is not None):
                return placed(*there)

        return call

    return make


def _session(session: onnx_sessions.OnnxNetwork) -> Maker:
    def make(inputs: Sequence[Tensor]) -> Call:
        arrays = [value.numpy() for value in inputs]
        return lambda: session(*arrays)

    return make


def _drawing(name: str, network: Any, device: str, dtype: torch.dtype) -> Maker:
    """W or G as the engine has them. Of W only what a frame costs: a source is prepared once."""
    on_cpu = device == "cpu" and dtype == torch.float32
    place = Place(torch.device(device), dtype)
    if name == DRAW:
        if on_cpu:
            plain = CpuGenerator(network)
            return lambda inputs: lambda: plain(inputs[0])
        drawing = DeviceGenerator(network, place)

        def features(inputs: Sequence[Tensor]) -> Call:
            there = inputs[0].movedim(1, -1).to(device, dtype).contiguous()
            return lambda: drawing(there)

        return features
    warping: Any = CpuWarping(network) if on_cpu else DeviceWarping(network, place)

    def keypoints(inputs: Sequence[Tensor]) -> Call:
        volume, source, driving = (value.to(device) for value in inputs)
        state = warping.prepare(volume[:1], source[:1])
        return lambda: warping.run(state, driving)

    return keypoints


class WholeFrame:
    """Driving crops (b,256,256,3) uint8 on the device -> pictures of one source (b,512,512,3) uint8 there."""

    def __init__(self, files: Mapping[str, Path], device: str) -> None:
        self.device = device
        self.warping, self.generator = loaded(files, WARP), loaded(files, DRAW)
        self._motion = loaded(files, "motion_extractor").to(device)
        state = read_parts(files["stitching_retargeting_module"])["retarget_shoulder"]
        self._stitching = fill(Perceptron(STITCHING_SIZES), state, "retarget_shoulder").to(device)
        volume, source, _ = inputs_of(WARP, 1)
        self._volume, self._source = volume.to(device), source.to(device)

    def ours(self, renderer: Renderer) -> Maker:
        """As the engine draws."""
        state = renderer.prepare(self._volume, self._source)

        def make(inputs: Sequence[Tensor]) -> Call:
            crops = inputs[0].to(self.device)
            return lambda: to_levels(renderer.draw(state, self._driving(crops)))

        return make

    def straight(self, cast: torch.dtype | None) -> Maker:
        """By the plain networks, under autocast if a type to cast to is given."""
        warping, generator = self.warping.to(self.device), self.generator.to(self.device)

        def make(inputs: Sequence[Tensor]) -> Call:
            crops = inputs[0].to(self.device)

            def call() -> object:
                with torch.autocast(self.device, cast or torch.float16, enabled=cast is not None):
                    driving, many = self._driving(crops), (len(crops), -1, -1)
                    volume, source = self._volume.expand(*many, -1, -1), self._source.expand(*many)
                    return to_levels(generator(warping(volume, source, driving)).float())

            return call

        return make

    def _driving(self, crops: Tensor) -> Tensor:
        """M and S: stitched keypoints (b,21,3). The head's rotation, nine products a point, is left out."""
        heads = self._motion(to_pictures(crops))
        posed = (heads["kp"] + heads["exp"]).float().view(len(crops), KEYPOINTS, 3)
        x = heads["scale"][:, :, None] * posed + heads["t"][:, None]
        both = torch.cat([self._source.expand(len(crops), -1, -1), x], dim=1)
        change = self._stitching(both.flatten(1)).float()
        x = x + change[:, :COORDINATES].view_as(posed)
        return torch.cat([x[..., :2] + change[:, None, COORDINATES:], x[..., 2:]], dim=-1)


def whole_frame(files: Mapping[str, Path], device: str, baseline: bool) -> Iterator[Form]:
    """See WholeFrame."""
    whole = WholeFrame(files, device)
    for label, dtype in precisions(device).items():
        if device == "cpu" and dtype == torch.float32:
            yield Form(label, whole.ours(cpu_renderer(whole.warping, whole.generator)))
            continue
        renderer = DeviceRenderer(whole.warping, whole.generator, torch.device(device), dtype)
        yield Form(label, whole.ours(renderer))
        if device == "cuda":
            yield Form(f"{label}, graphs", whole.ours(GraphedRenderer(renderer)))
    if baseline:
        yield Form(BASELINE, whole.straight(None), slow=True)
        if device == "cuda":
            yield Form(AUTOCAST, whole.straight(torch.float16))
