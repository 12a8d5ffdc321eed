# SPDX-License-Identifier: GPL-3.0-or-later
"""The seam: what has learned something sits behind `Engine`; everything else is shared and written once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np

from ..errors import EngineError, WeightsError
from ..models import FoundModels, find
from ..motion import Motion
from ..networks.onnx_files import FOLDER as ONNX_FOLDER
from ..options import Options
from ..paste import PastePlan


class Engine(Protocol):
    """One way to measure motion and to show it. Crop coordinates: [-1,1] across, x right, y down, z into
    the picture.
    """

    name: str
    device: str
    native_resolution: bool
    wants_landmarks: bool
    wants_mouths: bool

    @property
    def landmark_count(self) -> int:
        """How many landmarks `refine` gives."""

    def refine(self, picture: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        """picture (h,w,3) uint8 RGB, MediaPipe's landmarks (478,3) in its pixels -> the landmarks that crops
        and ratios go by, (landmark_count,3) float32: 478, or 681 (fine_landmarks.py).
        """

    def measure(self, crops: np.ndarray, landmarks: np.ndarray | None = None) -> Motion:
        """crops (n,256,256,3) uint8 RGB; landmarks (n,landmark_count,3) in crop
        pixels -> Motion of n frames.
        """

    def encode(
        self, crop: np.ndarray, landmarks: np.ndarray | None = None, placement: np.ndarray | None = None
    ) -> Any:
        """A source, once. With native_resolution: an upright region of the picture at its own resolution,
        landmarks (478,3)
        in its pixels and placement (2,3) from crop coordinates to its pixels; else the 256 crop."""

    def stitch(self, source: np.ndarray, driving: np.ndarray) -> np.ndarray:
        """x_s, x_d (n,21,3) -> x_d whose shoulders meet the source's."""

    def retarget_eyes(self, source: np.ndarray, ratios: np.ndarray) -> np.ndarray:
        """x_s (n,21,3), ratios (n,3): present image-left, image-right, target -> change of the keypoints
        (n,21,3).
        """

    def retarget_lips(self, source: np.ndarray, ratios: np.ndarray) -> np.ndarray:
        """x_s (n,21,3), ratios (n,2): present, target -> change of the keypoints (n,21,3)."""

    def mouth_patch(self, picture: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        """The driver's inner mouth (48,64,3) uint8; only where wants_mouths."""

    def render(
        self, appearance: Any, source: np.ndarray, driving: np.ndarray, mouths: np.ndarray | None = None
    ) -> np.ndarray:
        """x_s (n or 1,21,3), x_d (n,21,3) -> pictures (n,h,w,3) uint8 RGB."""


class PastingEngine(Engine, Protocol):
    """An engine that can paste back where it draws."""

    pastes_back: bool

    def render_pasted(
        self, appearance: Any, source: np.ndarray, driving: np.ndarray, plan: PastePlan
    ) -> np.ndarray:
        """As render, but the plan's region with each picture in it: (n,h,w,3), as the plan's picture is."""


def pasting(engine: Engine) -> PastingEngine | None:
    """The engine, if pasting back where it draws is worth it."""
    return cast(PastingEngine, engine) if getattr(engine, "pastes_back", False) else None


@dataclass(frozen=True)
class Choice:
    engine: Engine
    why: str


def choose(options: Options) -> Choice:
    """The engine for a job and the reason in a sentence. Raises EngineError where the wanted one cannot run
    here, WeightsError where its weights are damaged.
    """
    why = "asked for"
    if options.engine != "mesh":
        found = find(options)
        if isinstance(found, FoundModels):
            from .neural import NeuralEngine

            try:
                folder = found.folder / ONNX_FOLDER
                engine = NeuralEngine(found.files, found.device, runtime=options.runtime, onnx_folder=folder)
                if options.engine == "auto":  # whatever is wrong with it has to show before it is chosen
                    engine.load()
                return Choice(engine, found.why)
            except (EngineError, WeightsError) as error:
                if options.engine == "neural":
                    raise
                reason = f"{error.message.rstrip('.')} ({error.hint})"
        elif options.engine == "neural":
            kind = WeightsError if found.lack == "bad-weights" else EngineError
            raise kind(f"The neural engine cannot run here: {found.why}.", found.advice)
        else:
            reason = f"{found.why}. {found.advice}"
        why = f"the embedded engine, since the neural one cannot run here: {reason}"
    from .mesh import MeshEngine

    return Choice(MeshEngine(), why)
