# SPDX-License-Identifier: GPL-3.0-or-later
"""Parameters of requests, checked one by one: types, ranges, and nothing that is not known."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Mapping
from dataclasses import fields, replace
from functools import cache
from typing import Any, NoReturn

from backend.cli_options import add_job_options, options_from
from backend.errors import InputError
from backend.expressions import controls
from backend.options import Options
from backend.server.messages import bad_params

SHA256 = re.compile(r"[0-9a-f]{64}")
LONGEST_TEXT = 4096
MOST_VALUES = 200_000  # of a control that has a value a frame


class Params:
    """Takes parameters out by name and type; `end` refuses what is left. Raises RequestError (bad-params)."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        self._left = dict(given)

    def has(self, name: str) -> bool:
        return self._left.get(name) is not None

    def text(self, name: str, default: str | None = None, longest: int = LONGEST_TEXT) -> str:
        value = self._take(name, default)
        if not isinstance(value, str) or not 0 < len(value) <= longest:
            raise bad_params(f"{name} has to be a text.")
        return value

    def integer(self, name: str, default: int | None = None, largest: int = 1 << 53) -> int:
        value = self._take(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= largest:
            raise bad_params(f"{name} has to be an integer from 0.")
        return value

    def flag(self, name: str, default: bool = False) -> bool:
        value = self._take(name, default)
        if not isinstance(value, bool):
            raise bad_params(f"{name} has to be true or false.")
        return value

    def word(self, name: str, words: tuple[str, ...]) -> str:
        """One of some words; the first is the default."""
        value = self._take(name, words[0])
        if value not in words:
            raise bad_params(f"{name} has to be one of {', '.join(words)}.")
        return str(value)

    def mapping(self, name: str, needed: bool = False) -> dict[str, Any]:
        value = self._take(name, None if needed else {})
        if not isinstance(value, dict):
            raise bad_params(f"{name} has to be an object.")
        return value

    def keypoints(self, name: str) -> list[list[float]]:
        """21 x 3 finite numbers."""
        value = self._take(name, None)
        rows = value if isinstance(value, list) and len(value) == 21 else []
        if not rows or not all(isinstance(row, list) and len(row) == 3 for row in rows):
            raise bad_params(f"{name} has to be 21 lists of 3 numbers.")
        return [_numbers(name, row) for row in rows]

    def end(self) -> None:
        if self._left:
            raise bad_params(f"There is no parameter {_shown(sorted(self._left)[0])}.")

    def _take(self, name: str, default: Any) -> Any:
        value = self._left.pop(name, None)
        if value is None:
            value = default
        if value is None:
            raise bad_params(f"{name} is missing.")
        return value


def _numbers(name: str, values: list[Any]) -> list[float]:
    for value in values:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or abs(value) > 1e9 or not math.isfinite(value):
            raise bad_params(f"{name} has to hold finite numbers.")
    return [float(value) for value in values]


def _shown(text: str) -> str:
    return ascii(text[:60])


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InputError(message)


@cache
def _parser() -> tuple[argparse.ArgumentParser, Mapping[str, argparse.Action]]:
    parser = _Parser(add_help=False, allow_abbrev=False)
    add_job_options(parser)
    # argparse offers no public way to ask which flags there are.
    actions = {flag: action for action in parser._actions for flag in action.option_strings}
    return parser, actions


def options_of(given: Mapping[str, Any]) -> Options:
    """Options from JSON: read by the command line's own reader, so both take the same values.

    Raises RequestError (bad-params).
    """
    parser, actions = _parser()
    known = {entry.name for entry in fields(Options)} - {"controls"}
    words: list[str] = []
    for name, value in given.items():
        if name == "controls":
            continue
        if name not in known:
            raise bad_params(f"There is no option {_shown(name)}.")
        if value is None:
            continue
        words.append(_as_flag(name, value, actions))
    curves: dict[str, Any] = {}
    flags = {control.name: control.flag for control in controls()}
    sliders = {} if given.get("controls") is None else given["controls"]
    if not isinstance(sliders, dict):
        raise bad_params("controls has to be an object.")
    for name, value in sliders.items():
        if name not in flags:
            raise bad_params(f"There is no expression control {_shown(name)}.")
        if isinstance(value, list):
            if not 0 < len(value) <= MOST_VALUES:
                raise bad_params(f"{name} has no values, or too many.")
            curves[name] = tuple(_numbers(name, value))
            words += [f"{flags[name]}={min(curves[name])!r}", f"{flags[name]}={max(curves[name])!r}"]
        else:
            words.append(f"{flags[name]}={_numbers(name, [value])[0]!r}")
    try:
        options = options_from(parser.parse_args(words))
    except InputError as error:
        raise bad_params(f"Bad option: {error.message.rstrip('.')}.") from None
    return replace(options, controls={**options.controls, **curves})


def _as_flag(name: str, value: Any, actions: Mapping[str, argparse.Action]) -> str:
    flag = "--" + name.replace("_", "-")
    if name == "relative" and isinstance(value, bool):
        return "--relative" if value else "--absolute"
    if flag not in actions:
        raise bad_params(f"There is no option {_shown(name)}.")
    if isinstance(actions[flag], argparse.BooleanOptionalAction):
        if not isinstance(value, bool):
            raise bad_params(f"{name} has to be true or false.")
        return flag if value else f"--no-{flag[2:]}"
    if name == "face" and not isinstance(value, int):
        raise bad_params("face has to be an integer; see the parameter faces.")
    if isinstance(value, list) and name == "frames" and len(value) == 2:
        if not all(entry is None or (isinstance(entry, int) and entry is not True) for entry in value):
            raise bad_params("frames has to be two integers.")
        value = ":".join("" if entry is None else str(entry) for entry in value)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise bad_params(f"{name} has a value of the wrong kind.")
    if isinstance(value, str) and ("\0" in value or len(value) > LONGEST_TEXT):
        raise bad_params(f"{name} has a value of the wrong kind.")
    return f"{flag}={value}"
