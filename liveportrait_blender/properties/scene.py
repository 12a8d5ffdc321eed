# SPDX-License-Identifier: GPL-3.0-or-later
"""What is chosen for the next animation, saved with the scene: `scene.liveportrait`."""

import bpy
from bpy.types import PropertyGroup

from .. import compat
from . import options
from .controls import LIVEPORTRAIT_PG_controls
from .face_drivings import LIVEPORTRAIT_PG_face_drivings
from .options import LIVEPORTRAIT_PG_options

SOURCE_KINDS = (
    ("FILE", "File", "A picture or a clip on disk", "FILE_IMAGE", 0),
    ("IMAGE", "Image", "An image of this .blend file, also a packed or a painted one", "IMAGE_DATA", 1),
    ("OBJECT", "Object", "The texture of the active object", "OBJECT_DATA", 2),
    ("CLIPBOARD", "Clipboard", "The image on the clipboard", "PASTEDOWN", 3),
)
DRIVING_KINDS = (
    ("FILE", "File", "A clip, a picture, a motion file (.npz) or a template (.pkl)", "FILE_MOVIE", 0),
    ("CLIP", "Movie Clip", "A movie clip of this .blend file", "TRACKER", 1),
    ("STRIP", "Strip", "A movie or image strip of the video sequencer", "SEQUENCE", 2),
    ("LIBRARY", "Library", "A motion that comes with the add-on", "ASSET_MANAGER", 3),
)
RESULT_KINDS = (
    ("PLANE", "New Plane", "A new plane that shows the moving portrait", "IMAGE_PLANE", 0),
    ("OBJECT", "Selected Object", "Replace the texture of the active object", "MATERIAL", 1),
    ("IMAGES", "Only Images", "Write the image sequence and leave the scene as it is", "RENDER_RESULT", 2),
)


class LIVEPORTRAIT_PG_scene(PropertyGroup):
    """The source, the driving and everything else that an animation is made of."""

    source_kind: bpy.props.EnumProperty(
        name="Source", description="Where the portrait comes from", items=SOURCE_KINDS, default="FILE"
    )
    source_path: bpy.props.StringProperty(
        name="Portrait",
        description="A picture or a clip with a face",
        subtype="FILE_PATH",
        options=compat.path_property_options(),
    )
    source_image: bpy.props.PointerProperty(
        name="Image", description="The image that is the portrait", type=bpy.types.Image
    )
    driving_kind: bpy.props.EnumProperty(
        name="Driving", description="Where the performance comes from", items=DRIVING_KINDS, default="FILE"
    )
    driving_path: bpy.props.StringProperty(
        name="Performance",
        description="A clip or picture of a face, a motion file (.npz) or a template (.pkl)",
        subtype="FILE_PATH",
        options=compat.path_property_options(),
    )
    driving_clip: bpy.props.PointerProperty(
        name="Movie Clip", description="The clip of the driving face", type=bpy.types.MovieClip
    )
    driving_strip: bpy.props.StringProperty(
        name="Strip", description="A movie or image strip; the part between its handles is used"
    )
    driving_library: bpy.props.EnumProperty(
        name="Motion", description="A motion that comes with the add-on", items=options.library_items()
    )
    face_drivings: bpy.props.PointerProperty(name="Face Drivings", type=LIVEPORTRAIT_PG_face_drivings)
    options: bpy.props.PointerProperty(name="Options", type=LIVEPORTRAIT_PG_options)
    controls: bpy.props.PointerProperty(name="Expression Controls", type=LIVEPORTRAIT_PG_controls)
    result_kind: bpy.props.EnumProperty(
        name="Result", description="What becomes of the pictures", items=RESULT_KINDS, default="PLANE"
    )
    result_name: bpy.props.StringProperty(
        name="Name", description="Name of the result and of its folder; empty is named after the portrait"
    )


CLASSES = (LIVEPORTRAIT_PG_scene,)


def register() -> None:
    bpy.types.Scene.liveportrait = bpy.props.PointerProperty(type=LIVEPORTRAIT_PG_scene)


def unregister() -> None:
    del bpy.types.Scene.liveportrait
