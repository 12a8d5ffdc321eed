# SPDX-License-Identifier: GPL-3.0-or-later
"""Which channels move a shape key, told by its name: data/shape_key_names.json. Imports no bpy.

Names are compared without case and separators, whatever stands for a side (Left, _L, .L, L), and without what
exporters put before and behind them. Shape keys that stand for several channels get several sources.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from .paths import data_file
from .shape_key_report import listed

FORMAT = "liveportrait-shape-key-names/1"
SIDES = {"l": "Left", "left": "Left", "r": "Right", "right": "Right"}
_WORDS = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|\d+|[^\W\d_a-zA-Z]+")
#: Where a name without a side means neither the left nor the right movement.
_NO_MIDDLE = {"jaw*", "mouth*"}


@dataclass(frozen=True)
class Source:
    """An entry of a mapping, as properties/shape_keys.py has it."""

    shape_key: str
    channel: str
    gain: float = 1.0
    offset: float = 0.0
    minimum: float = 0.0
    maximum: float = 1.0


@dataclass
class Report:
    """What a match found.

    sources: in the order of the names; unmatched: names that mean nothing here; left_out: names whose
    channels other shape keys move already; unknown: shape keys whose channels cannot be told from the
    keypoints; absent: channels that are known and have no shape key; families: label -> shape keys.
    """

    sources: list[Source] = field(default_factory=list)
    unmatched: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    families: dict[str, int] = field(default_factory=dict)

    @property
    def matched(self) -> list[str]:
        """The shape keys that have sources."""
        return list(dict.fromkeys(source.shape_key for source in self.sources))

    def sentences(self) -> list[str]:
        """Everything, most important first."""
        kinds = ", ".join(f"{label} {count}" for label, count in self.families.items())
        found = [f"{len(self.matched)} shape keys matched" + (f" ({kinds})." if kinds else ".")]
        for names, text in (
            (self.unmatched, "No channel for {}."),
            (self.left_out, "Left alone, because others move the same: {}."),
            (self.unknown, "Cannot be told from the keypoints, so these stay still: {}."),
            (self.absent, "No shape key for {}."),
        ):
            if names:
                found.append(text.format(listed(names)))
        return found


@dataclass(frozen=True)
class _Meaning:
    family: int
    rank: int  # the lower, the finer
    parts: tuple[tuple[str, float], ...]


def match(names: Iterable[str]) -> Report:
    """Sources for shape keys of these names (the basis not among them)."""
    names = list(names)
    meanings = {name: meaning for name in names if (meaning := _meaning(name)) is not None}
    report = Report(unmatched=[name for name in names if name not in meanings])
    taken: dict[str, int] = {}  # channel -> the rank of what moves it
    chosen: dict[str, _Meaning] = {}
    for name, meaning in sorted(meanings.items(), key=lambda pair: pair[1].rank):
        main = [channel for channel, gain in meaning.parts if gain > 0 or len(meaning.parts) == 1]
        if any(taken.get(channel, meaning.rank) < meaning.rank for channel in main):
            continue
        chosen[name] = meaning
        for channel in main:
            taken.setdefault(channel, meaning.rank)
    report.left_out = [name for name in names if name in meanings and name not in chosen]
    labels = [family["label"] for family in table()["families"]]
    for name in names:
        if name in chosen:
            report.sources += _sources(name, chosen[name])
            label = labels[chosen[name].family]
            report.families[label] = report.families.get(label, 0) + 1
    known = _known()
    moved = {source.channel for source in report.sources}
    report.unknown = [
        name for name, meaning in chosen.items() if not any(known[channel] for channel, _ in meaning.parts)
    ]
    report.absent = [channel for channel, told in known.items() if told and channel not in moved]
    return report


def spellings(name: str) -> list[str]:
    """A name without case and separators, and without what exporters add; the whole name first."""
    return [_plain(text) for text in _spellings(name)]


def same_name(shape_key: str, channel: str) -> bool:
    """Whether a shape key is called as its channel is, in whatever spelling: one name says it all."""
    plain = _plain(shape_key)
    short = re.sub(r"(Left|Right)$", lambda side: side[0][0], channel)
    return plain in (_plain(channel), _plain(short))


@lru_cache(maxsize=1)
def table() -> dict[str, Any]:
    """data/shape_key_names.json."""
    content: dict[str, Any] = json.loads(data_file("shape_key_names.json").read_text(encoding="utf-8"))
    if content["format"] != FORMAT:
        raise ValueError(f"no table of the form {FORMAT}")
    return content


@lru_cache(maxsize=1)
def _known() -> dict[str, bool]:
    """{channel: whether the keypoints tell it}, in ARKit's order."""
    rows = json.loads(data_file("blendshapes.json").read_text(encoding="utf-8"))["channels"]
    return {row["name"]: bool(row["known"]) for row in rows}


def _sources(name: str, meaning: _Meaning) -> list[Source]:
    if len(meaning.parts) == 1:
        channel, gain = meaning.parts[0]
        return [Source(name, channel, gain, 0.0, min(gain, 0.0), max(gain, 0.0))]
    return [
        Source(name, channel, gain, 0.0, min(gain, 0.0), 1.0 if gain > 0 else 0.0)
        for channel, gain in meaning.parts
    ]


def _meaning(name: str) -> _Meaning | None:
    for text in _spellings(name):
        words = _WORDS.findall(text)
        whole = _plain("".join(words))
        if not whole:
            continue
        if (found := _exact().get(whole)) is not None:
            return found
        places = [k for k, word in enumerate(words) if word.lower() in SIDES]
        for place in reversed(places):
            rest = _plain("".join(words[:place] + words[place + 1 :]))
            side = SIDES[words[place].lower()]
            if (found := _sided().get((rest, side)) or _exact_of_one(rest)) is not None:
                return found
    return None


def _exact_of_one(rest: str) -> _Meaning | None:
    """A key of one side whose channel has no sides: both browInnerUp_L and _R follow browInnerUp."""
    found = _exact().get(rest)
    return found if found is not None and len(found.parts) == 1 and found.rank == 2 * found.family else None


def _spellings(name: str) -> list[str]:
    """The name, and what is left of it without what exporters add; the longest first."""
    found = [name.strip()]
    for text in found:
        for pattern in (*table()["prefixes"], *table()["suffixes"]):
            shorter = re.sub(pattern, "", text, count=1, flags=re.IGNORECASE if "CTRL" not in pattern else 0)
            if shorter and shorter not in found and not shorter.isdigit():
                found.append(shorter)
    return sorted(found, key=len, reverse=True)


def _plain(text: str) -> str:
    return "".join(character for character in text.lower() if character.isalnum())


def _parts(value: Any, side: str) -> tuple[tuple[str, float], ...]:
    pairs: list[Any] = [[value, 1.0]] if isinstance(value, str) else value
    return tuple((channel.replace("*", side), float(gain)) for channel, gain in pairs)


@lru_cache(maxsize=1)
def _sided() -> dict[tuple[str, str], _Meaning]:
    found: dict[tuple[str, str], _Meaning] = {}
    for number, family in enumerate(table()["families"]):
        for name, value in family["keys"].items():
            for side in ("Left", "Right") if "*" in name else ():
                found.setdefault((_plain(name), side), _Meaning(number, 2 * number, _parts(value, side)))
    return found


@lru_cache(maxsize=1)
def _exact() -> dict[str, _Meaning]:
    """Names without a side. Where a family knows only the sides, the mean of both; its rank is odd."""
    found: dict[str, _Meaning] = {}
    coarse = 2 * [family["id"] for family in table()["families"]].index("both")
    for number, family in enumerate(table()["families"]):
        for name, value in family["keys"].items():
            if "*" not in name:
                found.setdefault(_plain(name), _Meaning(number, 2 * number, _parts(value, "")))
    for number, family in enumerate(table()["families"]):
        for name, value in family["keys"].items():
            if "*" in name and name not in _NO_MIDDLE:
                left, right = _parts(value, "Left"), _parts(value, "Right")
                both = left if left == right else tuple((c, gain / 2) for c, gain in left + right)
                found.setdefault(_plain(name), _Meaning(number, max(2 * number, coarse) + 1, both))
    return found
