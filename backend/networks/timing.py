# SPDX-License-Identifier: GPL-3.0-or-later
"""Times the networks one by one, each form of each beside the straightforward one, for the bench."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from . import onnx_files, timing_forms
from .random_weights import DRAW, KINDS, WARP
from .retargeting import SIZES, Perceptron
from .timing_forms import WHOLE

REPEATS = 3
SLOW_UP_TO = 4


@dataclass(frozen=True)
class Timing:
    """Milliseconds a frame of one network in one form: the median and the least of a few runs."""

    network: str
    form: str
    batch: int
    median: float
    least: float


def batches(quick: bool) -> tuple[int, ...]:
    """The sizes that are timed."""
    return (1,) if quick else (1, 4, 8, 16)


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
    ones and in onnxruntime (`onnx`: paths by onnx_files.FILES); lists of timings taken side by side, last of
    all whole frames. sizes: of batches, by default those of `batches`.

    On a CPU the slow ones are timed up to SLOW_UP_TO frames at a time: it takes minutes, and tells nothing.
    """
    sizes = batches(quick) if sizes is None else sizes
    for name in (*KINDS, WHOLE):
        if name == WHOLE:
            makers = list(timing_forms.whole_frame(files, device, baseline))
        else:
            makers = list(timing_forms.forms(name, files, device, baseline, (onnx or {}).get(name)))
        for batch in sizes:
            inputs = timing_forms.inputs_of(name, batch)
            forms = {
                form: make(inputs)
                for form, make, slow in makers
                if device != "cpu" or batch <= SLOW_UP_TO or not slow
            }
            repeats = 1 if quick else repeats_of(device, batch)
            yield time_side_by_side(name, forms, batch, device, repeats)
    yield from _small(device, sizes)


def repeats_of(device: str, batch: int) -> int:
    """A GPU is done in milliseconds; on a CPU a large batch is many frames already."""
    return 20 if device != "cpu" else max(REPEATS // batch, 1)


def _small(device: str, sizes: Sequence[int]) -> Iterator[list[Timing]]:
    for part, widths in SIZES.items():
        network = Perceptron(widths).eval().to(device)
        for batch in sizes:
            numbers = torch.rand(batch, widths[0], device=device)
            yield time_side_by_side(part, {"float32": partial(network, numbers)}, batch, device, 20)


def arithmetic(device: str) -> tuple[float, float]:
    """Of a whole frame (M, W, G): its floating-point operations, and what the device does of them in a
    second, as half-precision products of large matrices show. float32 on a CPU.
    """
    operations = 0
    for name in ("motion_extractor", WARP, DRAW):
        with torch.device("meta"):
            network, shapes = KINDS[name](), onnx_files.FILES[name].inputs.values()
            given = [torch.empty(1, *shape) for shape in shapes]
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network.eval()(*given)
        operations += counter.get_total_flops()
    size = 8192 if device == "cuda" else 2048
    dtype = torch.float32 if device == "cpu" else torch.float16
    matrix = torch.rand(size, size, device=device).to(dtype)
    forms = {"product": partial(torch.mm, matrix, matrix)}
    (taken,) = time_side_by_side("matrix", forms, 1, device, 10)
    return float(operations), 2.0 * size**3 / (taken.least / 1000)


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
