# SPDX-License-Identifier: GPL-3.0-or-later
"""Results come into the file in one undoable step, are replaced in place, and survive saving and moving."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import bpy
import numpy as np
import pytest

from tests.blender.frames import landed, landing_of, look_at, rendered, write_frames, write_tone


@pytest.fixture
def tone(tmp_path: Path) -> Path:
    return write_tone(tmp_path / "tone.wav", 4)


def save(path: Path) -> Path:
    bpy.ops.wm.save_as_mainfile(filepath=str(path))
    return path


def new_folder(name: str = "anna") -> Path:
    from liveportrait_blender import results

    return results.new_folder(bpy.context, name)


def landed_in(name: str, **words: object) -> object:
    folder = new_folder(name)
    write_frames(folder, 4, (16, 16))
    return landed(folder, name=name, **words)


def shown(frame: int, tmp_path: Path) -> np.ndarray:
    return rendered(bpy.context.scene, frame, tmp_path / "rendered.png")[:, :, :3].astype(int)


def same(a: np.ndarray, b: np.ndarray) -> bool:
    return bool(np.abs(a - b.astype(int)).max() <= 1)


def test_a_folder_never_collides(addon, tmp_path: Path) -> None:
    save(tmp_path / "film.blend")
    folders = [new_folder("anna/..:?") for _ in range(3)]
    assert len(set(folders)) == 3
    assert all(folder.parent == tmp_path / "liveportrait" for folder in folders)
    assert not any(list(folder.iterdir()) for folder in folders)
    assert folders[0].name == "anna_..__"
    assert new_folder("con").name == "_con"
    assert new_folder(" . ").name == "result"
    assert new_folder("Ünïcode 猫").name == "Ünïcode 猫"


def test_an_unsaved_file_puts_results_in_the_user_folder(addon, tmp_path: Path) -> None:
    assert new_folder().parent == tmp_path / "user-folder" / "results"


def test_a_blend_that_cannot_be_written_beside_uses_the_user_folder(addon, tmp_path: Path) -> None:
    save(tmp_path / "film.blend")
    (tmp_path / "liveportrait").write_text("a file in the way")
    assert new_folder().parent == tmp_path / "user-folder" / "results"


def test_undo_takes_all_of_it_back_in_one_step(addon, tmp_path: Path, tone: Path) -> None:
    from liveportrait_blender import compat

    save(tmp_path / "film.blend")
    folder = new_folder()
    write_frames(folder, 3)
    bpy.context.preferences.edit.use_global_undo = True
    bpy.ops.ed.undo_push(message="before")
    before = {name: len(getattr(bpy.data, name)) for name in ("objects", "meshes", "materials", "images")}
    bpy.ops.liveportrait.apply_result(landing=landing_of(folder, sound=str(tone)).as_json())
    bpy.ops.ed.undo_push(message="after")
    assert len(bpy.data.objects) == before["objects"] + 1
    bpy.ops.ed.undo()
    assert {name: len(getattr(bpy.data, name)) for name in before} == before
    editor = bpy.context.scene.sequence_editor
    assert editor is None or not len(compat.strips(editor))
    bpy.ops.ed.redo()
    assert bpy.data.objects["anna"].active_material.node_tree.nodes.active.image.liveportrait.frames == 3


def test_made_again_it_replaces_in_place_and_undo_shows_the_old_one(addon, tmp_path: Path) -> None:
    from liveportrait_blender import results

    save(tmp_path / "film.blend")
    first, second = new_folder(), new_folder()
    old = write_frames(first, 3, (16, 16), seed=0)
    new = write_frames(second, 5, (16, 16), seed=100)
    one = landed(first, start=1)
    one.owner.location = (4, 5, 6)
    one.owner.name = "my plane"
    look_at(one.owner, bpy.context.scene, (16, 16))
    assert same(shown(3, tmp_path), old[2])
    bpy.ops.ed.undo_push(message="before")
    uid = one.image.session_uid

    again = landing_of(second, start=2, replaces=uid)
    bpy.ops.liveportrait.apply_result(landing=again.as_json())
    bpy.ops.ed.undo_push(message="after")
    plane = bpy.data.objects["my plane"]
    assert len([ob for ob in bpy.data.objects if ob.type == "MESH"]) == 1
    assert tuple(plane.location) == (4, 5, 6)
    image = results.of_object(plane)
    assert image.name == "anna" and len(results.all_results()) == 1 and image.liveportrait.frames == 5
    assert same(shown(2, tmp_path), new[0]) and same(shown(6, tmp_path), new[4])

    bpy.ops.ed.undo()
    assert results.of_object(bpy.data.objects["my plane"]).liveportrait.frames == 3
    for frame in (1, 3):
        assert same(shown(frame, tmp_path), old[frame - 1])
    assert len(list(first.iterdir())) == 3  # what undo needs is still on the disk


def test_a_second_plane_stands_beside_the_first(addon, tmp_path: Path) -> None:
    save(tmp_path / "film.blend")
    bpy.context.scene.cursor.location = (1, 2, 3)
    planes = []
    for name in ("anna", "bert", "carl"):
        folder = new_folder(name)
        write_frames(folder, 2, (64, 32))
        planes.append(landed(folder, name=name).owner)
    assert all(tuple(plane.location)[1:] == (2, 3) for plane in planes)
    middles = [plane.location.x for plane in planes]
    assert middles[0] == 1
    assert all(2 < right - left < 2.2 for left, right in zip(middles, middles[1:]))  # each is 2 wide


def test_a_result_of_another_shape_reshapes_its_plane(addon, tmp_path: Path) -> None:
    write_frames(tmp_path / "a", 1, (8, 8))
    write_frames(tmp_path / "b", 1, (16, 8))
    one = landed(tmp_path / "a")
    uid = one.image.session_uid
    two = landed(tmp_path / "b", replaces=uid)
    bpy.context.view_layer.update()
    assert tuple(two.owner.dimensions) == pytest.approx((2, 0, 1))
    for vertex in two.owner.data.vertices:
        vertex.co.z *= 2
    landed(tmp_path / "a", replaces=two.image.session_uid)
    assert max(vertex.co.x for vertex in two.owner.data.vertices) == pytest.approx(1.0)  # hers, left alone


def test_it_survives_saving_reloading_and_moving_with_its_folder(addon, tmp_path: Path) -> None:
    from liveportrait_blender import results

    home = tmp_path / "home"
    home.mkdir()
    save(home / "film.blend")
    folder = new_folder()
    pictures = write_frames(folder, 3, (16, 16))
    landed(folder, start=1, result={"fps": 25.0}, recipe={"options": {"multiplier": 2}}, source="a.png")
    look_at(bpy.data.objects["anna"], bpy.context.scene, (16, 16))
    save(home / "film.blend")
    shutil.move(home, tmp_path / "elsewhere")
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "elsewhere" / "film.blend"))
    (image,) = results.all_results()
    assert image.filepath == "//liveportrait/anna/000000.png" or "\\" in image.filepath
    assert json.loads(image.liveportrait.recipe) == {"options": {"multiplier": 2}}
    assert image.liveportrait.fps == 25 and image.liveportrait.source == "a.png"
    assert same(shown(2, tmp_path), pictures[1])


def test_only_images_keep_in_the_file(addon, tmp_path: Path) -> None:
    from liveportrait_blender import results

    save(tmp_path / "film.blend")
    folder = new_folder()
    write_frames(folder, 2)
    assert landed(folder, kind="IMAGES").owner is None
    assert not [owner for owner in bpy.data.objects if owner.type == "MESH"]
    save(tmp_path / "film.blend")
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "film.blend"))
    assert [image.liveportrait.frames for image in results.all_results()] == [2]


def test_on_the_selected_object_its_old_material_is_kept(addon, tmp_path: Path) -> None:
    from liveportrait_blender import results

    bpy.ops.mesh.primitive_plane_add()
    target = bpy.context.object
    target.data.materials.append(bpy.data.materials.new("paint"))
    write_frames(tmp_path / "a", 2)
    result = landed(tmp_path / "a", kind="OBJECT", target=target.name, target_uid=target.session_uid)
    assert result.owner == target and results.of_object(target) == result.image
    paint = bpy.data.materials["paint"]
    assert not paint.use_fake_user  # the result keeps it
    save(tmp_path / "film.blend")
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "film.blend"))
    save(tmp_path / "film.blend")
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "film.blend"))
    (image,) = results.all_results()
    assert image.liveportrait.material_before == bpy.data.materials["paint"]
    assert not image.use_fake_user and image.users == 1  # its material alone


def test_a_result_that_another_was_put_over_is_kept_by_it(addon, tmp_path: Path) -> None:
    from liveportrait_blender import result_files, results

    save(tmp_path / "film.blend")
    owner = landed_in("first").owner
    landed_in("second", kind="OBJECT", target=owner.name, target_uid=owner.session_uid)
    for _ in range(2):
        save(tmp_path / "film.blend")
        bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "film.blend"))
    assert {image.name for image in results.all_results()} == {"first", "second"}
    owner = next(one for one in bpy.data.objects if one.type == "MESH")
    result_files.delete(results.of_object(owner), files=False)
    assert results.of_object(owner).name == "first"
    assert not any(block.use_fake_user for block in [*bpy.data.materials, *bpy.data.images])


@pytest.mark.parametrize("by_operator", [True, False])
def test_reloaded_it_shows_the_frame_that_it_showed(addon, tmp_path: Path, by_operator: bool) -> None:
    made, scene = landed_in("anna", start=3), bpy.context.scene
    material, image = made.owner.active_material, made.image

    def shown_frame() -> int:
        bpy.context.view_layer.update()
        bpy.context.view_layer.update()  # what a handler has put right
        tree = material.evaluated_get(bpy.context.evaluated_depsgraph_get()).node_tree
        return tree.nodes.active.image_user.frame_current

    for frame, expected in ((5, 2), (6, 3), (1, -1)):
        scene.frame_set(frame)
        assert shown_frame() == expected
        if by_operator:
            with bpy.context.temp_override(edit_image=image):
                bpy.ops.image.reload()
        else:
            image.reload()
        assert shown_frame() == expected


def test_an_object_without_uv_map_is_warned_of(addon, tmp_path: Path) -> None:
    target = bpy.data.objects.new("bare", bpy.data.meshes.new("bare"))
    bpy.context.scene.collection.objects.link(target)
    write_frames(tmp_path / "a", 1)
    made = landed(tmp_path / "a", kind="OBJECT", target="bare", target_uid=target.session_uid)
    assert made.owner == target and "has no UV map" in made.warning


def test_what_is_gone_is_said_and_nothing_changes(addon, tmp_path: Path) -> None:
    write_frames(tmp_path / "a", 2)
    gone = landing_of(tmp_path / "a", kind="OBJECT", target="Cube", target_uid=1)
    before = len(bpy.data.images)
    with pytest.raises(RuntimeError, match='The object "Cube" is gone'):
        bpy.ops.liveportrait.apply_result(landing=gone.as_json())
    (tmp_path / "empty").mkdir()
    with pytest.raises(RuntimeError, match="no frames"):
        bpy.ops.liveportrait.apply_result(landing=landing_of(tmp_path / "empty").as_json())
    closed = landing_of(tmp_path / "a")
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=True)
    with pytest.raises(RuntimeError, match="no longer open"):
        bpy.ops.liveportrait.apply_result(landing=closed.as_json())
    assert len(bpy.data.images) == before


def test_a_scene_that_is_not_open_in_the_window_gets_its_own_result(addon, tmp_path: Path) -> None:
    other = bpy.data.scenes.new("other")
    write_frames(tmp_path / "a", 2)
    result = landed(tmp_path / "a", scene=other)
    assert list(other.collection.objects) == [result.owner]
    assert not bpy.context.scene.collection.objects
