# SPDX-License-Identifier: GPL-3.0-or-later
"""Drivers that make a mesh's shape keys follow the channels of a keypoint rig.

They are simple expressions on the armature's custom properties, so Blender evaluates them without Python,
without the add-on and without leave to run scripts. A driver is ours if all of its variables are called
lp_... and read channels, or partial sums of them (shape_key_sums.py); no other driver is ever touched unless
the user says so.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Container, Iterable, Iterator
from functools import lru_cache
from typing import Any

import bpy

from . import compat, fcurves, rig_channels, shape_key_sums
from .keypoint_rig import is_rig
from .names import UserError
from .rig_layout import property_path
from .shape_key_formula import (
    MARK,
    Said,
    doubled,
    expression,
    key_values,
    source,
    taking_part,
    total_of,
    value_of,
)
from .shape_key_report import Report

__all__ = [
    "drive",
    "drive_all",
    "driven",
    "key_values",
    "paused",
    "refresh",
    "total_of",
    "undrive",
    "undrive_all",
    "value_of",
]

WIDEST = 10.0  # Blender's own limit of a shape key's range
log = logging.getLogger(__name__)
_paused = 0


def key_of(mesh_object: Any) -> Any:
    """The Key of an object's shape keys, or None."""
    return getattr(getattr(mesh_object, "data", None), "shape_keys", None)


def why_not(mesh_object: Any) -> str:
    """Why an object's shape keys cannot be driven, "" if they can. Cheap: draw code asks."""
    key = key_of(mesh_object)
    if key is None or len(key.key_blocks) < 2:
        return f'"{mesh_object.name}" has no shape keys' if mesh_object else "Select a mesh with shape keys"
    said = f'The shape keys of "{mesh_object.name}" are'
    override = mesh_object.data.override_library
    if key.library is not None or mesh_object.data.library is not None:
        return f"{said} linked from another file; make a library override of the mesh, or make it local"
    if override is not None and override.is_system_override:
        return f"{said} a library override that may not be edited; make it editable"
    return ""


def drive(mesh_object: Any, replace: bool = False) -> Report:
    """Have the shape keys follow the entries of the object's mapping.

    replace: also where a driver of the user's is, which is kept otherwise. Everything that was asked for and
    not done is in the report. Calling it again brings the drivers up to date.

    Raises:
        UserError: there is no rig, no entry, or the shape keys cannot be written.
    """
    settings = mesh_object.liveportrait.shape_keys
    reason = why_not(mesh_object)
    if reason:
        raise UserError(f"{reason}.")
    if not is_rig(settings.rig):
        raise UserError(f'"{mesh_object.name}" follows no performance.', "Choose a performance's armature.")
    if not any(entry.shape_key for entry in settings.entries):
        raise UserError(f'"{mesh_object.name}" has no entries.', "Match its shape keys by name, or add some.")
    if not rig_channels.has_channels(settings.rig):
        if settings.rig.library is not None:
            raise UserError(f'"{settings.rig.name}" has no channels.', "Import the performance again.")
        rig_channels.add(settings.rig)
    return _bring_up_to_date(mesh_object, replace, orphans=True)


def drive_all(objects: Iterable[Any], replace: bool = False) -> list[Report]:
    """`drive` for several objects; those that share their shape keys are driven once, by the first.

    An object that cannot be driven is a report of its own; UserError if that is so for all of them.
    """
    reports: list[Report] = []
    errors: list[UserError] = []
    seen: dict[Any, str] = {}
    for item in objects:
        key = key_of(item)
        if key is not None and key in seen:
            note = f'"{item.name}" shares its shape keys with "{seen[key]}", whose entries count.'
            reports.append(Report(item.name, notes=[note]))
            continue
        try:
            reports.append(drive(item, replace))
            seen[key] = item.name
        except UserError as error:
            errors.append(error)
            reports.append(Report(item.name, notes=[str(error)]))
    if errors and not seen:
        raise errors[0]
    return reports


def undrive(mesh_object: Any, keep_values: bool = True, only: Container[str] | None = None) -> list[str]:
    """Take our drivers away and give the shape keys their own ranges back; the names of what was driven.

    keep_values: the face stays as it is at this frame, else it goes to rest (0). only: just these shape
    keys. Raises UserError where the shape keys cannot be written.
    """
    key = key_of(mesh_object)
    ours = {name: curve for name, curve in driven(mesh_object).items() if only is None or name in only}
    if not ours:
        return []
    if why_not(mesh_object):
        raise UserError(f"{why_not(mesh_object)}.")
    ranges = _own_ranges(mesh_object)
    for name in ours:
        block = key.key_blocks[name]
        value = block.value if keep_values else 0.0
        key.driver_remove(value_path(block))
        if name in ranges:
            block.slider_min, block.slider_max = ranges[name]
        block.value = value
    shape_key_sums.tidy(key)
    with paused():
        for entry in mesh_object.liveportrait.shape_keys.entries:
            if entry.widened and entry.shape_key in ours:
                entry.widened = False
    mesh_object.data.update_tag()
    return list(ours)


def undrive_all(objects: Iterable[Any], keep_values: bool = True) -> int:
    """`undrive` for several objects; how many shape keys are free again."""
    return sum(len(undrive(item, keep_values)) for item in objects)


def driven(mesh_object: Any) -> dict[str, Any]:
    """{shape key: F-curve} of the drivers that are ours."""
    key = key_of(mesh_object)
    if key is None or key.animation_data is None:
        return {}
    names = {value_path(block): block.name for block in key.key_blocks}
    return {
        names[curve.data_path]: curve
        for curve in key.animation_data.drivers
        if curve.data_path in names and _is_ours(curve)
    }


def of_others(mesh_object: Any, names: Iterable[str]) -> list[str]:
    """Those of the shape keys that a driver of the user's own moves."""
    key = key_of(mesh_object)
    if key is None or key.animation_data is None:
        return []
    others = {curve.data_path for curve in key.animation_data.drivers if not _is_ours(curve)}
    blocks = (key.key_blocks.get(name) for name in names)
    return [block.name for block in blocks if block is not None and value_path(block) in others]


def value_path(block: Any) -> str:
    """The data path of a shape key's value, from its Key."""
    return f'key_blocks["{bpy.utils.escape_identifier(block.name)}"].value'


@contextlib.contextmanager
def paused() -> Iterator[None]:
    """While many entries are written: the drivers are brought up to date by whoever writes, once, after."""
    global _paused
    _paused += 1
    try:
        yield
    finally:
        _paused -= 1


def refresh(mesh_object: Any) -> None:
    """Bring the drivers of an object that is driven up to date with its entries."""
    if _paused or not isinstance(mesh_object, bpy.types.Object) or not driven(mesh_object):
        return
    if why_not(mesh_object) or not is_rig(mesh_object.liveportrait.shape_keys.rig):
        return
    # Another object with the same shape keys may have entries of its own for the others.
    _bring_up_to_date(mesh_object, replace=False, orphans=mesh_object.data.users == 1)


def _bring_up_to_date(mesh_object: Any, replace: bool, orphans: bool) -> Report:
    with paused():
        report = Report(mesh_object.name)
        settings, key = mesh_object.liveportrait.shape_keys, key_of(mesh_object)
        _follow_new_names(mesh_object, report)
        wanted = taking_part(settings.entries)
        report.doubled = [entry.shape_key for entry in doubled(settings.entries)]
        keyed = {path for path, _ in fcurves.curves_of(key)} if key.animation_data else set()
        ranges = _own_ranges(mesh_object)
        for name, entries in wanted.items():
            block = key.key_blocks.get(name)
            if block is None:
                report.missing.append(name)
            elif block == key.reference_key:
                report.basis.append(name)
            else:
                _drive_block(key, block, entries, settings.rig, replace, report)
                if value_path(block) in keyed:
                    report.keyed.append(name)
        if orphans:
            _remove_orphans(mesh_object, wanted, ranges)
        _say_what_will_not_show(mesh_object, key, report)
        mesh_object.data.update_tag()
        return report


def _drive_block(key: Any, block: Any, entries: list[Any], rig: Any, replace: bool, report: Report) -> None:
    path, name = value_path(block), block.name
    there = key.animation_data.drivers.find(path) if key.animation_data else None
    said = expression(entries)
    if said.sums and _is_override(key):  # Blender would not save their properties
        report.too_long.append(name)
        return
    if there is not None and not _is_ours(there):
        if not replace:
            report.foreign.append(name)
            return
        report.replaced.append(name)
    _widen(block, entries[0], report)
    if there is None or not _says(key, there, said, rig):
        _write(key, there, path, said, rig)
    report.driven.append(name)
    if block.mute:
        report.muted.append(name)
    if getattr(block, "lock_shape", False):
        report.locked.append(name)
    if all(source(entry) in rig_channels.unknown() for entry in entries):
        report.still.append(name)


def _write(key: Any, curve: Any, path: str, said: Said, rig: Any) -> None:
    """Make the driver, or have the one that is ours say something else; the artist's mute of it stays."""
    if curve is None or not _is_ours(curve):
        key.driver_remove(path)
        curve = key.driver_add(path)
        compat.clear_driver_curve(curve)
    words = {word: (rig, property_path(channel)) for word, channel in said.words.items()}
    for number, (text, own) in enumerate(said.sums):
        words[f"{MARK}s{number}"] = (key, shape_key_sums.add(key, text, own, rig))
    try:
        shape_key_sums.say(curve, said.text, words)
    except ValueError:
        key.driver_remove(path)
        raise
    finally:
        shape_key_sums.tidy(key)  # those that it has added up before


def _says(key: Any, curve: Any, said: Said, rig: Any) -> bool:
    """Whether a driver already says this."""
    text, found = shape_key_sums.said(curve)
    words = {word: (rig, property_path(channel)) for word, channel in said.words.items()}
    for number, (partial, own) in enumerate(said.sums):
        word = f"{MARK}s{number}"
        owner, path = found.get(word, (None, ""))
        there = shape_key_sums.driver_of(key, path) if owner == key else None
        wanted = partial, {word: (rig, property_path(channel)) for word, channel in own.items()}
        if there is None or shape_key_sums.said(there) != wanted:
            return False
        words[word] = (key, path)
    return text == said.text and found == words


def _is_ours(curve: Any) -> bool:
    driver = curve.driver
    return (
        driver.type == "SCRIPTED"
        and len(driver.variables) > 0
        and all(
            variable.type == "SINGLE_PROP"
            and variable.name.startswith(MARK)
            and _is_ours_to_read(variable.targets[0].data_path)
            for variable in driver.variables
        )
    )


def _is_ours_to_read(path: str) -> bool:
    return path in _channel_paths() or shape_key_sums.is_sum(path)


@lru_cache(maxsize=1)
def _channel_paths() -> dict[str, str]:
    return {property_path(name): name for name in (*rig_channels.names(), *rig_channels.HEAD_ANGLES)}


def _widen(block: Any, first: Any, report: Report) -> None:
    low, high = block.slider_min, block.slider_max
    wanted = max(min(low, first.minimum), -WIDEST), min(max(high, first.maximum), WIDEST)
    if wanted != (low, high):
        if _is_override(block.id_data):  # Blender would not save it
            report.clamped.append(block.name)
            return
        if not first.widened:
            first.slider_range, first.widened = (low, high), True
        block.slider_min, block.slider_max = wanted
        report.widened.append(block.name)


def _is_override(key: Any) -> bool:
    return key.user is not None and key.user.override_library is not None


def _own_ranges(mesh_object: Any) -> dict[str, tuple[float, float]]:
    """{shape key: the range that it had before ours was wider}"""
    entries = mesh_object.liveportrait.shape_keys.entries
    return {entry.shape_key: tuple(entry.slider_range) for entry in entries if entry.widened}


def _remove_orphans(mesh_object: Any, wanted: Any, ranges: Any) -> None:
    key = key_of(mesh_object)
    for name, curve in driven(mesh_object).items():
        if name not in wanted:
            key.animation_data.drivers.remove(curve)
            if name in ranges:
                key.key_blocks[name].slider_min, key.key_blocks[name].slider_max = ranges[name]
    shape_key_sums.tidy(key)
    for entry in mesh_object.liveportrait.shape_keys.entries:
        if entry.widened and entry.shape_key not in wanted:
            entry.widened = False


def _follow_new_names(mesh_object: Any, report: Report) -> None:
    """Blender carries a driver along when its shape key gets another name; let our entries follow it."""
    settings, key = mesh_object.liveportrait.shape_keys, key_of(mesh_object)
    free = {
        name: _channels_of(key, curve)
        for name, curve in driven(mesh_object).items()
        if name not in {entry.shape_key for entry in settings.entries}
    }
    for name, entries in taking_part(settings.entries).items():
        if name in key.key_blocks:
            continue
        channels = {source(entry) for entry in entries}
        fitting = [new for new, own in free.items() if own == channels]
        if len(fitting) == 1:
            free.pop(fitting[0])
            for entry in settings.entries:
                if entry.shape_key == name:
                    entry.shape_key = fitting[0]
            report.renamed.append((name, fitting[0]))


def _channels_of(key: Any, curve: Any) -> set[str]:
    """The channels that one of our drivers follows, by itself and through partial sums."""
    paths = _channel_paths()
    curves = (curve, *shape_key_sums.read_by(key, [curve]))
    read = [path for one in curves for _, path in shape_key_sums.said(one)[1].values()]
    return {paths[path] for path in read if path in paths}


def _say_what_will_not_show(mesh_object: Any, key: Any, report: Report) -> None:
    if not key.use_relative:
        report.notes.append(
            f'"{mesh_object.name}" uses absolute shape keys; switch Relative on to see these.'
        )
    if mesh_object.show_only_shape_key:
        report.notes.append(f'"{mesh_object.name}" shows only its active shape key; switch Solo off.')
