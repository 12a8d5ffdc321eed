# SPDX-License-Identifier: GPL-3.0-or-later
"""The expression controls as pose assets of the current file, for Blender's asset shelf and pose library."""

from __future__ import annotations

from typing import Any

import bpy

from . import fcurves
from .rig_control_table import Control, Delta, controls
from .rig_layout import BONES, bone_path

POSE_MARK = "liveportrait_pose"  # custom property of such an Action: control and direction


def create(armature: Any) -> list[Any]:
    """Make a pose asset of each end of each control that moves keypoints; those that exist are made anew.

    A pose holds the keypoints that the control moves, at the end of its published range; blending it in by
    less is what a smaller value of the control does. Head and openings are not in poses.
    """
    made = []
    for control in controls():
        rest = control.default
        for end, word in ((control.maximum, ""), (control.minimum, " Reverse")):
            delta = control.up if end > rest else control.down
            if end == rest or not delta or (control.rest and word):
                continue
            made.append(_pose(armature, control, delta, abs(end - rest), word))
    return made


def _pose(armature: Any, control: Control, delta: Delta, amount: float, word: str) -> Any:
    mark = f"{control.name}{word}"
    found = [action for action in bpy.data.actions if action.get(POSE_MARK) == mark and not action.library]
    action = found[0] if found else bpy.data.actions.new(f"LivePortrait {control.label}{word}")
    action[POSE_MARK] = mark
    moved = {keypoint for keypoint, _ in delta}
    curves = {
        (bone_path(BONES[keypoint], "location"), axis): ([1.0], [delta.get((keypoint, axis), 0.0) * amount])
        for keypoint in sorted(moved)
        for axis in range(3)
    }
    fcurves.fill(armature, action, curves, lambda path: path.split('"')[1])
    action.asset_mark()
    action.asset_data.description = control.description
    for tag in ("LivePortrait", "Expression"):
        if tag not in action.asset_data.tags:
            action.asset_data.tags.new(tag)
    return action
