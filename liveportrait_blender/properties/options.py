# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of a job as properties, made from data/options.json: a property for every option, under its
own name and with the words of the command line.

Where a value is not only a number there is a second property beside it:
`use_<name>` for what may be left to the backend (face, driving_face, frames, fps),
`<name>_mode` for numbers that may also be a word (smoothing, source_smoothing, reference_frame).
"""

import json
import math
from collections.abc import Mapping
from fractions import Fraction
from functools import cache
from typing import Any

import bpy
from bpy.types import PropertyGroup

from ..paths import data_file

VALUE = "value"  # the mode in which the number counts
OVERRIDE = {"LIBRARY_OVERRIDABLE"}
# What a float property cannot hold exactly.
BROADCAST_RATES = ("24000/1001", "30000/1001", "60000/1001")
# The number that a property starts with where the option's own default is a word or nothing.
STARTS = {"smoothing": 1.0, "source_smoothing": 1.0, "fps": 24.0}
CROP_CHOICES = (
    ("auto", "When Not Square", "Crop a clip that is not square"),
    ("on", "Always", "Crop the driving to its face"),
    ("off", "Never", "Use the whole picture of the driving"),
)
# How the words are called, and what they do; of one option where it says more than the general one.
WORDS = {
    "off": ("Off", "Leave it as it is"),
    "auto": ("Automatic", "Let the backend choose"),
    VALUE: ("Chosen Strength", "Use the number"),
}
REFERENCE_WORDS = {
    "auto": ("Most Neutral Frame", "Let the backend find the frame whose face does least"),
    VALUE: ("Chosen Frame", "Use the frame of this number"),
}


@cache
def table() -> dict[str, Any]:
    """data/options.json: `groups`, `options` and the names of the motion `library`."""
    return dict(json.loads(data_file("options.json").read_text(encoding="utf-8")))


@cache
def library_items() -> list[tuple[str, str, str]]:
    """The motions of the library as an EnumProperty has them."""
    return [
        (row["name"], row["label"], f"{row['label']}, {row['seconds']:g} seconds")
        for row in table()["library"]
    ]


def rows() -> dict[str, dict[str, Any]]:
    """The options by name."""
    return {row["name"]: row for row in table()["options"]}


def companion(row: Mapping[str, Any]) -> str:
    """The name of the property that says whether an option's number counts, or ""."""
    if row.get("words"):
        return f"{row['name']}_mode"
    if row["default"] is None and row["type"] in ("integer", "range", "rate"):
        return f"use_{row['name']}"
    return ""


def is_tristate(row: Mapping[str, Any]) -> bool:
    """Whether an option is on, off or left to the backend."""
    return bool(row["type"] == "boolean" and row["default"] is None)


def as_options(settings: Any) -> dict[str, Any]:
    """The protocol's `options`: what differs from the defaults, and nothing else."""
    found: dict[str, Any] = {}
    for row in rows().values():
        value = value_of(settings, row)
        if value is not None and value != row["default"]:
            found[row["name"]] = value
    return found


def set_options(settings: Any, options: Mapping[str, Any]) -> None:
    """Set all from the protocol's `options`; what is not among them gets its default."""
    for row in rows().values():
        _set(settings, row, options.get(row["name"], row["default"]))


def value_of(settings: Any, row: Mapping[str, Any]) -> Any:
    """An option's value as the protocol has it; None where it is left to the backend."""
    value = getattr(settings, row["name"])
    if is_tristate(row):
        return {"auto": None, "on": True, "off": False}[value]
    beside = companion(row)
    if beside:
        state = getattr(settings, beside)
        if row.get("words") and state != VALUE:
            return state
        if not state:
            return None
    if row["type"] == "range":
        first, stop = value
        return [first, stop if stop > first else None]
    if row["type"] == "rate":
        return rate(value)
    if row["type"] == "number":
        return _as_typed(value)
    if row["type"] == "folder":
        return bpy.path.abspath(value) if value else None
    return value


def _as_typed(value: float) -> float:
    """A float property's value as it was typed: 2.3, not 2.2999999523162842."""
    return float(f"{value:.6g}")


def rate(value: float) -> str:
    """A frame rate for the protocol: 23.976 is 24000/1001."""
    for text in BROADCAST_RATES:
        if math.isclose(value, Fraction(text), abs_tol=0.005):
            return text
    return f"{value:.6g}"


def _set(settings: Any, row: Mapping[str, Any], value: Any) -> None:
    name, beside = row["name"], companion(row)
    if is_tristate(row):
        setattr(settings, name, {None: "auto", True: "on", False: "off"}[value])
        return
    if row.get("words"):
        is_word = isinstance(value, str)
        setattr(settings, beside, value if is_word else VALUE)
        if is_word:
            return
    elif beside:
        setattr(settings, beside, value is not None)
    if value is None:
        settings.property_unset(name)
    elif row["type"] == "range":
        setattr(settings, name, (value[0], value[1] or 0))
    elif row["type"] == "rate":
        setattr(settings, name, float(Fraction(str(value))))
    else:
        setattr(settings, name, value)


def properties() -> dict[str, Any]:
    """The annotations that make the properties."""
    found: dict[str, Any] = {}
    for row in rows().values():
        beside = companion(row)
        if row.get("words"):
            found[beside] = bpy.props.EnumProperty(
                name=row["label"],
                description=row["description"],
                items=[(word, *_called(row, word)) for word in (*row["words"], VALUE)],
                default=row["default"] if isinstance(row["default"], str) else VALUE,
                override=OVERRIDE,
            )
        elif beside:
            found[beside] = bpy.props.BoolProperty(
                name=f"Use {row['label']}", description=row["description"], override=OVERRIDE
            )
        found[row["name"]] = _property(row)
    return found


def _called(row: Mapping[str, Any], word: str) -> tuple[str, str]:
    """Name and tooltip of a word that an option may be."""
    own = REFERENCE_WORDS if row["name"] == "reference_frame" else {}
    return own.get(word) or WORDS[word]


def _property(row: Mapping[str, Any]) -> Any:
    words = {"name": row["label"], "description": _described(row), "override": OVERRIDE}
    default = row["default"]
    if is_tristate(row):
        return bpy.props.EnumProperty(items=CROP_CHOICES, default="auto", **words)
    if row["type"] == "boolean":
        return bpy.props.BoolProperty(default=default, **words)
    if row["type"] == "choice":
        items = [(choice["name"], choice["label"], "") for choice in row["choices"]]
        return bpy.props.EnumProperty(items=items, default=default, **words)
    if row["type"] == "folder":
        return bpy.props.StringProperty(subtype="DIR_PATH", **words)
    if row["type"] == "integer":
        return bpy.props.IntProperty(min=row["minimum"], default=default or 0, **words)
    if row["type"] == "range":
        return bpy.props.IntVectorProperty(size=2, min=row["minimum"], default=(0, 0), **words)
    return bpy.props.FloatProperty(default=STARTS.get(row["name"], default), **_bounds(row), **words)


def _bounds(row: Mapping[str, Any]) -> dict[str, Any]:
    """The range of a number, how far its slider goes and how it is shown."""
    bounds: dict[str, Any] = {"step": 1, "precision": 3}
    for theirs, ours in (("minimum", "min"), ("maximum", "max")):
        if row[theirs] is not None:
            bounds[ours] = row[theirs]
    if row["name"].endswith("_scale"):
        bounds["min"] = 0.01  # the crop has to have a size
    if "reach" in row:
        bounds["soft_min"], bounds["soft_max"] = row["reach"]
    if row["name"] == "observation_variance":
        bounds.update(step=0.00001, precision=6, soft_max=1e-5)
    if row["type"] == "rate":
        bounds.update(min=0.01, soft_min=1.0, soft_max=120.0, step=100)
    return bounds


def _described(row: Mapping[str, Any]) -> str:
    if row["type"] == "range":
        return "First driving frame that is used, and the first that no longer is; 0 as the second means all"
    unit = row["unit"]
    if row["type"] != "number" or not unit or unit.split()[-1] in row["description"]:
        return str(row["description"])
    return f"{row['description']}, in {unit}"


class LIVEPORTRAIT_PG_options(PropertyGroup):
    """The options of a job; see the module."""

    __annotations__ = properties()

    def as_options(self) -> dict[str, Any]:
        """The protocol's `options`: what differs from the defaults."""
        return as_options(self)

    def set_options(self, options: Mapping[str, Any]) -> None:
        """Set all from the protocol's `options`; what is not among them gets its default."""
        set_options(self, options)


CLASSES = (LIVEPORTRAIT_PG_options,)
