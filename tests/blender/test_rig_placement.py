# SPDX-License-Identifier: GPL-3.0-or-later
"""The rig of a result stands on the face in the picture, and stays there."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import bpy
import numpy as np
import pytest
from mathutils import Vector

from tests.blender.frames import landed, write_frames
from tests.blender.performances import assert_close, motion
from tests.blender.working import animate, ops, portrait, working  # noqa: F401

SIZE = (160, 100)  # pixels of the frames
# A crop of 60 pixels whose middle is at (90, 40), turned by 20 degrees.
TURN = np.radians(20.0)
PLACEMENT = [
    [30 * np.cos(TURN), -30 * np.sin(TURN), 90.0],
    [30 * np.sin(TURN), 30 * np.cos(TURN), 40.0],
]
FACE = {"placement": PLACEMENT, "scale": 1.1, "translation": [0.05, -0.1]}


def made(tmp_path: Path, face: Any = FACE, **options: Any) -> tuple[Any, Any, Any]:
    """(rig, plane, what it performs): of a result whose face is there."""
    from liveportrait_blender import motion_file

    performed = motion(12)
    folder = tmp_path / "a"
    write_frames(folder, 12, SIZE)
    motion_file.write(folder / "motion.npz", performed)
    shown = landed(folder, result={"frames": 12, "face": face}, recipe={"options": options})
    bpy.context.view_layer.objects.active = shown.owner
    assert ops().create_performance() == {"FINISHED"}
    return bpy.context.object, shown.owner, performed


def pixels(rig: Any, plane: Any, points: np.ndarray) -> np.ndarray:
    """(n,2) pixels of the frames that points (n,3) of LivePortrait's space, as the rig has it, lie on."""
    bpy.context.view_layer.update()
    found = []
    for x, y, z in points:
        place = plane.matrix_world.inverted() @ rig.matrix_world @ Vector((x, z, -y))
        found.append(((place.x + 0.8) * 100, (0.5 - place.z) * 100))
    return np.array(found)


def crop_pixels(points: np.ndarray) -> np.ndarray:
    matrix = np.array(PLACEMENT)
    return points[:, :2] @ matrix[:, :2].T + matrix[:, 2]


def test_the_neutral_face_lies_on_the_portraits_and_stays_when_the_plane_moves(
    addon: ModuleType, tmp_path: Path
) -> None:
    rig, plane, performed = made(tmp_path)
    assert rig.parent == plane
    own = performed.keypoints()[0]  # of what drove, in its crop
    grown = FACE["scale"] / performed.scale[0]
    wanted = own[:, :2] * grown + FACE["translation"] - grown * performed.translation[0, :2]
    np.testing.assert_allclose(pixels(rig, plane, own), crop_pixels(wanted), atol=1e-3)
    plane.location, plane.rotation_euler, plane.scale = (3, -1, 2), (0.4, 0.2, 1.0), (2.5, 2.5, 2.5)
    np.testing.assert_allclose(pixels(rig, plane, own), crop_pixels(wanted), atol=1e-3)
    # Where it stands is no part of what it performs.
    from liveportrait_blender import keypoint_rig, rig_action

    frames = rig_action.scene_frames(performed, rig_action.scene_rate(bpy.context.scene), 1.0)
    assert_close(keypoint_rig.sample(rig, frames), performed)


def test_the_rig_stays_where_it_is_when_its_result_is_deleted(addon: ModuleType, tmp_path: Path) -> None:
    rig, plane, _ = made(tmp_path)
    plane.location, plane.scale = (3, -1, 2), (2.5, 2.5, 2.5)
    bpy.context.view_layer.update()
    there = rig.matrix_world.copy()
    bpy.context.view_layer.objects.active = plane
    assert ops().delete_result() == {"FINISHED"}
    bpy.context.view_layer.update()
    assert rig.parent is None
    np.testing.assert_allclose(rig.matrix_world, there, atol=1e-5)


def test_an_absolute_performance_lies_in_the_crop_as_it_is(addon: ModuleType, tmp_path: Path) -> None:
    rig, plane, performed = made(tmp_path, relative=False)
    own = performed.keypoints()[0]
    np.testing.assert_allclose(pixels(rig, plane, own), crop_pixels(own), atol=1e-3)


@pytest.mark.parametrize(
    "face",
    [None, 7, {}, {"placement": [[1, 0]]}, {**FACE, "scale": 0}, {**FACE, "placement": [[0] * 3] * 2}],
)
def test_a_result_that_does_not_say_where_its_face_is_leaves_the_rig_in_the_middle(
    addon: ModuleType, tmp_path: Path, face: Any
) -> None:
    rig, _, _ = made(tmp_path, face)
    assert rig.parent is None and rig.matrix_basis.to_translation().length == 0


def test_on_an_object_of_the_users_own_the_rig_stands_by_itself(addon: ModuleType, tmp_path: Path) -> None:
    bpy.ops.mesh.primitive_monkey_add()
    write_frames(tmp_path / "a", 3, SIZE)
    from liveportrait_blender import motion_file

    motion_file.write(tmp_path / "a" / "motion.npz", motion(3))
    target = bpy.context.object
    landed(tmp_path / "a", kind="OBJECT", target=target.name, target_uid=target.session_uid,
           result={"face": FACE})  # fmt: skip
    assert ops().create_performance() == {"FINISHED"}
    assert bpy.context.object.parent is None


def test_of_a_real_portrait_the_keypoints_of_the_eyes_lie_on_the_eyes(
    working: Any, portrait: Path  # noqa: F811
) -> None:
    animate(portrait, frames=(0, 4), start_frame=1, name="Anna")
    plane = bpy.data.objects["Anna"]
    plane.location = (1, 2, 3)
    ops().create_performance()
    rig = bpy.context.object
    bpy.context.scene.frame_set(1)
    bpy.context.view_layer.update()
    into = plane.matrix_world.inverted() @ rig.matrix_world

    def at(*numbers: int) -> np.ndarray:
        heads = [into @ rig.pose.bones[f"kp_{k:02d}"].head for k in numbers]
        return np.mean([((p.x + 0.5) * 320, (0.5 - p.z) * 320) for p in heads], axis=0)

    # Where MediaPipe finds the two eyes in this picture; LivePortrait's keypoints are implicit, near them.
    assert np.abs(at(11, 13) - (144, 102)).max() < 16
    assert np.abs(at(15, 16) - (187, 104)).max() < 16


def test_the_rig_stands_for_its_result_among_several(addon: ModuleType, tmp_path: Path) -> None:
    from liveportrait_blender import results
    from liveportrait_blender.operators.view import shown_by

    write_frames(tmp_path / "b", 2, SIZE)
    other = landed(tmp_path / "b", result={"frames": 2})
    rig, plane, _ = made(tmp_path)
    assert bpy.context.active_object == rig
    assert results.active(bpy.context) == results.of_object(plane) != results.of_object(other.owner)
    assert shown_by(bpy.context) == plane
