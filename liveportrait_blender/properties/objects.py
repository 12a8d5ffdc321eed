# SPDX-License-Identifier: GPL-3.0-or-later
"""What the add-on keeps with an object: `object.liveportrait`."""

import bpy
from bpy.types import PropertyGroup

from .calibration import LIVEPORTRAIT_PG_calibration, LIVEPORTRAIT_PG_head
from .rig import LIVEPORTRAIT_PG_rig
from .shape_keys import LIVEPORTRAIT_PG_shape_keys


class LIVEPORTRAIT_PG_object(PropertyGroup):
    """What the add-on knows about an object."""

    rig: bpy.props.PointerProperty(type=LIVEPORTRAIT_PG_rig)
    calibration: bpy.props.PointerProperty(type=LIVEPORTRAIT_PG_calibration, override={"LIBRARY_OVERRIDABLE"})
    head: bpy.props.PointerProperty(type=LIVEPORTRAIT_PG_head, override={"LIBRARY_OVERRIDABLE"})
    shape_keys: bpy.props.PointerProperty(type=LIVEPORTRAIT_PG_shape_keys, override={"LIBRARY_OVERRIDABLE"})


CLASSES = (LIVEPORTRAIT_PG_object,)


def register() -> None:
    bpy.types.Object.liveportrait = bpy.props.PointerProperty(
        type=LIVEPORTRAIT_PG_object, override={"LIBRARY_OVERRIDABLE"}
    )


def unregister() -> None:
    del bpy.types.Object.liveportrait
