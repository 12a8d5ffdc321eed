# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether PyTorch is here, what it was built for, and whether this machine has a GPU for it: told without
importing PyTorch, which takes seconds.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import platform
import re
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class TorchBuild:
    """The installed PyTorch: version, and the CUDA or ROCm version it was built for."""

    version: str
    cuda: tuple[int, int] | None = None
    rocm: bool = False


@dataclass(frozen=True)
class Driver:
    """NVIDIA's driver: number of usable GPUs, and the newest CUDA it can run."""

    devices: int
    cuda: tuple[int, int]


@dataclass(frozen=True)
class Device:
    """The best device: "cuda" (ROCm too), "mps" or "cpu"; where it is "cpu", why and what changes that."""

    name: str
    why: str = ""
    advice: str = ""


def torch_build() -> TorchBuild | None:
    """The installed PyTorch, read from its version.py; None where it is not installed."""
    found = importlib.util.find_spec("torch")
    if found is None or found.origin is None:
        return None
    try:
        text = (Path(found.origin).parent / "version.py").read_text(encoding="utf-8")
    except OSError:
        return TorchBuild("unknown")
    values = dict(re.findall(r"^(\w+)(?:: *[\w\[\]]+)? *= *'([^']*)'", text, re.MULTILINE))
    cuda = re.match(r"(\d+)\.(\d+)", values.get("cuda", ""))
    return TorchBuild(
        values.get("__version__", "unknown"),
        (int(cuda[1]), int(cuda[2])) if cuda else None,
        "hip" in values or "rocm" in values,
    )


@cache
def nvidia_driver() -> Driver | None:
    """What NVIDIA's driver says of this machine (CUDA_VISIBLE_DEVICES applies); None where there is none."""
    library = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        cuda = ctypes.CDLL(library)
        count, version = ctypes.c_int(), ctypes.c_int()
        if cuda.cuDriverGetVersion(ctypes.byref(version)) != 0:
            return None
        if cuda.cuInit(0) != 0 or cuda.cuDeviceGetCount(ctypes.byref(count)) != 0:
            count.value = 0
    except (OSError, AttributeError):
        return None
    return Driver(count.value, (version.value // 1000, version.value % 1000 // 10))


def best_device(torch: TorchBuild | None) -> Device:
    """The device for the neural engine here, if it is given `torch` (None: whichever build is right)."""
    if sys.platform == "darwin":
        if platform.machine() == "arm64":
            return Device("mps")
        return Device("cpu", "Macs with Intel processors have no GPU for PyTorch")
    if torch is not None and torch.rocm:
        if Path("/dev/kfd").exists():
            return Device("cuda")
        return Device("cpu", "the ROCm driver shows no GPU", "Install AMD's amdgpu driver.")
    driver = nvidia_driver()
    if driver is None:
        return Device("cpu", "there is no NVIDIA driver, so no GPU for PyTorch")
    if driver.devices == 0:
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
        advice = "" if hidden is None else f"CUDA_VISIBLE_DEVICES is set to {hidden!r}; unset it."
        return Device("cpu", "the NVIDIA driver shows no GPU", advice)
    if torch is None:
        return Device("cuda")
    if torch.cuda is None:
        return Device("cpu", f"PyTorch {torch.version} here is built for CPUs only", "neural-cuda")
    # CUDA runs on any driver of the same major version (minor version compatibility) and on newer ones.
    if driver.cuda[0] < torch.cuda[0]:
        have, need = ".".join(map(str, driver.cuda)), f"{torch.cuda[0]}.0"
        return Device(
            "cpu",
            f"the NVIDIA driver is too old: it runs CUDA {have}, PyTorch needs {need}",
            "Update the NVIDIA driver.",
        )
    return Device("cuda")
