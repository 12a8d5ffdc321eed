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


def without_effect(case: Case) -> list[str]:
    """A line for each option that does nothing here, and what it gives way to."""
    options, rules = case.options, case.rules
    retargets = options.eye_retargeting or options.lip_retargeting
    still = not case.clip_source
    checks = [
        (options.normalize_lips and not options.relative, "normalize-lips: absolute motion has its own lips"),
        (
            options.normalize_lips and options.lip_retargeting,
            "normalize-lips: lip-retargeting says how far the lips open",
        ),
        (
            options.normalize_lips and options.eye_retargeting and not rules.lips_normalized_beside_eyes,
            "normalize-lips: eye-retargeting switches it off in upstream compatibility",
        ),
        (options.steady_source_eyes and still, "steady-source-eyes: the source is a picture"),
        (
            options.steady_source_eyes and case.clip_source and retargets,
            "steady-source-eyes: eye-retargeting and lip-retargeting go before it",
        ),
        (options.source_smoothing != "off" and still, "source-smoothing: the source is a picture"),
        (options.lock_scale and not options.relative, "lock-scale: absolute motion keeps the source's size"),
        (
            retargets and options.relative and not rules.retargeting_keeps_motion,
            "the driving motion: upstream compatibility drops it for eye-retargeting and lip-retargeting",
        ),
    ]
    return [f"without effect: {line}" for applies, line in checks if applies]


def repeat(values: np.ndarray, frames: int) -> np.ndarray:
    """values with one row repeated to `frames` rows (a copy), others as they are."""
    return np.repeat(values, frames, axis=0) if len(values) == 1 and frames != 1 else values
