# SPDX-License-Identifier: GPL-3.0-or-later
"""The one place that talks to a face model: boxes of faces in a picture, and the mesh of one face in a patch.

Everything else about faces (regions, refinement, tracking, rejection) is geometry in `faces.py`, so another
model, or another release of this one, only has to answer the two questions of `Landmarker`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from backend.errors import EngineError

LANDMARKS = 478  # 468 of the surface and 5 of each iris
PATCH_SIZE = 192  # pixels across; what the mesh network itself sees, so nothing is resampled twice

# What the model's libraries write to the process's standard error every time they start. None of it concerns
# a user and no setting turns it off; lines that are not in this list are passed on.
_CHATTER = re.compile(
    rb"Created TensorFlow Lite XNNPACK delegate"
    rb"|before absl::InitializeLog"
    rb"|inference_feedback_manager\.cc.*single signature"
    rb"|landmark_projection_calculator\.cc.*IMAGE_DIMENSIONS"
    rb"|gl_context(_egl)?\.cc|GL version:"
)
_stderr_lock = threading.Lock()
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Detection:
    """A face that a detector reports.

    box: (x0, y0, x1, y1) in px of the picture searched, forehead to chin.
    eyes: (2, 2) f4 px, the centres of the image-left and the image-right eye.
    score: 0..1.
    """

    box: tuple[float, float, float, float]
    eyes: np.ndarray
    score: float


class Landmarker(Protocol):
    """A face model. One instance serves one thread at a time."""

    def detect(self, rgb: np.ndarray, full_range: bool) -> list[Detection]:
        """Faces in `rgb` (h, w, 3 uint8), near ones (about a sixth of the picture and more) or, with
        `full_range`, also distant ones."""

    def mesh(self, patch: np.ndarray) -> tuple[np.ndarray | None, float]:
        """Landmarks (478, 3) f4 in px of the upright `patch` (192, 192, 3 uint8; z in the same unit, into the
        picture), or None when no face is there; and how sure the model is that there is one, 0..1."""

    def close(self) -> None:
        """Gives the model's memory and threads back."""


class MediaPipeLandmarker:
    """MediaPipe 0.10.21's BlazeFace detectors and its attention mesh.

    The mesh network is run by a graph of its own instead of the FaceMesh solution, which chooses its regions
    itself, keeps them between pictures, and distorts tilted faces in pictures that are not square.

    detection_score: least score of a detection. Raises EngineError when MediaPipe cannot be used here.
    """

    _MESH_GRAPH = """
        input_stream: "image"
        input_stream: "region"
        input_side_packet: "with_attention"
        output_stream: "landmarks"
        node {
          calculator: "FaceLandmarkCpu"
          input_stream: "IMAGE:image"
          input_stream: "ROI:region"
          input_side_packet: "WITH_ATTENTION:with_attention"
          output_stream: "LANDMARKS:landmarks"
        }
    """
    _PRESENCE_STREAM = "facelandmarkcpu__face_presence_score"

    def __init__(self, detection_score: float = 0.3) -> None:
        self._detection_score = detection_score
        self._detectors: dict[bool, Any] = {}
        self._answer: dict[str, Any] = {}
        self._timestamp = 0
        self._lock = threading.Lock()
        try:
            with quiet_stderr():
                self._open_mesh()
                self.mesh(np.zeros((PATCH_SIZE, PATCH_SIZE, 3), np.uint8))
        except (ImportError, OSError, RuntimeError, ValueError) as error:
            raise EngineError(
                "The face model cannot be started.",
                "Reinstall the backend's environment (mediapipe 0.10.21); `doctor` shows what is missing.",
                details=repr(error),
            ) from error

    def _open_mesh(self) -> None:
        import mediapipe
        from mediapipe.framework.formats import rect_pb2
        from mediapipe.python import packet_creator, packet_getter
        from mediapipe.python._framework_bindings import calculator_graph, image_frame, resource_util

        resource_util.set_resource_dir(str(Path(mediapipe.__file__).resolve().parent.parent))
        self._create, self._get = packet_creator, packet_getter
        self._srgb = image_frame.ImageFormat.SRGB
        self._whole = rect_pb2.NormalizedRect(x_center=0.5, y_center=0.5, width=1.0, height=1.0)
        self._graph = calculator_graph.CalculatorGraph(graph_config=self._MESH_GRAPH)
        for stream in ("landmarks", self._PRESENCE_STREAM):
            self._graph.observe_output_stream(stream, self._answer.__setitem__, True)
        self._graph.start_run({"with_attention": packet_creator.create_bool(True)})

    def mesh(self, patch: np.ndarray) -> tuple[np.ndarray | None, float]:
        """See Landmarker.mesh."""
        if patch.shape != (PATCH_SIZE, PATCH_SIZE, 3) or patch.dtype != np.uint8:
            raise ValueError(f"a patch is {PATCH_SIZE} px square, RGB uint8, not {patch.shape} {patch.dtype}")
        with self._lock:
            self._timestamp += 1
            self._answer.clear()
            frame = self._create.create_image_frame(
                image_format=self._srgb, data=np.ascontiguousarray(patch)
            ).at(self._timestamp)
            self._graph.add_packet_to_input_stream("image", frame)
            self._graph.add_packet_to_input_stream(
                "region", self._create.create_proto(self._whole).at(self._timestamp)
            )
            self._graph.wait_until_idle()
            presence = self._answer.get(self._PRESENCE_STREAM)
            packet = self._answer.get("landmarks")
            score = 0.0 if presence is None or presence.is_empty() else self._get.get_float(presence)
            if packet is None or packet.is_empty():
                return None, score
            points = self._get.get_proto(packet).landmark
        flat = np.fromiter((v for p in points for v in (p.x, p.y, p.z)), np.float32, 3 * len(points))
        return flat.reshape(-1, 3) * np.float32(PATCH_SIZE), score

    def detect(self, rgb: np.ndarray, full_range: bool) -> list[Detection]:
        """See Landmarker.detect."""
        height, width = rgb.shape[:2]
        found = self._detector(full_range).process(np.ascontiguousarray(rgb)).detections or []
        detections = []
        for face in found:
            box = face.location_data.relative_bounding_box
            left, right = face.location_data.relative_keypoints[:2]
            detections.append(
                Detection(
                    box=(
                        box.xmin * width,
                        box.ymin * height,
                        (box.xmin + box.width) * width,
                        (box.ymin + box.height) * height,
                    ),
                    eyes=np.array([(p.x * width, p.y * height) for p in (left, right)], np.float32),
                    score=float(face.score[0]),
                )
            )
        return detections

    def _detector(self, full_range: bool) -> Any:
        if full_range not in self._detectors:
            from mediapipe.python.solutions.face_detection import FaceDetection

            with quiet_stderr():
                detector = FaceDetection(
                    model_selection=int(full_range), min_detection_confidence=self._detection_score
                )
                detector.process(np.zeros((PATCH_SIZE, PATCH_SIZE, 3), np.uint8))
            self._detectors[full_range] = detector
        return self._detectors[full_range]

    def close(self) -> None:
        """See Landmarker.close; a closed landmarker cannot be used again."""
        for detector in self._detectors.values():
            detector.close()
        self._detectors.clear()
        self._graph.close()


@contextlib.contextmanager
def quiet_stderr() -> Iterator[None]:
    """Holds back what native code writes to file descriptor 2, then passes on all but known start-up chatter.

    Only the start of a model runs inside: its libraries write with no regard to Python's sys.stderr, and no
    environment variable reaches them. Where there is no descriptor 2 (a windowed process) nothing is done.
    """
    with _stderr_lock:
        try:
            if sys.stderr is not None:
                sys.stderr.flush()
            real = os.dup(2)
        except (OSError, ValueError):
            real = -1
        if real < 0:
            yield
            return
        with tempfile.TemporaryFile() as held:
            os.dup2(held.fileno(), 2)
            try:
                yield
            finally:
                os.dup2(real, 2)
                os.close(real)
                held.seek(0)
                for line in held:
                    if _CHATTER.search(line):
                        log.debug("%s", line.decode(errors="replace").rstrip())
                    else:
                        os.write(2, line)
