# SPDX-License-Identifier: GPL-3.0-or-later
"""Frames on disk -> an image sequence, a material that shows it as it is, and a plane in its shape.

Which file a scene frame F shows was measured by rendering, on 4.2 to 5.2:
clamp(F - frame_start + 1, 0, frame_duration) + frame_offset. With files from 000000 on, frame_offset -1 and
frame_duration N, the start frame and those before it show the first file, those after the end the last.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bpy

from . import compat

FIRST = "000000.png"
GAP = 0.08  # between planes side by side, in their height


def load_sequence(folder: Path, name: str, relative: bool = True) -> Any:
    """A new image of the frames in a folder; relative to the .blend where that can be. Raises RuntimeError.

    Always a datablock of its own: what Blender has cached of another must not show through after undo.
    """
    image = bpy.data.images.load(str(folder / FIRST), check_existing=False)
    image.name = name
    image.source = "SEQUENCE"
    image.colorspace_settings.name = "sRGB"
    image.alpha_mode = "STRAIGHT"
    if relative:
        image.filepath = relative_path(folder / FIRST)
    return image


def relative_path(path: Path) -> str:
    """A path as //..., as it is when the .blend is not saved or lies on another drive."""
    if not bpy.data.filepath:
        return str(path)
    try:
        return bpy.path.relpath(str(path))
    except ValueError:  # another drive
        return str(path)


def set_timing(user: Any, frames: int, start: int) -> None:
    """Let an image user show one picture a scene frame, from `start` on."""
    user.frame_duration = max(frames, 1)
    user.frame_start = start
    user.frame_offset = -1
    user.use_cyclic = False
    user.use_auto_refresh = True


def shown_frame(user: Any, frame: int) -> int:
    """What `frame_current` of an image user is at a scene frame, without cycles: see above."""
    return min(max(frame - user.frame_start + 1, 0), user.frame_duration) + user.frame_offset


def portrait_material(name: str, image: Any, frames: int, start: int) -> Any:
    """A material that shows the image in its own colours, unlit, where its alpha lets it."""
    material = bpy.data.materials.new(name)
    compat.enable_nodes(material)
    material.surface_render_method = "DITHERED"  # sorts right with all else in EEVEE
    tree = material.node_tree
    tree.nodes.clear()
    output = tree.nodes.new("ShaderNodeOutputMaterial")
    mix = tree.nodes.new("ShaderNodeMixShader")
    clear = tree.nodes.new("ShaderNodeBsdfTransparent")
    emission = tree.nodes.new("ShaderNodeEmission")
    texture = tree.nodes.new("ShaderNodeTexImage")
    for node, x, y in ((output, 400, 0), (mix, 200, 0), (clear, 0, 100), (emission, 0, -20)):
        node.location = (x, y)
    texture.location = (-320, 0)
    texture.image = image
    texture.extension = "EXTEND"
    set_timing(texture.image_user, frames, start)
    tree.links.new(texture.outputs["Color"], emission.inputs["Color"])
    tree.links.new(texture.outputs["Alpha"], mix.inputs["Fac"])
    tree.links.new(clear.outputs[0], mix.inputs[1])
    tree.links.new(emission.outputs[0], mix.inputs[2])
    tree.links.new(mix.outputs[0], output.inputs["Surface"])
    tree.nodes.active = texture
    return material


def plane(name: str, image: Any, material: Any) -> Any:
    """An upright plane, one unit high, as wide as the image's pixels ask; not yet in a scene."""
    mesh = bpy.data.meshes.new(name)
    mesh.from_pydata(corners(half_width(image)), [], [(0, 1, 2, 3)])
    layer = mesh.uv_layers.new(name="UVMap")
    for corner, place in zip(layer.data, ((0, 0), (1, 0), (1, 1), (0, 1))):
        corner.uv = place
    mesh.materials.append(material)
    return bpy.data.objects.new(name, mesh)


def half_width(image: Any) -> float:
    """Of a plane one unit high."""
    width, height = image.size
    across, down = image.display_aspect
    return 0.5 * (width * across) / (height * down) if width and height else 0.5


def free_place(scene: Any, image: Any) -> tuple[float, float, float]:
    """Where a new plane of an image goes: to the 3D cursor, or to the right of planes that stand there."""
    x, y, z = scene.cursor.location
    planes = [
        (owner.matrix_world.translation if owner.parent else owner.location, half_width(other))
        for other in bpy.data.images
        if other != image
        for owner in objects_with(other)
        if scene in owner.users_scene and is_plane_of(owner, other)
    ]
    for place, half in sorted(planes, key=lambda found: found[0].x):
        gap = half_width(image) + half
        if abs(place.y - y) < 1e-3 and abs(place.z - z) < 0.5 and abs(place.x - x) < gap:
            x = place.x + gap + GAP
    return (x, y, z)


def corners(half: float) -> list[tuple[float, float, float]]:
    """Of an upright plane, from below left, seen from the front."""
    return [(-half, 0.0, -0.5), (half, 0.0, -0.5), (half, 0.0, 0.5), (-half, 0.0, 0.5)]


def put_on(owner: Any, material: Any) -> Any:
    """Give an object the material in its active slot: the one before it, or None.

    Whoever calls keeps that one in a pointer, of which Blender counts a user, so it stays in the file. The
    slot is the object's own, so that others with the same mesh keep theirs.
    """
    if not owner.material_slots:
        owner.data.materials.append(None)
    slot = owner.material_slots[owner.active_material_index]
    before = slot.material
    slot.link = "OBJECT"
    slot.material = material
    return before


def texture_nodes(image: Any) -> Iterator[tuple[Any, Any]]:
    """(node tree, node) of every image texture node that shows an image."""
    trees = [material.node_tree for material in bpy.data.materials if material.node_tree]
    trees += [world.node_tree for world in bpy.data.worlds if world.node_tree]
    trees += [light.node_tree for light in bpy.data.lights if light.node_tree]
    for tree in [*trees, *bpy.data.node_groups]:
        for node in tree.nodes:
            if getattr(node, "image", None) == image and hasattr(node, "image_user"):
                yield tree, node


def objects_with(image: Any) -> list[Any]:
    """The objects with a material that shows an image."""
    trees = {tree for tree, _ in texture_nodes(image)}
    return [
        owner
        for owner in bpy.data.objects
        if any(slot.material and slot.material.node_tree in trees for slot in owner.material_slots)
    ]


def is_plane_of(owner: Any, image: Any) -> bool:
    """Whether an object is a plane as it was made for an image, its shape untouched."""
    if owner.type != "MESH" or len(owner.data.vertices) != 4:
        return False
    places = [tuple(vertex.co) for vertex in owner.data.vertices]
    pairs = zip(places, corners(half_width(image)))
    return all(abs(a - b) < 1e-5 for place, corner in pairs for a, b in zip(place, corner))


def fit_planes(before: Any, after: Any) -> None:
    """Give planes that were made in the shape of one image that of another; any other mesh stays as it is."""
    new = half_width(after)
    for mesh in {owner.data for owner in objects_with(before) if is_plane_of(owner, before)}:
        for vertex, corner in zip(mesh.vertices, corners(new)):
            vertex.co = corner
        mesh.update()
