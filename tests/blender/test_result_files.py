# SPDX-License-Identifier: GPL-3.0-or-later
"""The files of results: brought beside the .blend, sent away, cleaned up; nothing is lost on the way."""

from __future__ import annotations

import os
import shutil
import threading
import zipfile
from pathlib import Path
from typing import Any

import bpy
import numpy as np
import pytest

from tests.blender.frames import landed, look_at, picture, rendered, write_frames, write_png, write_tone
from tests.blender.layout_recorder import draw


def save(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    bpy.ops.wm.save_as_mainfile(filepath=str(path))
    return path


def result(name: str = "anna", count: int = 3, seed: int = 0, **more):
    from liveportrait_blender import results

    folder = results.new_folder(bpy.context, name)
    pictures = write_frames(folder, count, (16, 16), seed=seed)
    return landed(folder, name=name, **more), pictures


def only():
    from liveportrait_blender import results

    (image,) = results.all_results()
    return image


def folder_of(image) -> Path:
    return Path(bpy.path.abspath(image.filepath)).parent


def shows(pictures: list[np.ndarray], tmp_path: Path) -> bool:
    scene = bpy.context.scene
    shown = [rendered(scene, 1 + k, tmp_path / "r.png")[:, :, :3].astype(int) for k in range(len(pictures))]
    return all(np.abs(a - b).max() <= 1 for a, b in zip(shown, pictures))


def test_an_unsaved_files_results_move_beside_it_and_undo_still_finds_them(addon, tmp_path: Path) -> None:
    from liveportrait_blender import result_files

    made, pictures = result()
    owner = made.owner
    look_at(owner, bpy.context.scene, (16, 16))
    before = folder_of(only())
    assert before.is_relative_to(tmp_path / "user-folder") and len(result_files.outside()) == 1
    with pytest.raises(RuntimeError, match="Save the file first"):
        bpy.ops.liveportrait.move_results()
    save(tmp_path / "film" / "film.blend")
    assert len(result_files.outside()) == 1
    bpy.ops.ed.undo_push(message="before")
    bpy.ops.liveportrait.move_results()
    assert only().filepath.startswith("//liveportrait") and not result_files.outside()
    assert folder_of(only()) == tmp_path / "film" / "liveportrait" / "anna"
    assert before.exists()  # the file on the disk still shows it
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "copy.blend"), copy=True)
    assert before.exists()
    save(tmp_path / "film" / "film.blend")
    assert not before.exists()
    assert shows(pictures, tmp_path)
    bpy.context.object.location.x += 1
    bpy.ops.ed.undo_push(message="moved the plane")
    bpy.ops.ed.undo()  # to before the move, whose folder is no more
    assert folder_of(only()) == tmp_path / "film" / "liveportrait" / "anna"
    assert shows(pictures, tmp_path)


def test_saved_elsewhere_under_another_name_results_are_copied(addon, tmp_path: Path) -> None:
    from liveportrait_blender import result_files

    save(tmp_path / "a" / "film.blend")
    _, pictures = result()
    save(tmp_path / "a" / "film.blend")
    save(tmp_path / "b" / "film.blend")
    assert len(result_files.outside()) == 1
    bpy.ops.liveportrait.move_results()
    assert folder_of(only()) == tmp_path / "b" / "liveportrait" / "anna"
    assert len(list((tmp_path / "a" / "liveportrait" / "anna").glob("*.png"))) == 3
    save(tmp_path / "b" / "film.blend")
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "a" / "film.blend"))
    look_at(bpy.data.objects["anna"], bpy.context.scene, (16, 16))
    assert shows(pictures, tmp_path)


def test_missing_frames_stop_the_move_with_one_sentence(addon, tmp_path: Path) -> None:
    result()
    save(tmp_path / "film.blend")
    shutil.rmtree(folder_of(only()))
    with pytest.raises(RuntimeError, match='frames of "anna" are not there'):
        bpy.ops.liveportrait.move_results()


def test_packed_for_sending_it_opens_on_another_machine(addon, tmp_path: Path) -> None:
    """Pictures that Blender can pack are inside, results beside; the open file is as it was."""
    wood = write_png(tmp_path / "textures" / "wood.png", picture(7))
    tone = write_tone(tmp_path / "tone.wav", 1)
    _, first = result("anna")
    _, second = result("anna", seed=50)  # in the user folder, of the same name
    save(tmp_path / "home" / "film.blend")
    three, third = result("anna", seed=90)
    look_at(three.owner, bpy.context.scene, (16, 16))
    texture = bpy.data.images.load(str(wood))
    texture.use_fake_user = True
    if bpy.app.version >= (4, 4, 0):
        bpy.data.sounds.load(str(tone)).use_fake_user = True
    painted = bpy.data.images.load(str(write_png(tmp_path / "painted.png", picture(8))))
    painted.pixels[0] = 0.25
    painted.use_fake_user = True
    stroke = painted.pixels[0]
    paths = {image.name: image.filepath for image in bpy.data.images}
    with_warning = bpy.ops.liveportrait.pack_for_sending(filepath=str(tmp_path / "send"))
    assert with_warning == {"FINISHED"}
    assert {image.name: image.filepath for image in bpy.data.images} == paths
    assert texture.packed_file is None and painted.is_dirty and painted.pixels[0] == stroke
    assert shows(third, tmp_path)
    assert sorted(path.name for path in tmp_path.glob("*.zip")) == ["send.zip"]
    assert not list(tmp_path.glob(".*"))

    with zipfile.ZipFile(tmp_path / "send.zip") as archive:
        assert all(name.startswith("film/") and ".." not in name for name in archive.namelist())
        archive.extractall(tmp_path / "other machine")
    for folder in ("textures", "home", "user-folder"):
        shutil.rmtree(tmp_path / folder)
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "other machine" / "film" / "film.blend"))
    assert bpy.data.images["wood.png"].packed_file is not None
    if bpy.app.version >= (4, 4, 0):
        assert bpy.data.sounds[0].packed_file is not None
    for name, pictures in (("anna", first), ("anna.001", second), ("anna.002", third)):
        for other in bpy.data.objects:
            other.hide_render = other.type == "MESH" and other.name != name
        look_at(bpy.data.objects[name], bpy.context.scene, (16, 16))  # they stand side by side
        assert shows(pictures, tmp_path), name


def test_what_cannot_go_along_is_named(addon, tmp_path: Path) -> None:
    from liveportrait_blender import sending

    save(tmp_path / "film.blend")
    result()
    clip = write_png(tmp_path / "clip" / "f0001.png", picture(1))
    bpy.data.movieclips.load(str(clip)).use_fake_user = True
    assert sending.pack(tmp_path / "send.zip") == ["f0001.png"]


def test_frames_that_are_missing_stop_packing(addon, tmp_path: Path) -> None:
    save(tmp_path / "film.blend")
    made, _ = result()
    (folder_of(made.image) / "000001.png").unlink()
    with pytest.raises(RuntimeError, match='"anna" has 1 of its 3 frames'):
        bpy.ops.liveportrait.pack_for_sending(filepath=str(tmp_path / "send.zip"))
    assert not list(tmp_path.glob("*.zip*"))


def test_unused_results_are_removed_but_nothing_else(addon, tmp_path: Path) -> None:
    from liveportrait_blender import results

    save(tmp_path / "film.blend")
    made, _ = result("anna")
    replaced = results.new_folder(bpy.context, "old")
    write_frames(replaced, 2)
    (replaced / "motion.npz").write_bytes(b"m")
    hers = tmp_path / "liveportrait" / "my photos"
    write_frames(hers, 1)
    (hers / "readme.txt").write_text("mine")
    bpy.ops.liveportrait.remove_unused_results()
    assert not replaced.exists()
    assert len(list(hers.iterdir())) == 2
    assert len(list(folder_of(made.image).glob("*.png"))) == 3


def test_with_two_blends_in_a_folder_nothing_counts_as_unused(addon, tmp_path: Path) -> None:
    from liveportrait_blender import results

    save(tmp_path / "one.blend")
    folder = results.new_folder(bpy.context, "of one")
    write_frames(folder, 2)
    landed(folder)
    save(tmp_path / "one.blend")
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=True)
    save(tmp_path / "two.blend")
    assert bpy.ops.liveportrait.remove_unused_results() == {"CANCELLED"}
    assert len(list(folder.iterdir())) == 2


@pytest.mark.parametrize("files", [False, True])
def test_deleting_takes_all_of_it(addon, files: bool, tmp_path: Path) -> None:
    from liveportrait_blender import results

    save(tmp_path / "film.blend")
    before = {name: len(getattr(bpy.data, name)) for name in ("objects", "meshes", "materials", "images")}
    made, _ = result()
    folder = folder_of(made.image)
    bpy.ops.ed.undo_push(message="before")
    bpy.ops.liveportrait.delete_result(files=files)
    assert {name: len(getattr(bpy.data, name)) for name in before} == before
    assert folder.exists() != files
    if not files:
        bpy.ops.ed.undo_push(message="after")
        bpy.ops.ed.undo()
        assert results.of_object(bpy.data.objects["anna"]).liveportrait.frames == 3


def test_deleting_gives_an_object_its_material_back(addon, tmp_path: Path) -> None:
    from liveportrait_blender import results

    save(tmp_path / "film.blend")
    bpy.ops.mesh.primitive_plane_add()
    target = bpy.context.object
    paint = bpy.data.materials.new("paint")
    target.data.materials.append(paint)
    folder = results.new_folder(bpy.context, "anna")
    write_frames(folder, 1)
    landed(folder, kind="OBJECT", target=target.name, target_uid=target.session_uid)
    assert target.active_material != paint
    bpy.ops.liveportrait.delete_result()
    assert target.active_material == paint and target.name in bpy.data.objects


def test_pictures_elsewhere_are_never_deleted(addon, tmp_path: Path) -> None:
    save(tmp_path / "home" / "film.blend")
    folder = tmp_path / "archive" / "liveportrait" / "anna"
    write_frames(folder, 2)
    landed(folder)
    bpy.ops.liveportrait.delete_result(files=True)
    assert len(list(folder.iterdir())) == 2


def test_pictures_that_a_copy_shows_stay(addon, tmp_path: Path) -> None:
    save(tmp_path / "film.blend")
    made, _ = result()
    copy = made.image.copy()
    assert copy.liveportrait.is_result
    folder = folder_of(copy)
    bpy.ops.liveportrait.delete_result(files=True)
    assert only() == copy and len(list(folder.glob("0*.png"))) == 3
    bpy.ops.liveportrait.delete_result(files=True)
    assert not folder.exists()


def test_captured_performances_are_no_unused_results(addon, tmp_path: Path) -> None:
    save(tmp_path / "film.blend")
    capture, failed = tmp_path / "liveportrait" / "talk motion", tmp_path / "liveportrait" / "anna"
    capture.mkdir(parents=True)
    (capture / "motion.npz").write_bytes(b"a performance")
    write_frames(failed, 2)
    (failed / "motion.npz").write_bytes(b"a performance")
    bpy.ops.liveportrait.remove_unused_results()
    assert (capture / "motion.npz").read_bytes() == b"a performance" and not failed.exists()


def test_a_portrait_that_lies_with_another_result_outlives_it(addon, tmp_path: Path) -> None:
    """It came from the clipboard, and the first result alone had it."""
    from liveportrait_blender import preferences, recipes

    save(tmp_path / "film.blend")
    kept = write_png(preferences.cache_folder() / "pictures" / "a.png", picture(5, (16, 16)))
    first, _ = result(source=str(kept))
    kept.unlink()
    source = recipes.source_of(first.image)
    assert source == folder_of(first.image) / "source.png"
    old = folder_of(first.image)
    result(source=str(source), replaces=first.image.session_uid, seed=7)
    bpy.ops.liveportrait.remove_unused_results()
    assert not old.exists()
    found = recipes.source_of(only())
    assert found == folder_of(only()) / "source.png" and found.is_file()


def test_all_of_a_result_comes_along(addon, tmp_path: Path) -> None:
    """Also what a render of a performance was given."""
    made, _ = result()
    before = folder_of(made.image)
    for name in ("motion.npz", "motion_1.npz", "performance.npz"):
        (before / name).write_bytes(name.encode())
    save(tmp_path / "film.blend")
    bpy.ops.liveportrait.move_results(save=True)
    names = {path.name for path in folder_of(only()).iterdir()}
    assert {"motion.npz", "motion_1.npz", "performance.npz"} < names and not before.exists()


@pytest.mark.parametrize(("given", "made"), [("shot.v2", "shot.v2.zip"), ("a.ZIP", "a.ZIP")])
def test_the_zip_is_called_as_it_was_asked_for(addon, tmp_path: Path, given: str, made: str) -> None:
    save(tmp_path / "film.blend")
    result()
    (tmp_path / "shot.zip").write_bytes(b"somebody else's")
    assert bpy.ops.liveportrait.pack_for_sending(filepath=str(tmp_path / given)) == {"FINISHED"}
    assert zipfile.is_zipfile(tmp_path / made)
    assert (tmp_path / "shot.zip").read_bytes() == b"somebody else's"


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_a_linked_folder_is_not_emptied(addon, tmp_path: Path) -> None:
    save(tmp_path / "film.blend")
    write_frames(tmp_path / "precious", 2)
    (tmp_path / "liveportrait").mkdir()
    (tmp_path / "liveportrait" / "link").symlink_to(tmp_path / "precious", target_is_directory=True)
    bpy.ops.liveportrait.remove_unused_results()
    assert len(list((tmp_path / "precious").iterdir())) == 2


def test_moved_and_saved_the_file_on_the_disk_finds_them(addon, tmp_path: Path) -> None:
    """As the dialog after the first save does it: a quit right afterwards asks nothing and loses nothing."""
    made, pictures = result()
    look_at(made.owner, bpy.context.scene, (16, 16))
    save(tmp_path / "film" / "film.blend")
    bpy.ops.liveportrait.move_results(save=True)
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "film" / "film.blend"))
    assert folder_of(only()) == tmp_path / "film" / "liveportrait" / "anna"
    assert shows(pictures, tmp_path)


def moving(save: bool) -> Any:
    """As from the dialog: Blender goes on meanwhile."""
    from liveportrait_blender import result_files
    from liveportrait_blender.operators.result_files import _Watching

    copying = result_files.begin()
    _Watching(copying, save).begin()
    return copying


def settle() -> None:
    from liveportrait_blender import pump, result_files
    from liveportrait_blender.operators.result_files import _Watching

    assert pump.run_until(lambda: result_files.progress() is None and _Watching.copying is None, 30.0)


def test_while_they_are_copied_nothing_has_changed_yet(addon, tmp_path: Path, monkeypatch) -> None:
    from liveportrait_blender import folder_copies, result_files

    made, pictures = result()
    look_at(made.owner, bpy.context.scene, (16, 16))
    save(tmp_path / "film" / "film.blend")
    before, first, go_on = folder_of(only()), threading.Event(), threading.Event()

    def slow(source: Path, target: Path) -> None:
        shutil.copyfile(source, target)
        first.set()
        assert go_on.wait(30.0)

    monkeypatch.setattr(folder_copies.shutil, "copy2", slow)
    copying = moving(save=True)
    assert first.wait(30.0)
    assert folder_of(only()) == before and shows(pictures, tmp_path)
    drawn = draw(bpy.types.LIVEPORTRAIT_PT_result)
    assert len(drawn.progress) == 1 and "liveportrait.cancel_move" in drawn.ids
    bpy.ops.liveportrait.remove_unused_results()  # what is being written is none of them
    assert copying.target is not None and copying.target.is_dir()
    with pytest.raises(RuntimeError, match="Results are being moved"):
        bpy.ops.liveportrait.move_results()
    go_on.set()
    settle()
    assert folder_of(only()) == tmp_path / "film" / "liveportrait" / "anna" and not before.exists()
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "film" / "film.blend"))
    assert shows(pictures, tmp_path) and not result_files.outside()


@pytest.mark.parametrize("way", ["fault", "cancel", "elsewhere", "closed"])
def test_whatever_ends_the_copying_nothing_is_lost(addon, tmp_path: Path, monkeypatch, way: str) -> None:
    from liveportrait_blender import folder_copies

    result()
    save(tmp_path / "film" / "film.blend")
    before, count, go_on = folder_of(only()), [0], threading.Event()

    def slow(source: Path, target: Path) -> None:
        shutil.copyfile(source, target)
        count[0] += 1
        assert way == "fault" or go_on.wait(30.0)
        if way == "fault" and count[0] == 2:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(folder_copies.shutil, "copy2", slow)
    moving(save=True)
    if way == "cancel":
        bpy.ops.liveportrait.cancel_move()
    elif way == "elsewhere":
        save(tmp_path / "other" / "film.blend")
    elif way == "closed":
        bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=True)
    go_on.set()
    settle()
    assert len(list(before.glob("*.png"))) == 3
    assert not (tmp_path / "film" / "liveportrait").exists()  # it was not there before
    assert not list((tmp_path / "other").glob("liveportrait/*"))
    if way != "closed":
        assert folder_of(only()).samefile(before)
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "film" / "film.blend"))
    assert folder_of(only()).samefile(before)


def test_closed_without_saving_the_file_on_the_disk_still_finds_them(addon, tmp_path: Path) -> None:
    made, pictures = result()
    look_at(made.owner, bpy.context.scene, (16, 16))
    save(tmp_path / "film" / "film.blend")
    bpy.ops.liveportrait.move_results()
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "film" / "film.blend"))
    assert shows(pictures, tmp_path)


def test_disabled_meanwhile_the_addon_leaves_no_half_copy(addon, tmp_path: Path, monkeypatch) -> None:
    from liveportrait_blender import folder_copies, registration, result_files

    result()
    save(tmp_path / "film" / "film.blend")
    before, first = folder_of(only()), threading.Event()

    def slow(source: Path, target: Path) -> None:
        shutil.copyfile(source, target)
        first.set()

    monkeypatch.setattr(folder_copies.shutil, "copy2", slow)
    moving(save=True)
    assert first.wait(30.0)
    registration.unregister()
    registration.register()
    assert result_files.progress() is None and folder_of(only()) == before
    assert not (tmp_path / "film" / "liveportrait").exists()
    bpy.ops.liveportrait.move_results()
    assert folder_of(only()) == tmp_path / "film" / "liveportrait" / "anna"
