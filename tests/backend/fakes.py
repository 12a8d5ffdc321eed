# SPDX-License-Identifier: GPL-3.0-or-later
"""Engines that have learned nothing, so that the pipeline alone is tested."""

from __future__ import annotations

from typing import Any

import numpy as np

from backend.motion import Motion


class FakeEngine:
    """Measures constants; renders flat frames whose level tells how far keypoint 20 moved downwards.

    With `native` it is of the mesh engine's kind (regions at their own size, landmarks needed), without of
    the neural kind (512 px crops, no landmarks).
    """

    name = "fake"
    device = "cpu"
    landmark_count = 478

    def __init__(self, native: bool = True) -> None:
        self.native_resolution = native
        self.wants_landmarks = native
        self.wants_mouths = native
        self.crops: list[tuple[int, ...]] = []
        self.batches: list[int] = []

    def refine(self, picture: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        return landmarks.astype(np.float32)

    def measure(self, crops: np.ndarray, landmarks: np.ndarray | None = None) -> Motion:
        count = len(crops) if landmarks is None else len(landmarks)
        self.crops.append(crops.shape)
        return Motion(
            rotation=np.repeat(np.eye(3)[None], count, axis=0),
            expression=np.zeros((count, 21, 3)),
            scale=np.ones(count),
            translation=np.zeros((count, 3)),
            canonical=np.zeros((1, 21, 3)),
            eye_ratio=np.full((count, 2), 0.3),
            lip_ratio=np.zeros(count),
            engine=self.name,
        )

    def encode(
        self, crop: np.ndarray, landmarks: np.ndarray | None = None, placement: np.ndarray | None = None
    ) -> Any:
        return crop.shape[:2] if self.native_resolution else (512, 512)

    def stitch(self, source: np.ndarray, driving: np.ndarray) -> np.ndarray:
        return driving

    def retarget_eyes(self, source: np.ndarray, ratios: np.ndarray) -> np.ndarray:
        return np.zeros_like(source)

    def retarget_lips(self, source: np.ndarray, ratios: np.ndarray) -> np.ndarray:
        return np.zeros_like(source)

    def mouth_patch(self, picture: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        return np.zeros((48, 64, 3), np.uint8)

    def render(
        self, appearance: Any, source: np.ndarray, driving: np.ndarray, mouths: np.ndarray | None = None
    ) -> np.ndarray:
        self.batches.append(len(driving))
        frames = np.empty((len(driving), *appearance, 3), np.uint8)
        for frame, moved in zip(frames, driving[:, 20, 1] - source[:, 20, 1], strict=True):
            frame[:] = np.uint8(np.clip(128 + 1000 * moved, 0, 255))
        return frames
