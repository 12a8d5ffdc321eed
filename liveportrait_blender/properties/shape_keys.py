# SPDX-License-Identifier: GPL-3.0-or-later
"""Which shape key follows which channel, kept with a mesh object: `object.liveportrait.shape_keys`.

Several entries may feed one shape key: their values are added, and the first one gives the range of the sum.
"""

from typing import Any

import bpy
from bpy.types import PropertyGroup

from .. import rig_channels
from ..keypoint_rig import is_rig

OVERRIDABLE = {"LIBRARY_OVERRIDABLE"}
LIMIT = 10.0  # Blender's own for the range of a shape key


def channel_names() -> tuple[str, ...]:
    """What an entry can follow: ARKit's channels and the head's angles."""
    return (*rig_channels.names(), *rig_channels.HEAD_ANGLES)


def _channels() -> list[tuple[str, str, str, int]]:
    unknown = rig_channels.unknown()
    rows = [
        (name, name, f"Always 0: {unknown[name]}".rstrip(".") if name in unknown else "ARKit channel", number)
        for number, name in enumerate(rig_channels.names())
    ]
    angles = enumerate(rig_channels.HEAD_ANGLES, 100)
    return rows + [(name, name, "The head's turn in radians", number) for number, name in angles]


def _changed(entry: Any, _context: Any) -> None:
    """Drivers that are there follow what is edited."""
    from .. import shape_key_drivers

    shape_key_drivers.refresh(entry.id_data)


def _rig_changed(settings: Any, _context: Any) -> None:
    from .. import shape_key_drivers

    shape_key_drivers.refresh(settings.id_data)


class LIVEPORTRAIT_PG_shape_key(PropertyGroup):
    """One source of a shape key's value: min(max(offset + gain * channel, minimum), maximum)."""

    shape_key: bpy.props.StringProperty(
        name="Shape Key", description="The shape key that moves", update=_changed, override=OVERRIDABLE
    )
    channel: bpy.props.EnumProperty(
        name="Channel",
        description="The channel of the performance that it follows; left and right are the subject's",
        items=_channels(),
        default="jawOpen",
        update=_changed,
        override=OVERRIDABLE,
    )
    use: bpy.props.BoolProperty(
        name="Use",
        description="Let the shape key follow; off, this entry takes no part",
        default=True,
        update=_changed,
        override=OVERRIDABLE,
    )
    mirror: bpy.props.BoolProperty(
        name="Mirror",
        description="Take the channel of the other side",
        default=False,
        update=_changed,
        override=OVERRIDABLE,
    )
    gain: bpy.props.FloatProperty(
        name="Gain",
        description="What the channel is multiplied by",
        default=1.0,
        soft_min=-2.0,
        soft_max=4.0,
        step=5,
        update=_changed,
        override=OVERRIDABLE,
    )
    offset: bpy.props.FloatProperty(
        name="Offset",
        description="What is added: the value where the channel is 0",
        default=0.0,
        soft_min=-1.0,
        soft_max=1.0,
        step=1,
        update=_changed,
        override=OVERRIDABLE,
    )
    minimum: bpy.props.FloatProperty(
        name="Min",
        description="The least value",
        default=0.0,
        min=-LIMIT,
        max=LIMIT,
        step=5,
        update=_changed,
        override=OVERRIDABLE,
    )
    maximum: bpy.props.FloatProperty(
        name="Max",
        description="The largest value",
        default=1.0,
        min=-LIMIT,
        max=LIMIT,
        step=5,
        update=_changed,
        override=OVERRIDABLE,
    )
    dead_zone: bpy.props.FloatProperty(
        name="Dead Zone",
        description="Values of the channel up to this count as 0; the full value stays the full value",
        default=0.0,
        min=0.0,
        max=0.9,
        step=1,
        update=_changed,
        override=OVERRIDABLE,
    )
    # The shape key's own range where ours had to be wider, for the day when it is driven no more.
    widened: bpy.props.BoolProperty(options={"HIDDEN"}, override=OVERRIDABLE)
    slider_range: bpy.props.FloatVectorProperty(
        size=2, default=(0.0, 1.0), options={"HIDDEN"}, override=OVERRIDABLE
    )


class LIVEPORTRAIT_PG_shape_keys(PropertyGroup):
    """How a mesh follows a performance."""

    rig: bpy.props.PointerProperty(
        type=bpy.types.Object,
        name="Performance",
        description="The keypoint rig whose channels the shape keys follow",
        poll=lambda self, candidate: is_rig(candidate),
        update=_rig_changed,
        override=OVERRIDABLE,
    )
    entries: bpy.props.CollectionProperty(
        type=LIVEPORTRAIT_PG_shape_key, override={"LIBRARY_OVERRIDABLE", "USE_INSERTION"}
    )
    active: bpy.props.IntProperty(name="Active Entry", default=0, override=OVERRIDABLE)


CLASSES = (LIVEPORTRAIT_PG_shape_key, LIVEPORTRAIT_PG_shape_keys)
