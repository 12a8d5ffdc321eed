# SPDX-License-Identifier: GPL-3.0-or-later
"""Bake, restore, bind and calibrate as the panel's buttons do; and the rig's own layers as one Action."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import bpy
import numpy as np
import pytest

from liveportrait_blender import (
    channel_samples,
    compat,
    head_binding,
    keypoint_rig,
    performance_bake,
    rig_channels,
    shape_key_bake,
    shape_key_drivers,
)
from tests.blender.heads import small_head
from tests.blender.layout_recorder import draw
from tests.blender.performances import motion
from tests.blender.test_head_binding import skeleton
from tests.blender.test_shape_key_bake import follower, performer, played

OURS = (
    "calibrate_neutral",
    "calibrate_ranges",
    "pose_example",
    "add_example",
    "remove_example",
    "solve_examples",
    "smooth_performance",
    "bind_head",
    "unbind_head",
    "bake_shape_keys",
    "restore_drivers",
    "export_curves",
    "import_curves",
)


def ops() -> Any:
    return bpy.ops.liveportrait


def choose(*objects: Any) -> None:
    for item in bpy.context.view_layer.objects:
        item.select_set(item in objects)
    bpy.context.view_layer.objects.active = objects[0]


@pytest.mark.parametrize("name", OURS)
def test_operators_tell_what_they_do(addon: ModuleType, name: str) -> None:
    kind = getattr(ops(), name).get_rna_type()
    assert kind.description and not kind.description.endswith(".")
    assert kind.name == kind.name.title().replace(" To ", " to ").replace(" By ", " by ")


def test_two_heads_their_bones_and_the_rig_are_baked_and_restored(addon: ModuleType) -> None:
    rig = performer("wink")
    heads = [follower(rig), follower(rig, "Other")]
    body = skeleton()
    for head in heads:
        head.liveportrait.head.target, head.liveportrait.head.bone = body, "Head"
    choose(*heads)
    assert ops().bind_head() == {"FINISHED"}
    assert tuple(getattr(heads[0].liveportrait.head, f"{n}_axis") for n in ("pitch", "yaw", "roll")) == (
        "X",
        "-Y",
        "-Z",
    )
    scene = bpy.context.scene
    scene.frame_start, scene.frame_end = 3, 22
    rig["smile"] = 0.4
    rig.update_tag()
    frames = range(3, 23)
    shown = [played(head, frames) for head in heads]
    first = rig.animation_data.action
    choose(*heads)
    assert ops().bake_shape_keys(tolerance=0.001, include_rig=True, name="Take 4") == {"FINISHED"}
    assert head_binding.find(body, "Head").mute and body.animation_data.action.name == "Take 4 Head"
    for head, before in zip(heads, shown):
        action = head.data.shape_keys.animation_data.action
        assert action.name.startswith("Take 4") and tuple(action.frame_range) == (3, 22)
        assert np.abs(played(head, frames) - before).max() < 0.0011
    assert rig["smile"] == 0.0 and rig.animation_data.action != first
    assert ops().restore_drivers() == {"FINISHED"}
    assert not head_binding.find(body, "Head").mute and body.animation_data.action is None
    assert rig.animation_data.action == first and rig["smile"] == pytest.approx(0.4)
    for head, before in zip(heads, shown):
        np.testing.assert_allclose(played(head, frames), before, atol=1e-5)
    assert not ops().restore_drivers.poll()


def test_a_mixed_performance_becomes_one_action(addon: ModuleType) -> None:
    rig = keypoint_rig.build(bpy.context, motion(30), "Mixed", first_frame=1)
    bpy.context.scene.render.fps = 25
    action = rig.animation_data.action
    rig.animation_data.action = None
    track, strip = compat.add_strip(rig, action, "Mixed")
    strip.influence = 0.6
    rig["smile"], rig["pitch"] = 0.3, 8.0
    rig.update_tag()
    frames = range(1, 25)
    before = channel_samples.sample(rig, frames, stepwise=True).values
    baked = performance_bake.bake(rig, frames, "Flat")
    assert baked.name == "Flat" and track.mute and rig["smile"] == 0.0
    after = channel_samples.sample(rig, frames, stepwise=True).values
    for name in (*rig_channels.names(), *rig_channels.HEAD_ANGLES):
        np.testing.assert_allclose(after[name], before[name], atol=2e-4, err_msg=name)
    assert performance_bake.restore(rig) and not performance_bake.restore(rig)
    assert not track.mute and rig["smile"] == pytest.approx(0.3) and rig.animation_data.action is None


def test_baking_is_one_step_of_undo(addon: ModuleType) -> None:
    for kind in ("bake_shape_keys", "restore_drivers", "solve_examples", "calibrate_ranges", "bind_head"):
        operator = getattr(bpy.types, f"LIVEPORTRAIT_OT_{kind}")
        assert "UNDO" in operator.bl_options, kind
    head = follower(performer("wink"))
    choose(head)
    bpy.ops.ed.undo_push(message="driven")
    name = head.name
    assert ops().bake_shape_keys() == {"FINISHED"}
    bpy.ops.ed.undo_push(message="baked")
    assert shape_key_bake.is_baked(head)
    bpy.ops.ed.undo()
    head = bpy.data.objects[name]
    assert not shape_key_bake.is_baked(head)
    assert not any(curve.mute for curve in shape_key_drivers.driven(head).values())


def test_the_panels_offer_it_and_show_what_is_so(addon: ModuleType) -> None:
    rig = performer("wink")
    head = follower(rig)
    choose(head)
    panels = [getattr(bpy.types, f"LIVEPORTRAIT_PT_{name}") for name in ("calibration", "head", "bake")]
    seen = [draw(panel) for panel in panels]
    assert {"liveportrait.bake_shape_keys"} == seen[2].ids
    assert {"target", "pitch_axis", "yaw_axis", "roll_axis", "gain"} <= seen[1].names
    assert "liveportrait.unbind_head" not in seen[1].ids
    calibrating = {f"liveportrait.{name}" for name in OURS[:7]} - {"liveportrait.remove_example"}
    assert calibrating <= seen[0].ids and "liveportrait.mirror_performance" in seen[0].ids
    ops().add_example()
    ops().bind_head()
    ops().bake_shape_keys()
    seen = [draw(panel) for panel in panels]
    assert "liveportrait.remove_example" in seen[0].ids and "Frame 1" in seen[0].text
    assert "liveportrait.unbind_head" in seen[1].ids
    assert "liveportrait.restore_drivers" in seen[2].ids and "Baked" in seen[2].text


def test_examples_by_buttons(addon: ModuleType) -> None:
    rig = performer("wink")
    head = follower(rig)
    choose(head)
    frames = channel_samples.sample(rig, range(1, 40)).values["eyeBlinkRight"]
    shut = 1 + int(np.argmax(frames))
    bpy.context.scene.frame_set(shut)
    assert ops().pose_example() == {"FINISHED"}
    head.data.shape_keys.key_blocks["eyeBlinkRight"].value = 0.5
    assert ops().add_example() == {"FINISHED"}
    assert ops().solve_examples(prior=0.01) == {"FINISHED"}
    bpy.context.scene.frame_set(1)
    bpy.context.scene.frame_set(shut)
    assert head.data.shape_keys.key_blocks["eyeBlinkRight"].value == pytest.approx(0.5, abs=0.03)
    assert ops().remove_example(index=0) == {"FINISHED"}
    with pytest.raises(RuntimeError, match="no such example"):
        ops().remove_example(index=0)


def test_calibration_buttons(addon: ModuleType) -> None:
    rig = performer("talk")
    head = follower(rig)
    choose(head)
    before = rig.animation_data.action
    assert ops().calibrate_neutral() == {"FINISHED"}
    assert ops().calibrate_ranges() == {"FINISHED"}
    first, last = keypoint_rig.frame_range(rig, bpy.context.scene)
    frames = range(first, last + 1)
    assert np.percentile(played(head, frames)[:, 2], 98) == pytest.approx(1.0, abs=5e-3)
    assert ops().smooth_performance(frames=2.0) == {"FINISHED"}
    assert rig.animation_data.action.name == f"{before.name} Smooth"
    assert ops().unbind_head.poll()
    with pytest.raises(RuntimeError, match="Nothing turns"):
        ops().unbind_head()


def test_what_is_edited_on_a_bound_head_is_followed(addon: ModuleType) -> None:
    head = follower(performer("wink"))
    choose(head)
    assert ops().bind_head() == {"FINISHED"}
    settings = head.liveportrait.head
    assert settings.target == head and (settings.yaw_axis, settings.roll_axis) == ("-Z", "Y")
    settings.gain = 0.5
    assert head_binding._as_bound(head.constraints[0])[1] == pytest.approx(0.5)
    settings.yaw_axis = "Y"  # two of a kind: waits for the other
    assert head_binding._as_bound(head.constraints[0])[0] == ("X", "-Z", "Y")
    settings.roll_axis = "Z"
    assert head_binding._as_bound(head.constraints[0])[0] == ("X", "Y", "Z")


def test_a_bound_head_rests_where_the_neutral_face_is(addon: ModuleType) -> None:
    rig = performer("shake")
    head = follower(rig)
    choose(head)
    ops().bind_head()
    yaws = channel_samples.sample(rig, range(1, 40)).values["headYaw"]
    bpy.context.scene.frame_set(1 + int(np.argmax(np.abs(yaws))))
    away = head.evaluated_get(bpy.context.evaluated_depsgraph_get()).matrix_world.to_euler()
    assert max(map(abs, away)) > 0.1
    assert ops().set_neutral() == {"FINISHED"}
    still = head.evaluated_get(bpy.context.evaluated_depsgraph_get()).matrix_world.to_euler()
    assert max(map(abs, still)) < 1e-4
    assert ops().set_neutral(reset=True) == {"FINISHED"}
    again = head.evaluated_get(bpy.context.evaluated_depsgraph_get()).matrix_world.to_euler()
    assert tuple(again) == pytest.approx(tuple(away), abs=1e-5)


def test_what_follows_nothing_cannot_be_baked(addon: ModuleType) -> None:
    choose(small_head())
    with pytest.raises(RuntimeError, match="follows a performance"):
        ops().bake_shape_keys()


def test_baked_curves_play_without_the_addon(addon: ModuleType, tmp_path: Path) -> None:
    rig = performer("wink")
    head = follower(rig)
    frames = range(1, 30)
    shown = played(head, frames)
    choose(head)
    bpy.context.scene.frame_end = 40
    assert ops().bake_shape_keys(into="NLA", drivers="REMOVE") == {"FINISHED"}
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "baked.blend"))
    code = f"""
import bpy, os, sys
bpy.ops.wm.open_mainfile(filepath={str(tmp_path / "baked.blend")!r}, use_scripts=False)
for frame in range(1, 30):
    bpy.context.scene.frame_set(frame)
    keys = bpy.data.objects["Small"].evaluated_get(bpy.context.evaluated_depsgraph_get()).data.shape_keys
    print("at", *(block.value for block in keys.key_blocks[1:]))
sys.stdout.flush()
os._exit(0)
"""
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, cwd=tmp_path)
    lines = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("at ")]
    np.testing.assert_allclose(np.array(lines, float), shown, atol=1e-4)
