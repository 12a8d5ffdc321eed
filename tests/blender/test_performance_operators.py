# SPDX-License-Identifier: GPL-3.0-or-later
"""Operators on performances that need no backend: files, neutral, mirror, poses; and what they refuse."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import bpy
import numpy as np
import pytest

from tests.blender.performances import assert_close, motion

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = ROOT / "backend" / "data" / "library"


def ops() -> Any:
    return bpy.ops.liveportrait


@pytest.fixture
def rig(addon: ModuleType) -> Any:
    """A rig that performs `motion(40)` from frame 1 on."""
    from liveportrait_blender import keypoint_rig

    bpy.context.scene.render.fps = 25
    return keypoint_rig.build(bpy.context, motion(40), "Talk", first_frame=1)


def test_import_and_export_keep_the_performance(addon: ModuleType, tmp_path: Path) -> None:
    from liveportrait_blender import motion_file

    performed = motion(25, fps=(30000, 1001))
    given = motion_file.write(tmp_path / "in.npz", performed)
    render = bpy.context.scene.render
    render.fps, render.fps_base = 30, 1.001
    bpy.context.scene.frame_set(12)
    assert ops().import_performance(filepath=str(given)) == {"FINISHED"}
    assert bpy.context.object.name == "in"
    assert ops().export_performance(filepath=str(tmp_path / "out")) == {"FINISHED"}
    written = motion_file.read(tmp_path / "out.npz")
    assert_close(written, performed)
    assert written.fps == performed.fps and written.start == pytest.approx(performed.start)


def test_a_second_performance_becomes_another_action_of_the_rig(rig: Any, tmp_path: Path) -> None:
    from liveportrait_blender import keypoint_rig, motion_file

    other = motion(10, seed=4)
    path = motion_file.write(tmp_path / "other.npz", other)
    first = rig.animation_data.action
    assert ops().import_performance(filepath=str(path), onto_active=True, start_frame=5.0) == {"FINISHED"}
    assert bpy.context.object == rig and rig.animation_data.action != first
    assert first.name in bpy.data.actions and first.use_fake_user
    assert_close(keypoint_rig.sample(rig, range(5, 15)), other)


def test_what_cannot_be_imported_is_said(addon: ModuleType, tmp_path: Path) -> None:
    bad = tmp_path / "bad.npz"
    bad.write_bytes(b"nothing")
    with pytest.raises(RuntimeError, match="no motion file"):
        ops().import_performance(filepath=str(bad))
    with pytest.raises(RuntimeError, match="does not exist"):
        ops().import_performance(filepath=str(tmp_path / "none.npz"))
    with pytest.raises(RuntimeError, match="does not exist"):
        ops().import_performance(filepath=str(tmp_path / "none.pkl"))
    assert not bpy.data.armatures and not bpy.data.actions


def test_without_a_rig_the_operators_say_why(addon: ModuleType) -> None:
    for name in ("render_performance", "set_neutral", "mirror_performance", "create_pose_assets"):
        with pytest.raises(RuntimeError, match="There is no performance yet"):
            getattr(ops(), name)()
    with pytest.raises(RuntimeError, match="Select the plane"):
        ops().create_performance()


def test_the_neutral_face_is_the_one_at_the_playhead(rig: Any) -> None:
    from liveportrait_blender import keypoint_rig, rig_channels, rig_render

    scene = bpy.context.scene
    scene.frame_set(11)
    rig["smile"] = 0.5  # a smile that belongs to the neutral face
    assert ops().set_neutral() == {"FINISHED"}
    here = keypoint_rig.sample(rig, [11])
    np.testing.assert_allclose(keypoint_rig.neutral(rig).expression, here.expression, atol=1e-6)
    assert (
        rig["eyes_rest"] == pytest.approx(here.eye_ratio.mean(), abs=1e-5)
        and rig["eyes_open"] == rig["eyes_rest"]
    )
    assert np.abs(rig_channels.values(here, rig_channels.neutral_of(rig))).max() < 1e-6
    given = rig_render.motion_to_render(rig, range(1, 6), scene=scene)
    assert len(given) == 6
    np.testing.assert_allclose(given.expression[5], here.expression[0], atol=1e-6)
    assert ops().set_neutral(reset=True) == {"FINISHED"}
    rig["smile"] = 0.0
    first = keypoint_rig.sample(rig, [1])
    np.testing.assert_allclose(keypoint_rig.neutral(rig).expression, first.expression, atol=1e-6)


def test_a_constant_edit_differs_from_the_neutral_frame_that_is_sent_along(rig: Any) -> None:
    from liveportrait_blender import rig_render

    scene = bpy.context.scene
    plain = rig_render.motion_to_render(rig, range(1, 41), scene=scene)
    rig["smile"] = 1.0
    smiling = rig_render.motion_to_render(rig, range(1, 41), scene=scene)
    change = smiling.expression - plain.expression
    np.testing.assert_allclose(change[:40, 14, 1], -0.02, atol=1e-6)
    assert np.abs(change[40]).max() == 0
    options = rig_render.render_options(
        {"frames": [3, 5], "controls": {"smile": 1}, "multiplier": 2}, 40, "25"
    )
    assert options == {"multiplier": 2, "fps": "25", "reference_frame": 40}
    assert len(rig_render.motion_to_render(rig, range(1, 41), scene=scene, relative=False)) == 40


def test_every_shot_starts_from_its_own_neutral_face(addon: ModuleType) -> None:
    from liveportrait_blender import keypoint_rig, rig_render

    scene = bpy.context.scene
    scene.render.fps = 25
    performed = motion(30, cuts=np.arange(30) == 12)
    performed.expression[12:] += 0.3  # another person
    performed.scale[12:] *= 1.5
    performed.translation[12:, 0] += 0.4
    rig = keypoint_rig.build(bpy.context, performed, "Talk", first_frame=1)
    given = rig_render.motion_to_render(rig, range(1, 31), scene=scene)
    assert given.cuts is None and len(given) == 31
    neutral = given.take(slice(30, 31))
    for shot in (slice(0, 12), slice(12, 30)):
        own, made = performed.take(shot), given.take(shot)
        # What the backend makes of them: the change from the reference frame.
        np.testing.assert_allclose(
            made.expression - neutral.expression, own.expression - own.expression[:1], atol=1e-5
        )
        np.testing.assert_allclose(
            made.rotation @ neutral.rotation[0].T, own.rotation @ own.rotation[0].T, atol=1e-5
        )
        np.testing.assert_allclose(made.scale / neutral.scale, own.scale / own.scale[:1], atol=1e-5)
        np.testing.assert_allclose(
            (made.translation - neutral.translation) / neutral.scale,
            (own.translation - own.translation[:1]) / own.scale[:1],
            atol=1e-5,
        )


def test_a_mirrored_wink_closes_the_other_eye_and_twice_is_as_it_was(addon: ModuleType) -> None:
    from liveportrait_blender import keypoint_rig, motion_file, rig_channels

    bpy.context.scene.render.fps = 30
    performed = motion_file.read(LIBRARY / "wink.npz")
    rig = keypoint_rig.build(bpy.context, performed, "Wink", first_frame=1)
    rig["blink_left"], rig["yaw"] = -3.0, 4.0
    frames = range(1, len(performed) + 1)
    names = rig_channels.names()

    def closed() -> np.ndarray:
        found = rig_channels.values(keypoint_rig.sample(rig, frames), rig_channels.neutral_of(rig))
        return found[:, [names.index("eyeBlinkLeft"), names.index("eyeBlinkRight")]].max(axis=0)

    before, sampled = closed(), keypoint_rig.sample(rig, frames)
    assert before[1] > before[0] + 0.3
    assert ops().mirror_performance() == {"FINISHED"}
    np.testing.assert_allclose(closed(), before[::-1], atol=0.12)
    assert rig["blink_right"] == -3.0 and rig["yaw"] == -4.0
    mirrored = keypoint_rig.sample(rig, frames)
    np.testing.assert_allclose(mirrored.translation[:, 0], -sampled.translation[:, 0], atol=1e-6)
    np.testing.assert_allclose(mirrored.rotation[:, 0, 1:], -sampled.rotation[:, 0, 1:], atol=1e-5)
    np.testing.assert_allclose(mirrored.eye_ratio[:, 0], sampled.eye_ratio[:, 1], atol=1e-5)
    assert ops().mirror_performance() == {"FINISHED"}
    assert_close(keypoint_rig.sample(rig, frames), sampled)
    np.testing.assert_allclose(closed(), before, atol=1e-4)


def test_pose_assets_are_made_once_and_hold_the_published_expressions(rig: Any) -> None:
    from liveportrait_blender import fcurves
    from liveportrait_blender.rig_control_table import controls

    assert ops().create_pose_assets() == {"FINISHED"}
    poses = {action["liveportrait_pose"]: action for action in bpy.data.actions if action.asset_data}
    assert {"smile", "smile Reverse", "wink", "brow", "brow Reverse", "blink_left"} <= set(poses)
    assert not {"yaw", "zoom", "wink Reverse"} & set(poses)
    smile = next(control for control in controls() if control.name == "smile")
    curves = fcurves.curves_of(rig, poses["smile"])
    for (keypoint, axis), slope in smile.up.items():
        values = fcurves.read(curves[f'pose.bones["kp_{keypoint:02d}"].location', axis])[1]
        np.testing.assert_allclose(values, [slope * smile.maximum], rtol=1e-6)
    assert rig.animation_data.action not in poses.values()
    count = len(bpy.data.actions)
    assert ops().create_pose_assets() == {"FINISHED"} and len(bpy.data.actions) == count


def test_controls_go_back_to_rest(rig: Any) -> None:
    from liveportrait_blender import keypoint_rig

    before = keypoint_rig.sample(rig, range(1, 41))
    rig["smile"], rig["eyes_open"], rig["zoom"] = 1.0, 0.7, 1.2
    assert ops().reset_rig_controls() == {"FINISHED"}
    assert_close(keypoint_rig.sample(rig, range(1, 41)), before, 1e-7)


def test_changes_can_be_undone(rig: Any) -> None:
    bpy.ops.ed.undo_push(message="before")
    ops().mirror_performance()
    bpy.ops.ed.undo_push(message="mirrored")

    def looks() -> float:
        return float(
            bpy.data.objects["Talk"].animation_data.action["liveportrait"]["neutrals"][0]["rotation"][2]
        )

    value = looks()
    bpy.ops.ed.undo()
    assert looks() == -value != 0


def test_the_active_rig_is_the_one_of_the_active_plane(rig: Any) -> None:
    from liveportrait_blender import keypoint_rig, performance

    second = keypoint_rig.build(bpy.context, motion(3), "Second", first_frame=1)
    assert performance.active(bpy.context) == second
    bpy.context.view_layer.objects.active = None
    assert performance.active(bpy.context) is None
    with pytest.raises(RuntimeError, match="Select a performance"):
        ops().mirror_performance()
    bpy.context.view_layer.objects.active = rig
    assert performance.active(bpy.context) == rig
