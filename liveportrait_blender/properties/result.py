# SPDX-License-Identifier: GPL-3.0-or-later
"""What the add-on keeps with a result: `image.liveportrait`, on the image that holds its frames.

The image is the result: planes that show it share it, and so does what made it. `results.of_object` finds it
from an object.
"""

import bpy
from bpy.props import BoolProperty, FloatProperty, IntProperty, PointerProperty, StringProperty
from bpy.types import PropertyGroup


class LIVEPORTRAIT_PG_result(PropertyGroup):
    """A result and the recipe that made it."""

    is_result: BoolProperty(name="Is a Result", description="Whether this image holds a result's frames")
    frames: IntProperty(name="Frames", description="How many frames it has", min=0)
    start_frame: IntProperty(name="Start Frame", description="The scene frame that shows its first picture")
    fps: FloatProperty(name="Frame Rate", description="Frames a second that it was made for", min=0.0)
    kind: StringProperty(name="Kind", description="PLANE, OBJECT or IMAGES: how it came into the scene")
    source: StringProperty(name="Source", description="The file of the portrait that it shows")
    source_near: StringProperty(name="Source Nearby", description="The same, from the frames' folder on")
    driving: StringProperty(
        name="Driving", description="The file that drove it, or library: and a name of the motion library"
    )
    driving_near: StringProperty(name="Driving Nearby", description="The same, from the frames' folder on")
    recipe: StringProperty(name="Recipe", description="The request that made it, as JSON")
    summary: StringProperty(name="Summary", description="What the backend said of it, as JSON")
    strip: StringProperty(name="Sound Strip", description="Its sound in the sequencer")
    material_before: PointerProperty(
        name="Material Before", description="What the object showed before", type=bpy.types.Material
    )


CLASSES = (LIVEPORTRAIT_PG_result,)


def register() -> None:
    bpy.types.Image.liveportrait = PointerProperty(type=LIVEPORTRAIT_PG_result)


def unregister() -> None:
    del bpy.types.Image.liveportrait
