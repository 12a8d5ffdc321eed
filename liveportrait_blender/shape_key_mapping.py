# SPDX-License-Identifier: GPL-3.0-or-later
"""The mapping kept with a mesh: which meshes are meant, and changes of their lists of entries."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from . import keypoint_rig, performance, shape_key_drivers, shape_key_matching
from .names import UserError
from .shape_key_drivers import key_of
from .shape_key_matching import Report, Source


def has_keys(candidate: Any) -> bool:
    """Whether an object (or None) has shape keys besides the basis."""
    key = key_of(candidate)
    return key is not None and len(key.key_blocks) > 1


def active(context: Any) -> Any:
    """The object whose mapping the panel shows: the active one, or else the only selected one with shape
    keys; None if there is none. Cheap: for draw and poll."""
    if has_keys(context.active_object):
        return context.active_object
    others = [item for item in context.selected_objects if has_keys(item)]
    return others[0] if len(others) == 1 else None


def targets(context: Any) -> list[Any]:
    """The objects that operators work on: the active one first, then all selected with shape keys."""
    first = active(context)
    selected = [item for item in context.selected_objects if has_keys(item) and item != first]
    return ([first] if first is not None else []) + selected


def why_no_target(context: Any) -> str:
    """Why there is nothing to work on, for poll; "" if there is."""
    return "" if targets(context) else "Select a mesh with shape keys"


def default_rig(context: Any) -> Any:
    """The performance that a mesh follows when none was chosen: a selected rig, else the scene's only one."""
    selected = [item for item in context.selected_objects if keypoint_rig.is_rig(item)]
    if len(selected) == 1:
        return selected[0]
    return performance.active(context)


def check_writable(mesh_object: Any) -> None:
    """UserError where Blender would not save a change of the mapping."""
    if mesh_object.library is not None:
        raise UserError(
            f'"{mesh_object.name}" is linked from another file.', "Make a library override, or make it local."
        )


def match(mesh_object: Any, start_over: bool = False) -> Report:
    """Add entries for the shape keys whose names are known; those that have entries keep them, unless
    `start_over`. The report tells of all names that were looked at. Raises UserError."""
    check_writable(mesh_object)
    settings, key = mesh_object.liveportrait.shape_keys, key_of(mesh_object)
    names = [block.name for block in key.key_blocks if block != key.reference_key]
    report = shape_key_matching.match(names)
    if start_over:
        clear(mesh_object)
    listed = {entry.shape_key for entry in settings.entries if entry.use}
    add(mesh_object, (source for source in report.sources if source.shape_key not in listed))
    return report


def add(mesh_object: Any, sources: Iterable[Source]) -> None:
    """Append entries; a shape key's own range bounds what may go to it."""
    settings, key = mesh_object.liveportrait.shape_keys, key_of(mesh_object)
    with shape_key_drivers.paused():
        for source in sources:
            entry = settings.entries.add()
            for name, value in asdict(source).items():
                setattr(entry, name, value)
            block = key.key_blocks.get(source.shape_key)
            if block is not None and source.gain > 0:
                entry.maximum = min(entry.maximum, block.slider_max)
    shape_key_drivers.refresh(mesh_object)


def add_empty(mesh_object: Any) -> Any:
    """Append an entry for the active shape key, or the first one that has none. Returns it."""
    check_writable(mesh_object)
    settings, key = mesh_object.liveportrait.shape_keys, key_of(mesh_object)
    listed = {entry.shape_key for entry in settings.entries}
    free = [block.name for block in key.key_blocks if block != key.reference_key and block.name not in listed]
    block = mesh_object.active_shape_key
    here = block.name if block is not None and block != key.reference_key else ""
    name = here if here in free or not free else free[0]
    found = shape_key_matching.match([name]).sources if name else []
    with shape_key_drivers.paused():
        entry = settings.entries.add()
        entry.shape_key = name
        if found:
            entry.channel = found[0].channel
    settings.active = len(settings.entries) - 1
    shape_key_drivers.refresh(mesh_object)
    return entry


def remove(mesh_object: Any, index: int) -> bool:
    """Take an entry out; False if a library override cannot lose it, so that it was only switched off."""
    check_writable(mesh_object)
    settings = mesh_object.liveportrait.shape_keys
    if index < _fixed(mesh_object):
        settings.entries[index].use = False
        return False
    name = settings.entries[index].shape_key
    free = sum(entry.shape_key == name for entry in settings.entries) == 1
    if free and name in shape_key_drivers.driven(mesh_object):
        shape_key_drivers.undrive(mesh_object, only={name})
    settings.entries.remove(index)
    settings.active = max(min(settings.active, len(settings.entries) - 1), 0)
    shape_key_drivers.refresh(mesh_object)
    return True


def clear(mesh_object: Any) -> int:
    """Empty the list, drivers included; gives how many entries a library override could not lose."""
    check_writable(mesh_object)
    settings = mesh_object.liveportrait.shape_keys
    if shape_key_drivers.driven(mesh_object):
        shape_key_drivers.undrive(mesh_object)
    fixed = _fixed(mesh_object)
    with shape_key_drivers.paused():
        while len(settings.entries) > fixed:
            settings.entries.remove(len(settings.entries) - 1)
        for entry in settings.entries:
            entry.use = False
    settings.active = 0
    return fixed


def move(mesh_object: Any, index: int, way: int) -> None:
    """Move an entry up (-1) or down (1). UserError where the list's order belongs to a library."""
    check_writable(mesh_object)
    settings = mesh_object.liveportrait.shape_keys
    if _fixed(mesh_object):
        raise UserError(
            "The order of a library override's list is the library's.", "Move it in its own file."
        )
    other = index + way
    if 0 <= index < len(settings.entries) and 0 <= other < len(settings.entries):
        settings.entries.move(index, other)
        settings.active = other
        shape_key_drivers.refresh(mesh_object)


def mirror(mesh_object: Any) -> None:
    """Have every entry take the other side's channel, or its own again: for mirrored footage."""
    check_writable(mesh_object)
    settings = mesh_object.liveportrait.shape_keys
    with shape_key_drivers.paused():
        for entry in settings.entries:
            entry.mirror = not entry.mirror
    shape_key_drivers.refresh(mesh_object)


def use_rig(mesh_object: Any, rig: Any) -> None:
    """Let the mesh follow `rig` if it follows none."""
    settings = mesh_object.liveportrait.shape_keys
    if settings.rig is None and rig is not None:
        settings.rig = rig


def _fixed(mesh_object: Any) -> int:
    """How many entries come from a library, which an override can change but not lose."""
    override = mesh_object.override_library
    if override is None or override.reference is None:
        return 0
    return len(override.reference.liveportrait.shape_keys.entries)


def load(mesh_object: Any, rows: Iterable[Mapping[str, Any]]) -> tuple[int, list[str]]:
    """Take the entries of a preset instead of those that are there: (entries taken, names of shape keys that
    the mesh does not have). Names that differ in case, separators and prefixes count as the same."""
    check_writable(mesh_object)
    key = key_of(mesh_object)
    by_spelling: dict[str, str] = {}
    for block in key.key_blocks:
        for spelling in shape_key_matching.spellings(block.name):
            by_spelling.setdefault(spelling, block.name)
    taken, missing = [], []
    for row in rows:
        wanted = row["shape_key"]
        name = (
            wanted if wanted in key.key_blocks else by_spelling.get(shape_key_matching.spellings(wanted)[0])
        )
        if name is None:
            missing.append(wanted)
        else:
            taken.append({**row, "shape_key": name})
    if not taken:
        raise UserError(
            f'None of its shape keys is on "{mesh_object.name}".', "Choose another mesh or another preset."
        )
    was_driven = bool(shape_key_drivers.driven(mesh_object))
    clear(mesh_object)
    settings = mesh_object.liveportrait.shape_keys
    with shape_key_drivers.paused():
        for row in taken:
            entry = settings.entries.add()
            for name, value in row.items():
                setattr(entry, name, value)
    if was_driven:
        shape_key_drivers.drive(mesh_object)
    return len(taken), list(dict.fromkeys(missing))
