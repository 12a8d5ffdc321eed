# SPDX-License-Identifier: GPL-3.0-or-later
"""The files of results: brought beside the .blend, removed, sent away.

Undo does not know files. So nothing that it may bring back is removed without being asked for, and where
files were moved, what undo brings back is led to their new place (`relink_moved`).
"""

from __future__ import annotations

import contextlib
import logging
import re
import threading
from pathlib import Path
from typing import Any

import bpy
from bpy.app.handlers import persistent

from . import image_plane, paths, results, runtime, sound
from .folder_copies import Copying
from .names import UserError

OURS = re.compile(r"\d{6,}\.png|(motion(_\d+)?|performance)\.npz|result\.json|source\.\w+|\..*\.(tmp|part)")

log = logging.getLogger(__name__)
_moved: dict[str, str] = {}  # folders, in this session
_offered: set[str] = set()  # of .blend files
_leaving: list[Path] = []  # folders that go with the next save
_copying: Copying | None = None


def outside() -> list[Any]:
    """The results that do not lie with the .blend. Cheap: for draw and poll."""
    return [image for image in results.all_results() if image.library is None and results.outside(image)]


def begin() -> Copying:
    """Begin to bring all results that lie elsewhere into the folder beside the saved .blend.

    A thread copies them; `look` comes to the end of it. Raises UserError.
    """
    global _copying
    if not bpy.data.filepath:
        raise UserError("The file has no place yet.", "Save it first.", "wm.save_mainfile")
    if _copying is not None:
        raise UserError("Results are being moved.", "Wait until that is done.")
    folders: list[Path] = []
    for image in outside():
        folder = results.folder_of(image)
        if not folder.is_dir():
            raise UserError(
                f'The frames of "{image.name}" are not there: {folder}.', "Put them back, or animate again."
            )
        if folder not in folders and not Path(_moved.get(str(folder), folder / "none")).is_dir():
            folders.append(folder)
    root = Path(bpy.data.filepath).parent / results.FOLDER
    _copying = Copying(folders, root, results.make_folder, _own_files)
    _copying.start()
    return _copying


def finish(copying: Copying) -> int:
    """Let the file show the copies: how many results. Originals in the user folder are taken away as soon as
    the file is saved; anything else may belong to another .blend too.

    Raises UserError where the copies are not whole, or the file has another place by now: they are removed,
    and all is as it was.
    """
    global _copying
    _copying = None
    here = Path(bpy.data.filepath).parent / results.FOLDER if bpy.data.filepath else None
    if copying.error or copying.cancelled or here != copying.root:
        _remove_soon(copying.targets, copying.root if copying.made_root else None)
        if copying.error:
            raise UserError(copying.error, "Free some space, or save the file somewhere else.")
        if copying.cancelled:
            raise UserError("Cancelled.", "The results are where they were.")
        raise UserError("The file has another place now.", "Move the results once more.")
    user_folder = paths.user_folder(results.USER_FOLDER)
    places = dict(copying.copies)
    count = 0
    for image in outside():
        folder = results.folder_of(image)
        target = places.get(folder, Path(_moved.get(str(folder), folder)))
        if target != folder and target.is_dir():
            _relink(image, target)
            count += 1
    for folder, target in copying.copies:
        if folder.is_relative_to(user_folder):
            _moved[str(folder)] = str(target)
            _leaving.append(folder)
    return count


def progress() -> tuple[float, str] | None:
    """How far the results have been copied, None where nothing is being copied. For draw."""
    if _copying is None:
        return None
    return _copying.factor, f"{_copying.done / 1e6:.0f} of {_copying.total / 1e6:.0f} MB"


def cancel() -> None:
    if _copying is not None:
        _copying.cancel()


def _own_files(folder: Path) -> list[Path]:
    """Those of a result. Raises OSError."""
    return [entry for entry in sorted(folder.iterdir()) if entry.is_file() and OURS.fullmatch(entry.name)]


def _remove_soon(folders: list[Path], root: Path | None = None) -> None:
    """Thousands of files take a while. root: goes too if nothing is left in it."""

    def work() -> None:
        for folder in folders:
            remove(folder)
        if root is not None:
            with contextlib.suppress(OSError):  # not empty, or gone already
                root.rmdir()

    if folders or root is not None:
        thread = threading.Thread(target=work, name="liveportrait-remove", daemon=True)
        thread.start()
        if bpy.app.background:  # which may end at once
            thread.join()


@persistent
def leave_originals(path: Any = "", *_: Any) -> None:
    """After a save: the file on the disk shows the copies, so what they were copied from can go."""
    if not isinstance(path, str) or not path or Path(path) != Path(bpy.data.filepath):
        return  # a copy of the file
    shown = {results.folder_of(image) for image in results.all_results()}
    gone = [folder for folder in _leaving if folder not in shown]
    _leaving.clear()
    _remove_soon(gone)


def _relink(image: Any, folder: Path) -> None:
    """Let an image, with the timing of all that show it, find its frames in another folder."""
    said = image.liveportrait
    old = str(results.folder_of(image))
    image.filepath = image_plane.relative_path(folder / image_plane.FIRST)
    if said.source and Path(said.source).parent == Path(old):
        said.source = str(folder / Path(said.source).name)


@persistent
def forget_originals(*_: Any) -> None:
    """Another file is opened, and this one's on the disk may still show them."""
    _leaving.clear()


@persistent
def relink_moved(*_: Any) -> None:
    """After undo and redo: what was moved meanwhile is where it is now."""
    if not _moved:
        return
    for image in results.all_results():
        target = _moved.get(str(results.folder_of(image)))
        if target and Path(target).is_dir():
            _relink(image, Path(target))


@persistent
def offer_to_collect(*_: Any) -> None:
    """After the first save of a file with results elsewhere, ask whether they shall come along."""
    path = bpy.data.filepath
    if not path or path in _offered or not outside():
        return
    _offered.add(path)
    if bpy.app.background:
        return
    with contextlib.suppress(RuntimeError):  # no window to ask in: the panel says it
        # The file counts as changed until its save_post is over; but what is open is what was just saved.
        bpy.ops.liveportrait.move_results("INVOKE_DEFAULT", save=True)


def remove(folder: Path) -> int:
    """Remove a result's own files, and the folder if nothing else is in it: bytes that were freed."""
    freed = 0
    for entry in list(folder.iterdir()) if folder.is_dir() else []:
        if entry.is_file() and OURS.fullmatch(entry.name):
            with contextlib.suppress(OSError):
                size = entry.stat().st_size
                entry.unlink()
                freed += size
    with contextlib.suppress(OSError):  # not empty: somebody else's files
        folder.rmdir()
    return freed


def why_not_clean() -> str:
    """Why unused results cannot be told from used ones, "" if they can. Looks at the .blend's folder."""
    if not bpy.data.filepath:
        return "Save the file first"
    if len(list(Path(bpy.data.filepath).parent.glob("*.blend"))) > 1:
        return "Other .blend files in this folder may show them"
    return ""


def unused() -> list[Path]:
    """Folders beside the .blend with results that it does not show: replaced, undone or failed ones.

    Those that jobs are writing are not among them, nor are performances that were captured: those have no
    pictures, and are files to be used.
    """
    root = Path(bpy.data.filepath).parent / results.FOLDER
    if why_not_clean() or not root.is_dir():
        return []
    used = {results.folder_of(image).resolve() for image in results.all_results()}
    used |= {record.folder.resolve() for record in runtime.session.jobs if not record.settled}
    used |= {folder.resolve() for folder in (_copying.targets if _copying is not None else ())}
    folders = [entry for entry in sorted(root.iterdir()) if entry.is_dir() and not entry.is_symlink()]
    free = (folder for folder in folders if folder.resolve() not in used)
    return [folder for folder in free if is_result(folder) and not is_capture(folder)]


def is_result(folder: Path) -> bool:
    """Whether a folder holds nothing but what a job writes."""
    try:
        names = [entry.name for entry in folder.iterdir()]
    except OSError:
        return False
    return all(OURS.fullmatch(name) for name in names)


def is_capture(folder: Path) -> bool:
    """Whether a folder holds a captured performance: a motion without pictures."""
    return (folder / "motion.npz").is_file() and not (folder / image_plane.FIRST).is_file()


def delete(image: Any, files: bool) -> str:
    """Take a result out of the file, with its planes, materials and sound: its name. An object that it was
    put on gets its own material back.

    files: remove its pictures from the disk too, if they lie beside this .blend or in the user folder and
    no other image of it shows them.
    """
    name, folder, said = image.name, results.folder_of(image), image.liveportrait
    before, strip = said.material_before, said.strip
    materials = [one for one in bpy.data.materials if results.of_material(one) == image]
    for owner in image_plane.objects_with(image):
        if said.kind == "PLANE" and image_plane.is_plane_of(owner, image):
            mesh = owner.data
            for child in owner.children:  # a performance's rig, or hers: it stays where it is
                world = child.matrix_world.copy()
                child.parent = None
                child.matrix_world = world
            bpy.data.objects.remove(owner)
            if not mesh.users:
                bpy.data.meshes.remove(mesh)
            continue
        for slot in owner.material_slots:
            if slot.material in materials:
                slot.material = before
    for material in materials:
        if not material.users:
            bpy.data.materials.remove(material)
    sound.remove(strip)
    bpy.data.images.remove(image)
    shared = any(results.folder_of(other) == folder for other in results.all_results())
    if files and not shared and _may_remove(folder):
        remove(folder)
    return name


def _may_remove(folder: Path) -> bool:
    homes = [paths.user_folder(results.USER_FOLDER)]
    if bpy.data.filepath:
        homes.append(Path(bpy.data.filepath).parent / results.FOLDER)
    return any(folder.parent == home for home in homes) and is_result(folder)


HANDLERS = (
    ("save_post", leave_originals),
    ("save_post", offer_to_collect),
    ("undo_post", relink_moved),
    ("redo_post", relink_moved),
    ("load_pre", forget_originals),
)


def register() -> None:
    for name, handler in HANDLERS:
        getattr(bpy.app.handlers, name).append(handler)


def unregister() -> None:
    global _copying
    for name, handler in HANDLERS:
        handlers = getattr(bpy.app.handlers, name)
        if handler in handlers:
            handlers.remove(handler)
    if _copying is not None:  # nobody would come to the end of it
        _copying.cancel()
        _copying.wait()
        _remove_soon(_copying.targets, _copying.root if _copying.made_root else None)
        _copying = None
    _moved.clear()
    _offered.clear()
    _leaving.clear()
