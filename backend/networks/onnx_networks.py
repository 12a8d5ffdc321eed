# SPDX-License-Identifier: GPL-3.0-or-later
"""The ONNX files in the place of PyTorch's networks: tensors in and, on the same device, tensors out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .onnx_files import FILES
from .onnx_sessions import OnnxNetwork
from .retargeting import Retargeting

_PARTS = {
    "retarget_shoulder": "stitching",
    "retarget_eye": "retargeting_eye",
    "retarget_mouth": "retargeting_lip",
}


def _answers(network: OnnxNetwork, *tensors: Tensor) -> list[Tensor]:
    device = tensors[0].device
    arrays = network(*(np.ascontiguousarray(tensor.float().cpu().numpy()) for tensor in tensors))
    return [torch.from_numpy(array).to(device) for array in arrays]


class OnnxMotion:
    """M: pictures (b,3,256,256) -> its heads by name."""

    def __init__(self, network: OnnxNetwork) -> None:
        self._network = network

    def __call__(self, pictures: Tensor) -> dict[str, Tensor]:
        heads = FILES["motion_extractor"].outputs
        return dict(zip(heads, _answers(self._network, pictures), strict=True))


class OnnxAppearance:
    """F: picture (1,3,256,256) -> volume (1,32,16,64,64)."""

    def __init__(self, network: OnnxNetwork) -> None:
        self._network = network

    def __call__(self, picture: Tensor) -> Tensor:
        return _answers(self._network, picture)[0]


class OnnxWarping:
    """W, see renderers.Warping."""

    def __init__(self, network: OnnxNetwork) -> None:
        self._network = network

    def prepare(self, volume: Tensor, source: Tensor) -> tuple[Tensor, Tensor]:
        """Nothing of the source can be computed ahead in one file."""
        return volume, source

    def run(self, state: tuple[Tensor, Tensor], driving: Tensor) -> Tensor:
        """x_d (b,21,3) -> features (b,256,64,64)."""
        repeated = (part.expand(len(driving), *part.shape[1:]) for part in state)
        return _answers(self._network, *repeated, driving)[0]


class OnnxGenerator:
    """G: features (b,256,64,64) -> pictures (b,3,512,512) in 0..1."""

    def __init__(self, network: OnnxNetwork) -> None:
        self._network = network

    def __call__(self, features: Tensor) -> Tensor:
        return _answers(self._network, features)[0]


class OnnxRetargeting(Retargeting):
    """S, R_eye and R_lip."""

    def __init__(self, files: Mapping[str, Path]) -> None:
        """files: by the names of onnx_files.FILES. They take microseconds, so they stay on the CPU."""
        self._networks = {part: OnnxNetwork(files[name]) for part, name in _PARTS.items()}

    def run(self, part: str, features: np.ndarray) -> np.ndarray:
        """See Retargeting."""
        return self._networks[part](features)[0]


def small_files() -> Sequence[str]:
    """The files of OnnxRetargeting."""
    return tuple(_PARTS.values())
