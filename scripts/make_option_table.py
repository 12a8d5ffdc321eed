#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write data/options.json, for the backend and for the add-on alike: the options of a job with their words,
ranges and groups, and the names of the motion library.

backend/cli_options.py is where an option's words and range stand; this reads them from there, so that the
command line, the protocol and the panel cannot say different things. Only what a command line has no use for
(units, the reach of a slider) is said here.

    python scripts/make_option_table.py
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from backend import cli_options  # noqa: E402
from backend.library import library_names  # noqa: E402
from backend.motion_files import load_motion  # noqa: E402
from backend.options import Options  # noqa: E402

TARGETS = (ROOT / "backend/data/options.json", ROOT / "liveportrait_blender/data/options.json")
FORMAT = "liveportrait-options/1"
# Where a slider reaches by mouse; more can be typed.
REACH = {
    "multiplier": (0.0, 2.0),
    "eye_gain": (0.0, 2.0),
    "lip_gain": (0.0, 2.0),
    "smoothing": (0.0, 5.0),
    "source_smoothing": (0.0, 5.0),
    "crop_scale": (1.5, 3.5),
    "crop_x": (-0.5, 0.5),
    "crop_y": (-0.5, 0.5),
    "driving_crop_scale": (1.5, 3.5),
    "driving_crop_x": (-0.5, 0.5),
    "driving_crop_y": (-0.5, 0.5),
}
UNITS = {
    "crop_scale": "face sizes",
    "driving_crop_scale": "face sizes",
    "crop_x": "crop sides",
    "crop_y": "crop sides",
    "driving_crop_x": "crop sides",
    "driving_crop_y": "crop sides",
    "fps": "pictures a second",
    "frames": "frames",
    "reference_frame": "frame",
}
# Flags that stand for a field of another name.
FIELD_OF = {"faces": "face"}
SPELLING = {"fps": "FPS", "cpu": "CPU", "cuda": "CUDA", "mps": "MPS", "x": "X", "y": "Y"}
SMALL = {"a", "and", "as", "in", "of", "the", "to", "up"}


def label(words: str) -> str:
    """In Title Case."""
    parts = re.split(r"[ _-]+", words)
    return " ".join(
        SPELLING.get(part) or (part if place and part in SMALL else part[:1].upper() + part[1:])
        for place, part in enumerate(parts)
    )


def description(words: str) -> str:
    """A help text as a tooltip: without its default in brackets and what only a command line has."""
    words = re.split(r" \[", words.replace("%%", "%"))[0]
    words = re.sub(r"--([a-z]+)((?:-[a-z]+)*)", lambda found: label(found[1] + found[2]), words)
    return words[:1].upper() + words[1:]


def kind(action: argparse.Action) -> dict[str, Any]:
    """The type of an option's value, and what bounds it."""
    if isinstance(action, argparse.BooleanOptionalAction | argparse._StoreTrueAction):
        return {"type": "boolean"}
    if action.choices is not None:
        choices = [str(choice) for choice in action.choices]
        return {"type": "choice", "choices": [{"name": name, "label": label(name)} for name in choices]}
    if isinstance(action.type, cli_options.Number):
        low = max(action.type.minimum, action.type.above)
        return {"type": "number", "minimum": finite(low), "maximum": finite(action.type.maximum)}
    known: dict[Any, dict[str, Any]] = {
        Path: {"type": "folder"},
        cli_options.smoothing: {"type": "number", "minimum": 0.0, "maximum": None, "words": ["off", "auto"]},
        cli_options.reference_frame: {"type": "integer", "minimum": 0, "maximum": None, "words": ["auto"]},
        cli_options.whole_number: {"type": "integer", "minimum": 0, "maximum": None},
        cli_options.face_choice: {"type": "integer", "minimum": 0, "maximum": None},
        cli_options.frame_range: {"type": "range", "minimum": 0, "maximum": None},
        cli_options.frame_rate: {"type": "rate", "minimum": 0.0, "maximum": 1000.0},
    }
    return dict(known[action.type])


def finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def options() -> list[dict[str, Any]]:
    """One entry a field of Options, `controls` apart, in the order of the flags."""
    parser = argparse.ArgumentParser()
    cli_options.add_job_options(parser)
    default = Options()
    known = {field.name for field in fields(Options)}
    found: dict[str, dict[str, Any]] = {}
    for group in parser._action_groups:
        for action in group._group_actions:
            name = FIELD_OF.get(action.dest, action.dest)
            if name not in known or name in found:
                continue
            found[name] = {
                "name": name,
                "label": label(name),
                "description": description(action.help or ""),
                "group": group.title,
                **kind(action),
                "default": getattr(default, name),
                **({"reach": list(REACH[name])} if name in REACH else {}),
                "unit": UNITS.get(name, ""),
            }
    return list(found.values())


def table() -> dict[str, Any]:
    rows = options()
    groups = list(dict.fromkeys(row["group"] for row in rows))
    motions = []
    for name in library_names():
        motion = load_motion(ROOT / "backend/data/library" / f"{name}.npz")
        seconds = round(float(len(motion.scale) / motion.fps), 2)
        motions.append({"name": name, "label": label(name), "seconds": seconds})
    return {
        "format": FORMAT,
        "about": "Made by scripts/make_option_table.py from the command line. A default of null means that"
        " the option is not given; 'words' may stand instead of a number; 'reach' is how far a slider goes.",
        "groups": [{"name": name, "label": label(name)} for name in groups],
        "options": rows,
        "library": motions,
    }


def text() -> str:
    """What the files hold: an entry a line."""
    content = table()
    parts = []
    for key, value in content.items():
        if isinstance(value, list):
            rows = ",\n".join(f"    {json.dumps(row)}" for row in value)
            parts.append(f"  {json.dumps(key)}: [\n{rows}\n  ]")
        else:
            parts.append(f"  {json.dumps(key)}: {json.dumps(value)}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def main() -> None:
    for target in TARGETS:
        target.write_text(text(), encoding="utf-8")


if __name__ == "__main__":
    main()
