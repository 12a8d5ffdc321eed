# SPDX-License-Identifier: GPL-3.0-or-later
"""Curves on disk: CSV as Epic's Live Link Face writes it, and JSON.

CSV: Timecode, BlendShapeCount, the 52 channels with a capital first letter, then yaw, pitch and roll of head,
left and right eye in radians. A timecode is HH:MM:SS:FF.mmm: frame FF and thousandths of one at the nominal
rate (the frame rate rounded up); what it says is the time, so 30000/1001 counts 00.000, 01.001, 02.002.
Read with any delimiter, order, case or missing channels; a row without values is a frame without a face.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.blendshape_names import CHANNELS, INDEX
from backend.curves import Curves, no_values
from backend.errors import MotionFileError

JSON_FORMAT = "liveportrait-curves/1"
MAXIMUM_BYTES = 256 << 20
MAXIMUM_FRAMES = 1_000_000
DEFAULT_RATE = Fraction(60)  # Live Link Face's own
NOMINAL_RATES = (24, 25, 30, 48, 50, 60, 100, 120)
HEAD = ("HeadYaw", "HeadPitch", "HeadRoll")
EYES = ("LeftEyeYaw", "LeftEyePitch", "LeftEyeRoll", "RightEyeYaw", "RightEyePitch", "RightEyeRoll")
_DAY = 86400.0
_TURN = 3.2  # an angle beyond is no head's in radians, so the file has degrees
#: Where Live Link Face's files have right before left, and ARKit's list left first.
_SWAPPED = {
    "jawLeft": "jawRight",
    "jawRight": "jawLeft",
    "mouthLeft": "mouthRight",
    "mouthRight": "mouthLeft",
}
COLUMNS = tuple(_SWAPPED.get(name, name) for name in CHANNELS)

Floats = NDArray[np.float64]


def to_csv(curves: Curves) -> str:
    """The file's text. Frames without a face are rows without values, as the app writes them."""
    titles = [name[0].upper() + name[1:] for name in COLUMNS]
    lines = [",".join(["Timecode", "BlendShapeCount", *titles, *HEAD, *EYES])]
    order = [INDEX[name] for name in COLUMNS]
    numbers = np.concatenate([curves.values[:, order], curves.head, curves.eyes()], axis=1).astype(np.float64)
    numbers = np.round(numbers, 8) + 0.0  # no -0.00000000
    count = numbers.shape[1]
    for frame, (row, valid) in enumerate(zip(numbers, curves.valid, strict=True)):
        cells = ",".join(f"{value:.8f}" for value in row) if valid else "," * (count - 1)
        lines.append(f"{timecode(curves.start, frame, curves.fps)},{count if valid else 0},{cells}")
    return "\n".join(lines) + "\n"


def timecode(start: float, frame: int, fps: Fraction) -> str:
    """HH:MM:SS:FF.mmm of start + frame / fps seconds; hours past a day start over."""
    nominal = math.ceil(fps)
    # In thousandths of a nominal frame, so that nothing is rounded twice.
    ticks = round((Fraction(start).limit_denominator(1_000_000) + frame / fps) * nominal * 1000)
    frames, thousandths = divmod(ticks, 1000)
    seconds, frames = divmod(frames, nominal)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours % 24:02d}:{minutes:02d}:{seconds:02d}:{frames:02d}.{thousandths:03d}"


def to_json(curves: Curves) -> str:
    """The file's text: exact rate, names, values and head angles by frame."""
    content = {
        "format": JSON_FORMAT,
        "fps": [curves.fps.numerator, curves.fps.denominator],
        "start": curves.start,
        "channels": list(CHANNELS),
        "head": list(HEAD),
        "unit": "radians",
        "valid": curves.valid.tolist(),
        "head_angles": [[round(float(v), 7) for v in row] for row in curves.head],
    }
    rows = ",\n  ".join(json.dumps([round(float(v), 7) for v in row]) for row in curves.values)
    return json.dumps(content, indent=1)[:-2] + f',\n "values": [\n  {rows}\n ]\n}}\n'


def is_curve_file(path: Path) -> bool:
    """By its name, or for a file without a telling name by its first word."""
    if path.suffix.lower() in (".csv", ".json"):
        return True
    if path.suffix or not path.is_file():
        return False
    with path.open("rb") as stream:
        head = stream.read(64)
    return head.lstrip(b"\xef\xbb\xbf\xff\xfe").replace(b"\0", b"").lower().startswith(b"timecode")


def load_curves(path: str | os.PathLike[str]) -> Curves:
    """The curves in a CSV or JSON file. MotionFileError says in one line what is wrong with it."""
    path = Path(path)
    try:
        if path.stat().st_size > MAXIMUM_BYTES:
            raise MotionFileError(f"{path.name} is too large for curves.", "Save it in parts.")
        data = path.read_bytes()
    except OSError as error:
        raise MotionFileError(
            f"{path} cannot be read: {error.strerror or error}.", "Check the path."
        ) from error
    try:
        text = _decoded(data)
        return from_json(text) if text.lstrip()[:1] == "{" else from_csv(text)
    except MotionFileError as error:
        raise MotionFileError(f"{path.name}: {error.message}", error.hint, error.details) from error


def _decoded(data: bytes) -> str:
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", errors="replace")
    return data.decode("utf-8-sig", errors="replace")


def from_csv(text: str) -> Curves:
    """Curves from a CSV file's text; MotionFileError if it is none."""
    text = text.removeprefix("\ufeff")
    first = text[:20000].split("\n", 1)[0]
    delimiter = max(",;\t", key=first.count)
    rows = csv.reader(io.StringIO(text), delimiter=delimiter)
    try:
        titles = [_plain(title) for title in next(rows, [])]
        places = _places(titles)
        body = [row for row in rows if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise MotionFileError("It is no table.", "Is it a CSV file?", str(error)) from error
    if not body:
        raise MotionFileError("The table has no frames.", "Record it again.")
    if len(body) > MAXIMUM_FRAMES:
        raise MotionFileError(f"The table has more than {MAXIMUM_FRAMES} rows.", "Save it in parts.")
    comma = delimiter != ","
    numbers = {
        name: np.array([_number(row, place, name, i, comma) for i, row in enumerate(body, 2)])
        for name, place in places.items()
    }
    values, head = no_values(len(body)).astype(np.float64), np.zeros((len(body), 3))
    valid = np.ones(len(body), np.bool_)
    for name, column in numbers.items():
        missing = np.isnan(column)
        valid &= ~missing
        column = np.where(missing, 0.0, column)
        if name in INDEX:
            values[:, INDEX[name]] = _within(column, name)
        else:
            head[:, HEAD.index(name)] = column
    if np.abs(head).max() > _TURN:
        head = np.radians(head)
    times = None
    if "timecode" in titles:
        place = titles.index("timecode")
        times = _times([row[place] if place < len(row) else "" for row in body])
    return _even(values, head, valid, times)


def _plain(title: str) -> str:
    return title.strip().strip("\"'").lower().replace("_", "").replace(" ", "")


def _places(titles: list[str]) -> dict[str, int]:
    """Channel or angle -> column. MotionFileError for a table without a channel."""
    wanted = {_plain(name): name for name in (*CHANNELS, *HEAD)}
    # eyeBlink_L, as many heads call it.
    wanted |= {
        _plain(name[: -len(side)] + side[0]): name
        for name in CHANNELS
        for side in ("Left", "Right")
        if name.endswith(side) and name not in ("jawLeft", "jawRight", "mouthLeft", "mouthRight")
    }
    places: dict[str, int] = {}
    for place, title in enumerate(titles):
        if title in wanted:
            if wanted[title] in places:
                raise MotionFileError(
                    f"The column {wanted[title]} is there twice.", "Delete one of the two."
                )
            places[wanted[title]] = place
    if not any(name in INDEX for name in places):
        raise MotionFileError(
            "No column is called like an ARKit channel (EyeBlinkLeft, JawOpen ...).",
            "Is it a CSV of Live Link Face?",
        )
    return places


def _number(row: list[str], place: int, name: str, line: int, comma: bool) -> float:
    """A cell's number; NaN for one that is empty or not there."""
    text = row[place].strip() if place < len(row) else ""
    if not text:
        return math.nan
    try:
        value = float(text.replace(",", ".") if comma else text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise MotionFileError(f"Column {name} holds {text[:20]!r} in line {line}.", "It takes a number.")
    return value


def _within(column: Floats, name: str) -> Floats:
    """Clamped to 0..1; what is far outside is no channel of ARKit's."""
    wrong = np.flatnonzero((column < -1.0) | (column > 2.0))
    if len(wrong):
        raise MotionFileError(
            f"Column {name} holds {column[wrong[0]]:g} in frame {int(wrong[0])}.",
            "ARKit's channels go from 0 to 1.",
        )
    return np.clip(column, 0.0, 1.0)


def _times(texts: list[str]) -> Floats:
    """(n,) seconds, never backwards. The frames in a second are found from the codes themselves."""
    parts = np.array([_timecode_parts(text, line) for line, text in enumerate(texts, 2)])
    most = parts[:, 1].max()
    rates = [rate for rate in NOMINAL_RATES if rate > most] or [int(most) + 1]
    # A file of less than a second fits them all: then 30, or 60.
    rates.sort(key=lambda rate: (rate != 30, rate != 60))
    best, least = None, math.inf
    for rate in rates:
        times = parts[:, 0] + parts[:, 1] / rate
        steps = np.diff(times)
        steps += np.where(steps < -_DAY / 2, _DAY, 0.0)
        uneven = float(np.abs(steps - np.median(steps)).sum()) if len(steps) else 0.0
        if uneven < least - 1e-6:
            best, least = times[0] + np.concatenate([[0.0], np.cumsum(steps)]), uneven
    assert best is not None
    if (np.diff(best) < 0).any():
        line = int(np.argmax(np.diff(best) < 0)) + 3
        raise MotionFileError(f"The timecode goes backwards in line {line}.", "Sort the rows by time.")
    return best


def _timecode_parts(text: str, line: int) -> tuple[float, float]:
    """Whole seconds, frames."""
    fields = text.strip().replace(";", ":").replace(",", ".").split(":")
    try:
        numbers = [float(field) for field in fields]
    except ValueError:
        numbers = []
    if len(numbers) != 4 or not all(0 <= number < 1000 for number in numbers):
        raise MotionFileError(
            f"{text.strip()[:20]!r} in line {line} is no timecode.", "It looks like 00:00:01:12.000."
        )
    hours, minutes, seconds, frames = numbers
    return hours * 3600 + minutes * 60 + seconds, frames


def _even(values: Floats, head: Floats, valid: NDArray[np.bool_], times: Floats | None) -> Curves:
    """Curves at a constant rate: the usual distance of the rows, snapped to a common rate."""
    n = len(values)
    if times is None or n < 2 or times[-1] <= times[0]:
        start = 0.0 if times is None else float(times[0])
        return _curves(values, head, valid, DEFAULT_RATE, start)
    distinct = np.concatenate([[True], np.diff(times) > 1e-9])
    values, head, valid, times = values[distinct], head[distinct], valid[distinct], times[distinct]
    steps = np.diff(times)
    regular = steps[np.abs(steps - np.median(steps)) < 0.1 * np.median(steps)]
    fps = _snapped(1.0 / float(regular.mean()), len(regular))
    place = (times - times[0]) * float(fps)
    frames = round(float(place[-1])) + 1
    if frames > MAXIMUM_FRAMES:
        raise MotionFileError("The timecodes span too long a time.", "Save it in parts.")
    if frames == len(times) and np.abs(place - np.arange(frames)).max() < 0.25:
        return _curves(values, head, valid, fps, float(times[0]))
    # Dropped or uneven rows: between two rows it is interpolated, and a missing row is no missing face.
    at = np.arange(frames)
    seen = valid[np.searchsorted(0.5 * (place[1:] + place[:-1]), at)]
    if not valid.any():
        return _curves(np.zeros((frames, values.shape[1])), np.zeros((frames, 3)), seen, fps, float(times[0]))
    table = np.concatenate([values, head], axis=1)[valid]
    even = np.stack([np.interp(at, place[valid], column) for column in table.T], axis=1)
    return _curves(even[:, :-3], even[:, -3:], seen, fps, float(times[0]))


def _snapped(rate: float, steps: int) -> Fraction:
    """The common rate that is as near as thousandths of a frame can tell, or the rate itself."""
    common = [Fraction(k) for k in (*range(1, 61), 90, 100, 119, 120, 240)]
    common += [Fraction(k * 1000, 1001) for k in (24, 30, 48, 60, 120)]
    nearest = min(common, key=lambda fraction: abs(float(fraction) - rate))
    tolerance = max(3e-4, 1.5e-3 / steps)
    if abs(float(nearest) / rate - 1.0) <= tolerance:
        return nearest
    return Fraction(rate).limit_denominator(1001)


def _curves(values: Floats, head: Floats, valid: NDArray[np.bool_], fps: Fraction, start: float) -> Curves:
    return Curves(values.astype(np.float32), head.astype(np.float32), valid, fps, start)


def from_json(text: str) -> Curves:
    """Curves from to_json's text; MotionFileError if it is something else."""
    try:
        content: Any = json.loads(text)
        if content["format"] != JSON_FORMAT:
            raise ValueError(f"format {str(content['format'])[:40]!r}")
        names = list(content["channels"])
        values = np.array(content["values"], np.float64).reshape(-1, len(names))
        head = np.array(content["head_angles"], np.float64).reshape(-1, 3)
        valid = np.array(content["valid"], np.bool_)
        numerator, denominator = (int(number) for number in content["fps"])
        fps, start = Fraction(numerator, denominator), float(content["start"])
        placed = no_values(len(values)).astype(np.float64)
        for place, name in enumerate(names):
            placed[:, INDEX[name]] = _within(values[:, place], name)
    except (ValueError, TypeError, KeyError, ZeroDivisionError, OverflowError, RecursionError) as error:
        raise MotionFileError(
            "It holds no curves of this program.", "Export them again.", f"{type(error).__name__}: {error}"
        ) from error
    finite = np.isfinite(values).all() and np.isfinite(head).all() and math.isfinite(start)
    if not finite or not 0 < fps <= 1000 or not 0 < len(values) <= MAXIMUM_FRAMES:
        raise MotionFileError("It holds numbers that are none, or no frames.", "Export them again.")
    if len(head) != len(values) or valid.shape != (len(values),):
        raise MotionFileError("Its lists differ in length.", "Export them again.")
    return _curves(placed, head, valid, fps, start)
