# SPDX-License-Identifier: GPL-3.0-or-later
"""LivePortrait's own networks behind the seam: the released weights, on a GPU or, slowly, on a CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from backend.errors import EngineError, WeightsError
from backend.fine_landmarks import BOTH, MESH, FineLandmarks
from backend.motion import Motion
from backend.networks.graphs import GraphedRenderer
from backend.networks.loading import Networks, Runtime
from backend.networks.motion import degrees
from backend.networks.pasting import DevicePaster
from backend.networks.renderers import Renderer, to_levels, to_pictures, tune
from backend.networks.self_test import candidates, check_against_cpu, choose_form
from backend.networks.transfers import Homeward, to_device
from backend.paste import PastePlan
from backend.ratios import eye_ratio, lip_ratio
from backend.rotations import rotation_from_euler
from backend.templates import estimate_ratios

from .mesh_maps import MeshMaps
from .mesh_mouth import mouth_patch

CROP = 256
BATCHES = {"cuda": 8, "mps": 2, "cpu": 1}  # frames drawn together
MEASURED_TOGETHER = 16


class OutOfMemory(EngineError):
    """The device's memory is too small for what was asked of it at once."""


def is_out_of_memory(error: Exception) -> bool:
    """Whether PyTorch says that: CUDA by its own exception, the CPU and the Mac's GPU in words."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    said = str(error)
    return "can't allocate memory" in said or "out of memory" in said


def out_of_memory(device: str) -> OutOfMemory:
    """The error for it, with what to do."""
    other = "--engine mesh" if device == "cpu" else "--device cpu or --engine mesh"
    return OutOfMemory(
        f"The memory of the {device} device is too small for the neural engine.",
        f"Close other programs that use it, or choose {other}.",
    )


@contextmanager
def fault_on(device: str) -> Iterator[None]:
    """Make one clear EngineError of what a GPU's driver or PyTorch reports: OutOfMemory, or what it says."""
    try:
        yield
    except (RuntimeError, AssertionError) as error:  # the latter from a PyTorch that was built without CUDA
        if is_out_of_memory(error):
            raise out_of_memory(device) from error
        if device == "cpu":
            raise
        reason = str(error).strip().partition("\n")[0]
        raise EngineError(
            f"The {device} device failed: {reason}", "Update its driver, or choose --device cpu."
        ) from error


def known_crop() -> np.ndarray:
    """A picture (256,256,3) uint8 with something in it everywhere, which a form of drawing is tested with."""
    y, x = np.mgrid[:CROP, :CROP]
    waves = [127 + 100 * np.sin(x / (9 + i) + y / (13 - i)) for i in range(3)]
    return np.stack(waves, axis=-1).astype(np.uint8)


@dataclass
class NeuralAppearance:
    """A source: its feature volume (1,32,16,64,64), and what the renderer made of it for one x_s, whose bytes
    `source` holds.
    """

    volume: Tensor
    source: bytes = b""
    state: Any = None


class NeuralEngine:
    """The seam of DESIGN.md section 3; see each method. Not for several threads at once.

    Networks are read when they are first needed: capturing needs only M.
    """

    name = "neural"
    native_resolution = False
    wants_landmarks = False
    wants_mouths = False

    def __init__(
        self,
        files: Mapping[str, Path],
        device: str = "cpu",
        *,
        runtime: Runtime = "torch",
        onnx_folder: Path | None = None,
    ) -> None:
        """files: the weights by the names of the catalogue; device: "cuda", "mps" or "cpu".

        runtime, onnx_folder: see loading.Networks. WeightsError for weights that cannot be used.
        """
        self.device = device
        self.precision = "float32"  # of drawing, which on a GPU is known after `load` or the first picture
        self._batch = BATCHES[device]
        self._notes: list[str] = []
        self._landmark_file = files.get("landmark")
        self._paster: tuple[PastePlan, DevicePaster] | None = None
        tune(device)
        with fault_on(device):
            self._networks = Networks(files, device, runtime, onnx_folder)
            self._mlps = self._networks.small

    @property
    def note(self) -> str:
        """What the user should know about how this engine runs."""
        return "; ".join(dict.fromkeys([*self._notes, *self._networks.notes]))

    @property
    def pastes_back(self) -> bool:
        """See PastingEngine."""
        return self._networks.draws_on_device

    @cached_property
    def _renderer(self) -> Renderer:
        if not self._networks.draws_on_device:
            return self._networks.renderer()
        crop = known_crop()
        keypoints = self._on_device(self.measure(crop[None]).keypoints())
        forms = self._networks.for_device()
        with torch.inference_mode():
            volume = self.encode(crop).volume
            record = GraphedRenderer if self.device == "cuda" else None
            form = choose_form(forms, candidates(self.device), volume, keypoints, record)
            if self.device == "mps":
                check_against_cpu(forms, form.renderer, volume, keypoints)
        self.precision = form.precision
        self._notes.extend(form.notes)
        return form.renderer

    def load(self) -> None:
        """Read all networks now and try them on the device. EngineError, WeightsError."""
        with fault_on(self.device):
            _ = self._networks.motion, self._networks.appearance, self._renderer

    @property
    def landmark_count(self) -> int:
        """478, or with landmark.onnx 681."""
        return MESH if self._fine is None else BOTH

    def refine(self, picture: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        """See Engine.refine: LivePortrait's own 203 points too where its landmark.onnx is here."""
        if self._fine is None:
            return landmarks.astype(np.float32)
        return self._fine.find(picture, landmarks)

    @cached_property
    def _fine(self) -> FineLandmarks | None:
        """None without the file, or where it cannot be run, which `note` then tells."""
        if self._landmark_file is None:
            return None
        try:
            found = FineLandmarks(self._landmark_file, self.device)
        except (EngineError, WeightsError) as error:
            self._notes.append(f"MediaPipe's landmarks serve for the crops: {error.message}")
            return None
        if found.note:
            self._notes.append(found.note)
        return found

    def measure(self, crops: np.ndarray, landmarks: np.ndarray | None = None) -> Motion:
        """crops (n,256,256,3) uint8 -> Motion of n frames at 25/s.

        The ratios and the gaze come from landmarks (n,478 or 681,3) in crop pixels; without them the ratios
        are estimated from the expression.
        """
        starts = range(0, len(crops), MEASURED_TOGETHER)
        heads = [self._heads(crops[k : k + MEASURED_TOGETHER]) for k in starts]
        found = {name: np.concatenate([head[name] for head in heads]) for name in heads[0]}
        expression = found["exp"].reshape(-1, 21, 3)
        translation = found["t"].copy()
        translation[:, 2] = 0.0
        gaze = None
        if landmarks is None:
            eyes, lips = estimate_ratios(expression)
        else:
            seen = MeshMaps.load().measure(np.asarray(landmarks)[:, :MESH])
            eyes, lips, gaze = seen.eye_ratio, seen.lip_ratio, seen.gaze
            if landmarks.shape[1] == BOTH:
                fine = landmarks[:, MESH:, :2].astype(np.float64)
                eyes, lips = eye_ratio(fine).astype(np.float32), lip_ratio(fine).astype(np.float32)
        return Motion(
            rotation=rotation_from_euler(found["pitch"], found["yaw"], found["roll"]),
            expression=expression,
            scale=found["scale"][:, 0],
            translation=translation,
            canonical=found["kp"].reshape(-1, 21, 3),
            eye_ratio=eyes,
            lip_ratio=lips,
            gaze=gaze,
            engine=self.name,
            ratios_estimated=landmarks is None,
        )

    def _heads(self, crops: np.ndarray) -> dict[str, np.ndarray]:
        """M's answers, the angles in degrees."""
        with torch.inference_mode(), fault_on(self.device):
            heads = self._networks.motion(to_pictures(self._on_device(crops)))
            heads.update({angle: degrees(heads[angle]) for angle in ("pitch", "yaw", "roll")})
            return {name: value.cpu().numpy() for name, value in heads.items()}

    def encode(
        self, crop: np.ndarray, landmarks: np.ndarray | None = None, placement: np.ndarray | None = None
    ) -> NeuralAppearance:
        """A source's crop (256,256,3) uint8, once."""
        with torch.inference_mode(), fault_on(self.device):
            return NeuralAppearance(self._networks.appearance(to_pictures(self._on_device(crop[None]))))

    def stitch(self, source: np.ndarray, driving: np.ndarray) -> np.ndarray:
        """x_s, x_d (n,21,3) -> x_d whose shoulders meet the source's."""
        with fault_on(self.device):
            return self._mlps.stitch(source, driving)

    def retarget_eyes(self, source: np.ndarray, ratios: np.ndarray) -> np.ndarray:
        """x_s (n,21,3), ratios (n,3): present image-left, image-right, target -> change (n,21,3)."""
        with fault_on(self.device):
            return self._mlps.retarget_eyes(source, ratios)

    def retarget_lips(self, source: np.ndarray, ratios: np.ndarray) -> np.ndarray:
        """x_s (n,21,3), ratios (n,2): present, target -> change (n,21,3)."""
        with fault_on(self.device):
            return self._mlps.retarget_lips(source, ratios)

    def mouth_patch(self, picture: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        """The driver's inner mouth (48,64,3) uint8, which only the mesh engine shows."""
        return mouth_patch(picture, landmarks)

    def render(
        self,
        appearance: NeuralAppearance,
        source: np.ndarray,
        driving: np.ndarray,
        mouths: np.ndarray | None = None,
    ) -> np.ndarray:
        """x_s (n or 1,21,3), x_d (n,21,3) -> pictures (n,512,512,3) uint8 RGB.

        A batch that the device's memory is too small for is halved. OutOfMemory when a single frame does not
        fit, EngineError for other faults of the device.
        """
        return self._batches(appearance, source, driving, lambda levels: levels)

    def render_pasted(
        self, appearance: NeuralAppearance, source: np.ndarray, driving: np.ndarray, plan: PastePlan
    ) -> np.ndarray:
        """See PastingEngine, and render for faults."""

        def paste(levels: Tensor) -> Tensor:
            if self._paster is None or self._paster[0] is not plan:
                self._paster = plan, DevicePaster(plan, levels.shape[1], self.device)
            return self._paster[1](levels)

        return self._batches(appearance, source, driving, paste)

    def _batches(
        self,
        appearance: NeuralAppearance,
        source: np.ndarray,
        driving: np.ndarray,
        finish: Callable[[Tensor], Tensor],
    ) -> np.ndarray:
        """Draw all, a batch at a time, `finish` each on the device and bring it back beside the next one's
        drawing.
        """
        source = np.broadcast_to(np.asarray(source, np.float32), np.shape(driving))
        at = 0
        with torch.inference_mode(), fault_on(self.device):
            frames = Homeward(len(driving))
            while at < len(driving):
                alike = (source[at : at + self._batch] == source[at]).all(axis=(1, 2))
                stop = at + (int(alike.argmin()) if not alike.all() else len(alike))
                try:
                    with fault_on(self.device):
                        frames.send(finish(self._draw(appearance, source[at], driving[at:stop])), at)
                    at = stop
                except OutOfMemory:
                    if stop - at == 1:
                        raise
                    self._batch = (stop - at) // 2
                    self._free_cache()
            return frames.items()

    def _draw(self, appearance: NeuralAppearance, source: np.ndarray, driving: np.ndarray) -> Tensor:
        """x_s (21,3), x_d (b,21,3) -> (b,512,512,3) uint8 on the device."""
        key = source.tobytes()
        if appearance.source != key:
            appearance.state = self._renderer.prepare(appearance.volume, self._on_device(source[None]))
            appearance.source = key
        return to_levels(self._renderer.draw(appearance.state, self._on_device(driving)))

    def _free_cache(self) -> None:
        """Give back memory that PyTorch keeps for later."""
        if self.device == "cuda":
            torch.cuda.empty_cache()
        elif self.device == "mps":
            torch.mps.empty_cache()

    def _on_device(self, array: np.ndarray) -> Tensor:
        return to_device(array, self.device)
