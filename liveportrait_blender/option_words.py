# SPDX-License-Identifier: GPL-3.0-or-later
"""What the backend says, in the panel's words: it names options as the command line does. Imports no bpy."""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any

from .paths import data_file

_FLAG = re.compile(r"(?<![\w-])--(no-)?([a-z]+(?:-[a-z]+)*)(?:[ =]([a-z]+)\b)?")


def spoken(text: str) -> str:
    """The same with the options that the panel has under their names there: "Length Policy: Cut" for
    "--length-policy cut", "Crop off" for "--no-crop". Others stay as they are."""
    return _FLAG.sub(_named, text)


@cache
def _options() -> dict[str, dict[str, Any]]:
    table = json.loads(data_file("options.json").read_text(encoding="utf-8"))
    return {row["name"]: row for row in table["options"]}


def _named(found: re.Match[str]) -> str:
    negated, flag, value = found.groups()
    row = _options().get(flag.replace("-", "_"))
    if row is None:
        return found.group()
    label = str(row["label"])
    if negated:
        return f"{label} off" + (f" {value}" if value else "")  # a word of the sentence
    choices = {choice["name"]: choice["label"] for choice in row.get("choices") or ()}
    if value in choices:
        return f"{label}: {choices[value]}"
    return label if value is None else f"{label} {value}"  # likewise
