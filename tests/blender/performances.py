# SPDX-License-Identifier: GPL-3.0-or-later
"""Motions for the tests of the keypoint rig."""

from __future__ import annotations

from typing import Any

import numpy as np

from liveportrait_blender import rig_angles
from liveportrait_blender.motion_file import Motion


def motion(n: int = 40, *, fps: tuple[int, int] = (25, 1), seed: int = 1, **fields: Any) -> Motion:
    """A smooth performance of n frames with a blink and a turning head; gaze is missing for a while."""
    random = np.random.default_rng(seed)
    time = np.arange(n)[:, None] / 25
    phases = random.uniform(0, 6, (1, 3))
    turn = 0.3 * np.sin(time * (2.0, 1.5, 1.0) + phases)
    expression = 0.01 * np.sin(time * random.uniform(1, 9, 63) + random.uniform(0, 6, 63))
    gaze = 0.1 * np.sin(time * random.uniform(1, 4, 4)).reshape(n, 2, 2)
    gaze[n // 2 : n // 2 + 3, 0] = np.nan
    arrays = {
        "rotation": rig_angles.matrices(turn),
        "expression": expression.reshape(n, 21, 3),
        "scale": 1.4 + 0.1 * np.sin(time[:, 0]),
        "translation": np.concatenate([0.1 * np.sin(time * (1, 2)), np.zeros((n, 1))], 1),
        "canonical": np.broadcast_to(random.normal(0, 0.3, (21, 3)), (n, 21, 3)),
        "eye_ratio": 0.3 + 0.1 * np.sin(time * (3, 2)),
        "lip_ratio": 0.1 + 0.05 * np.sin(time[:, 0]),
        "gaze": gaze,
    }
    values: dict[str, Any] = {name: np.asarray(array, np.float32) for name, array in arrays.items()}
    values |= {"valid": np.ones(n, bool), "fps_numerator": fps[0], "fps_denominator": fps[1], "start": 0.5}
    return Motion(**{**values, "engine": "mesh", **fields})


def differences(ours: Motion, theirs: Motion) -> dict[str, float]:
    """The largest difference of each measured array; of gaze where both have it."""
    names = ("rotation", "expression", "scale", "translation", "eye_ratio", "lip_ratio", "gaze")
    found = {}
    for name in names:
        first, second = getattr(ours, name), getattr(theirs, name)
        if first is None or second is None:
            assert first is None and second is None, name
            continue
        if name == "gaze":
            np.testing.assert_array_equal(np.isnan(first), np.isnan(second))
        found[name] = float(np.nanmax(np.abs(first - second)))
    return found


def assert_close(ours: Motion, theirs: Motion, tolerance: float = 1e-5) -> None:
    found = differences(ours, theirs)
    assert max(found.values()) < tolerance, found
