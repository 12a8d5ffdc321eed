# SPDX-License-Identifier: GPL-3.0-or-later
"""Mappings of shape keys as JSON: what a preset and an exported file hold. Imports no bpy.

    {"format": "liveportrait-shape-keys/1", "name": "...", "entries": [{"shape_key": "eyeBlink_L",
     "channel": "eyeBlinkLeft", "gain": 1.0, "offset": 0.0, "minimum": 0.0, "maximum": 1.0,
     "dead_zone": 0.0, "use": true, "mirror": false}, ...]}

Only shape_key and channel have to be there. Fields that are not known are passed over, so that a later
version's file can be read where its format is the same.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .names import UserError
from .paths import HERE, user_folder

FORMAT = "liveportrait-shape-keys/1"
SUFFIX = ".json"
FOLDER = "shape_key_presets"
LARGEST = 4_000_000  # bytes; 10,000 entries are about 2,000,000
MOST = 10_000
#: What an entry holds beside its two names: default, least and largest value.
NUMBERS = {
    "gain": (1.0, -1000.0, 1000.0),
    "offset": (0.0, -1000.0, 1000.0),
    "minimum": (0.0, -10.0, 10.0),
    "maximum": (1.0, -10.0, 10.0),
    "dead_zone": (0.0, 0.0, 0.9),
}
SWITCHES = {"use": True, "mirror": False}


def dump(entries: Iterable[Any], name: str) -> str:
    """The JSON text of a mapping's entries."""
    rows = []
    for entry in entries:
        row: dict[str, Any] = {"shape_key": entry.shape_key, "channel": entry.channel}
        row |= {field: round(float(getattr(entry, field)), 6) for field in NUMBERS}
        row |= {field: bool(getattr(entry, field)) for field in SWITCHES}
        rows.append(row)
    return json.dumps({"format": FORMAT, "name": name, "entries": rows}, ensure_ascii=False, indent=1) + "\n"


def parse(text: str, channels: Iterable[str], label: str = "The file") -> list[dict[str, Any]]:
    """The entries of a JSON text, all fields filled in. Raises UserError that says what is wrong with it."""
    hint = "Choose a file that this add-on exported."
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{label} is not JSON.", hint) from error
    if not isinstance(content, dict) or not str(content.get("format", "")).startswith(FORMAT.split("/")[0]):
        raise UserError(f"{label} holds no mapping of shape keys.", hint)
    if content["format"] != FORMAT:
        raise UserError(f"{label} has the format {content['format']!s:.60}.", f"This version reads {FORMAT}.")
    rows = content.get("entries")
    if not isinstance(rows, list) or len(rows) > MOST:
        raise UserError(f"{label} has no list of entries, or one over {MOST}.", hint)
    known = set(channels)
    return [_entry(row, number, known, label) for number, row in enumerate(rows, 1)]


def _entry(row: Any, number: int, channels: set[str], label: str) -> dict[str, Any]:
    def wrong(what: str) -> UserError:
        return UserError(f"{label}: entry {number} {what}.", "Correct it, or export the mapping again.")

    if not isinstance(row, dict):
        raise wrong("is no object")
    key, channel = row.get("shape_key"), row.get("channel")
    if not isinstance(key, str) or not key or len(key.encode()) > 255:
        raise wrong("has no shape_key")
    if not isinstance(channel, str) or channel not in channels:
        raise wrong(f"has the channel {channel!r:.60}, which does not exist")
    found: dict[str, Any] = {"shape_key": key, "channel": channel}
    for field, (default, low, high) in NUMBERS.items():
        value = row.get(field, default)
        good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not good or not low <= value <= high:
            raise wrong(f"has {field} {value!r:.40}, which has to be a number from {low:g} to {high:g}")
        found[field] = float(value)
    for field, switch in SWITCHES.items():
        value = row.get(field, switch)
        if not isinstance(value, bool):
            raise wrong(f"has {field} {value!r:.40}, which has to be true or false")
        found[field] = value
    return found


def read(path: Path, channels: Iterable[str]) -> list[dict[str, Any]]:
    """The entries of a file. Raises UserError."""
    try:
        if path.stat().st_size > LARGEST:
            raise UserError(f"{path.name} is too large for a mapping.", "Choose another file.")
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"{path.name} cannot be read: {error.strerror}.", "Choose another file.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path.name} is no text.", "Choose another file.") from error
    return parse(text, channels, path.name)


def write(path: Path, entries: Iterable[Any], name: str) -> None:
    """Write a file; one that is there is replaced whole, or stays as it is. Raises UserError."""
    part = path.with_name(path.name + ".part")
    try:
        part.write_text(dump(entries, name), encoding="utf-8")
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise UserError(
            f"{path.name} cannot be written: {error.strerror}.", "Choose another place."
        ) from error


def shipped() -> dict[str, Path]:
    """{name: file} of the presets that come with the add-on."""
    return _listed(HERE / "data" / FOLDER)


def own() -> dict[str, Path]:
    """{name: file} of the user's presets."""
    return _listed(user_folder(FOLDER))


def find(name: str) -> Path:
    """The file of a preset; the user's own goes first. Raises UserError."""
    found = {**shipped(), **own()}.get(name)
    if found is None:
        raise UserError(f'There is no preset "{name}".', "Choose one of the list.")
    return found


def path_of(name: str) -> Path:
    """Where the user's preset of a name is kept. Raises UserError for a name that no file can have."""
    name = name.strip()
    bad = re.search(r'[<>:"/\\|?*\x00-\x1f]', name) or name.startswith(".") or name.endswith(".")
    reserved = re.fullmatch(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?", name)
    if not name or bad or reserved or len(name.encode()) > 120:
        raise UserError(f'"{name:.40}" cannot be the name of a preset.', "Use letters, digits and spaces.")
    return user_folder(FOLDER) / f"{name}{SUFFIX}"


def _listed(folder: Path) -> dict[str, Path]:
    return {path.stem: path for path in sorted(folder.glob(f"*{SUFFIX}")) if path.is_file()}
