# SPDX-License-Identifier: GPL-3.0-or-later
"""Where baked curves go, so that what was there before can be had again: a new Action or an NLA strip.

The baked Action remembers it, in custom properties: it belongs to this file even where a library override
plays it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import bpy

from . import compat, fcurves, key_reduction

if TYPE_CHECKING:
    import numpy as np

BAKED = "liveportrait_baked"  # custom property of a baked Action: how ("ACTION" or "NLA")
BEFORE = "liveportrait_before"  # the Action that was there before, if any
TRACKS = "liveportrait_tracks"  # names of the tracks that were made, one a line
TO_ACTION, TO_STRIP = "ACTION", "NLA"


def thinned(
    frames: np.ndarray, values: Mapping[fcurves.Name, np.ndarray], tolerance: float
) -> dict[fcurves.Name, tuple[np.ndarray, np.ndarray]]:
    """Curves of samples (k,) at frames (k,): with no more linear keys than the tolerance needs."""
    found = {}
    for name, line in values.items():
        kept = key_reduction.reduced(frames, line, tolerance)
        found[name] = (frames[kept], line[kept])
    return found


def put(
    id_block: Any,
    lines: Mapping[fcurves.Name, Any],
    name: str,
    into: str = TO_ACTION,
    group: str | Callable[[str], str] = "",
) -> Any:
    """Let `id_block` play the curves in a new Action called `name` (Blender may add a number); the Action.

    into TO_ACTION: it is assigned, and begins as a copy of the one before, so that whatever else was animated
    goes on. TO_STRIP: it becomes a strip on a track of its own on top; an Action that was assigned becomes a
    strip below. Nothing is deleted, and `take_back` restores what was there.

    Raises:
        UserError: it is linked from another file.
    """
    if not any(len(frames) for frames, _ in lines.values()):
        into = TO_ACTION  # there is no strip without keys
    before = take_back(id_block)
    data = id_block.animation_data or id_block.animation_data_create()
    tracks = []
    if into == TO_ACTION:
        action = before.copy() if before is not None else bpy.data.actions.new(name)
        action.name = name
        fcurves.write(id_block, action, lines, group)
    else:
        action = bpy.data.actions.new(name)
        fcurves.fill(id_block, action, lines, group)
        if before is not None:
            data.action = None
            tracks.append(compat.add_strip(id_block, before, before.name)[0].name)
        tracks.append(compat.add_strip(id_block, action, name)[0].name)
    action.use_fake_user = True
    action[BAKED], action[TRACKS] = into, "\n".join(tracks)
    if before is not None:
        action[BEFORE] = before
    return action


def baked_action(id_block: Any) -> Any:
    """The Action that was baked into an ID (or None) and that it plays, or None. Cheap."""
    data = id_block.animation_data if id_block is not None else None
    if data is None:
        return None
    if data.action is not None and data.action.get(BAKED) == TO_ACTION:
        return data.action
    strips = (strip for track in data.nla_tracks for strip in track.strips)
    return next((s.action for s in strips if s.action is not None and s.action.get(BAKED) == TO_STRIP), None)


def is_baked(id_block: Any) -> bool:
    """Whether an ID plays what was baked into it."""
    return baked_action(id_block) is not None


def take_back(id_block: Any) -> Any:
    """Let it play what it played before it was baked into; the Action, or None. What was baked is kept, with
    a fake user. Where nothing was baked, nothing changes."""
    data, action = id_block.animation_data, baked_action(id_block)
    if action is None:
        return data.action if data is not None else None
    before = action.get(BEFORE)
    for name in str(action[TRACKS]).split("\n"):
        track = data.nla_tracks.get(name) if name else None
        if track is not None:
            data.nla_tracks.remove(track)
    if before is not None:
        compat.assign_action(id_block, before)
    elif data.action == action:
        data.action = None
    return before
