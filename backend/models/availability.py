# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the neural engine can run for a job, and if not, exactly why and the one thing that changes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from backend.errors import WeightsError
from backend.models import catalogue, devices, store
from backend.models.catalogue import ModelFile
from backend.models.weight_files import check_structure
from backend.options import Options

Lack = Literal["no-gpu", "no-torch", "no-weights", "bad-weights"]


@dataclass(frozen=True)
class FoundModels:
    """Everything is there: `files` by the catalogue's names (.pth, .safetensors, .onnx; "landmark" may be
    absent), the device ("cuda", "mps" or "cpu") and, where that is the CPU though no one asked for it, why.
    """

    folder: Path
    files: Mapping[str, Path]
    device: str
    revision: str | None = None
    why_cpu: str = ""

    @property
    def why(self) -> str:
        """A sentence for doctor and result.json."""
        where = {"cuda": "a GPU", "mps": "the Mac's GPU", "cpu": "the CPU"}[self.device]
        reason = f" ({self.why_cpu})" if self.why_cpu else ""
        return f"weights in {self.folder}, on {where}{reason}"


@dataclass(frozen=True)
class NotAvailable:
    """Why the neural engine is not to be had for this job, and what changes it: a command, if one does."""

    lack: Lack
    why: str
    advice: str


def find(options: Options, files: Sequence[ModelFile] | None = None) -> FoundModels | NotAvailable:
    """What a job with these options has: only outlines of files are read, PyTorch is not imported.

    With engine "auto" a GPU is needed: on a CPU the mesh engine is the better choice. With engine "neural"
    the CPU will do, unless another device is named.
    """
    torch = devices.torch_build()
    best = devices.best_device(torch)
    device = best.name if options.device == "auto" else options.device
    if options.device in ("cuda", "mps") and best.name != options.device:
        return _no_device(options, best)
    if options.engine == "auto" and device == "cpu":
        return _no_device(options, best)
    if torch is None:
        profile = "neural-cuda" if device == "cuda" else "neural-cpu"
        return NotAvailable("no-torch", "PyTorch is not installed", install_advice(profile))
    files = catalogue.FILES if files is None else files
    folder = store.models_folder(options.models)
    fetch = "python -m backend models download" + (f" --models {folder}" if options.models else "")
    missing = [file for file in files if file.required and store.locate(folder, file) is None]
    if missing:
        count = sum(file.required for file in files)
        which = "no weights" if len(missing) == count else f"no {', '.join(file.name for file in missing)}"
        return NotAvailable("no-weights", f"there are {which} in {folder}", f"Fetch them: {fetch}")
    found = store.locate_all(folder, files)
    for file in files:
        try:
            if file.name in found:
                check_structure(file, found[file.name])
        except WeightsError as error:
            if file.required:
                return NotAvailable("bad-weights", error.message.rstrip("."), f"Fetch it again: {fetch}")
            del found[file.name]
    why_cpu = best.why if device == "cpu" and options.device == "auto" else ""
    return FoundModels(folder, found, device, store.read_record(folder).revision, why_cpu)


def _no_device(options: Options, best: devices.Device) -> NotAvailable:
    if options.device == "cpu":
        why = "the CPU was asked for, where the neural engine takes seconds a frame"
        return NotAvailable("no-gpu", why, "Use it anyway with --engine neural.")
    if best.advice == "neural-cuda":
        return NotAvailable("no-gpu", best.why, install_advice("neural-cuda"))
    why = best.why or f"this machine's GPU is used as {best.name}, not as {options.device}"
    advice = best.advice or (
        "Use --device auto."
        if best.name != "cpu"
        else "Run it on the CPU, at seconds a frame: --engine neural --device cpu"
    )
    return NotAvailable("no-gpu", why, advice)


def install_advice(profile: str) -> str:
    """How to get a profile's packages: by the project's script in a checkout, else by the add-on."""
    if (Path(__file__).resolve().parents[2] / "scripts" / "environment.py").is_file():
        return f"Install the {profile} profile: python3 scripts/environment.py {profile}"
    return f"Install the {profile} profile from the add-on's preferences."
