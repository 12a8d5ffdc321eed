# SPDX-License-Identifier: GPL-3.0-or-later
"""Times the networks one by one, each form of each beside the straightforward one, for the bench."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from backend.models import catalogue

from . import onnx_files, onnx_sessions
from .appearance import AppearanceFeatureExtractor
from .checkpoints import fill, load_state
from .cpu_generator import CpuGenerator
from .cpu_warping import CpuWarping
from .generator import SpadeGenerator
from .layers import fold_spectral_norms
from .motion import MotionExtractor
from .renderers import DeviceRenderer
from .retargeting import SIZES, Perceptron
from .warping import WarpingModule

BASELINE = "straightforward eager float32"
REPEATS = 3
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}

_KINDS: Mapping[str, Callable[[], nn.Module]] = {
    "appearance_feature_extractor": AppearanceFeatureExtractor,
    "motion_extractor": MotionExtractor,
    "warping_module": WarpingModule,
    "spade_generator": SpadeGenerator,
}


@dataclass(frozen=True)
class Timing:
    """Milliseconds a frame of one network in one form: the median and the least of a few runs."""

    network: str
    form: str
    batch: int
    median: float
    least: float


def write_random(folder: Path) -> dict[str, Path]:
    """Weights in the released layout that mean nothing but cost the same: files by the catalogue's names."""
    torch.manual_seed(0)
    paths = {}
    for file in catalogue.FILES:
        if file.layout is None:
            continue
        path = paths[file.name] = folder / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        if file.name in _KINDS:
            torch.save(_random_state(_KINDS[file.name]()), path)
        else:
            torch.save({part: Perceptron(sizes).state_dict() for part, sizes in SIZES.items()}, path)
    return paths


def _random_state(network: nn.Module) -> dict[str, Tensor]:
    """PyTorch's own start values; singular vectors, which start as nothing, at random."""
    state = dict(network.state_dict())
    for key, value in state.items():
        if key.endswith(("weight_u", "weight_v")):
            vector = torch.randn_like(value)
            state[key] = vector / vector.norm()
    return state


def loaded(files: Mapping[str, Path], name: str) -> Any:
    """A network with its weights."""
    return fill(_KINDS[name](), load_state(files[name]), name)


def batches(device: str, quick: bool) -> tuple[int, ...]:
    """The sizes that are timed."""
    return (1,) if quick else ((1, 4) if device == "cpu" else (1, 4, 8, 16))


def time_side_by_side(
    network: str, forms: Mapping[str, Callable[[], object]], batch: int, device: str, repeats: int = REPEATS
) -> list[Timing]:
    """Run each form once to warm up, then all in turn a few times, so that each meets the same machine."""
    spent: dict[str, list[float]] = {form: [] for form in forms}
    with torch.inference_mode():
        for call in forms.values():
            call()
        for _ in range(repeats):
            for form, call in forms.items():
                _wait(device)
                began = time.perf_counter()
                call()
                _wait(device)
                spent[form].append(1000 * (time.perf_counter() - began) / batch)
    return [Timing(network, form, batch, statistics.median(ms), min(ms)) for form, ms in spent.items()]


def _wait(device: str) -> None:
    """Until the device has done what it was told."""
    if device == "cuda":
        torch.cuda.synchronize()
    elif device == "mps":
        torch.mps.synchronize()


def measure(
    files: Mapping[str, Path],
    device: str,
    *,
    baseline: bool = False,
    onnx: Mapping[str, Path] | None = None,
    quick: bool = False,
    sizes: Sequence[int] | None = None,
) -> Iterator[list[Timing]]:
    """Every network in the forms that the engine uses on a device, and if asked for in the straightforward
    one and in onnxruntime (`onnx`: paths by onnx_files.FILES); lists of timings taken side by side.
    sizes: of batches, by default those of `batches`.
    """
    sizes = batches(device, quick) if sizes is None else sizes
    for name in _KINDS:
        plain = loaded(files, name)
        makers = list(_forms(name, plain, files, device, baseline, (onnx or {}).get(name)))
        for batch in sizes:
            inputs = _inputs(name, batch)
            forms = {form: make(inputs) for form, make in makers}
            yield time_side_by_side(name, forms, batch, device, 1 if quick else REPEATS)
    yield from _small(device, sizes)


Maker = Callable[[Sequence[Tensor]], Callable[[], object]]


def _forms(
    name: str,
    plain: nn.Module,
    files: Mapping[str, Path],
    device: str,
    baseline: bool,
    onnx: Path | None,
) -> Iterator[tuple[str, Maker]]:
    if baseline:
        straight = loaded(files, name).to(device)
        yield BASELINE, lambda inputs: _call(straight, [value.to(device) for value in inputs])
    if device == "cpu":
        yield "float32", lambda inputs: _cpu_form(name, plain, inputs)
    else:
        for label, dtype in DTYPES.items():
            if name in ("appearance_feature_extractor", "motion_extractor") and dtype != torch.float32:
                continue  # the engine keeps these in float32: they measure
            yield label, _device_form(name, files, device, dtype)
    if onnx is not None:
        session = onnx_sessions.OnnxNetwork(onnx, device)
        yield f"onnxruntime, {session.provider}", lambda inputs: _session_call(session, inputs)


def _call(network: Callable[..., object], inputs: Sequence[Tensor]) -> Callable[[], object]:
    return lambda: network(*inputs)


def _session_call(session: onnx_sessions.OnnxNetwork, inputs: Sequence[Tensor]) -> Callable[[], object]:
    arrays = [value.numpy() for value in inputs]
    return lambda: session(*arrays)


def _cpu_form(name: str, plain: Any, inputs: Sequence[Tensor]) -> Callable[[], object]:
    """What the engine runs on a CPU. Of W only what a frame costs: a source is prepared once."""
    if name == "warping_module":
        warping = CpuWarping(plain)
        state = warping.prepare(inputs[0][:1], inputs[1][:1])
        return lambda: warping.run(state, inputs[2])
    if name == "spade_generator":
        generator = CpuGenerator(plain)
        return lambda: generator(inputs[0])
    return _call(plain, inputs)


def _device_form(name: str, files: Mapping[str, Path], device: str, dtype: torch.dtype) -> Maker:
    """As DeviceRenderer has W and G; the others plainly."""
    network = loaded(files, name)
    if isinstance(network, SpadeGenerator):
        with torch.no_grad():
            fold_spectral_norms(network)
    network = network.to(device, dtype)
    layout = DeviceRenderer.layout(network)

    def make(inputs: Sequence[Tensor]) -> Callable[[], object]:
        keypoints = name == "warping_module"  # which stay in float32
        placed = [
            value.to(device, torch.float32 if keypoints and at else dtype) for at, value in enumerate(inputs)
        ]
        return _call(layout, placed)

    return make


def _inputs(name: str, batch: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [
        torch.rand(batch, *shape, generator=generator) - (0.0 if what == "picture" else 0.5)
        for what, shape in onnx_files.FILES[name].inputs.items()
    ]


def _small(device: str, sizes: Sequence[int]) -> Iterator[list[Timing]]:
    for part, widths in SIZES.items():
        network = Perceptron(widths).eval().to(device)
        for batch in sizes:
            inputs = [torch.rand(batch, widths[0], device=device)]
            yield time_side_by_side(part, {"float32": _call(network, inputs)}, batch, device, 20)


def peak_memory(device: str) -> int:
    """The most bytes of a GPU's memory that PyTorch has held since `reset_peak`; 0 where it cannot tell."""
    return int(torch.cuda.max_memory_reserved()) if device == "cuda" else 0


def reset_peak(device: str) -> None:
    """Begin to count anew."""
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def device_name(device: str) -> str:
    """What the device calls itself, with the versions that belong to a figure."""
    versions = f"torch {torch.__version__}"
    if device == "cuda":
        return f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}, {versions}"
    return f"{device}, {torch.get_num_threads()} threads, {versions}"
