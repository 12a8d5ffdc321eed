# SPDX-License-Identifier: GPL-3.0-or-later
"""Running ONNX files: on which device they really run, and what is said when that is not the one wanted."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from backend.errors import EngineError, WeightsError

_ERRORS_ONLY = 3  # onnxruntime's level of logging; its warnings are for those who make models
_PROVIDERS = {"cuda": "CUDAExecutionProvider"}


def is_installed() -> bool:
    """Whether onnxruntime can be imported, without importing it."""
    return importlib.util.find_spec("onnxruntime") is not None


@cache
def runtime() -> Any:
    """The module onnxruntime, with CUDA's libraries at hand where PyTorch has brought them. EngineError."""
    try:
        import onnxruntime
    except ImportError as error:
        raise EngineError(
            "onnxruntime is not installed.", "Install the neural-cpu or neural-cuda profile."
        ) from error
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers() and importlib.util.find_spec("torch"):
        import torch  # noqa: F401 - loads the CUDA libraries that onnxruntime's own provider then finds

        onnxruntime.preload_dlls()
    onnxruntime.set_default_logger_severity(_ERRORS_ONLY)
    return onnxruntime


class OnnxNetwork:
    """A session: numpy arrays in, numpy arrays out.

    `provider` is what it really runs on; `note` says why that is not what was wanted, or is "".
    """

    def __init__(self, path: Path, device: str = "cpu") -> None:
        """device: "cuda", else the CPU. WeightsError for a file that onnxruntime cannot use."""
        onnxruntime = runtime()
        settings = onnxruntime.SessionOptions()
        settings.log_severity_level = _ERRORS_ONLY
        if affinity := getattr(os, "sched_getaffinity", None):  # else it counts cores that are not ours
            settings.intra_op_num_threads = len(affinity(0))
        wanted = _PROVIDERS.get(device, "")
        providers = [wanted] if wanted in onnxruntime.get_available_providers() else []
        try:
            self._session = _session(onnxruntime, path, settings, [*providers, "CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's exceptions have no common class of their own
            raise WeightsError(
                f"{path.name} cannot be used by onnxruntime: {_first_line(error)}",
                "Write or fetch it again.",
                str(error),
            ) from error
        self.provider = str(self._session.get_providers()[0])
        self.inputs = tuple(one.name for one in self._session.get_inputs())
        self.outputs = tuple(one.name for one in self._session.get_outputs())
        self.note = ""
        if wanted and self.provider != wanted:
            lacks = "its CUDA provider could not start" if providers else "it is built without CUDA"
            self.note = f"onnxruntime runs on the CPU: {lacks}"

    def __call__(self, *arrays: np.ndarray) -> list[np.ndarray]:
        """The outputs in their order, for the inputs in theirs (float32). EngineError when it fails."""
        given = dict(zip(self.inputs, arrays, strict=True))
        try:
            return list(self._session.run(None, given))
        except Exception as error:  # as above
            raise EngineError(
                f"onnxruntime failed: {_first_line(error)}", "Choose --runtime torch.", str(error)
            ) from error


def _session(onnxruntime: Any, path: Path, settings: Any, providers: Sequence[str]) -> Any:
    """A session on the first provider that starts; one for CUDA may be there and yet not fit the driver."""
    try:
        return onnxruntime.InferenceSession(str(path), settings, providers=list(providers))
    except Exception:  # as above; with the CPU alone the file itself is to blame
        if len(providers) == 1:
            raise
        return onnxruntime.InferenceSession(str(path), settings, providers=[providers[-1]])


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
