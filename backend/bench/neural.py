# SPDX-License-Identifier: GPL-3.0-or-later
"""What LivePortrait's networks cost here: each by itself, and the whole way from a motion to frames.

Generated weights cost the same as the released ones, so none need be here.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from backend.bench.material import Material
from backend.bench.report import Report
from backend.errors import EngineError
from backend.models import FoundModels, devices, find
from backend.motion_files import save_motion
from backend.options import Options
from backend.pipeline import animate

FEWER = {"cpu": 4, "mps": 30, "cuda": 240}  # frames of the whole way
RATIO = 0.6  # of the straightforward networks' time that W and G together may take on a CPU
FASTER = 2.0  # times the straightforward eager float16-autocast way at batch 1, on a GPU, at batch JUDGED
JUDGED = 8
LIMIT = 2.5  # times what the arithmetic alone would take there
MEMORY = 4.2  # GB on a GPU
Medians = dict[tuple[str, str, int], float]


@dataclass(frozen=True)
class Wanted:
    """models: a folder of weights, None to generate some. baseline: also the straightforward networks, and
    onnxruntime where it is installed.
    """

    models: Path | None = None
    device: str = "auto"
    baseline: bool = False


def measure(report: Report, material: Material, scratch: Path, wanted: Wanted, quick: bool) -> None:
    """The figures of the neural suite. EngineError without PyTorch or without the device."""
    try:
        from backend.networks import timing
    except ImportError as error:
        raise EngineError("PyTorch is not installed.", "Install the neural-cpu profile.") from error
    device = wanted.device
    if device == "auto":
        device = devices.best_device(devices.torch_build()).name
    files = _weights(report, wanted, scratch)
    report.notes.append(timing.device_name(device))
    onnx = _onnx(files, scratch) if wanted.baseline and not quick else {}
    medians: Medians = {}
    for taken in timing.measure(files, device, baseline=wanted.baseline, onnx=onnx, quick=quick):
        for one in taken:
            medians[one.network, one.form, one.batch] = one.median
            group = f"{one.network}, milliseconds a frame (median)"
            report.add(group, f"{one.form}, batch {one.batch}", one.median, "ms")
    if wanted.baseline:
        _compare(report, medians, device)
    _against_arithmetic(report, medians, device, timing.arithmetic(device))
    timing.reset_peak(device)
    _whole_way(report, material, scratch, files, device, quick)
    if held := timing.peak_memory(device):
        report.add("memory on the device", "whole way", held / 1e9, "GB", at_most=MEMORY)


def _weights(report: Report, wanted: Wanted, scratch: Path) -> Mapping[str, Path]:
    from backend.networks.random_weights import write_random

    if wanted.models is None:
        report.notes.append("Measured with generated weights, which cost the same as the released ones.")
        return write_random(scratch / "models")
    found = find(Options(engine="neural", models=wanted.models, device="cpu"))
    if not isinstance(found, FoundModels):
        raise EngineError(f"The weights cannot be measured: {found.why}.", found.advice)
    return found.files


def _onnx(files: Mapping[str, Path], scratch: Path) -> Mapping[str, Path]:
    """The networks as ONNX files, where the packages for it are here."""
    from backend.networks import onnx_sessions
    from backend.networks.onnx_export import export

    if not onnx_sessions.is_installed():
        return {}
    try:
        return {path.stem: path for path in export(files, scratch / "onnx")}
    except EngineError:  # the package onnx is absent
        return {}


def _compare(report: Report, medians: Medians, device: str) -> None:
    """W and G together against the straightforward networks at batch 1, and on CUDA whole frames; of the same
    run.
    """
    from backend.networks.random_weights import DRAW, WARP
    from backend.networks.timing_forms import AUTOCAST, BASELINE, WHOLE

    plain = {BASELINE, AUTOCAST}
    names = dict.fromkeys(form for network, form, _ in medians if network == DRAW and form not in plain)
    straight = medians[WARP, BASELINE, 1] + medians[DRAW, BASELINE, 1]
    for form in names:
        ratio = (medians[WARP, form, 1] + medians[DRAW, form, 1]) / straight
        judged = RATIO if device == "cpu" and form == "float32" else None
        report.add("W and G, share of the straightforward time", form, ratio, at_most=judged)
    if (straight_whole := medians.get((WHOLE, AUTOCAST, 1))) is None:
        return
    for (network, form, batch), taken in medians.items():
        if network == WHOLE and form not in plain:
            judged = FASTER if (form, batch) == ("float16, graphs", JUDGED) else None
            group = "whole frames, times as fast as float16 autocast at batch 1"
            report.add(group, f"{form}, batch {batch}", straight_whole / taken, at_least=judged)


def _against_arithmetic(
    report: Report, medians: Medians, device: str, arithmetic: tuple[float, float]
) -> None:
    """Whole frames against what their arithmetic would take at the rate of large matrix products."""
    from backend.networks.timing_forms import BASELINE, WHOLE

    operations, rate = arithmetic
    report.add("arithmetic", "of a whole frame", operations / 1e9, "GFLOP")
    report.add("arithmetic", "the device's rate for large products", rate / 1e12, "TFLOP/s")
    for (network, form, batch), taken in medians.items():
        if network == WHOLE and form != BASELINE:
            judged = LIMIT if device == "cuda" and (form, batch) == ("float16, graphs", JUDGED) else None
            times = taken / 1000 / (operations / rate)
            group = "whole frames, times the arithmetic limit"
            report.add(group, f"{form}, batch {batch}", times, at_most=judged)


def _whole_way(
    report: Report, material: Material, scratch: Path, files: Mapping[str, Path], device: str, quick: bool
) -> None:
    from backend.engines.neural import NeuralEngine

    motion = material.motion()[: 1 if quick else FEWER[device]]
    paths = scratch / "first.npz", scratch / "motion.npz"
    for path, part in zip(paths, (motion[:1], motion), strict=True):
        save_motion(part, path)
    began = time.perf_counter()
    engine = NeuralEngine(files, device)
    spent = []
    for path in paths:
        animate(material.portrait(512), path, scratch / path.stem, Options(), engine=engine)
        spent.append(time.perf_counter() - began)
    group = "whole way, 512 px portrait and a motion to a PNG folder"
    report.add(group, "frames a second", len(motion) / (spent[1] - spent[0]))
    report.add(group, "first frame, with the weights read", spent[0], "s")
    if engine.note:
        report.notes.append(engine.note)
