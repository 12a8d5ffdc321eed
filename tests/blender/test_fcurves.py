# SPDX-License-Identifier: GPL-3.0-or-later
"""F-curves in bulk, on every version of Blender."""

from __future__ import annotations

from pathlib import Path

import bpy
import numpy as np
import pytest

from liveportrait_blender import compat, fcurves
from liveportrait_blender.names import UserError


@pytest.fixture
def cube() -> bpy.types.Object:
    item = bpy.data.objects.new("Cube", bpy.data.meshes.new("Cube"))
    bpy.context.scene.collection.objects.link(item)
    return item


def test_written_keys_play_and_are_kept_to_the_last_bit(cube: bpy.types.Object) -> None:
    frames = np.arange(200) * 24 / 29.97 + 7.3
    values = np.random.default_rng(0).normal(size=200)
    action = bpy.data.actions.new("Walk")
    fcurves.write(cube, action, {("location", 1): (frames, values)}, "Place")
    curve = fcurves.curves_of(cube)["location", 1]
    read_frames, read_values = fcurves.read(curve)
    np.testing.assert_array_equal(read_frames, frames.astype(np.float32))
    np.testing.assert_array_equal(read_values, values.astype(np.float32))
    assert curve.group.name == "Place"
    np.testing.assert_array_equal(fcurves.evaluate(curve, read_frames.tolist()), read_values)
    between = fcurves.evaluate(curve, [float(read_frames[3] + read_frames[4]) / 2])
    assert between[0] == pytest.approx((values[3] + values[4]) / 2, abs=1e-5)
    whole = int(frames[9])
    bpy.context.scene.frame_set(whole, subframe=float(read_frames[9]) - whole)
    assert cube.location[1] == pytest.approx(values[9], abs=1e-6)


def test_a_curve_is_replaced_and_the_others_stay(cube: bpy.types.Object) -> None:
    action = bpy.data.actions.new("Walk")
    fcurves.write(cube, action, {("location", 0): ([1, 2, 3], [1, 2, 3]), ("location", 1): ([1], [5])})
    fcurves.curves_of(cube)["location", 0].modifiers.new("NOISE")
    fcurves.write(cube, action, {("location", 0): ([5.5], [9])})
    curves = fcurves.curves_of(cube)
    assert set(curves) == {("location", 0), ("location", 1)}
    assert [list(part) for part in fcurves.read(curves["location", 0])] == [[5.5], [9]]
    assert not curves["location", 0].modifiers
    fcurves.write(cube, action, {("location", 0): ([], [])})
    assert set(fcurves.curves_of(cube)) == {("location", 1)}
    assert fcurves.remove(cube, action, [("location", 1), ("scale", 0)]) == 1
    assert fcurves.curves_of(cube) == {}


def test_interpolation_is_one_for_all_or_one_a_key(cube: bpy.types.Object) -> None:
    action = bpy.data.actions.new("Walk")
    codes = fcurves.codes()
    names = {("location", 0): ([1, 2, 3], [0, 1, 0]), ("location", 1): ([1, 2, 3], [0, 1, 0])}
    kinds = {("location", 0): [codes["CONSTANT"], codes["LINEAR"], codes["BEZIER"]]}
    fcurves.write(cube, action, names, interpolation=kinds)
    curves = fcurves.curves_of(cube)
    mixed = [key.interpolation for key in curves["location", 0].keyframe_points]
    assert mixed == ["CONSTANT", "LINEAR", "BEZIER"]
    assert {key.interpolation for key in curves["location", 1].keyframe_points} == {"LINEAR"}
    assert list(fcurves.evaluate(curves["location", 0], [1.5, 2.5])) == [0, 0.5]
    fcurves.write(cube, action, names, interpolation="BEZIER")
    keys = fcurves.curves_of(cube)["location", 0].keyframe_points
    assert {key.interpolation for key in keys} == {"BEZIER"}
    assert keys[1].handle_left[0] == pytest.approx(2 - 1 / 3, abs=0.1)  # handles were made


def test_two_objects_share_an_action_without_disturbing_each_other(cube: bpy.types.Object) -> None:
    other = bpy.data.objects.new("Other", None)
    key = cube.shape_key_add(name="Basis") and cube.data.shape_keys
    cube.shape_key_add(name='jaw"Open')
    action = bpy.data.actions.new("Both")
    path = key.key_blocks['jaw"Open'].path_from_id("value")
    fcurves.write(cube, action, {("location", 0): ([1], [1])})
    own = bpy.data.actions.new("Face") if bpy.app.version < (4, 4, 0) else action
    fcurves.write(key, own, {(path, 0): ([1, 11], [0, 1])})
    if bpy.app.version >= (4, 4, 0):
        fcurves.write(other, action, {("location", 0): ([1], [2])})
        assert list(fcurves.read(fcurves.curves_of(other)["location", 0])[1]) == [2]
    assert list(fcurves.read(fcurves.curves_of(cube)["location", 0])[1]) == [1]
    bpy.context.scene.frame_set(6)
    assert key.key_blocks['jaw"Open'].value == pytest.approx(0.5)


def test_what_is_wrong_is_said(cube: bpy.types.Object) -> None:
    action = bpy.data.actions.new("Walk")
    with pytest.raises(ValueError, match="3 frames"):
        fcurves.write(cube, action, {("location", 0): ([1, 2, 3], [1, 2])})
    with pytest.raises(ValueError, match="finite"):
        fcurves.write(cube, action, {("location", 0): ([1], [float("nan")])})


def test_linked_objects_are_refused_and_overridden_ones_animated(
    cube: bpy.types.Object, tmp_path: Path
) -> None:
    library = tmp_path / "library.blend"
    bpy.data.libraries.write(str(library), {cube})
    bpy.data.objects.remove(cube)
    with bpy.data.libraries.load(str(library), link=True) as (_, wanted):
        wanted.objects = ["Cube"]
    linked = bpy.data.objects["Cube"]
    bpy.context.scene.collection.objects.link(linked)
    action = bpy.data.actions.new("Walk")
    with pytest.raises(UserError, match="linked"):
        fcurves.write(linked, action, {("location", 0): ([1], [1])})
    override = linked.override_create(remap_local_usages=True)
    fcurves.write(override, action, {("location", 0): ([1], [4])})
    bpy.context.scene.frame_set(1)
    assert override.location[0] == 4


def test_the_slot_is_assigned(cube: bpy.types.Object) -> None:
    action = bpy.data.actions.new("Walk")
    compat.assign_action(cube, action)
    assert cube.animation_data.action == action
    if bpy.app.version >= (4, 4, 0):
        assert cube.animation_data.action_slot == action.slots[0]
        compat.assign_action(cube, action)
        assert len(action.slots) == 1
