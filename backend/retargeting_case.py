# SPDX-License-Identifier: GPL-3.0-or-later
"""What the parts of retargeting share: a source and a driving in step, and the engine's answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from backend.motion import Motion
from backend.options import Options
from backend.retargeting_rules import Rules


class Retargeter(Protocol):
    """The part of an engine that retargeting needs. Keypoints are (n, 21, 3) float32 in crop coordinates.

    Ratios are (n, 3) [image-left, image-right, target] for the eyes, (n, 2) [source, target] for the lips.
    The returned deltas are added to keypoints, so they are in crop coordinates too (not divided by the
    scale).
    """

    def stitch(self, source: np.ndarray, driving: np.ndarray) -> np.ndarray: ...

    def retarget_eyes(self, source: np.ndarray, ratios: np.ndarray) -> np.ndarray: ...

    def retarget_lips(self, source: np.ndarray, ratios: np.ndarray) -> np.ndarray: ...


@dataclass(frozen=True)
class Case:
    """What the rules depend on. Of the driving only the frames in use are left; the reference is one frame.

    source: as the picture or clip shows it. base: what motion is added to, which is the source unless it is
    smoothed or silenced.
    """

    source: Motion
    base: Motion
    driving: Motion
    reference: Motion
    frames: int
    clip_source: bool
    clip_driving: bool
    options: Options
    rules: Rules

    @property
    def moves_pose(self) -> bool:
        return self.options.region in ("all", "pose")


def repeat(values: np.ndarray, frames: int) -> np.ndarray:
    """values with one row repeated to `frames` rows (a copy), others as they are."""
    return np.repeat(values, frames, axis=0) if len(values) == 1 and frames != 1 else values
