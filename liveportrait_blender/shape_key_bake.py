# SPDX-License-Identifier: GPL-3.0-or-later
"""Shape keys that follow a performance, as curves of their own; and back to the drivers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from . import baking, channel_samples, shape_key_drivers, shape_key_sums
from .channel_samples import Samples
from .keypoint_rig import is_rig
from .names import UserError
from .shape_key_drivers import driven, key_of, value_path
from .shape_key_formula import key_values

if TYPE_CHECKING:
    import numpy as np

MUTE, REMOVE = "MUTE", "REMOVE"
REMOVED = "liveportrait_drivers_removed"  # custom property of the Action: drivers are to be made anew


@dataclass(frozen=True)
class How:
    """How to bake: into baking.TO_ACTION or TO_STRIP; what becomes of the drivers; the largest error that
    leaving keys out may make, 0 for a key at every frame; the Action's name [the
    performance's and the mesh's]."""

    into: str = baking.TO_ACTION
    drivers: str = MUTE
    tolerance: float = 0.0
    name: str = ""


@dataclass
class Baked:
    """What was baked of a mesh: names of shape keys, number of keys; `foreign`: a driver of the user's was
    kept, so nothing was baked; `missing`: there is no such shape key; `notes`: why a mesh was left out."""

    mesh: str
    shape_keys: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    keys: int = 0
    frames: int = 0
    action: Any = None

    @property
    def is_warning(self) -> bool:
        """Whether something was left out."""
        return bool(self.foreign or self.missing or self.notes)

    def sentence(self) -> str:
        """What happened, for the user."""
        if self.notes:
            return self.notes[0]
        text = f'"{self.mesh}": {len(self.shape_keys)} shape keys, {self.keys} keys of {self.frames} frames'
        if self.foreign:
            text += f"; kept the driver of your own: {', '.join(self.foreign[:4])}"
        if self.missing:
            text += f"; no such shape key: {', '.join(self.missing[:4])}"
        return text + "."


def bake(
    objects: Iterable[Any],
    frames: Sequence[float],
    how: How = How(),
    *,
    scene: Any = None,
    stepwise: bool | None = None,
    progress: Callable[[float], None] | None = None,
) -> list[Baked]:
    """Give the shape keys of meshes keys of what their entries make of the rig's channels at scene frames.

    A key block that several objects share is baked once, by the first. Values are those that the drivers
    show, within the shape key's range. stepwise: as channel_samples.sample has it.

    Raises:
        UserError: no object could be baked; the sentence is the first one's.
    """
    import numpy as np

    found: list[Baked] = []
    errors: list[UserError] = []
    seen: dict[Any, str] = {}
    sampled: dict[Any, Samples] = {}
    at = np.asarray(frames, np.float64)
    for item in objects:
        key = key_of(item)
        result = Baked(item.name)
        found.append(result)
        if key is not None and key in seen:
            result.notes.append(f'"{item.name}" shares its shape keys with "{seen[key]}".')
            continue
        try:
            rig = _rig_of(item)
            if rig not in sampled:
                words = {"scene": scene, "stepwise": stepwise, "progress": progress}
                sampled[rig] = channel_samples.sample(rig, at.tolist(), **words)
            _bake_one(item, sampled[rig], how, result)
            seen[key] = item.name
        except UserError as error:
            errors.append(error)
            result.notes.append(str(error))
    if errors and not seen:
        raise errors[0]
    return found


def values_at(mesh_object: Any, samples: Samples) -> dict[str, np.ndarray]:
    """{shape key: (k,) float64}: what the entries of a mesh make of channels, within its sliders' ranges."""
    import numpy as np

    blocks = key_of(mesh_object).key_blocks
    return {
        name: np.clip(line, blocks[name].slider_min, blocks[name].slider_max) if name in blocks else line
        for name, line in key_values(mesh_object.liveportrait.shape_keys.entries, samples.values).items()
    }


def is_baked(mesh_object: Any) -> bool:
    """Whether a mesh's shape keys were baked. Cheap: draw code asks."""
    return baking.is_baked(key_of(mesh_object))


def restore(mesh_object: Any) -> int:
    """Have the drivers back that baking muted or removed, and what was played before; how many drivers work.
    The baked Action stays in the file. Raises UserError where the shape keys cannot be written."""
    key = key_of(mesh_object)
    if not baking.is_baked(key):
        raise UserError(f'"{mesh_object.name}" was not baked.', "Choose a mesh that was.")
    _writable(mesh_object)
    removed = REMOVED in baking.baked_action(key)
    baking.take_back(key)
    for curve in driven(mesh_object).values():
        curve.mute = False
    if removed:
        shape_key_drivers.drive(mesh_object)
    mesh_object.data.update_tag()
    return len(driven(mesh_object))


def _bake_one(item: Any, samples: Samples, how: How, result: Baked) -> None:
    _writable(item)
    key = key_of(item)
    ours = driven(item)
    foreign = {curve.data_path for curve in key.animation_data.drivers} if key.animation_data else set()
    foreign -= {curve.data_path for curve in ours.values()}
    lines = {}
    for name, line in values_at(item, samples).items():
        block = key.key_blocks.get(name)
        if block is None:
            result.missing.append(name)
        elif value_path(block) in foreign:
            result.foreign.append(name)
        elif block != key.reference_key:
            lines[value_path(block), 0] = line
            result.shape_keys.append(name)
    thinned = baking.thinned(samples.frames, lines, how.tolerance)
    # Blender would bring the drivers of a library back.
    remove = how.drivers == REMOVE and item.data.override_library is None
    before = baking.baked_action(key)
    was_removed = before is not None and REMOVED in before
    name = how.name or f"{_name_of(_rig_of(item))} {item.name}"
    result.action = baking.put(key, thinned, name, how.into, group="Shape Keys")
    for curve in ours.values():
        if remove:
            key.animation_data.drivers.remove(curve)
        else:
            curve.mute = True
    shape_key_sums.tidy(key)
    if was_removed or (remove and ours):
        result.action[REMOVED] = True
    result.keys = sum(len(frames) for frames, _ in thinned.values())
    result.frames = len(samples)
    item.data.update_tag()


def _rig_of(item: Any) -> Any:
    settings = item.liveportrait.shape_keys
    if key_of(item) is None:
        raise UserError(f'"{item.name}" has no shape keys.', "Choose a mesh with shape keys.")
    if not is_rig(settings.rig):
        raise UserError(f'"{item.name}" follows no performance.', "Choose a performance's armature.")
    if not any(entry.shape_key for entry in settings.entries):
        raise UserError(f'"{item.name}" has no entries.', "Match its shape keys by name, or add some.")
    return settings.rig


def _name_of(rig: Any) -> str:
    data = rig.animation_data
    return data.action.name if data is not None and data.action is not None else rig.name


def _writable(item: Any) -> None:
    reason = shape_key_drivers.why_not(item)
    if reason:
        raise UserError(f"{reason}.")
