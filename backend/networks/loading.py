# SPDX-License-Identifier: GPL-3.0-or-later
"""The networks of the neural engine, each read when it is first needed and run by what is fastest for it.

PyTorch runs them, or onnxruntime with the files that `models export --onnx` wrote. Which is faster was
measured for each network (data/runtime_choice.json, by scripts/choose_runtimes.py).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from backend.networks import onnx_files, onnx_sessions
from backend.networks.appearance import AppearanceFeatureExtractor
from backend.networks.checkpoints import Network, fill, load_state, read_parts
from backend.networks.cpu_generator import CpuGenerator
from backend.networks.cpu_warping import CpuWarping
from backend.networks.generator import SpadeGenerator
from backend.networks.motion import MotionExtractor
from backend.networks.onnx_networks import (
    OnnxAppearance,
    OnnxGenerator,
    OnnxMotion,
    OnnxRetargeting,
    OnnxWarping,
    small_files,
)
from backend.networks.renderers import Forms, PartsRenderer, Renderer, Warping
from backend.networks.retargeting import Retargeting, RetargetingNetworks
from backend.networks.warping import WarpingModule

CHOICE = Path(__file__).parents[1] / "data" / "runtime_choice.json"
Runtime = Literal["auto", "torch", "onnx"]


@cache
def measured_choice(device: str) -> frozenset[str]:
    """The networks (names of onnx_files.FILES) that onnxruntime runs faster on a kind of device."""
    table = json.loads(CHOICE.read_text(encoding="utf-8"))["faster_in_onnxruntime"]
    return frozenset(table.get(device, ()))


class Networks:
    """`motion`, `appearance`, `small`, and `renderer` or `for_device`; each raises WeightsError for weights
    that cannot be used.
    """

    def __init__(
        self, files: Mapping[str, Path], device: str, runtime: Runtime = "torch", folder: Path | None = None
    ) -> None:
        """files: the weights by the catalogue's names. folder: that of the ONNX files.

        runtime: "onnx" runs every network by onnxruntime, "auto" those that are faster so and whose file is
        there.
        """
        self._files, self._device = files, device
        self.notes: list[str] = []
        self._onnx: dict[str, Path] = {}
        if runtime == "onnx":
            onnx_sessions.runtime()
            self._onnx = onnx_files.require(folder or Path(), onnx_files.FILES, files)
        elif runtime == "auto" and folder is not None and onnx_sessions.is_installed():
            self._onnx = onnx_files.find(folder, measured_choice(device), files)

    @property
    def by_onnxruntime(self) -> frozenset[str]:
        """The networks that onnxruntime runs."""
        return frozenset(self._onnx)

    @cached_property
    def small(self) -> Retargeting:
        """S, R_eye and R_lip."""
        if all(name in self._onnx for name in small_files()):
            return OnnxRetargeting(self._onnx)
        return RetargetingNetworks(read_parts(self._files["stitching_retargeting_module"]), self._device)

    @cached_property
    def motion(self) -> Callable[[Tensor], dict[str, Tensor]]:
        """M."""
        if session := self._session("motion_extractor"):
            return OnnxMotion(session)
        return self._load(MotionExtractor, "motion_extractor").to(self._device)

    @cached_property
    def appearance(self) -> Callable[[Tensor], Tensor]:
        """F."""
        if session := self._session("appearance_feature_extractor"):
            return OnnxAppearance(session)
        network = self._load(AppearanceFeatureExtractor, "appearance_feature_extractor")
        if self._device != "mps":
            return network.to(self._device)
        # Once a source: Apple's 3-D convolutions of channels that lie first are wrong (PyTorch issue 197114).
        return lambda pictures: network(pictures.cpu()).to(self._device)

    @property
    def draws_on_device(self) -> bool:
        """Whether PyTorch runs W and G on a GPU."""
        return self._device != "cpu" and not {"warping_module", "spade_generator"} & set(self._onnx)

    def renderer(self) -> Renderer:
        """W and G on the CPU or by onnxruntime."""
        return PartsRenderer(self._warping(), self._drawing())

    def for_device(self) -> Forms:
        """W and G, read once."""
        return Forms(self._load(WarpingModule, "warping_module"), self._generator(), self._device)

    def _warping(self) -> Warping:
        if session := self._session("warping_module"):
            return OnnxWarping(session)
        return CpuWarping(self._load(WarpingModule, "warping_module"))

    def _drawing(self) -> Callable[[Tensor], Tensor]:
        if session := self._session("spade_generator"):
            return OnnxGenerator(session)
        return CpuGenerator(self._generator())

    def _generator(self) -> SpadeGenerator:
        return self._load(SpadeGenerator, "spade_generator")

    def _session(self, name: str) -> onnx_sessions.OnnxNetwork | None:
        if name not in self._onnx:
            return None
        session = onnx_sessions.OnnxNetwork(self._onnx[name], self._device)
        if session.note and session.note not in self.notes:
            self.notes.append(session.note)
        return session

    def _load(self, kind: Callable[[], Network], name: str) -> Any:
        with torch.device("meta"):
            network = kind()
        return fill(network.to_empty(device="cpu"), load_state(self._files[name]), name)
