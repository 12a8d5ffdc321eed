# SPDX-License-Identifier: GPL-3.0-or-later
"""Partial sums of shape keys that follow more channels than one driver can say.

Blender cuts an expression at 255 characters. What is longer is added up in custom properties of the Key,
called lp_sum_0 and so on, each with a driver of its own, and the shape key's driver adds those. They are
reckoned by Blender like any driver, without the add-on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from . import compat
from .rig_layout import property_path

NAME = "lp_sum_"


def is_sum(data_path: str) -> bool:
    """Whether a data path, from its Key, is that of a partial sum."""
    number = data_path.removeprefix(f'["{NAME}').removesuffix('"]')
    return data_path.startswith(f'["{NAME}') and number.isdigit()


def driver_of(key: Any, data_path: str) -> Any:
    """The F-curve that drives a partial sum, or None."""
    return key.animation_data.drivers.find(data_path) if key.animation_data else None


def add(key: Any, text: str, words: Mapping[str, str], rig: Any) -> str:
    """Make a partial sum, {word: channel of the rig}; its data path."""
    number = next(k for k in range(len(key.keys()) + 1) if f"{NAME}{k}" not in key)
    name = f"{NAME}{number}"
    key[name] = 0.0
    path = property_path(name)
    curve = key.driver_add(path)
    compat.clear_driver_curve(curve)
    say(curve, text, {word: (rig, property_path(to)) for word, to in words.items()})
    return path


def say(curve: Any, text: str, words: Mapping[str, tuple[Any, str]]) -> None:
    """Have a driver say `text`, {word: (datablock, data path)}. Raises ValueError for what Blender would have
    to run as Python."""
    driver = curve.driver
    driver.type = "SCRIPTED"
    for variable in list(driver.variables):
        driver.variables.remove(variable)
    for word, (owner, path) in words.items():
        variable = driver.variables.new()
        variable.name, variable.type = word, "SINGLE_PROP"
        target = variable.targets[0]
        target.id_type = owner.id_type
        target.id, target.data_path = owner, path
    driver.expression = text
    if driver.expression != text or not driver.is_simple_expression:
        raise ValueError(f"not a simple expression: {text!r}")


def said(curve: Any) -> tuple[str, dict[str, tuple[Any, str]]]:
    """What `say` has written."""
    found = {one.name: (one.targets[0].id, one.targets[0].data_path) for one in curve.driver.variables}
    return curve.driver.expression, found


def read_by(key: Any, curves: Iterable[Any]) -> list[Any]:
    """The F-curves of the partial sums that some of the Key's drivers add up."""
    paths = [path for curve in curves for owner, path in said(curve)[1].values() if owner == key]
    found = [driver_of(key, path) for path in paths if is_sum(path)]
    return [curve for curve in found if curve is not None]


def tidy(key: Any) -> None:
    """Take away the partial sums that no driver adds up any more."""
    drivers = key.animation_data.drivers if key.animation_data else ()
    used = {curve.data_path for curve in read_by(key, drivers)}
    for name in [name for name in key.keys() if is_sum(property_path(name))]:  # noqa: SIM118
        if property_path(name) not in used:
            key.driver_remove(property_path(name))
            del key[name]
