# SPDX-License-Identifier: GPL-3.0-or-later
"""What a shape key's value is: one formula, as numpy reckons it and as a driver's expression says it.

Of one entry, with c its channel: min(max(offset + gain * f(c), minimum), maximum), where f takes the dead
zone d away: max(c - d, 0) / (1 - d), so that 1 stays 1; of an angle max(c - d, 0) + min(c + d, 0). Entries of
one shape key are added, and the range of the first one is the range of the sum.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from . import rig_channels

if TYPE_CHECKING:
    import numpy as np

MARK = "lp_"  # how the names of our drivers' variables begin
LENGTH = 255  # Blender cuts what is longer


class Entry(Protocol):
    """What the formula reads of properties/shape_keys.py's entry; any object with these will do."""

    shape_key: str
    channel: str
    use: bool
    mirror: bool
    gain: float
    offset: float
    minimum: float
    maximum: float
    dead_zone: float


def other_side(channel: str) -> str:
    """The channel of the other side; of the middle, itself: jawLeft -> jawRight, jawOpen -> jawOpen."""
    if channel.endswith("Left"):
        return channel.removesuffix("Left") + "Right"
    if channel.endswith("Right"):
        return channel.removesuffix("Right") + "Left"
    return channel


def source(entry: Entry) -> str:
    """The channel that an entry reads, mirror included."""
    return other_side(entry.channel) if entry.mirror else entry.channel


def sign(entry: Entry) -> float:
    """-1 for a turn that a mirror turns round, else 1."""
    return -1.0 if entry.mirror and entry.channel in ("headYaw", "headRoll") else 1.0


def taking_part(entries: Iterable[Entry]) -> dict[str, list[Entry]]:
    """The entries of each shape key that count, in their order: those in use, a channel once a shape key."""
    found: dict[str, list[Entry]] = {}
    for entry in entries:
        if not entry.use or not entry.shape_key:
            continue
        others = found.setdefault(entry.shape_key, [])
        if source(entry) not in [source(other) for other in others]:
            others.append(entry)
    return found


def doubled(entries: Iterable[Entry]) -> list[Entry]:
    """The entries that `taking_part` leaves out because another one says the same channel."""
    wanted = [entry for entry in entries if entry.use and entry.shape_key]
    counted = [entry for others in taking_part(wanted).values() for entry in others]
    return [entry for entry in wanted if not any(entry is other for other in counted)]


def value_of(entry: Entry, channel_values: Mapping[str, Any] | np.ndarray) -> np.ndarray:
    """What an entry gives, in the shape of one channel's values, float64.

    channel_values: {channel: values}, or an array (..., 52) in the order of rig_channels.names().
    """
    import numpy as np

    name = source(entry)
    if isinstance(channel_values, Mapping):
        values = np.asarray(channel_values[name], np.float64)
    else:
        values = np.asarray(channel_values, np.float64)[..., rig_channels.names().index(name)]
    dead = float(entry.dead_zone)
    if name in rig_channels.HEAD_ANGLES:
        values = sign(entry) * (np.maximum(values - dead, 0.0) + np.minimum(values + dead, 0.0))
    elif dead > 0:
        values = np.maximum(values - dead, 0.0) / (1.0 - dead)
    value = float(entry.offset) + float(entry.gain) * values
    return np.minimum(np.maximum(value, float(entry.minimum)), float(entry.maximum))


def total_of(entries: Sequence[Entry], channel_values: Mapping[str, Any] | np.ndarray) -> np.ndarray:
    """What the entries of one shape key give together, as `taking_part` lists them."""
    import numpy as np

    total = sum(value_of(entry, channel_values) for entry in entries)
    first = entries[0]
    return np.minimum(np.maximum(total, float(first.minimum)), float(first.maximum))


def key_values(
    entries: Iterable[Entry], channel_values: Mapping[str, Any] | np.ndarray
) -> dict[str, np.ndarray]:
    """{shape key: its values} of all entries that count."""
    return {name: total_of(own, channel_values) for name, own in taking_part(entries).items()}


class Said(NamedTuple):
    """A driver's text, {word: channel} of it, and the partial sums that its words lp_s0 ... stand for."""

    text: str
    words: dict[str, str]
    sums: list[tuple[str, dict[str, str]]]


def expression(entries: Sequence[Entry]) -> Said:
    """`total_of` as a driver says it, no text longer than LENGTH; what is longer is split into sums."""
    channels = [source(entry) for entry in entries]
    first, several = entries[0], len(entries) > 1
    ends = f"{_number(first.minimum)}),{_number(first.maximum)})"
    for words in ([MARK + name for name in channels], [f"{MARK}{k}" for k in range(len(channels))]):
        terms = [_term(entry, word, several) for entry, word in zip(entries, words)]
        text = f"min(max({_added(terms)},{ends}"
        if len(text) <= LENGTH:
            return Said(text, dict(zip(words, channels)), [])
    groups: list[list[int]] = [[]]
    for k in range(len(terms)):
        if groups[-1] and len(_added([terms[j] for j in (*groups[-1], k)])) > LENGTH:
            groups.append([])
        groups[-1].append(k)
    sums = [(_added([terms[k] for k in own]), {words[k]: channels[k] for k in own}) for own in groups]
    text = f"min(max({'+'.join(f'{MARK}s{k}' for k in range(len(sums)))},{ends}"
    return Said(text, {}, sums)


def _added(terms: Sequence[str]) -> str:
    return "+".join(terms).replace("+-", "-")


def _term(entry: Entry, word: str, clamp: bool) -> str:
    gain, dead = float(entry.gain) * sign(entry), float(entry.dead_zone)
    angle = source(entry) in rig_channels.HEAD_ANGLES
    text = word
    if dead > 0:
        text = f"max({word}-{_number(dead)},0)"
        if angle:
            text = f"({text}+min({word}+{_number(dead)},0))"
        else:
            gain /= 1.0 - dead
    if gain != 1.0:
        text = f"{_number(gain)}*{text}"
    if entry.offset:
        text = f"{_number(entry.offset)}+{text}".replace("+-", "-")
    ends = sorted((entry.offset, entry.offset + entry.gain))
    inside = not angle and entry.minimum <= ends[0] and ends[1] <= entry.maximum
    if clamp and not inside:
        text = f"min(max({text},{_number(entry.minimum)}),{_number(entry.maximum)})"
    return text


def _number(value: float) -> str:
    return f"{value:.7g}"
