# SPDX-License-Identifier: GPL-3.0-or-later
"""What calibration and the head keep with a mesh: `object.liveportrait.calibration` and `.head`."""

from typing import Any

import bpy
from bpy.types import PropertyGroup

from ..head_binding import AXES

OVERRIDABLE = {"LIBRARY_OVERRIDABLE"}
_ITEMS = [(axis, axis, f"The target's own {axis} axis") for axis in AXES]


def _rebind(settings: Any, _context: Any) -> None:
    """A head that is bound follows what is edited."""
    from .. import head_binding

    rig = settings.id_data.liveportrait.shape_keys.rig
    axes = (settings.pitch_axis, settings.yaw_axis, settings.roll_axis)
    if rig is None or len({axis[-1] for axis in axes}) < 3:
        return  # while one axis is chosen after the other
    if head_binding.find(settings.target, settings.bone) is not None:
        head_binding.bind(rig, settings.target, settings.bone, axes, settings.gain)


def _axis(name: str, default: str, text: str) -> Any:
    return bpy.props.EnumProperty(
        name=name, items=_ITEMS, default=default, description=text, update=_rebind, override=OVERRIDABLE
    )


class LIVEPORTRAIT_PG_head(PropertyGroup):
    """What turns with the performer's head."""

    target: bpy.props.PointerProperty(
        type=bpy.types.Object,
        name="Target",
        description="Your character's armature, or the object that is its head",
        override=OVERRIDABLE,
    )
    bone: bpy.props.StringProperty(
        name="Bone",
        description="The bone that is the head; empty to turn the object itself",
        override=OVERRIDABLE,
    )
    pitch_axis: _axis("Pitch", "X", "About which the head nods; forwards is positive")
    yaw_axis: _axis("Yaw", "-Z", "About which the head turns; to the subject's right is positive")
    roll_axis: _axis("Roll", "Y", "About which the head leans; to the left shoulder is positive")
    gain: bpy.props.FloatProperty(
        name="Gain",
        description="How much of the performer's turn is taken",
        default=1.0,
        soft_min=0.0,
        soft_max=2.0,
        update=_rebind,
        override=OVERRIDABLE,
    )


class LIVEPORTRAIT_PG_example(PropertyGroup):
    """How the shape keys should be at a frame. pose, channels: JSON, {name: value}."""

    frame: bpy.props.FloatProperty(name="Frame", override=OVERRIDABLE)
    pose: bpy.props.StringProperty(override=OVERRIDABLE)
    channels: bpy.props.StringProperty(override=OVERRIDABLE)


class LIVEPORTRAIT_PG_calibration(PropertyGroup):
    """Examples that were made by hand."""

    examples: bpy.props.CollectionProperty(
        type=LIVEPORTRAIT_PG_example, override={"LIBRARY_OVERRIDABLE", "USE_INSERTION"}
    )
    active: bpy.props.IntProperty(name="Active Example")


CLASSES = (LIVEPORTRAIT_PG_head, LIVEPORTRAIT_PG_example, LIVEPORTRAIT_PG_calibration)
