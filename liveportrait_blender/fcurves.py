# SPDX-License-Identifier: GPL-3.0-or-later
"""F-curves in bulk: thousands of keys at once, on every version of Blender.

A curve is named by (data_path, array_index), as in an Action. Blender keeps frames and values as float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import bpy

from . import compat
from .names import UserError

if TYPE_CHECKING:
    import numpy as np

Name = tuple[str, int]
INTERPOLATIONS = ("CONSTANT", "LINEAR", "BEZIER")


def write(
    id_block: Any,
    action: Any,
    curves: Mapping[Name, tuple[Any, Any]],
    group: str | Callable[[str], str] = "",
    interpolation: Any = "LINEAR",
) -> None:
    """Put curves into `action` and have it animate `id_block`.

    curves: (data_path, index) -> (frames (k,), values (k,)); frames ascend and are kept as they are, to the
    last bit of float32. A curve that exists is replaced, its modifiers included (none is left of one without
    keys); the others stay. `group`: a
    name, or what gives it for a data path. interpolation: one for all, or for each curve's keys the codes
    of `codes()`, {name: (k,)}, where a name that is missing means LINEAR.

    Raises:
        UserError: id_block or action comes from a library and cannot be animated.
        ValueError: frames and values differ in length, or a value is not finite.
    """
    if action.library is not None or id_block.library is not None:
        raise UserError(
            f"{id_block.name} is linked from another file and cannot get keys.",
            "Make it local or make a library override first.",
        )
    compat.assign_action(id_block, action)
    fill(id_block, action, curves, group, interpolation)


def fill(
    id_block: Any,
    action: Any,
    curves: Mapping[Name, tuple[Any, Any]],
    group: str | Callable[[str], str] = "",
    interpolation: Any = "LINEAR",
) -> None:
    """As `write`, into the part of `action` that is meant for `id_block`, but it stays unassigned."""
    import numpy as np

    bag = compat.channelbag(id_block, action, create=True)
    existing = {(curve.data_path, curve.array_index): curve for curve in bag.fcurves}
    codes_by_name = codes()
    for name, (frames, values) in curves.items():
        points = np.empty((len(frames), 2), np.float32)
        if np.shape(values) != (len(frames),):
            raise ValueError(f"{name}: {len(frames)} frames and values of shape {np.shape(values)}")
        points[:, 0], points[:, 1] = frames, values
        if not np.isfinite(points).all():
            raise ValueError(f"{name}: a key that is not finite")
        if len(points) == 0:
            if name in existing:
                bag.fcurves.remove(existing[name])
            continue
        curve = existing.get(name) or bag.fcurves.new(name[0], index=name[1])
        _set_group(bag, curve, group(name[0]) if callable(group) else group)
        _replace_keys(curve, points, _codes_of(interpolation, name, len(frames), codes_by_name))


def codes() -> dict[str, int]:
    """Interpolation -> the number that stands for it in `foreach_set`."""
    items = bpy.types.Keyframe.bl_rna.properties["interpolation"].enum_items
    return {name: items[name].value for name in INTERPOLATIONS}


def curves_of(id_block: Any, action: Any = None) -> dict[Name, Any]:
    """The curves that animate `id_block` in `action` (its own, if none is given), by name."""
    data = id_block.animation_data
    action = action or (data.action if data is not None else None)
    bag = compat.channelbag(id_block, action) if action is not None else None
    return {} if bag is None else {(curve.data_path, curve.array_index): curve for curve in bag.fcurves}


def read(curve: Any) -> tuple[np.ndarray, np.ndarray]:
    """The keys of a curve: frames (k,) and values (k,), float32."""
    import numpy as np

    points = np.empty(2 * len(curve.keyframe_points), np.float32)
    curve.keyframe_points.foreach_get("co", points)
    return points[0::2], points[1::2]


def read_interpolation(curve: Any) -> np.ndarray:
    """The interpolation of a curve's keys (k,), as the numbers of `codes()`."""
    import numpy as np

    kinds = np.empty(len(curve.keyframe_points), np.uint8)
    curve.keyframe_points.foreach_get("interpolation", kinds)
    return kinds


def evaluate(curve: Any, frames: Sequence[float]) -> np.ndarray:
    """The values of a curve at frames (k,), float32, with its interpolation, extrapolation and modifiers.

    Blender does the reckoning, so it is what plays; frames are Python floats (`tolist()`), for speed.
    """
    import numpy as np

    at = curve.evaluate
    return np.fromiter((at(frame) for frame in frames), np.float32, len(frames))


def remove(id_block: Any, action: Any, names: Iterable[Name]) -> int:
    """Take curves out of `action`; names that are not there are passed over. How many there were."""
    bag = compat.channelbag(id_block, action)
    curves = {} if bag is None else {(curve.data_path, curve.array_index): curve for curve in bag.fcurves}
    found = [curves[name] for name in set(names) if name in curves]
    for curve in found:
        bag.fcurves.remove(curve)
    return len(found)


def _codes_of(interpolation: Any, name: Name, count: int, known: dict[str, int]) -> np.ndarray:
    import numpy as np

    if isinstance(interpolation, str):
        return np.full(count, known[interpolation], np.uint8)
    given = interpolation.get(name)
    return np.full(count, known["LINEAR"], np.uint8) if given is None else np.asarray(given, np.uint8)


def _set_group(bag: Any, curve: Any, name: str) -> None:
    if name and (curve.group is None or curve.group.name != name):
        curve.group = bag.groups.get(name) or bag.groups.new(name)


def _replace_keys(curve: Any, points: np.ndarray, interpolation: np.ndarray) -> None:
    for modifier in list(curve.modifiers):
        curve.modifiers.remove(modifier)
    keys = curve.keyframe_points
    keys.clear()
    keys.add(len(points))
    keys.foreach_set("co", points.ravel())
    keys.foreach_set("interpolation", interpolation)
    curve.update()  # handles, for whoever turns the keys into Bezier ones
