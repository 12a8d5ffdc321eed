# SPDX-License-Identifier: GPL-3.0-or-later
"""How well the maps meet a clip that they were not fitted on, as the checkout's fitting script finds it."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import numpy as np

from backend.bench.report import Report
from backend.errors import LivePortraitError

GROUP = "maps fitted without the clip"
STEADY_EYES = {"d1": 0.95, "d2": 0.95, "d7": 0.95}  # least correlation of the eye ratio; others OTHER_EYES
OTHER_EYES = 0.88
LIPS, LIPS_MOVE = 0.93, 0.1  # least correlation of the lip ratio where it spans so much; talk opens to .3
EXPLAINED = 0.65  # of delta's variance, on average


def measure(report: Report, data: Path) -> None:
    """Refit without each paired clip in turn. Without the script or the clips it is only noted."""
    fitting = _fitting()
    if fitting is None:
        report.notes.append("The fit is judged on clips left out only in a checkout with its scripts/.")
        return
    try:
        material = fitting.read(data)
    except (OSError, ValueError, LivePortraitError) as error:
        report.notes.append(f"The fit cannot be judged on clips left out here: {error}.")
        return
    rows = fitting.left_out(material, fitting.mirrored_landmarks(material))
    for name, row in rows.items():
        eyes = STEADY_EYES.get(name, OTHER_EYES)
        report.add(GROUP, f"{name}: head angle error", row["head angle error"], "degrees", at_most=2)
        report.add(GROUP, f"{name}: delta, explained variance", row["delta explained"])
        for side in ("left", "right"):
            report.add(GROUP, f"{name}: eye ratio {side}, correlation", row[f"eye {side} r"], at_least=eyes)
        least = LIPS if row["lips move by"] >= LIPS_MOVE else None
        report.add(GROUP, f"{name}: lip ratio, correlation", row["lip r"], at_least=least)
    mean = float(np.mean([row["delta explained"] for row in rows.values()]))
    report.add(GROUP, "mean: delta, explained variance", mean, at_least=EXPLAINED)


def _fitting() -> ModuleType | None:
    try:
        return importlib.import_module("scripts.fit_mesh_engine")
    except ModuleNotFoundError:
        return None
