# SPDX-License-Identifier: GPL-3.0-or-later
"""Run by the backend's Python: what the backend makes of a performance and of expression controls.

    python -m tests.blender.backend_numbers QUESTION.npz ANSWER.npz

The question holds the arrays of a motion and "control NAME" (n,) for each control; openings to reach are
added along the mesh engine's own direction, from the rests "eyes_rest" and "lips_rest".
"""

from __future__ import annotations

import sys

import numpy as np

from backend.engines.mesh import MeshEngine
from backend.expressions import apply_controls
from backend.ratios import ratio_change


def main(question: str, answer: str) -> None:
    with np.load(question, allow_pickle=False) as file:
        given = {name: file[name] for name in file.files}
    values = {name.split()[1]: value for name, value in given.items() if name.startswith("control ")}
    edited = apply_controls(
        given["expression"], given["rotation"], given["scale"], given["translation"], values
    )
    engine, n = MeshEngine(), len(given["scale"])
    expression = edited.expression
    # Retargeting works on keypoints of a source; at its scale of 1 what it adds is delta.
    source = np.broadcast_to(given["canonical"][:1], (n, 21, 3)).astype(np.float32)
    unit = float(engine._scale(source[:1]).squeeze())
    for name, rest, retarget in (
        ("eyes_open", [given["eyes_rest"]] * 2, engine.retarget_eyes),
        ("lips_open_target", [given["lips_rest"]], engine.retarget_lips),
    ):
        if name in values:
            ratios = np.column_stack([*(np.full(n, one) for one in rest), values[name]])
            expression = expression + retarget(source, ratios) / unit
    change = ratio_change(expression - given["expression"])
    np.savez(
        answer,
        expression=expression,
        rotation=edited.rotation,
        scale=edited.scale,
        translation=edited.translation,
        eye_ratio=np.maximum(given["eye_ratio"] + change.eye_ratio, 0),
        lip_ratio=np.maximum(given["lip_ratio"] + change.lip_ratio, 0),
        gaze=given["gaze"] + change.gaze,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
