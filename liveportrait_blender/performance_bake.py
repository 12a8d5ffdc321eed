# SPDX-License-Identifier: GPL-3.0-or-later
"""A keypoint rig's whole performance, layers, NLA and controls together, as one plain Action; and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import bpy

from . import compat, keypoint_rig, rig_controls
from .names import UserError
from .rig_action import described
from .rig_control_table import controls
from .rig_layout import ACTION_KEY

BEFORE, WERE, MUTED = "liveportrait_rig_before", "liveportrait_controls_before", "liveportrait_rig_muted"
BAKED = "liveportrait_rig_baked"


def bake(rig: Any, frames: Sequence[int], name: str = "", scene: Any = None) -> Any:
    """Give the rig a new Action of what it shows at scene frames, which follow one another, controls at rest
    and the NLA's tracks muted; the Action. The shape keys and the portrait look as before.

    Raises:
        UserError: there are no frames, or the rig is linked.
    """
    scene = scene or bpy.context.scene
    restore(rig)
    data = rig.animation_data
    before = data.action if data is not None else None
    about = described(rig)
    motion = keypoint_rig.sample(rig, frames, scene=scene)
    name = name or f"{before.name if before is not None else rig.name} Baked"
    action = keypoint_rig.to_action(rig, motion, scene=scene, first_frame=frames[0], name=name)
    if about is not None:  # whose face is neutral is no matter of the range
        kept = {key: about[key] for key in ("neutrals", "channel_neutral", "canonical") if key in about}
        for key, value in kept.items():
            action[ACTION_KEY][key] = value
    rig[BAKED] = True
    if before is not None:
        rig[BEFORE] = before
    rig[MUTED] = "\n".join(_mute_tracks(rig))
    if rig_controls.has_controls(rig):
        rig[WERE] = {control.name: float(rig[control.name]) for control in controls()}
        rig_controls.reset(rig)
    rig.update_tag()
    return action


def restore(rig: Any) -> bool:
    """Have the rig play what it played before it was baked; whether it was. What was baked is kept."""
    if BAKED not in rig:
        return False
    data = rig.animation_data
    for name in str(rig[MUTED]).split("\n"):
        if name in data.nla_tracks:
            data.nla_tracks[name].mute = False
    if WERE in rig:
        for name, value in rig[WERE].to_dict().items():
            if name in rig:
                rig[name] = value
    before = rig.get(BEFORE)
    if before is not None:
        compat.assign_action(rig, before)
    else:
        data.action = None
    for key in (BAKED, BEFORE, WERE, MUTED):
        if key in rig:
            del rig[key]
    rig.update_tag()
    return True


def is_baked(rig: Any) -> bool:
    """Whether the rig was baked and not restored."""
    return rig is not None and BAKED in rig


def _mute_tracks(rig: Any) -> list[str]:
    if rig.library is not None:
        raise UserError(f"{rig.name} is linked from another file.", "Make a library override of it first.")
    tracks = [track for track in rig.animation_data.nla_tracks if not track.mute]
    for track in tracks:
        track.mute = True
    return [track.name for track in tracks]
