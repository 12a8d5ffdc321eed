# SPDX-License-Identifier: GPL-3.0-or-later
"""Frames a second of a file of motion, from its beginning alone: without the backend, and running nothing in
it. Imports no bpy.
"""

from __future__ import annotations

import csv
import io
import pickletools
import re
import statistics
from fractions import Fraction
from pathlib import Path

from . import motion_file
from .names import UserError

SUFFIXES = {".npz", ".pkl", ".pickle", ".csv", ".json"}
FASTEST = 1000
BEGINNING = 1 << 20  # bytes that are looked at
STEPS = 200  # of a template's instructions: its rate stands before its frames
ROWS = 600  # of a table
TEMPLATE_RATE, TABLE_RATE = Fraction(25), Fraction(60)  # where the file says nothing, as the backend takes it
NOMINAL = (24, 25, 30, 48, 50, 60, 100, 120)  # frames in a second of a timecode
DAY = 86400
_FPS = re.compile(rb'"fps"\s*:\s*\[\s*(\d{1,9})\s*,\s*(\d{1,9})\s*\]')


def rate_of(path: Path) -> Fraction | None:
    """The rate of a motion, template or table of curves; None where the file does not tell, for the backend
    says better what is wrong with it.
    """
    suffix = path.suffix.lower()
    try:
        if suffix == ".npz":
            return motion_file.read(path).fps
        with path.open("rb") as stream:
            beginning = stream.read(BEGINNING)
    except (OSError, UserError):
        return None
    if suffix == ".json":
        found = _FPS.search(beginning)
        return _sane(Fraction(int(found[1]), int(found[2]))) if found and int(found[2]) else None
    return _of_table(beginning) if suffix == ".csv" else _of_template(beginning)


def _sane(rate: Fraction) -> Fraction | None:
    return rate if 0 < rate <= FASTEST else None


def _of_template(beginning: bytes) -> Fraction | None:
    """What comes after the key output_fps; the instructions are read and not carried out."""
    named = False
    try:
        for step, (code, value, _) in enumerate(pickletools.genops(beginning)):
            if named and isinstance(value, (int, float)) and "PUT" not in code.name:
                return _sane(Fraction(value).limit_denominator(1001)) if 0 < value <= FASTEST else None
            named = value == "output_fps" or (named and ("PUT" in code.name or code.name == "MEMOIZE"))
            if step > STEPS:
                break
    except (ValueError, OverflowError):  # no pickle, or one that ends too early
        return None
    return TEMPLATE_RATE


def _of_table(beginning: bytes) -> Fraction | None:
    """One frame a row: from the usual distance of the timecodes."""
    wide = beginning[:2] in (b"\xff\xfe", b"\xfe\xff")
    text = beginning.decode("utf-16" if wide else "utf-8-sig", errors="replace")
    first = text.split("\n", 1)[0]
    rows = csv.reader(io.StringIO(text), delimiter=max(",;\t", key=first.count))
    codes: list[tuple[int, float]] = []
    try:
        titles = [title.strip().strip("\"'").lower() for title in next(rows, [])]
        if "timecode" not in titles:
            return TABLE_RATE
        place = titles.index("timecode")
        for row in rows:
            if len(codes) >= ROWS:
                break
            if len(row) > place and row[place].strip():
                codes.append(_timecode(row[place]))
    except (csv.Error, ValueError):
        return None
    # A file shorter than a second fits several: then 30, or 60.
    most = max((frames for _, frames in codes), default=0.0)
    nominal = [rate for rate in NOMINAL if rate > most] or [int(most) + 1]
    nominal.sort(key=lambda rate: (rate != 30, rate != 60))
    return min((_stepped(codes, rate) for rate in nominal), key=lambda found: found[0])[1]


def _timecode(text: str) -> tuple[int, float]:
    """Whole seconds, frames. Raises ValueError."""
    hours, minutes, seconds, frames = text.strip().replace(";", ":").replace(",", ".").split(":")
    return int(hours) * 3600 + int(minutes) * 60 + int(seconds), float(frames)


def _stepped(codes: list[tuple[int, float]], nominal: int) -> tuple[float, Fraction | None]:
    """(How uneven, rate) of timecodes with so many frames in a second."""
    times = [second + frames / nominal for second, frames in codes]
    steps = [(after - before) % DAY for before, after in zip(times, times[1:])]
    steps = [step for step in steps if 1e-9 < step < DAY / 2]
    if not steps:
        return 0.0, TABLE_RATE
    usual = statistics.median(steps)
    regular = [step for step in steps if abs(step - usual) < 0.1 * usual]
    rate = _sane(Fraction(len(regular) / sum(regular)).limit_denominator(1001))
    return round(sum(abs(step - usual) for step in steps), 5), rate
