# SPDX-License-Identifier: GPL-3.0-or-later
"""Made-up motions and templates for the tests of several rooms."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.testing import assert_array_equal

from backend.motion import FRAME_SHAPES, Motion
from backend.rotations import rotation_from_euler


def make_motion(n: int = 5, **fields: Any) -> Motion:
    rng = np.random.default_rng(n)
    values: dict[str, Any] = {
        "rotation": rotation_from_euler(*rng.normal(0, 10, (3, n))),
        "expression": rng.normal(0, 0.01, (n, 21, 3)),
        "scale": 1.3 + 0.05 * rng.random(n),
        "translation": rng.normal(0, 0.05, (n, 3)) * [1, 1, 0],
        "canonical": rng.normal(0, 0.3, (n, 21, 3)),
        "eye_ratio": rng.random((n, 2)) * 0.4,
        "lip_ratio": rng.random(n) * 0.3,
        "gaze": rng.normal(0, 0.05, (n, 2, 2)),
        "mouth": rng.integers(0, 256, (n, 48, 64, 3), dtype=np.uint8),
        "valid": rng.random(n) > 0.3,
        "fps_numerator": 30000,
        "fps_denominator": 1001,
        "start": 1.25,
        "engine": "mesh",
    }
    return Motion(**{**values, **fields})


def assert_same(first: Motion, second: Motion) -> None:
    for name in FRAME_SHAPES:
        assert_array_equal(getattr(first, name), getattr(second, name), err_msg=name)
    for name in ("fps", "start", "engine", "format", "ratios_estimated"):
        assert getattr(first, name) == getattr(second, name), name


def template(n: int = 3, **changes: Any) -> dict[str, Any]:
    """A template of the older generation, as the released program wrote them."""
    rng = np.random.default_rng(n)
    rotations = rotation_from_euler(*rng.normal(0, 10, (3, n))).astype(np.float32)
    frames = [
        {
            "scale": np.full((1, 1), 1.4, np.float32),
            "R_d": rotations[i][None],
            "exp": rng.normal(0, 0.01, (1, 21, 3)).astype(np.float32),
            "t": np.zeros((1, 3), np.float32),
        }
        for i in range(n)
    ]
    return {"n_frames": n, "output_fps": 25, "motion": frames, **changes}


def dump(tmp_path: Path, content: Any, protocol: int = 4) -> Path:
    path = tmp_path / "template.pkl"
    path.write_bytes(pickle.dumps(content, protocol))
    return path
