# SPDX-License-Identifier: GPL-3.0-or-later
"""What the add-on keeps with an object: `object.liveportrait`."""

import bpy
from bpy.types import PropertyGroup

from .rig import LIVEPORTRAIT_PG_rig


class LIVEPORTRAIT_PG_object(PropertyGroup):
    """What the add-on knows about an object."""

    rig: bpy.props.PointerProperty(type=LIVEPORTRAIT_PG_rig)


CLASSES = (LIVEPORTRAIT_PG_object,)


def register() -> None:
    bpy.types.Object.liveportrait = bpy.props.PointerProperty(type=LIVEPORTRAIT_PG_object)


def unregister() -> None:
    del bpy.types.Object.liveportrait
