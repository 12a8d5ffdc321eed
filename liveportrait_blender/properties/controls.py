# SPDX-License-Identifier: GPL-3.0-or-later
"""The expression controls as properties that can be keyed, made from data/expression_controls.json."""

import json
import math
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

import bpy
from bpy.types import PropertyGroup

from ..paths import data_file

DEGREES = "degrees"
SMALL_WORDS = {"and", "to"}
# Where the table's own label is too long for the sidebar.
SHORT = {
    "lips_open": "Part Lips",
    "gaze_x": "Gaze X",
    "gaze_y": "Gaze Y",
    "move_x": "Move X",
    "move_y": "Move Y",
    "blink_left": "Blink Left",
    "blink_right": "Blink Right",
}
# How a face is edited, not how the table is sorted.
GROUPS = (
    ("Mouth", ("smile", "grin", "pout", "purse", "lips_open", "lips_open_target")),
    (
        "Eyes and Brows",
        ("brow", "blink", "blink_left", "blink_right", "wink", "eyes_open", "gaze_x", "gaze_y"),
    ),
    ("Head", ("pitch", "yaw", "roll", "move_x", "move_y", "zoom")),
)

_revision = 0


@cache
def rows() -> dict[str, dict[str, Any]]:
    """The controls by name."""
    content = json.loads(data_file("expression_controls.json").read_text(encoding="utf-8"))
    return {row["name"]: row for row in content["controls"]}


def switch(row: Mapping[str, Any]) -> str:
    """The name of the property that turns a control on which by default asks for nothing, or ""."""
    return f"use_{row['name']}" if row["default"] is None else ""


def as_controls(settings: Any) -> dict[str, float]:
    """The protocol's `controls`, in published units (angles in degrees): what is not at rest."""
    found: dict[str, float] = {}
    for name, row in rows().items():
        if switch(row) and not getattr(settings, switch(row)):
            continue
        value = getattr(settings, name)
        if row["unit"] == DEGREES:
            value = math.degrees(value)
        # A float property cannot hold every end of a range exactly.
        value = min(max(float(f"{value:.6g}"), row["minimum"]), row["maximum"])
        if value != row["default"]:
            found[name] = value
    return found


def set_controls(settings: Any, controls: Mapping[str, float]) -> None:
    """Set all from the protocol's `controls`; what is not among them comes to rest."""
    for name, row in rows().items():
        value = controls.get(name, row["default"])
        if switch(row):
            setattr(settings, switch(row), value is not None)
        if value is None:
            settings.property_unset(name)
        else:
            setattr(settings, name, math.radians(value) if row["unit"] == DEGREES else value)


def as_control_curves(each: Iterable[Mapping[str, float]]) -> dict[str, list[float]]:
    """One list a control, a number a frame, out of one `as_controls()` a frame. A control that only some
    frames ask for is at rest in the others, at its smallest value if it has no rest.
    """
    frames = list(each)
    curves: dict[str, list[float]] = {}
    for name in dict.fromkeys(name for frame in frames for name in frame):
        row = rows()[name]
        rest = row["minimum"] if row["default"] is None else row["default"]
        curves[name] = [frame.get(name, rest) for frame in frames]
    return curves


def revision() -> int:
    """A number that grows whenever a control is moved; what is drawn from the controls compares it."""
    return _revision


def _changed(_settings: Any, _context: Any) -> None:
    """A control was moved. Only marks it: whoever shows a preview looks at the revision."""
    global _revision
    _revision += 1


def title(words: str) -> str:
    """In Title Case."""
    return " ".join(
        word if place and word in SMALL_WORDS else word[:1].upper() + word[1:]
        for place, word in enumerate(words.split())
    )


def short_label(row: Mapping[str, Any]) -> str:
    """What a control is called in the sidebar."""
    return SHORT.get(row["name"]) or title(row["label"])


def properties() -> dict[str, Any]:
    """The annotations that make the properties."""
    found: dict[str, Any] = {}
    shared = {"override": {"LIBRARY_OVERRIDABLE"}, "options": {"ANIMATABLE"}, "update": _changed}
    for name, row in rows().items():
        described = f"{title(row['label'])}. {row.get('note', '')}".strip().rstrip(".")
        label = short_label(row)
        if switch(row):
            found[switch(row)] = bpy.props.BoolProperty(
                name=f"Use {label}", description=f"Ask for an opening. {described}", **shared
            )
        low, high = row["minimum"], row["maximum"]
        rest = low if row["default"] is None else row["default"]
        extra: dict[str, Any] = {"step": row["step"] * 100, "precision": 2}
        if row["unit"] == DEGREES:
            low, high, rest = (math.radians(value) for value in (low, high, rest))
            extra = {"subtype": "ANGLE", "step": 100, "precision": 1}
        elif high - low > 10:
            extra = {"step": 50, "precision": 1}
        found[name] = bpy.props.FloatProperty(
            name=label,
            description=described,
            min=low,
            max=high,
            soft_min=low,
            soft_max=high,
            default=rest,
            **extra,
            **shared,
        )
    return found


class LIVEPORTRAIT_PG_controls(PropertyGroup):
    """The expression controls; see the module. Angles are radians here, as everywhere in Blender."""

    __annotations__ = properties()

    def as_controls(self) -> dict[str, float]:
        """The protocol's `controls`, in published units: what is not at rest."""
        return as_controls(self)

    def set_controls(self, controls: Mapping[str, float]) -> None:
        """Set all from the protocol's `controls`; what is not among them comes to rest."""
        set_controls(self, controls)


CLASSES = (LIVEPORTRAIT_PG_controls,)
