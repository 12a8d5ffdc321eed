# SPDX-License-Identifier: GPL-3.0-or-later
"""LivePortrait's own 203 landmarks (landmark.onnx), which its crops and its eye and lip ratios go by.

The network looks at a patch round landmarks that are already known, as in the released
src/utils/landmark_runner.py; here those are MediaPipe's mesh.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from backend import cropping
from backend.networks.onnx_sessions import OnnxNetwork

MESH, FINE = 478, 203
BOTH = cropping.MESH_AND_FINE
"""A layout of its own: the mesh, and after it the 203 points with depth 0."""

PATCH, SCALE, SHIFT_Y = 224, 1.5, -0.1  # px across; in face sizes; of the patch's side
_POINTS = 2  # which of the network's outputs: (n,406) in 0..1 of the patch


class FineLandmarks:
    """Not for several threads at once."""

    def __init__(self, path: Path, device: str = "cpu") -> None:
        """path: landmark.onnx. WeightsError for a file that is none."""
        self._network = OnnxNetwork(path, device)
        self.note = self._network.note
        self.find(np.zeros((8, 8, 3), np.uint8), np.indices((MESH, 3)).sum(0).astype(np.float32))

    def find(self, picture: np.ndarray, mesh: np.ndarray) -> np.ndarray:
        """picture (h,w,3) uint8 RGB, mesh (478,3) in its px -> both, (681,3) float32."""
        matrix = cropping.crop_matrix(cropping.crop_rectangle(mesh, SCALE, 0.0, SHIFT_Y), PATCH)
        patch = cropping.crop(picture, matrix, PATCH)
        values = patch.transpose(2, 0, 1)[None].astype(np.float32) / 255
        answers = self._network(values)
        inside = np.asarray(answers[_POINTS][0], np.float64).reshape(FINE, 2) * PATCH
        points = cropping.transform_points(inside, cropping.invert(matrix))
        fine = np.concatenate([points, np.zeros((FINE, 1))], axis=1)
        return np.concatenate([mesh, fine]).astype(np.float32)
