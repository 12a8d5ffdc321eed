# SPDX-License-Identifier: GPL-3.0-or-later
"""Options and parameters as they come over the protocol."""

from __future__ import annotations

from dataclasses import fields, replace
from fractions import Fraction
from typing import Any

import pytest

from backend.options import Options
from backend.results import options_as_json
from backend.server.messages import RequestError
from backend.server.params import Params, options_of

OTHER: dict[str, Any] = {
    "engine": "mesh",
    "device": "cpu",
    "driving_option": "pose-friendly",
    "region": "lips",
    "smoothing": "auto",
    "source_smoothing": 0.5,
    "length_policy": "mirror",
    "driving_crop": True,
    "face": 2,
    "driving_face": 1,
    "face_order": "left-right",
    "audio": "none",
    "frames": (3, None),
    "fps": Fraction(30000, 1001),
    "reference_frame": "auto",
    "runtime": "torch",
    "compatibility": "upstream",
    "controls": {"smile": 0.5, "blink": 1.0},
}


def changed(name: str) -> Any:
    value = getattr(Options(), name)
    if name in OTHER:
        return OTHER[name]
    if value is None:
        return 1
    return not value if isinstance(value, bool) else value + 0.25


@pytest.mark.parametrize("name", [entry.name for entry in fields(Options) if entry.name != "models"])
def test_every_option_arrives(name: str) -> None:
    options = replace(Options(), **{name: changed(name)})
    assert options != Options()
    assert options_of({name: options_as_json(options)[name]}) == options
    assert options_of({name: options_as_json(Options())[name]}) == Options()


def test_a_control_may_have_a_value_a_frame() -> None:
    assert options_of({"controls": {"smile": [0, 0.5]}}).controls == {"smile": (0.0, 0.5)}


@pytest.mark.parametrize(
    "given",
    [
        {"fly": 1},
        {"controls": {"fly": 1}},
        {"controls": {"smile": 1e9}},
        {"controls": {"smile": [0, 1e9]}},
        {"controls": {"smile": []}},
        {"controls": {"smile": True}},
        {"controls": []},
        {"face": "1:talk"},
        {"frames": [1]},
        {"frames": [5, 2]},
        {"frames": [True, 2]},
        {"stitch": 1},
        {"crop_scale": True},
        {"crop_scale": 0},
        {"crop_scale": "a"},
        {"multiplier": float("inf")},
        {"engine": "--device"},
        {"models": "a\0b"},
        {"fps": {}},
        {"json": True},
        {"faces": "1"},
    ],
)
def test_wrong_options_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(RequestError) as caught:
        options_of(given)
    assert caught.value.code == "bad-params"


def test_parameters_that_nobody_takes_are_refused() -> None:
    params = Params({"a": 1, "b": 2})
    assert params.integer("a") == 1
    with pytest.raises(RequestError, match="'b'"):
        params.end()
