# SPDX-License-Identifier: GPL-3.0-or-later
"""Jitter is nought for even movement, is what it should be for noise, and falls with smoothing."""

from __future__ import annotations

import numpy as np
import pytest

from backend.bench.retargeting import keypoint_jitter, pose_jitter
from backend.rotations import rotation_from_euler
from tests.backend.synthetic_motion import make_motion


def test_even_movement_has_no_jitter() -> None:
    n = 30
    even = np.linspace(0, 20, n)
    motion = make_motion(
        n,
        rotation=rotation_from_euler(np.zeros(n), even, np.zeros(n)),
        expression=np.zeros((n, 21, 3)),
        canonical=np.zeros((21, 3)),
        translation=np.stack([even / 100, even / 50, np.zeros(n)], 1),
    )
    assert pose_jitter(motion) < 1e-3
    assert keypoint_jitter(motion) < 1e-3


def test_a_shake_counts_in_degrees_and_falls_with_smoothing() -> None:
    n = 60
    shake = np.where(np.arange(n) % 2, 0.5, -0.5)
    motion = make_motion(n, rotation=rotation_from_euler(shake, np.zeros(n), np.zeros(n)))
    assert pose_jitter(motion) == pytest.approx(2.0, rel=1e-3)
    assert pose_jitter(motion.smooth(1.0)) < 0.1
    assert keypoint_jitter(motion.smooth(1.0)) < 0.5 * keypoint_jitter(motion)
    assert pose_jitter(make_motion(2)) == 0.0
