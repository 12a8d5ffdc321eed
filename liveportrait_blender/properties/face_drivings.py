# SPDX-License-Identifier: GPL-3.0-or-later
"""A driving for each face of the portrait, saved with the scene: `scene.liveportrait.face_drivings`."""

import bpy
from bpy.types import PropertyGroup

from .. import compat
from . import options

KINDS = (
    ("MAIN", "The Driving", "What is chosen as the driving", "LINKED", 0),
    ("FILE", "A File", "A clip, picture or motion file of its own", "FILE_MOVIE", 1),
    ("LIBRARY", "Library", "A motion that comes with the add-on", "ASSET_MANAGER", 2),
    ("STILL", "Nothing", "This face stays as it is", "FREEZE", 3),
)


class LIVEPORTRAIT_PG_face_driving(PropertyGroup):
    """What drives the face with this number."""

    number: bpy.props.IntProperty(name="Face", description="The face's number", min=0)
    kind: bpy.props.EnumProperty(
        name="Driven by", description="What this face performs", items=KINDS, default="MAIN"
    )
    path: bpy.props.StringProperty(
        name="Performance",
        description="A clip or picture of a face, or a motion file, for this face",
        subtype="FILE_PATH",
        options=compat.path_property_options(),
    )
    library: bpy.props.EnumProperty(
        name="Motion", description="A motion that comes with the add-on", items=options.library_items()
    )


class LIVEPORTRAIT_PG_face_drivings(PropertyGroup):
    """of: the portrait whose faces are meant; for another one they count no more."""

    use: bpy.props.BoolProperty(
        name="A Driving for Each Face", description="Let several faces of the portrait perform"
    )
    of: bpy.props.StringProperty(name="Portrait", description="The portrait whose faces these are")
    faces: bpy.props.CollectionProperty(type=LIVEPORTRAIT_PG_face_driving)


CLASSES = (LIVEPORTRAIT_PG_face_driving, LIVEPORTRAIT_PG_face_drivings)
