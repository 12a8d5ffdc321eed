# SPDX-License-Identifier: GPL-3.0-or-later
"""The expression controls as the keypoint rig has them: what each adds to bones, head and ratios.

Numbers come from data/expression_controls.json and data/openings.json. Imports no bpy.

Two controls name an opening to reach ("eyes_open", "lips_open_target"). In the rig they start at the neutral
frame's opening, which changes nothing, and what they differ from it is added, along the direction in which
the backend's retargeting moves the lids and the lips.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache

from .paths import data_file
from .rig_layout import DECODED

AXES = {"x": 0, "y": 1, "z": 2}
ANGLES = ("pitch", "yaw", "roll")
RESTS = {"eyes": "eyes_rest", "lips": "lips_rest"}  # properties: the openings that change nothing

Delta = dict[tuple[int, int], float]
"""(keypoint, axis) -> how much delta changes."""


@dataclass(frozen=True)
class Control:
    """A control of the rig.

    reach: at +reach and -reach (from `rest`) its Action has its outer keys. up, down: what a value of +1 and
    of -1 adds to delta. head: "pitch", "yaw", "roll", "zoom", "x", "y" or "", what it does to the head, per
    unit `factor`. rest: the property that holds the value without effect, or "" for `default`.
    """

    name: str
    label: str
    minimum: float
    maximum: float
    default: float
    description: str
    up: Delta = field(default_factory=dict)
    down: Delta = field(default_factory=dict)
    head: str = ""
    factor: float = 1.0
    rest: str = ""

    @property
    def reach(self) -> float:
        return max(abs(self.minimum), abs(self.maximum))

    def keypoints(self) -> list[int]:
        """The keypoints that it moves, ascending."""
        return sorted({keypoint for keypoint, _ in (*self.up, *self.down)})

    def ratio_slopes(self) -> dict[str, tuple[float, float]]:
        """Channel -> what one unit above and one unit below rest adds to it."""
        slopes = {}
        for column, channel in enumerate(DECODED):
            up = sum(value * _answer(place)[column] for place, value in self.up.items())
            down = -sum(value * _answer(place)[column] for place, value in self.down.items())
            if abs(up) * self.reach > 1e-6 or abs(down) * self.reach > 1e-6:
                slopes[channel] = (up, down)
        return slopes


@lru_cache(maxsize=1)
def _openings() -> dict:
    return json.loads(data_file("openings.json").read_text(encoding="utf-8"))


@lru_cache(maxsize=1)
def _answers() -> dict[tuple[int, int], list[float]]:
    return {(keypoint, axis): row for keypoint, axis, row in _openings()["ratio_change"]}


def _answer(place: tuple[int, int]) -> list[float]:
    return _answers().get(place, [0.0] * len(DECODED))


@lru_cache(maxsize=1)
def controls() -> tuple[Control, ...]:
    """All controls, in the order of the table."""
    table = json.loads(data_file("expression_controls.json").read_text(encoding="utf-8"))
    return tuple(_control(row) for row in table["controls"])


def _control(row: dict) -> Control:
    about = row.get("note") or f"{row['label']}, from {row['minimum']:g} to {row['maximum']:g}"
    up: Delta = {}
    down: Delta = {}
    head, factor, rest = "", 1.0, ""
    for term in row["terms"]:
        if term.get("head"):
            # The head goes the other way than the keypoint in the neck would, as in the backend.
            head, factor = term["axis"], -term["coefficient"]
        elif term["target"] == "expression":
            place = (term["keypoint"], AXES[term["axis"]])
            when = term.get("when", "")
            if when != "v<=0":
                up[place] = up.get(place, 0.0) + term["coefficient"]
            if when != "v>0":
                down[place] = down.get(place, 0.0) - term["coefficient"]
        elif term["target"] == "rotation":
            head, factor = term["angle"], term["coefficient"]
        elif term["target"] == "scale":
            head = "zoom"
        else:
            rest = RESTS[term["of"]]
            up = dict(_direction(term["of"]))
            down = {place: -value for place, value in up.items()}
    return Control(
        name=row["name"],
        label=row["label"],
        minimum=row["minimum"],
        maximum=row["maximum"],
        default=0.0 if row["default"] is None else float(row["default"]),
        description=about.rstrip("."),
        up=up,
        down=down,
        head=head,
        factor=factor,
        rest=rest,
    )


def _direction(of: str) -> Iterator[tuple[tuple[int, int], float]]:
    """What delta changes for one unit of the opening of both eyes, or of the lips."""
    table = _openings()
    rows = table["per_lip_ratio"] if of == "lips" else sum(table["per_eye_ratio"], [])
    for keypoint, axis, value in rows:
        yield (keypoint, axis), value
