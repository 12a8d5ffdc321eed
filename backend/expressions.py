# SPDX-License-Identifier: GPL-3.0-or-later
"""Expression controls: named sliders that move the implicit keypoints by the published numbers.

Everything about a control (range, unit, terms) stands in data/expression_controls.json and nowhere else.
Values may be numbers or one number a frame: a still, a library motion and an animated slider are the same
thing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from backend.errors import InputError
from backend.rotations import euler_from_rotation, rotation_from_euler

TABLE = Path(__file__).parent / "data" / "expression_controls.json"
NEUTRAL = Path(__file__).parent / "data" / "neutral_expression.json"
AXES = {"x": 0, "y": 1, "z": 2}
ANGLES = ("pitch", "yaw", "roll")

Values = Mapping[str, Any]
"""Control name -> a number, or an array (n,) with a number a frame; None means "as it is"."""


@dataclass(frozen=True)
class Term:
    """One effect of a control of value v.

    target "expression": expression[keypoint, axis] += coefficient * v where `when` ("v>0", "v<=0", "")
    holds; "rotation": angle (degrees) += coefficient * v; "scale": scale *= v; "ratio": the opening of `of`
    to reach. `head`: the keypoint is moved so that the head moves, see apply_controls.
    """

    target: str
    keypoint: int = -1
    axis: str = ""
    coefficient: float = 1.0
    when: str = ""
    angle: str = ""
    of: str = ""
    head: bool = False


@dataclass(frozen=True)
class Control:
    """A control as published: range and step in `unit`; default None means that nothing is asked for."""

    name: str
    label: str
    minimum: float
    maximum: float
    step: float
    default: float | None
    unit: str
    published: str
    terms: tuple[Term, ...]
    note: str = ""

    @property
    def flag(self) -> str:
        """The control's option on the command line."""
        return "--" + self.name.replace("_", "-")


class Edited(NamedTuple):
    """What apply_controls returns; n frames, float32."""

    expression: np.ndarray
    rotation: np.ndarray
    scale: np.ndarray
    translation: np.ndarray


@lru_cache(maxsize=1)
def controls() -> tuple[Control, ...]:
    """All controls in the order of the table."""
    table = json.loads(TABLE.read_text(encoding="utf-8"))
    return tuple(
        Control(**{**row, "terms": tuple(Term(**term) for term in row["terms"])}) for row in table["controls"]
    )


@lru_cache(maxsize=1)
def neutral_expression() -> np.ndarray:
    """The released neutral expression with closed lips, (21, 3) float32, read-only."""
    values = np.array(json.loads(NEUTRAL.read_text(encoding="utf-8"))["expression"], dtype=np.float32)
    values.setflags(write=False)
    return values


def check_controls(values: Values) -> dict[str, np.ndarray]:
    """Name -> float64 array, () or (n,), without the controls that ask for nothing (None or their default).

    Raises InputError for an unknown name, something that is not a finite number, or one outside the published
    range (which the message names).
    """
    known = {control.name: control for control in controls()}
    checked = {}
    for name, given in values.items():
        control = known.get(name)
        if control is None:
            raise InputError(f"There is no expression control {name!r}.", f"Known: {', '.join(known)}.")
        if given is None:
            continue
        allowed = f"{control.minimum:g} to {control.maximum:g}" + (f" {control.unit}" if control.unit else "")
        try:
            array = np.asarray(given, dtype=np.float64)
        except (TypeError, ValueError):
            raise InputError(f"{control.flag} needs a number, not {given!r}.", f"Use {allowed}.") from None
        if array.ndim > 1 or array.size == 0:
            raise InputError(f"{control.flag} needs one number, or one a frame.", f"Use {allowed}.")
        if not np.isfinite(array).all():
            raise InputError(f"{control.flag} is not a finite number.", f"Use {allowed}.")
        rounding = 1e-6 * (control.maximum - control.minimum)  # float32 curves land a hair outside
        outside = (array < control.minimum - rounding) | (array > control.maximum + rounding)
        if outside.any():
            worst = float(np.atleast_1d(array)[np.atleast_1d(outside)][0])
            raise InputError(f"{control.flag} {worst:g} is outside its range.", f"Use {allowed}.")
        if control.default is None or np.any(array != control.default):
            checked[name] = array
    return checked


def ratio_targets(values: Values) -> dict[str, np.ndarray]:
    """The openings that the controls ask for: "eyes" and "lips" -> array () or (n,), only those asked for.

    Only an engine can reach them (its retargeting maps), so retargeting.py does that.
    """
    checked = check_controls(values)
    targets = {}
    for control in controls():
        for term in control.terms:
            if term.target == "ratio" and control.name in checked:
                targets[term.of] = checked[control.name]
    return targets


def apply_controls(
    expression: np.ndarray,
    rotation: np.ndarray,
    scale: np.ndarray,
    translation: np.ndarray,
    values: Values,
    *,
    move_head: bool = True,
) -> Edited:
    """Add the controls to a performance; the inputs stay as they are.

    expression (n, 21, 3), rotation (n, 3, 3) row convention, scale (n,), translation (n, 3); n = 1 goes with
    values of any length, and one value with any n. Angles are added to (pitch, yaw, roll) in degrees and R is
    rebuilt from them, as published.

    move_head: terms marked `head` translate all keypoints by -scale * coefficient * v; as published they move
    theirs alone. That is keypoint 5, in the neck, which stays behind where real heads move: over 11 motions
    that the released program measured, its delta changes by -0.15 (across) and -0.44 (down) for each unit
    of t. So the head goes the other way, right and up for positive values, by as much.

    InputError as from check_controls, and for lengths that do not fit.
    """
    checked = check_controls(values)
    frames = _frames(len(expression), checked)
    edited = np.array(np.broadcast_to(expression, (frames, 21, 3)), dtype=np.float32)
    matrices = np.array(np.broadcast_to(rotation, (frames, 3, 3)), dtype=np.float32)
    sizes = np.array(np.broadcast_to(scale, (frames,)), dtype=np.float32)
    turned = {angle: np.zeros(frames) for angle in ANGLES}
    shift = np.zeros((frames, 3))
    for control in controls():
        if control.name not in checked:
            continue
        value = np.broadcast_to(checked[control.name], (frames,))
        for term in control.terms:
            if term.head and move_head:
                shift[:, AXES[term.axis]] -= term.coefficient * value
            elif term.target == "expression":
                edited[:, term.keypoint, AXES[term.axis]] += (
                    term.coefficient * _where(value, term.when)
                ).astype(np.float32)
            elif term.target == "rotation":
                turned[term.angle] += term.coefficient * value
            elif term.target == "scale":
                sizes *= value.astype(np.float32)
    if any(np.any(angle) for angle in turned.values()):
        angles = euler_from_rotation(matrices)
        changed = (angle + turned[name] for angle, name in zip(angles, ANGLES, strict=True))
        matrices = np.asarray(rotation_from_euler(*changed), dtype=np.float32)
    moved = np.array(np.broadcast_to(translation, (frames, 3)), dtype=np.float32)
    moved += sizes[:, None] * shift.astype(np.float32)
    return Edited(edited, matrices, sizes, moved)


def _where(value: np.ndarray, when: str) -> np.ndarray:
    if when == "v>0":
        return np.maximum(value, 0.0)
    if when == "v<=0":
        return np.minimum(value, 0.0)
    return value


def _frames(length: int, checked: Mapping[str, np.ndarray]) -> int:
    frames = length
    for name, value in checked.items():
        count = value.size if value.ndim else 1
        if count == 1 or count == frames:
            continue
        if frames != 1:
            raise InputError(
                f"The control {name} has {count} values for {frames} frames.",
                "Give one value, or one a frame.",
            )
        frames = count
    return frames
