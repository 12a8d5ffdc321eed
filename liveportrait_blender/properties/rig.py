# SPDX-License-Identifier: GPL-3.0-or-later
"""What the add-on keeps with a keypoint rig: `object.liveportrait.rig`.

The performance itself is in Blender's own data, so that it plays without the add-on.
"""

import bpy
from bpy.types import PropertyGroup


class LIVEPORTRAIT_PG_rig(PropertyGroup):
    """A keypoint rig's ties."""

    result: bpy.props.PointerProperty(
        type=bpy.types.Image,
        name="Result",
        description="The moving portrait that shows this performance; Render Performance updates it",
        poll=lambda self, image: image.liveportrait.is_result,
    )


CLASSES = (LIVEPORTRAIT_PG_rig,)
