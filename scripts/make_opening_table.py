# SPDX-License-Identifier: GPL-3.0-or-later
"""Write data/openings.json for backend and add-on: what delta does to eyes, lips and gaze, and the reverse.

The numbers are those of the fitted map in backend/data/mesh_maps.npz (scripts/fit_mesh_engine.py) and of the
mesh engine's retargeting, so that a slider of the keypoint rig opens the eyes as the backend would.

    python -m scripts.make_opening_table
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from backend.engines.mesh import MeshEngine
from backend.engines.mesh_maps import LIVE
from backend.ratios import ratio_change

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = (ROOT / "backend" / "data", ROOT / "liveportrait_blender" / "data")
DIGITS = 7


def terms(delta: np.ndarray) -> list[list[Any]]:
    """(21,3) -> [[keypoint, axis, value]] of what is not zero."""
    found = [(int(k), int(axis), round(float(delta[k, axis]), DIGITS)) for k, axis in np.argwhere(delta)]
    return [list(term) for term in found]


def table() -> dict[str, Any]:
    """What the file holds."""
    engine = MeshEngine()
    # Openings differ by 1, at a size s of 1: what retargeting adds is delta itself.
    eyes, lips = engine._per_eye_ratio, engine._per_lip_ratio
    unit = np.zeros((len(LIVE), 63), np.float32)
    unit[range(len(LIVE)), LIVE] = 1
    answer = ratio_change(unit.reshape(-1, 21, 3))
    columns = np.column_stack([answer.eye_ratio, answer.lip_ratio, answer.gaze.reshape(-1, 4)])
    return {
        "format": "liveportrait-openings/1",
        "about": "scripts/make_opening_table.py. ratio_change: [keypoint, axis, [what one unit of delta adds "
        "to: eye ratio image-left, eye ratio image-right, lip ratio, gaze x and y image-left, gaze x and y "
        "image-right]]. per_eye_ratio (image-left first), per_lip_ratio: [keypoint, axis, what delta changes "
        "for one unit of the ratio].",
        "ratio_change": [
            [int(live) // 3, int(live) % 3, [round(float(v), DIGITS) for v in row]]
            for live, row in zip(LIVE, columns, strict=True)
            if row.any()
        ],
        "per_eye_ratio": [terms(eye) for eye in eyes],
        "per_lip_ratio": terms(lips),
    }


def main() -> None:
    text = json.dumps(table()).replace("]], [", "]],\n  [").replace(', "', ',\n "') + "\n"
    json.loads(text)
    for folder in FOLDERS:
        (folder / "openings.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
