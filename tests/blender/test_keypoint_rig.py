# SPDX-License-Identifier: GPL-3.0-or-later
"""Motion -> armature -> motion: layout, timing, cuts, the two ways of sampling."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import bpy
import numpy as np
import pytest

from liveportrait_blender import fcurves, keypoint_rig, motion_file, rig_action, rig_sampling
from liveportrait_blender.names import UserError
from liveportrait_blender.rig_layout import BONES, GROUPS, HEAD
from tests.blender.performances import assert_close, motion

RATES = {
    "23.976": (24000, 1001),
    "24": (24, 1),
    "25": (25, 1),
    "29.97": (30000, 1001),
    "30": (30, 1),
    "59.94": (60000, 1001),
    "60": (60, 1),
}


def set_rate(rate: str) -> Fraction:
    exact = Fraction(*RATES[rate])
    render = bpy.context.scene.render
    render.fps = round(exact)
    render.fps_base = 1.0 if exact.denominator == 1 else 1.001
    assert rig_action.scene_rate(bpy.context.scene) == exact
    return exact


def frames_of(performed: motion_file.Motion, first: float = 1.0) -> np.ndarray:
    return rig_action.scene_frames(performed, rig_action.scene_rate(bpy.context.scene), first)


def test_bones_rest_at_the_canonical_keypoints_with_liveportraits_axes() -> None:
    performed = motion()
    rig = keypoint_rig.build(bpy.context, performed, "Talk")
    assert [bone.name for bone in rig.data.bones if not bone.name.startswith("head_")] == [HEAD, *BONES]
    for k, name in enumerate(BONES):
        bone = rig.data.bones[name]
        x, y, z = performed.canonical[0, k]
        np.testing.assert_allclose(bone.head_local, (x, z, -y), atol=1e-6)
        np.testing.assert_allclose(bone.matrix_local.to_3x3(), [[1, 0, 0], [0, 0, 1], [0, -1, 0]], atol=1e-6)
        assert bone.parent.name == HEAD
    collections = rig.data.collections
    grouped = {group: tuple(sorted(bone.name for bone in collections[group].bones)) for group in GROUPS}
    assert grouped == {group: tuple(BONES[k] for k in keypoints) for group, keypoints in GROUPS.items()}
    assert keypoint_rig.is_rig(rig) and keypoint_rig.rigs(bpy.context.scene) == [rig]
    assert bpy.context.object == rig and bpy.context.mode == "OBJECT"


def test_posed_bones_lie_where_the_formula_says_for_a_head_that_looks_ahead() -> None:
    still = motion(1)
    still.rotation[:] = np.eye(3)
    rig = keypoint_rig.build(bpy.context, still, "Still", first_frame=1)
    bpy.context.scene.frame_set(1)
    posed = rig.evaluated_get(bpy.context.evaluated_depsgraph_get())
    for k, name in enumerate(BONES):
        x, y, z = still.keypoints()[0, k]
        np.testing.assert_allclose(posed.pose.bones[name].head, (x, z, -y), atol=1e-5)


@pytest.mark.parametrize("scene", RATES)
@pytest.mark.parametrize("clip", ["23.976", "25", "60"])
def test_a_performance_comes_back_at_every_rate(scene: str, clip: str) -> None:
    set_rate(scene)
    performed = motion(30, fps=RATES[clip])
    rig = keypoint_rig.build(bpy.context, performed, "Talk", first_frame=11.25)
    frames = frames_of(performed, 11.25)
    assert frames[-1] - frames[0] == pytest.approx(29 * RATES[scene][0] * RATES[clip][1] / (
        RATES[scene][1] * RATES[clip][0]), rel=1e-12)  # fmt: skip
    for stepwise in (False, True):
        sampled = keypoint_rig.sample(rig, frames, stepwise=stepwise)
        assert_close(sampled, performed)
        assert sampled.fps == Fraction(*RATES[scene])
        assert sampled.start == pytest.approx(0.5) and sampled.engine == "mesh" and sampled.valid.all()
    np.testing.assert_allclose(sampled.canonical[0], performed.canonical.mean(axis=0), atol=1e-6)


def test_one_frame_and_ten_thousand() -> None:
    for count in (1, 10_000):
        performed = motion(count, fps=(30000, 1001))
        rig = keypoint_rig.build(bpy.context, performed, f"n{count}", first_frame=1)
        assert_close(keypoint_rig.sample(rig, frames_of(performed)), performed)
    with pytest.raises(UserError, match="no frames"):
        keypoint_rig.build(bpy.context, performed.take(slice(0, 0)), "none")
    with pytest.raises(UserError, match="no frames"):
        keypoint_rig.sample(rig, [])


def test_resampled_keys_lie_on_whole_frames_where_the_curves_were() -> None:
    performed = motion(50, fps=(30000, 1001))
    performed.valid[20:22] = False
    rig = keypoint_rig.build(bpy.context, performed, "Talk", first_frame=5.5)
    whole = np.arange(6, np.floor(frames_of(performed, 5.5)[-1]) + 1)
    between = keypoint_rig.sample(rig, whole)
    rig_action.to_action(rig, performed, scene=bpy.context.scene, first_frame=5.5, resample=True)
    keys = fcurves.read(fcurves.curves_of(rig)['pose.bones["kp_19"].location', 1])[0]
    np.testing.assert_array_equal(keys, whole)
    resampled = keypoint_rig.sample(rig, whole)
    resampled.gaze = between.gaze = None
    assert_close(resampled, between, 2e-6)
    np.testing.assert_array_equal(resampled.valid, between.valid)


def test_nothing_is_blended_over_a_cut() -> None:
    set_rate("25")
    performed = motion(20, cuts=np.arange(20) == 12)
    performed.expression[12:] += 1
    rig = keypoint_rig.build(bpy.context, performed, "Talk", first_frame=1, resample=False)
    before = frames_of(performed)[11]
    sampled = keypoint_rig.sample(rig, [before, before + 0.4, before + 0.9, before + 1.0])
    np.testing.assert_allclose(sampled.expression[:3], performed.expression[[11, 11, 11]], atol=1e-6)
    np.testing.assert_allclose(sampled.expression[3], performed.expression[12], atol=1e-6)
    np.testing.assert_array_equal(keypoint_rig.sample(rig, frames_of(performed)).cuts, performed.cuts)
    markers = rig.animation_data.action.pose_markers
    assert [(marker.name, marker.frame) for marker in markers] == [("Cut", 13)]


def test_stretches_without_a_face_are_shown() -> None:
    set_rate("25")
    performed = motion(20)
    performed.valid[[0, 7, 8, 9]] = False
    rig = keypoint_rig.build(bpy.context, performed, "Talk", first_frame=1)
    np.testing.assert_array_equal(keypoint_rig.sample(rig, frames_of(performed)).valid, performed.valid)
    shown = [(marker.name, marker.frame) for marker in rig.animation_data.action.pose_markers]
    assert shown == [("No Face", 1), ("Face", 2), ("No Face", 8), ("Face", 11)]
    assert len(fcurves.read(fcurves.curves_of(rig)['["valid"]', 0])[0]) == 4


def test_a_turning_head_never_jumps_between_two_ways_to_say_the_same() -> None:
    performed = motion(60)
    turn = np.zeros((60, 3))
    turn[:, 1] = np.linspace(-3.5, 3.5, 60)  # yaw, past a quarter and a half turn
    turn[:, 0] = 0.3
    from liveportrait_blender import rig_angles

    performed.rotation = rig_angles.matrices(turn).astype(np.float32)
    rig = keypoint_rig.build(bpy.context, performed, "Spin", first_frame=1)
    for axis in range(3):
        values = fcurves.read(fcurves.curves_of(rig)['pose.bones["head"].rotation_euler', axis])[1]
        assert np.abs(np.diff(values)).max(initial=0) < 0.2
    assert_close(keypoint_rig.sample(rig, frames_of(performed)), performed)


@pytest.mark.parametrize("gaze", [True, False])
def test_gaze_is_only_where_it_was_measured(gaze: bool) -> None:
    performed = motion(30, **({} if gaze else {"gaze": None}))
    rig = keypoint_rig.build(bpy.context, performed, "Talk", first_frame=1)
    for stepwise in (False, True):
        assert_close(keypoint_rig.sample(rig, frames_of(performed), stepwise=stepwise), performed)


def test_edited_curves_are_sampled_as_they_play() -> None:
    performed = motion(30)
    rig = keypoint_rig.build(bpy.context, performed, "Talk", first_frame=1)
    curve = fcurves.curves_of(rig)['pose.bones["kp_19"].location', 1]
    for point in curve.keyframe_points:
        point.interpolation = "BEZIER"
    curve.keyframe_points[8].co[1] += 0.05
    curve.update()
    curve.modifiers.new("CYCLES")
    fcurves.curves_of(rig)['pose.bones["kp_20"].location', 1].mute = True
    frames = np.arange(1, 60, 0.7)
    curved, stepped = (keypoint_rig.sample(rig, frames, stepwise=stepwise) for stepwise in (False, True))
    assert rig_sampling.why_stepwise(rig) == ""
    assert_close(curved, stepped, 2e-6)
    late = curved.expression[frames > 35]
    assert np.ptp(late[:, 19, 1]) > 0.05 and np.ptp(late[:, 18, 1]) == 0  # only one of them goes on
    at = keypoint_rig.sample(rig, [frames_of(performed)[8]])
    assert at.expression[0, 19, 1] == pytest.approx(performed.expression[8, 19, 1] + 0.05, abs=1e-6)


def test_layers_of_the_nla_and_constraints_are_sampled() -> None:
    performed = motion(30)
    rig = keypoint_rig.build(bpy.context, performed, "Talk", first_frame=1)
    data = rig.animation_data
    base = data.action
    strip = data.nla_tracks.new().strips.new("Base", 1, base)
    if hasattr(strip, "action_slot"):
        strip.action_slot = data.action_slot
    layer = bpy.data.actions.new("Layer")
    fcurves.write(rig, layer, {('pose.bones["kp_19"].location', 1): ([1, 40], [0.02, 0.02])})
    data.action_blend_type = "ADD"
    assert "NLA" in rig_sampling.why_stepwise(rig)
    frames = frames_of(performed)
    sampled = keypoint_rig.sample(rig, frames)
    assert np.abs(sampled.expression[:, 19, 1] - performed.expression[:, 19, 1] - 0.02).max() < 1e-5
    sampled.expression[:, 19, 1] = performed.expression[:, 19, 1]
    assert_close(sampled, performed)

    limit = rig.pose.bones["kp_11"].constraints.new("LIMIT_LOCATION")
    limit.use_min_y, limit.min_y, limit.owner_space = True, 0.0, "LOCAL"
    data.nla_tracks[0].mute = True
    data.action = None
    from liveportrait_blender import compat

    data.action_blend_type = "REPLACE"
    compat.assign_action(rig, base)
    assert "Limit Location" in rig_sampling.why_stepwise(rig)
    limited = keypoint_rig.sample(rig, frames).expression[:, 11, 1]
    np.testing.assert_allclose(limited, np.maximum(performed.expression[:, 11, 1], 0), atol=1e-6)


def test_a_driven_bone_is_sampled() -> None:
    performed = motion(10)
    rig = keypoint_rig.build(bpy.context, performed, "Talk", first_frame=1)
    rig.pose.bones["kp_06"].driver_add("location", 0).driver.expression = "0.25"
    assert "driver" in rig_sampling.why_stepwise(rig)
    assert keypoint_rig.sample(rig, [1, 2]).expression[0, 6, 0] == pytest.approx(0.25)


def test_sampling_leaves_no_trace() -> None:
    performed = motion(10)
    rig = keypoint_rig.build(bpy.context, performed, "Talk", first_frame=1)
    scene = bpy.context.scene
    scene.frame_set(4)
    before = [item.name for item in (*bpy.data.scenes, *bpy.data.objects, *bpy.data.actions)]
    pose = rig.pose.bones["kp_19"].location.copy()
    keypoint_rig.sample(rig, [1, 9], stepwise=True)
    assert [item.name for item in (*bpy.data.scenes, *bpy.data.objects, *bpy.data.actions)] == before
    assert scene.frame_current == 4 and bpy.context.scene == scene
    assert (rig.pose.bones["kp_19"].location - pose).length < 1e-7


def test_a_rig_that_is_placed_in_the_room_performs_the_same() -> None:
    performed = motion(5)
    rig = keypoint_rig.build(bpy.context, performed, "Talk", first_frame=1)
    rig.location, rig.rotation_euler, rig.scale = (1, 2, 1.6), (0.3, 0.2, 1), (0.3, 0.3, 0.3)
    for stepwise in (False, True):
        assert_close(keypoint_rig.sample(rig, frames_of(performed), stepwise=stepwise), performed)


def test_appended_a_rig_brings_nothing_along_that_renders(tmp_path: Path) -> None:
    keypoint_rig.build(bpy.context, motion(3), "Talk", first_frame=1)
    path = tmp_path / "talk.blend"
    bpy.ops.wm.save_as_mainfile(filepath=str(path))
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=True)
    bpy.ops.wm.append(directory=f"{path}/Object/", filename="Talk")
    assert [item.name for item in bpy.context.scene.objects if not item.hide_render] == ["Talk"]
    assert bpy.data.objects["Talk"].pose.bones["kp_19"].custom_shape is not None


def test_the_performance_survives_saving_and_does_without_the_addon(tmp_path: Path) -> None:
    performed = motion(12)
    keypoint_rig.build(bpy.context, performed, "Talk", first_frame=1)
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "talk.blend"))
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=True)
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "talk.blend"))
    rig = bpy.data.objects["Talk"]
    for stepwise in (False, True):
        sampled = keypoint_rig.sample(rig, frames_of(performed), stepwise=stepwise)
        assert_close(sampled, performed)
    assert sampled.engine == "mesh" and keypoint_rig.first_frame(rig) == 1
    assert rig.pose.bones["kp_19"].custom_shape is not None


def test_neutral_is_the_first_frame_with_a_face_until_one_is_chosen() -> None:
    performed = motion(12)
    performed.valid[:2] = False
    rig = keypoint_rig.build(bpy.context, performed, "Talk", first_frame=1)
    np.testing.assert_allclose(keypoint_rig.neutral(rig).expression, performed.expression[2:3])
    keypoint_rig.set_neutral(rig, performed, 7)
    np.testing.assert_allclose(keypoint_rig.neutral(rig).rotation, performed.rotation[7:8])
    keypoint_rig.set_neutral(rig, None)
    np.testing.assert_allclose(keypoint_rig.neutral(rig).expression, performed.expression[2:3])


def test_what_is_no_rig_is_said() -> None:
    empty = bpy.data.objects.new("Empty", None)
    with pytest.raises(UserError, match="no keypoint rig"):
        keypoint_rig.sample(empty, [1])
    assert not keypoint_rig.is_rig(empty) and not keypoint_rig.is_rig(None)


def test_a_sampled_performance_is_a_motion_file(tmp_path: Path) -> None:
    performed = motion(12)
    performed.valid[3] = False
    rig = keypoint_rig.build(bpy.context, performed, "Talk", first_frame=1)
    path = motion_file.write(tmp_path / "edited.npz", keypoint_rig.sample(rig, frames_of(performed)))
    assert_close(motion_file.read(path), performed)
