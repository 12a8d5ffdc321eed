# SPDX-License-Identifier: GPL-3.0-or-later
"""Results: where their frames lie, and how they come into the file.

A result is an image: a sequence of frames in a folder of its own, with what made it in `image.liveportrait`.
Planes and materials show it. A job writes into a new folder (`new_folder`) and lands when it is done (`land`,
or the operator liveportrait.apply_result). A result that is made again gets another folder and image, which
takes the old one's place everywhere: what fails or is cancelled changes nothing, and undo brings it back.
"""

from __future__ import annotations

import json
import os
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import bpy

from . import image_plane, paths, recipes, sound
from .names import UserError

FOLDER = "liveportrait"  # beside the .blend
USER_FOLDER = "results"  # in the user folder, for a .blend that has no place yet
KINDS = ("PLANE", "OBJECT", "IMAGES")
FRAME = re.compile(r"\d{6,}\.png")
LONGEST_NAME = 60
RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # no folder of Windows's


@dataclass(frozen=True)
class Landing:
    """A result that is to come into the file. Plain data: it outlives undo, and a job can hold it.

    folder: absolute, with 000000.png ... kind: of KINDS. scene, target: by name and session_uid; target is
    the object that an OBJECT result is put on. replaces: the session_uid of the image of the result that this
    one replaces, 0 for a new one. result: what the backend said (result.json). source, driving: what made it,
    for people and for Animate Again; recipe: the whole request. sound: a file whose sound goes into the
    sequencer, "" for none, heard from `sound_start` seconds on. select: make the plane the active object.
    """

    folder: str
    name: str
    kind: str
    start_frame: int
    scene: str
    scene_uid: int
    target: str = ""
    target_uid: int = 0
    replaces: int = 0
    result: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""
    driving: str = ""
    recipe: Mapping[str, Any] = field(default_factory=dict)
    sound: str = ""
    sound_start: float = 0.0
    select: bool = True

    def as_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Landing:
        return cls(**json.loads(text))


@dataclass(frozen=True)
class Landed:
    """What has come into the file. owner: the plane, or the object that shows it now; may be None. warning: a
    sentence on what should be done yet.
    """

    image: Any
    owner: Any = None
    strip: Any = None
    warning: str = ""


def new_folder(context: Any, name: str) -> Path:
    """A new, empty folder for a result of that name; it never existed before. Raises UserError.

    Beside the .blend; in the user folder while the file is not saved or where its place cannot be written.
    """
    wanted = folder_name(name)
    roots = [paths.user_folder(USER_FOLDER)]
    if bpy.data.filepath:
        roots.insert(0, Path(bpy.data.filepath).parent / FOLDER)
    fault: OSError | None = None
    for root in roots:
        try:
            root.mkdir(parents=True, exist_ok=True)
            return make_folder(root, wanted)
        except OSError as error:
            fault = error
    assert fault is not None
    raise UserError(
        f"No folder can be made for the frames: {fault.strerror}.", "Save the file somewhere else."
    ) from fault


def elsewhere(folder: Path) -> str:
    """A sentence where a new folder could not be made beside the saved .blend, with where it is; else ""."""
    if not bpy.data.filepath:
        return ""
    wanted = Path(bpy.data.filepath).parent / FOLDER
    if folder.parent == wanted:
        return ""
    return f"{wanted} cannot be written, so the frames go to {folder}."


def folder_name(name: str) -> str:
    """A name that can be a folder's on every system."""
    plain = unicodedata.normalize("NFC", name)
    plain = "".join("_" if one in '<>:"/\\|?*' or not one.isprintable() else one for one in plain)
    plain = plain.strip(" .")[:LONGEST_NAME].rstrip(" .")
    return f"_{plain}" if RESERVED.fullmatch(plain) else plain or "result"


def make_folder(root: Path, name: str) -> Path:
    """A new folder of about that name. Raises OSError."""
    number = 1
    while True:
        folder = root / (name if number == 1 else f"{name}_{number:03d}")
        try:
            folder.mkdir()  # the one step that tells two jobs apart
            return folder
        except FileExistsError:
            number += 1


def frames_in(folder: Path) -> int:
    """How many frames there are from 000000.png on without a gap."""
    try:
        names = {entry.name for entry in folder.iterdir() if FRAME.fullmatch(entry.name)}
    except OSError:
        return 0
    count = 0
    while f"{count:06d}.png" in names:
        count += 1
    return count


# --- finding results ----------------------------------------------------------------------------------------


def all_results() -> list[Any]:
    """The images of this file that are results, by name."""
    return [image for image in bpy.data.images if image.liveportrait.is_result]


def of_object(owner: Any) -> Any:
    """The image of the result that an object shows, or None. Cheap: for draw and poll."""
    for slot in getattr(owner, "material_slots", ()):
        found = of_material(slot.material)
        if found is not None:
            return found
    return None


def of_material(material: Any) -> Any:
    """The image of the result that a material shows, or None."""
    tree = material.node_tree if material else None
    for node in tree.nodes if tree else ():
        image = getattr(node, "image", None)
        if image is not None and image.liveportrait.is_result:
            return image
    return None


def active(context: Any) -> Any:
    """The image of the result that the active object shows or, a rig, performs; the only one in the file
    where it has none; or None. Cheap: for draw and poll."""
    owner = context.active_object
    found = of_object(owner) if owner is not None else None
    if found is None and owner is not None:
        tied = owner.liveportrait.rig.result
        found = tied if tied is not None and tied.liveportrait.is_result else None
    if found is None:
        every = all_results()
        found = every[0] if len(every) == 1 else None
    return found


def span(image: Any) -> tuple[int, int]:
    """The scene frames that show the first and the last picture of a result."""
    said = image.liveportrait
    return said.start_frame, said.start_frame + max(said.frames, 1) - 1


def folder_of(image: Any) -> Path:
    """The folder that an image's frames lie in."""
    return Path(os.path.normpath(bpy.path.abspath(image.filepath, library=image.library))).parent


def outside(image: Any) -> bool:
    """Whether a result would stay behind when the .blend and its folder are moved or sent. Cheap."""
    path = image.filepath
    if not path.startswith("//") or path.startswith(("//..", "//\\..")):
        return True
    # A .blend in the home folder has the user folder below it.
    return folder_of(image).is_relative_to(_user_root(os.environ.get("LIVEPORTRAIT_USER_FOLDER", "")))


@cache
def _user_root(_override: str) -> Path:
    """Where results of files without a place lie; remembered, since draw asks."""
    return Path(os.path.normpath(paths.user_folder(USER_FOLDER)))


def scene_of(landing: Landing) -> Any:
    """The scene that a result is for. Raises UserError when its file was closed or it was deleted."""
    scene = by_uid(bpy.data.scenes, landing.scene_uid)
    if scene is None:
        raise UserError(f'The scene "{landing.scene}" of this result is no longer open.')
    return scene


def by_uid(collection: Any, uid: int) -> Any:
    """The datablock with a session_uid, or None. A file that was opened anew has other ones."""
    return next((one for one in collection if uid and one.session_uid == uid), None)


# --- landing ------------------------------------------------------------------------------------------------


def land(context: Any, landing: Landing) -> Landed:
    """Bring a result into the file, for an operator with UNDO. Raises UserError, changing nothing."""
    scene = scene_of(landing)
    folder = Path(landing.folder)
    frames = frames_in(folder)
    if not frames:
        raise UserError("The result has no frames.", "Animate again.")
    before = by_uid(bpy.data.images, landing.replaces)
    target = by_uid(bpy.data.objects, landing.target_uid)
    if before is None and landing.kind == "OBJECT":
        if target is None:
            raise UserError(f'The object "{landing.target}" is gone.', "Animate again on to another.")
        if target.type != "MESH":
            raise UserError(f'"{target.name}" is not a mesh.', "Choose an image plane as the result.")
        if target.library is not None or target.data.library is not None:
            raise UserError(f'"{target.name}" is linked from another file.', "Make it local.")
    try:
        image = image_plane.load_sequence(folder, landing.name)
    except RuntimeError as error:
        raise UserError(f"The frames in {folder} cannot be read.", "Animate again.") from error
    recipes.remember(image, landing, frames)
    if before is not None:
        owner = _replace(before, image)
    elif landing.kind == "IMAGES":
        image.use_fake_user = True  # nothing else keeps it in the file
        owner = None
    else:
        material = image_plane.portrait_material(landing.name, image, frames, landing.start_frame)
        if landing.kind == "OBJECT":
            owner = target
            image.liveportrait.material_before = image_plane.put_on(owner, material)
        else:
            owner = _add_plane(context, scene, landing, image, material)
    warning = ""
    if landing.kind == "OBJECT" and owner is not None and not owner.data.uv_layers:
        warning = f'"{owner.name}" has no UV map. Unwrap it so that the portrait can be seen.'
    return Landed(image, owner, _hear(scene, image, landing, frames), warning)


def _replace(before: Any, image: Any) -> Any:
    """Let a result take the place of another everywhere: an object that shows it, or None."""
    said, name = image.liveportrait, before.name
    said.kind, said.strip = before.liveportrait.kind, before.liveportrait.strip
    said.material_before = before.liveportrait.material_before
    for _, node in image_plane.texture_nodes(before):
        image_plane.set_timing(node.image_user, said.frames, said.start_frame)
    image_plane.fit_planes(before, image)
    image.use_fake_user = before.use_fake_user
    before.user_remap(image)
    bpy.data.images.remove(before)
    image.name = name
    return next(iter(image_plane.objects_with(image)), None)


def _add_plane(context: Any, scene: Any, landing: Landing, image: Any, material: Any) -> Any:
    owner = image_plane.plane(landing.name, image, material)
    here = context.scene == scene
    (context.collection if here else scene.collection).objects.link(owner)
    owner.location = image_plane.free_place(scene, image)
    if here and landing.select and context.mode == "OBJECT":
        for other in context.selected_objects:
            other.select_set(False)
        if owner.name in context.view_layer.objects:  # not where the collection is excluded
            owner.select_set(True)
            context.view_layer.objects.active = owner
    return owner


def _hear(scene: Any, image: Any, landing: Landing, frames: int) -> Any:
    said = image.liveportrait
    if not landing.sound:
        return None
    strip = sound.put(
        scene, landing.sound, landing.name, landing.start_frame, frames, landing.sound_start, said.strip
    )
    said.strip = strip.name if strip is not None else ""
    return strip
