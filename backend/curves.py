# SPDX-License-Identifier: GPL-3.0-or-later
"""A performance as curves: ARKit's 52 channels and the head's angles, a row a frame.

What CSV and JSON files hold (curve_files), made from a Motion and made into one.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.blendshape_names import CHANNELS, INDEX
from backend.blendshapes import Neutral, channels, motion_of
from backend.motion import Motion
from backend.rotations import euler_from_rotation

#: Radians an eye turns when its eyeLook channel is 1; used for the eye angles that are written.
EYE_TURN = 0.6


@dataclass(frozen=True)
class Curves:
    """values (n,52) float32 in CHANNELS' order, 0 to 1; head (n,3) float32: yaw, pitch, roll in radians as in
    Live Link Face's files; valid (n,) bool: a face was found. Frame k is at start + k / fps seconds.

    Signs of the head: yaw > 0 turns to the subject's left, pitch > 0 looks up, roll > 0 leans to the
    subject's right shoulder.
    """

    values: NDArray[np.float32]
    head: NDArray[np.float32]
    valid: NDArray[np.bool_]
    fps: Fraction
    start: float = 0.0

    def __len__(self) -> int:
        return len(self.values)

    @staticmethod
    def of(motion: Motion, neutral: Neutral = "auto") -> Curves:
        """The curves of a motion; neutral as in blendshapes.channels."""
        pitch, yaw, roll = euler_from_rotation(motion.rotation)
        # LivePortrait's pitch looks down, its yaw turns to the subject's right, its roll leans to the left.
        head = np.radians(-np.stack([yaw, pitch, roll], axis=1)).astype(np.float32)
        return Curves(channels(motion, neutral), head, motion.valid.copy(), motion.fps, motion.start)

    def motion(self) -> Motion:
        """The performance by an average face; frames without a face are interpolated (NoFaceError: all)."""
        fields: dict[str, Any] = {
            "fps_numerator": self.fps.numerator,
            "fps_denominator": self.fps.denominator,
            "start": self.start,
            "valid": self.valid,
        }
        degrees = -np.degrees(self.head[:, [1, 0, 2]].astype(np.float64))
        return motion_of(self.values, degrees, **fields).fill_invalid().validate()

    def eyes(self) -> NDArray[np.float32]:
        """(n,6) yaw, pitch, roll of the left and of the right eye, radians, signs as for the head."""
        columns = []
        for side, outwards in (("Left", 1.0), ("Right", -1.0)):
            look = {
                way: self.values[:, INDEX[f"eyeLook{way}{side}"]] for way in ("In", "Out", "Up", "Down")
            }
            columns += [
                outwards * EYE_TURN * (look["Out"] - look["In"]),
                EYE_TURN * (look["Up"] - look["Down"]),
                np.zeros(len(self), np.float32),
            ]
        return np.stack(columns, axis=1).astype(np.float32)


def no_values(frames: int) -> NDArray[np.float32]:
    """(frames,52) zeros to fill."""
    return np.zeros((frames, len(CHANNELS)), np.float32)
