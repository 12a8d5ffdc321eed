# SPDX-License-Identifier: GPL-3.0-or-later
"""Source, driving and result side by side, in step with each other: planes in a collection of their own."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import bpy

from . import compat, image_plane, recipes
from .names import UserError

PICTURES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}
BEFORE_ALL = 100_000  # frames before the first, so that scene frames before a clip's start count up too
NODE = "Image Texture"


def collection_name(image: Any) -> str:
    return f"Compare {image.name}"[:63]


def shown(image: Any) -> Any:
    """The collection that compares a result, or None."""
    return bpy.data.collections.get(collection_name(image))


def build(scene: Any, image: Any) -> Any:
    """A collection with the source and the driving left of the result: the collection. Raises UserError.

    The result's own plane is the third where there is one. A driving without pictures (a motion file, the
    library) has no plane.
    """
    source, driving = recipes.source_of(image), recipes.driving_of(image)
    if source is None:
        raise UserError("The portrait of this result is gone.", f"It was {image.liveportrait.source}.")
    options = recipes.options_of(image)
    frames = options.get("frames") or (0, None)
    planes = [_plane(f"{image.name}: source", source, scene, image.liveportrait, 0)]
    if isinstance(driving, Path) and (driving.is_dir() or driving.suffix.lower() not in (".npz", ".pkl")):
        planes.append(_plane(f"{image.name}: driving", driving, scene, image.liveportrait, int(frames[0])))
    owners = (one for one in image_plane.objects_with(image) if image_plane.is_plane_of(one, image))
    owner = next(owners, None)
    if owner is None:
        said = image.liveportrait
        material = image_plane.portrait_material(image.name, image, said.frames, said.start_frame)
        planes.append(image_plane.plane(f"{image.name}: result", image, material))
    place = owner.matrix_world.translation.copy() if owner else scene.cursor.location.copy()
    row = [*planes, owner] if owner else planes
    halves = [max(abs(vertex.co.x) for vertex in one.data.vertices) for one in row]
    collection = bpy.data.collections.new(collection_name(image))
    scene.collection.children.link(collection)
    right = place.x + halves[-1]
    for one, half in zip(reversed(row), reversed(halves)):
        if one is not owner:
            one.location = (right - half, place.y, place.z)
            collection.objects.link(one)
        right -= 2 * half + image_plane.GAP
    return collection


def remove(collection: Any) -> None:
    """Take a comparison away, with its pictures."""
    for owner in list(collection.objects):
        mesh, materials = owner.data, [slot.material for slot in owner.material_slots]
        bpy.data.objects.remove(owner)
        if not mesh.users:
            bpy.data.meshes.remove(mesh)
        for material in materials:
            images = {node.image for node in material.node_tree.nodes if getattr(node, "image", None)}
            if not material.users:
                bpy.data.materials.remove(material)
            for image in images:
                if not image.users and not image.liveportrait.is_result:
                    bpy.data.images.remove(image)
    bpy.data.collections.remove(collection)


def _plane(name: str, path: Path, scene: Any, said: Any, skipped: int) -> Any:
    """A plane that shows a picture, a clip or a folder of pictures in step with a result."""
    file, offset, rate, count = _first_of(path)
    try:
        image = bpy.data.images.load(str(file), check_existing=False)
    except RuntimeError as error:
        raise UserError(f"{file.name} cannot be read.", "Is the file still there?") from error
    image.name = name
    image.filepath = image_plane.relative_path(file)
    material = image_plane.portrait_material(name, image, 1, said.start_frame)
    if count > 1:
        image.source = "MOVIE" if path.is_file() else "SEQUENCE"
        _in_step(material.node_tree, scene, said, skipped, offset, rate, count)
    return image_plane.plane(name, image, material)


def _first_of(path: Path) -> tuple[Path, int, float, int]:
    """(file, number of the first picture, frames a second, how many) of a picture, a clip or a folder.

    0 frames a second: one picture a scene frame, as a result has of a folder.
    """
    if path.is_dir():
        files = sorted(entry for entry in path.iterdir() if entry.suffix.lower() in PICTURES)
        if not files:
            raise UserError(f"There are no pictures in {path}.", "Put them back.")
        digits = re.findall(r"\d+", files[0].stem)
        return files[0], int(digits[-1]) if digits else 0, 0.0, len(files)
    if path.suffix.lower() in PICTURES:
        return path, 0, 0.0, 1
    try:
        clip = bpy.data.movieclips.load(str(path))
    except RuntimeError as error:
        raise UserError(f"{path.name} cannot be read.", "Is the file still there?") from error
    try:
        return path, 1, clip.fps or 25.0, max(clip.frame_duration, 2)
    finally:
        bpy.data.movieclips.remove(clip)


def _in_step(tree: Any, scene: Any, said: Any, skipped: int, first: int, rate: float, count: int) -> None:
    """Let a clip run at its own rate in a scene of another, as the result does.

    The picture's number is clamp(F - frame_start + 1, 0, frame_duration) + frame_offset, so the offset is
    driven. Blender evaluates this expression without Python.
    """
    user = tree.nodes.active.image_user
    tree.nodes.active.name = NODE
    user.frame_duration, user.frame_start = 1_048_574, -BEFORE_ALL + 1
    user.use_auto_refresh, user.use_cyclic = True, False
    curve = tree.driver_add(f'nodes["{NODE}"].image_user.frame_offset')
    compat.clear_driver_curve(curve)
    ratio = rate / compat.rate(scene) if rate else 1.0
    picture = f"min({skipped}+floor(max(frame-{said.start_frame},0)*{ratio:.9g}+0.001),{count - 1})"
    curve.driver.expression = f"{first}+{picture}-frame-{BEFORE_ALL}"
