# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes the networks as ONNX files (opset 20) and proves each against PyTorch before it is kept."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from backend.errors import EngineError, OutputError

from . import onnx_files
from .appearance import AppearanceFeatureExtractor
from .checkpoints import fill, load_state, read_parts
from .generator import SpadeGenerator
from .layers import fold_spectral_norms
from .motion import MotionExtractor
from .onnx_files import FILES, FUSED, OPSET, OnnxFile
from .onnx_sessions import OnnxNetwork
from .retargeting import SIZES, Perceptron
from .warping import WarpingModule

TOLERANCE = 2e-3  # largest difference from PyTorch, in standard deviations of what PyTorch gives

Report = Callable[[str, int, int], None]
"""Name of the file that comes next, how many are done, how many there are."""

_PARTS = {
    "stitching": "retarget_shoulder",
    "retargeting_eye": "retarget_eye",
    "retargeting_lip": "retarget_mouth",
}


class _Heads(nn.Module):
    """M with its heads as a tuple in the file's order."""

    def __init__(self, network: MotionExtractor) -> None:
        super().__init__()
        self.network = network

    def forward(self, picture: Tensor) -> tuple[Tensor, ...]:
        heads = self.network(picture)
        return tuple(heads[name] for name in FILES["motion_extractor"].outputs)


class _Fused(nn.Module):
    def __init__(self, warping: nn.Module, generator: nn.Module) -> None:
        super().__init__()
        self.warping, self.generator = warping, generator

    def forward(self, volume: Tensor, source: Tensor, driving: Tensor) -> Tensor:
        return self.generator(self.warping(volume, source, driving))


def export(
    weights: Mapping[str, Path],
    folder: Path,
    *,
    only: Sequence[str] = (),
    fused: bool = False,
    report: Report | None = None,
) -> list[Path]:
    """Write every network of FILES (or `only` some), with `fused` W and G as one file too, into a folder:
    their paths.

    weights: the released files by the catalogue's names. A file appears whole, after onnxruntime has given
    PyTorch's numbers with it, or not at all. Raises EngineError, OutputError.
    """
    try:
        import onnx  # noqa: F401 - PyTorch's exporter needs it and says so only at the end
    except ImportError as error:
        raise EngineError("The package onnx is not installed.", "Install the neural-cpu profile.") from error
    try:
        folder.mkdir(parents=True, exist_ok=True)
        record = onnx_files.read_record(folder)
        wanted = [*(FILES[name] for name in only or FILES), *([FUSED] if fused else [])]
        needed = {name for file in wanted for name in file.weights}
        hashes = {name: onnx_files.sha256_of(weights[name]) for name in needed}
        paths = []
        for done, file in enumerate(wanted):
            if report is not None:
                report(f"{file.name}.onnx", done, len(wanted))
            paths.append(_write(file, _network(file, weights), folder))
            made_from = {name: hashes[name] for name in file.weights}
            record[file.name] = {"size": paths[-1].stat().st_size, "weights": made_from}
            onnx_files.write_record(folder, record, f"torch {torch.__version__}")
        if report is not None:
            report("", len(wanted), len(wanted))
        return paths
    except OSError as error:
        raise OutputError(f"{folder} cannot be written: {error.strerror}.", "Free space there.") from error


def _network(file: OnnxFile, weights: Mapping[str, Path]) -> nn.Module:
    if file.name in _PARTS:
        part = _PARTS[file.name]
        return fill(Perceptron(SIZES[part]), read_parts(weights[file.weights[0]])[part], part)
    if file is FUSED:
        return _Fused(*(_network(FILES[name], weights) for name in file.weights))
    kinds: dict[str, Callable[[], Any]] = {
        "appearance_feature_extractor": AppearanceFeatureExtractor,
        "motion_extractor": MotionExtractor,
        "warping_module": WarpingModule,
        "spade_generator": SpadeGenerator,
    }
    network = fill(kinds[file.name](), load_state(weights[file.name]), file.name)
    if isinstance(network, SpadeGenerator):
        with torch.no_grad():
            fold_spectral_norms(network)
    return _Heads(network) if isinstance(network, MotionExtractor) else network


def _write(file: OnnxFile, network: nn.Module, folder: Path) -> Path:
    path, part = folder / f"{file.name}.onnx", folder / f".{file.name}.onnx.part"
    try:
        inputs = _example(file, batch=2)
        axes = {name: {0: "n"} for name in (*file.inputs, *file.outputs)}
        with _quiet(), torch.no_grad():
            torch.onnx.export(
                network.eval(),
                tuple(inputs),
                str(part),
                opset_version=OPSET,
                dynamo=False,  # the other exporter needs two packages more and gives the same graphs
                input_names=list(file.inputs),
                output_names=list(file.outputs),
                dynamic_axes=axes,
            )
        _prove(file, network, part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return path


def _example(file: OnnxFile, batch: int) -> list[Tensor]:
    """Inputs that reach every part of a network: pictures in 0..1, keypoints within the crop."""
    generator = torch.Generator().manual_seed(0)
    made = []
    for name, shape in file.inputs.items():
        if name in ("picture", "source", "driving"):
            value = torch.rand(batch, *shape, generator=generator)
            made.append(value - 0.5 if name != "picture" else value)
        else:
            made.append(torch.randn(batch, *shape, generator=generator))
    return made


def _prove(file: OnnxFile, network: nn.Module, path: Path) -> None:
    """Raise EngineError unless onnxruntime gives PyTorch's numbers, for one item where the file was traced
    with two.
    """
    inputs = _example(file, batch=1)
    with torch.inference_mode():
        answer = network(*inputs)
    wanted = [answer] if isinstance(answer, Tensor) else list(answer)
    got = OnnxNetwork(path)(*(value.numpy() for value in inputs))
    for name, ours, theirs in zip(file.outputs, wanted, got, strict=True):
        spread = max(float(ours.std()), 1e-6) if ours.numel() > 1 else max(abs(float(ours)), 1e-6)
        difference = float(np.abs(ours.numpy() - theirs).max()) / spread
        if not difference <= TOLERANCE:
            raise EngineError(
                f"{file.name}.onnx gives other numbers than PyTorch ({name}: {difference:.2g}).",
                "It was not kept; install the versions that the profile names.",
            )


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter warns of its own age and of shapes that are the same in every frame."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
