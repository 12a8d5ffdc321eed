# SPDX-License-Identifier: GPL-3.0-or-later
"""The expression controls of a scene over time: keyed, driven or in the NLA."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from . import fcurves
from .properties import controls

PATH = "liveportrait.controls."


def are_animated(scene: Any) -> bool:
    """Whether any control of the scene changes over time. Cheap, for poll."""
    return bool(_keyed(scene)) or _needs_steps(scene)


def sample(scene: Any, frames: Sequence[int]) -> dict[str, list[float]]:
    """The protocol's `controls` at scene frames: a list each, one value a frame, without those at rest.

    Values are what Blender shows at that frame. The scene's current frame stays as it is.
    """
    settings = scene.liveportrait.controls
    names = [name for row in controls.rows().values() for name in (row["name"], controls.switch(row)) if name]
    if _needs_steps(scene):
        each: Sequence[Mapping[str, float]] = _stepped(scene, frames)
    else:
        at = [float(frame) for frame in frames]
        curves = {name: fcurves.evaluate(curve, at).tolist() for name, curve in _keyed(scene).items()}
        still = {name: getattr(settings, name) for name in names if name not in curves}
        each = [
            controls.as_controls(SimpleNamespace(**still, **{name: row[i] for name, row in curves.items()}))
            for i in range(len(at))
        ]
    return controls.as_control_curves(_within_range(each))


def _keyed(scene: Any) -> dict[str, Any]:
    """Name of a property of the controls -> its F-curve."""
    return {
        path.removeprefix(PATH): curve
        for (path, _), curve in fcurves.curves_of(scene).items()
        if path.startswith(PATH)
    }


def _needs_steps(scene: Any) -> bool:
    """Whether more than an action moves the controls."""
    data = scene.animation_data
    if data is None:
        return False
    if any(driver.data_path.startswith(PATH) for driver in data.drivers):
        return True
    return data.use_nla and any(not track.mute and track.strips for track in data.nla_tracks)


def _stepped(scene: Any, frames: Sequence[int]) -> list[dict[str, float]]:
    """Go through the frames, as playing them does."""
    now, sub = scene.frame_current, scene.frame_subframe
    each = []
    try:
        for frame in frames:
            scene.frame_set(frame)
            each.append(controls.as_controls(scene.liveportrait.controls))
    finally:
        scene.frame_set(now, subframe=sub)
    return each


def _within_range(each: Sequence[Mapping[str, float]]) -> list[dict[str, float]]:
    """A curve may overshoot between its keys; the sliders that it moves stop at their ends."""
    rows = controls.rows()
    return [
        {name: min(max(value, rows[name]["minimum"]), rows[name]["maximum"]) for name, value in frame.items()}
        for frame in each
    ]
