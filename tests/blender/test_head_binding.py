# SPDX-License-Identifier: GPL-3.0-or-later
"""The rig's head on a bone or an object of any axes: the same turn, baked or not, add-on or not."""

from __future__ import annotations

import subprocess
import sys
from itertools import permutations, product
from pathlib import Path
from typing import Any

import bpy
import numpy as np
import pytest
from mathutils import Matrix

from liveportrait_blender import baking, channel_samples, fcurves, head_binding, keypoint_rig, motion_file
from liveportrait_blender.names import UserError
from tests.blender.heads import small_head
from tests.blender.performances import motion

LIBRARY = Path(__file__).resolve().parents[2] / "backend" / "data" / "library"
# LivePortrait's axes in the world, for a face along -Y.
TO_WORLD = Matrix(((1, 0, 0), (0, 0, 1), (0, -1, 0)))


def performer(frames: int = 30) -> Any:
    return keypoint_rig.build(bpy.context, motion(frames), "Turns", first_frame=1)


def skeleton(tail: tuple[float, float, float] = (0, 0, 1), roll: float = 0.0) -> Any:
    armature = bpy.data.armatures.new("Skeleton")
    item = bpy.data.objects.new("Skeleton", armature)
    bpy.context.scene.collection.objects.link(item)
    bpy.context.view_layer.objects.active = item
    bpy.ops.object.mode_set(mode="EDIT")
    bone = armature.edit_bones.new("Head")
    bone.head, bone.tail, bone.roll = (0, 0, 0), tail, roll
    bpy.ops.object.mode_set(mode="OBJECT")
    return item


def turned(item: Any, bone: str = "") -> Any:
    """How the face is turned in the world from where it rests: 3 x 3."""
    posed = item.evaluated_get(bpy.context.evaluated_depsgraph_get())
    if not bone:
        return posed.matrix_world.to_3x3()
    return (posed.pose.bones[bone].matrix @ item.data.bones[bone].matrix_local.inverted()).to_3x3()


def head_of(rig: Any) -> Any:
    """How the rig's own face is turned in the world, from no turn."""
    posed = rig.evaluated_get(bpy.context.evaluated_depsgraph_get())
    return (
        (posed.pose.bones["head"].matrix @ rig.data.bones["head"].matrix_local.inverted())
        .to_3x3()
        .normalized()
    )


def difference(first: Any, second: Any) -> float:
    return float(np.abs(np.array(first) - np.array(second)).max())


@pytest.mark.parametrize(
    ("tail", "roll"), [((0, 0, 1), 0.0), ((0, 0, 1), 1.5708), ((0, -1, 0), 0.0), ((1, 0, 0), 3.1416)]
)
def test_a_bone_of_any_axes_turns_the_face_as_the_rig_does(tail: Any, roll: float) -> None:
    rig, item = performer(), skeleton(tail, roll)
    head_binding.bind(rig, item, "Head", rest=(0, 0, 0))
    seen = []
    for frame in (1, 9, 21):
        bpy.context.scene.frame_set(frame)
        assert difference(turned(item, "Head"), head_of(rig)) < 1e-5
        seen.append(np.array(turned(item, "Head")))
    assert np.ptp(seen, axis=0).max() > 0.1


def test_an_object_follows_too_and_the_signs_are_the_subjects() -> None:
    rig = keypoint_rig.build(bpy.context, motion_file.read(LIBRARY / "shake.npz"), "Shake", first_frame=1)
    item = small_head()
    assert head_binding.axes_of(item) == ("X", "-Z", "Y")
    head_binding.bind(rig, item)
    yaws = []
    for frame in range(1, 60, 2):
        bpy.context.scene.frame_set(frame)
        nose = turned(item) @ Matrix.Identity(3).col[1] * -1
        yaw = rig.evaluated_get(bpy.context.evaluated_depsgraph_get())["headYaw"]
        yaws.append((yaw - head_binding.rest_of(rig)[1], nose.x))
    yaws = np.array(yaws)
    assert np.ptp(yaws[:, 1]) > 0.2  # it shakes
    assert np.corrcoef(yaws.T)[0, 1] < -0.99  # yaw > 0 is to the subject's right, which is -x


@pytest.mark.parametrize("order", list(permutations("XYZ")))
@pytest.mark.parametrize("signs", list(product(("", "-"), repeat=2)))
def test_every_axis_map_is_baked_as_the_constraint_has_it(order: Any, signs: Any) -> None:
    rig, item = performer(12), skeleton()
    axes = [signs[0] + order[0], signs[1] + order[1], order[2]]
    bone = item.pose.bones["Head"]
    bone.rotation_mode = "YZX"
    bone.rotation_euler = (0.3, -0.2, 0.5)
    head_binding.bind(rig, item, "Head", axes, gain=0.7)
    bpy.context.scene.frame_set(8)
    shown = turned(item, "Head")
    samples = channel_samples.sample(rig, range(1, 13))
    head_binding.bake(item, "Head", samples, "Baked")
    bpy.data.objects.remove(rig)
    bpy.context.scene.frame_set(9)
    bpy.context.scene.frame_set(8)
    assert difference(turned(item, "Head"), shown) < 1e-5


@pytest.mark.parametrize("mode", ["XYZ", "ZXY", "QUATERNION", "AXIS_ANGLE"])
@pytest.mark.parametrize("into", [baking.TO_ACTION, baking.TO_STRIP])
def test_its_own_animation_goes_on_and_comes_back(mode: str, into: str) -> None:
    rig, item = performer(), skeleton()
    bone = item.pose.bones["Head"]
    bone.rotation_mode = mode
    path = {"QUATERNION": "rotation_quaternion", "AXIS_ANGLE": "rotation_axis_angle"}.get(
        mode, "rotation_euler"
    )
    lines = {
        (f'pose.bones["Head"].{path}', 1): ([1, 30], [0.1, 0.6]),
        ('pose.bones["Head"].location', 0): ([1, 30], [0, 1]),
    }
    fcurves.write(item, bpy.data.actions.new("Own"), lines)
    head_binding.bind(rig, item, "Head")
    frames = range(1, 31)

    def seen() -> np.ndarray:
        found = []
        for frame in frames:
            bpy.context.scene.frame_set(frame)
            posed = item.evaluated_get(bpy.context.evaluated_depsgraph_get())
            found.append(np.array(posed.pose.bones["Head"].matrix))
        return np.array(found)

    before = seen()
    head_binding.bake(item, "Head", channel_samples.sample(rig, frames), "Nods", into=into)
    np.testing.assert_allclose(seen(), before, atol=1e-5)
    rig.animation_data.action = None
    np.testing.assert_allclose(seen(), before, atol=1e-5)
    head_binding.restore(item)
    assert item.animation_data.action.name == "Own"
    assert np.abs(seen() - before).max() > 0.05  # it follows the rig again, which is still
    assert not head_binding.is_baked(item)


def test_the_neutral_face_does_not_turn_the_head() -> None:
    still = motion(5)
    rig = keypoint_rig.build(bpy.context, still, "Rest", first_frame=1)
    item = small_head()
    head_binding.bind(rig, item)
    bpy.context.scene.frame_set(1)
    assert difference(turned(item), Matrix.Identity(3)) < 1e-5
    assert difference(head_of(rig), Matrix.Identity(3)) > 0.05


def test_binding_again_changes_the_one_and_unbinding_takes_it_away() -> None:
    rig, item = performer(), small_head()
    head_binding.bind(rig, item)
    head_binding.bind(rig, item, axes=("Z", "X", "Y"), gain=2.0)
    assert len(item.constraints) == 1
    assert head_binding._as_bound(item.constraints[0])[:2] == (("Z", "X", "Y"), pytest.approx(2.0))
    assert head_binding.unbind(item) and not head_binding.unbind(item)
    assert not item.constraints


def test_what_cannot_be_bound_is_said() -> None:
    rig, item = performer(), skeleton()
    for arguments, words in (
        ((None, item), "no performance"),
        ((rig, None), "nothing to turn"),
        ((rig, item, "Neck"), 'no bone "Neck"'),
        ((rig, rig, "head"), "cannot turn itself"),
        ((rig, item, "Head", ("X", "-X", "Y")), "an axis each"),
    ):
        with pytest.raises(UserError, match=words):
            head_binding.bind(*arguments)


def test_it_works_in_a_blender_without_the_addon(tmp_path: Path) -> None:
    rig, item = performer(), skeleton()
    head_binding.bind(rig, item, "Head")
    bpy.context.scene.frame_set(17)
    shown = np.array(turned(item, "Head"))
    file = tmp_path / "head.blend"
    bpy.ops.wm.save_as_mainfile(filepath=str(file))
    code = f"""
import bpy, os, sys
bpy.ops.wm.open_mainfile(filepath={str(file)!r}, use_scripts=False)
bpy.context.scene.frame_set(2)
bpy.context.scene.frame_set(17)
item = bpy.data.objects["Skeleton"].evaluated_get(bpy.context.evaluated_depsgraph_get())
matrix = (item.pose.bones["Head"].matrix @ item.data.bones["Head"].matrix_local.inverted()).to_3x3()
print("turned", *(value for row in matrix for value in row))
sys.stdout.flush()
os._exit(0)
"""
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, cwd=tmp_path)
    line = next(line for line in done.stdout.splitlines() if line.startswith("turned"))
    np.testing.assert_allclose(np.array(line.split()[1:], float).reshape(3, 3), shown, atol=1e-6)
