# SPDX-License-Identifier: GPL-3.0-or-later
"""Lips that rest: what a source says is taken out of its motion, so that it can be silent or say other words.

The released editor silences a clip by giving the neutral expression to the whole face but the eyes, which
shakes the head (its issue 352). Here only the lips' keypoints rest, at this person's own closed mouth.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from backend.expressions import neutral_expression
from backend.motion import Motion
from backend.retargeting_rules import LIP_KEYPOINTS

CLOSED_RATIO = 0.1  # a mouth opened no further than this counts as closed
QUIET_SHARE = 0.2  # of the frames, the most closed ones


class RestingLips(NamedTuple):
    """expression (6,3) of the lips' keypoints and the lip ratio, of a mouth at rest."""

    expression: np.ndarray
    lip_ratio: float


def resting_lips(motion: Motion) -> RestingLips:
    """The mouth of this person at rest: the middle of the frames in which it is most closed, or the neutral
    expression where it never closes.
    """
    lips = list(LIP_KEYPOINTS)
    ratio = np.where(motion.valid, motion.lip_ratio, np.inf)
    quiet = np.argsort(ratio, kind="stable")[: max(1, int(QUIET_SHARE * len(motion)))]
    quiet = quiet[ratio[quiet] <= CLOSED_RATIO]
    if not len(quiet):
        return RestingLips(neutral_expression()[lips], 0.0)
    middle = np.median(motion.expression[quiet][:, lips], axis=0)
    return RestingLips(middle.astype(np.float32), float(np.median(ratio[quiet])))


def silence(motion: Motion, rest: RestingLips | None = None) -> Motion:
    """The motion with its lips at rest in every frame; all else stays. rest: `resting_lips` of the whole."""
    rest = rest or resting_lips(motion)
    expression = motion.expression.copy()
    expression[:, list(LIP_KEYPOINTS)] = rest.expression
    return replace(motion, expression=expression, lip_ratio=np.full(len(motion), rest.lip_ratio, np.float32))
