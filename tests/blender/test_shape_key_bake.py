# SPDX-License-Identifier: GPL-3.0-or-later
"""Shape keys baked: the values of the drivers as curves, less keys within a tolerance, and back again."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import bpy
import numpy as np
import pytest

from liveportrait_blender import (
    baking,
    channel_samples,
    fcurves,
    keypoint_rig,
    motion_file,
    rig_channels,
    shape_key_bake,
    shape_key_drivers,
)
from liveportrait_blender.names import UserError
from tests.blender.heads import SMALL_KEYS, small_head
from tests.blender.performances import motion

LIBRARY = Path(__file__).resolve().parents[2] / "backend" / "data" / "library"
RATES = [(24000, 1001), (24, 1), (25, 1), (30000, 1001), (60, 1)]


def performer(clip: str = "wink", first: float = 1) -> Any:
    return keypoint_rig.build(bpy.context, motion_file.read(LIBRARY / f"{clip}.npz"), clip, first_frame=first)


def follower(rig: Any, name: str = "Small", drive: bool = True) -> Any:
    head = small_head(name)
    follow(head, rig, drive)
    return head


def follow(head: Any, rig: Any, drive: bool = True) -> None:
    settings = head.liveportrait.shape_keys
    settings.rig = rig
    for key in SMALL_KEYS:
        entry = settings.entries.add()
        entry.shape_key = entry.channel = key
    if drive:
        shape_key_drivers.drive(head)


def played(head: Any, frames: Any) -> np.ndarray:
    """(k, keys): what Blender shows at frames, whole or not."""
    found = []
    for frame in frames:
        whole = int(np.floor(frame))
        bpy.context.scene.frame_set(whole, subframe=float(frame - whole))
        evaluated = head.evaluated_get(bpy.context.evaluated_depsgraph_get())
        found.append([evaluated.data.shape_keys.key_blocks[key].value for key in SMALL_KEYS])
    return np.array(found)


def curves_of(head: Any) -> dict[str, Any]:
    return {path: curve for (path, _), curve in fcurves.curves_of(head.data.shape_keys).items()}


@pytest.mark.parametrize("clip", ["wink", "talk"])
def test_what_is_baked_is_what_the_drivers_showed(addon: ModuleType, clip: str) -> None:
    rig = performer(clip)
    head = follower(rig)
    frames = list(keypoint_rig.frame_range(rig, bpy.context.scene))
    frames = list(range(frames[0], frames[1] + 1))
    shown = played(head, frames)
    assert shown.max() > 0.5
    report = shape_key_bake.bake([head], frames)[0]
    assert report.shape_keys == list(SMALL_KEYS) and not report.is_warning
    np.testing.assert_allclose(played(head, frames), shown, atol=1e-4)
    # Not because the drivers still work.
    bpy.data.objects.remove(rig)
    np.testing.assert_allclose(played(head, frames), shown, atol=1e-4)
    assert clip in report.action.name


def test_both_ways_of_sampling_agree(addon: ModuleType) -> None:
    rig = performer("talk")
    bpy.context.scene.frame_set(7)
    rig["smile"] = 0.5
    frames = [1, 2.5, 3, 17, 20.25]
    fast = channel_samples.sample(rig, frames, stepwise=False)
    slow = channel_samples.sample(rig, frames, stepwise=True)
    for name in (*rig_channels.names(), *rig_channels.HEAD_ANGLES):
        np.testing.assert_allclose(fast.values[name], slow.values[name], atol=1e-4, err_msg=name)
    assert bpy.context.scene.frame_current == 7
    assert channel_samples.why_stepwise(rig) == ""


def test_a_changed_channel_driver_is_baked_as_it_is(addon: ModuleType) -> None:
    rig = performer("talk")
    head = follower(rig)
    plain = channel_samples.sample(rig, range(1, 9)).values["jawOpen"]
    driver = rig.animation_data.drivers.find('["jawOpen"]').driver
    driver.expression = f"0.5*({driver.expression})"
    halved = channel_samples.sample(rig, range(1, 9))
    np.testing.assert_allclose(halved.values["jawOpen"], plain / 2, atol=1e-6)
    driver.expression = f"sin({driver.expression})"
    assert "jawOpen" in channel_samples.why_stepwise(rig)
    shown = played(head, range(1, 9))
    shape_key_bake.bake([head], range(1, 9))
    np.testing.assert_allclose(played(head, range(1, 9)), shown, atol=1e-4)


def test_an_nla_mix_of_performances_is_baked(addon: ModuleType) -> None:
    rig = performer("wink")
    head = follower(rig)
    action = rig.animation_data.action
    rig.animation_data.action = None
    from liveportrait_blender import compat

    _, strip = compat.add_strip(rig, action, "Half")
    strip.influence = 0.5
    assert channel_samples.why_stepwise(rig)
    frames = range(1, 20)
    shown = played(head, frames)
    shape_key_bake.bake([head], frames)
    np.testing.assert_allclose(played(head, frames), shown, atol=1e-4)


@pytest.mark.parametrize("tolerance", [0.002, 0.02, 0.1])
def test_fewer_keys_stay_within_the_tolerance_in_blender(addon: ModuleType, tolerance: float) -> None:
    head = follower(performer("talk"))
    frames = range(1, 60)
    shown = played(head, frames)
    full = shape_key_bake.bake([head], frames)[0].keys
    shape_key_bake.restore(head)
    report = shape_key_bake.bake([head], frames, shape_key_bake.How(tolerance=tolerance))[0]
    assert np.abs(played(head, frames) - shown).max() <= tolerance + 1e-5
    assert report.keys < full * (0.9 if tolerance < 0.01 else 0.5)


@pytest.mark.parametrize("drivers", [shape_key_bake.MUTE, shape_key_bake.REMOVE])
@pytest.mark.parametrize("into", [baking.TO_ACTION, baking.TO_STRIP])
def test_drivers_come_back_with_what_was_played_before(addon: ModuleType, drivers: str, into: str) -> None:
    rig = performer("wink")
    head = follower(rig)
    key = head.data.shape_keys
    own = head.shape_key_add(name="of my own", from_mix=False)
    fcurves.write(key, bpy.data.actions.new("Mine"), {(own.path_from_id("value"), 0): ([1, 11], [0.0, 1.0])})
    frames = range(1, 20)
    shown = played(head, frames)
    shape_key_bake.bake([head], frames, shape_key_bake.How(into=into, drivers=drivers))
    np.testing.assert_allclose(played(head, frames), shown, atol=1e-4)
    bpy.context.scene.frame_set(6)
    assert own.value == pytest.approx(0.5)  # what else was animated goes on
    assert not any(curve.is_valid and not curve.mute for curve in key.animation_data.drivers)
    assert len(key.animation_data.drivers) == (0 if drivers == shape_key_bake.REMOVE else len(SMALL_KEYS))
    if into == baking.TO_STRIP:
        assert key.animation_data.action is None and len(key.animation_data.nla_tracks) == 2
    rig["wink"] = 20.0  # now only drivers would show it
    rig.update_tag()
    assert shape_key_bake.restore(head) == len(SMALL_KEYS)
    bpy.context.scene.frame_set(12)
    assert key.animation_data.action.name == "Mine" and not len(key.animation_data.nla_tracks)
    rest = played(head, range(1, 2))
    assert rest[0, list(SMALL_KEYS).index("eyeBlinkRight")] > 0.4
    with pytest.raises(UserError, match="not baked"):
        shape_key_bake.restore(head)


def test_baking_twice_replaces_the_first_and_still_restores(addon: ModuleType) -> None:
    head = follower(performer("wink"))
    shape_key_bake.bake([head], range(1, 20), shape_key_bake.How(drivers=shape_key_bake.REMOVE))
    report = shape_key_bake.bake([head], range(5, 10), shape_key_bake.How(drivers=shape_key_bake.REMOVE))[0]
    assert report.frames == 5 and tuple(report.action.frame_range) == (5, 9)
    assert shape_key_bake.restore(head) == len(SMALL_KEYS)
    assert head.data.shape_keys.animation_data.action is None


@pytest.mark.parametrize("count", [0, 1])
@pytest.mark.parametrize("into", [baking.TO_ACTION, baking.TO_STRIP])
def test_no_frame_and_one(addon: ModuleType, count: int, into: str) -> None:
    head = follower(performer("wink"))
    report = shape_key_bake.bake([head], range(3, 3 + count), shape_key_bake.How(into=into))[0]
    assert report.frames == count and report.keys == count * len(SMALL_KEYS)
    assert shape_key_bake.restore(head) == len(SMALL_KEYS)


@pytest.mark.parametrize("rate", RATES, ids=lambda rate: f"{rate[0] / rate[1]:.3f}")
def test_scene_rates(addon: ModuleType, rate: tuple[int, int]) -> None:
    render = bpy.context.scene.render
    render.fps, render.fps_base = {(24000, 1001): (24, 1.001), (30000, 1001): (30, 1.001)}.get(
        rate, (rate[0], 1.0)
    )
    performed = motion(30, fps=(25, 1))
    rig = keypoint_rig.build(bpy.context, performed, "Rates", first_frame=4.5)
    head = follower(rig)
    frames = range(4, 4 + 24)
    shown = played(head, frames)
    assert np.ptp(shown, axis=0).max() > 0.05
    shape_key_bake.bake([head], frames)
    np.testing.assert_allclose(played(head, frames), shown, atol=1e-4)


def test_ten_thousand_frames(addon: ModuleType) -> None:
    rig = keypoint_rig.build(bpy.context, motion(10_000), "Long", first_frame=1)
    head = follower(rig)
    report = shape_key_bake.bake([head], range(1, 10_001))[0]
    assert report.keys == 10_000 * len(SMALL_KEYS)
    frames = [1, 4999, 10_000]
    baked = played(head, frames)
    shape_key_bake.restore(head)
    np.testing.assert_allclose(baked, played(head, frames), atol=1e-4)


def test_meshes_that_share_their_keys_are_baked_once(addon: ModuleType) -> None:
    rig = performer("wink")
    first = follower(rig)
    second = bpy.data.objects.new("Twin", first.data)
    bpy.context.scene.collection.objects.link(second)
    follow(second, rig, drive=False)
    other = follower(rig, "Other")
    reports = shape_key_bake.bake([first, second, other], range(1, 5))
    assert [len(report.shape_keys) for report in reports] == [len(SMALL_KEYS), 0, len(SMALL_KEYS)]
    assert "shares" in reports[1].sentence() and reports[1].is_warning


def test_what_cannot_be_baked_is_said(addon: ModuleType, tmp_path: Path) -> None:
    rig = performer("wink")
    head = follower(rig)
    extra = head.liveportrait.shape_keys.entries.add()
    extra.shape_key, extra.channel = "nobody", "jawLeft"
    head.data.shape_keys.driver_remove('key_blocks["jawOpen"].value')
    curve = head.data.shape_keys.driver_add('key_blocks["jawOpen"].value')
    while curve.driver.variables:
        curve.driver.variables.remove(curve.driver.variables[0])
    curve.driver.expression = "0.25"
    report = shape_key_bake.bake([head], range(1, 5))[0]
    assert report.missing == ["nobody"] and report.foreign == ["jawOpen"]
    bpy.context.scene.frame_set(2)
    assert head.data.shape_keys.key_blocks["jawOpen"].value == pytest.approx(0.25)
    bare = bpy.data.objects.new("Bare", bpy.data.meshes.new("Bare"))
    with pytest.raises(UserError, match="no shape keys"):
        shape_key_bake.bake([bare], range(1, 5))
    assert "no shape keys" in shape_key_bake.bake([head, bare], range(1, 5))[1].sentence()


def test_linked_shape_keys_are_left_alone(addon: ModuleType, tmp_path: Path) -> None:
    head = small_head()
    library = tmp_path / "library.blend"
    bpy.data.libraries.write(str(library), {head}, fake_user=True)
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=True)
    rig = performer("wink")
    with bpy.data.libraries.load(str(library), link=True) as (given, wanted):
        wanted.meshes = given.meshes
    item = bpy.data.objects.new("Linked", wanted.meshes[0])
    bpy.context.scene.collection.objects.link(item)
    follow(item, rig, drive=False)
    with pytest.raises(UserError, match="linked from another file"):
        shape_key_bake.bake([item], range(1, 5))
    assert item.data.shape_keys.animation_data is None


@pytest.mark.parametrize("drivers", [shape_key_bake.MUTE, shape_key_bake.REMOVE])
@pytest.mark.parametrize("into", [baking.TO_ACTION, baking.TO_STRIP])
def test_an_overridden_head_is_baked_saved_and_restored(
    addon: ModuleType, tmp_path: Path, drivers: str, into: str
) -> None:
    follower(performer("wink"))
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "library.blend"))
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=True)
    with bpy.data.libraries.load(str(tmp_path / "library.blend"), link=True) as (_, wanted):
        wanted.objects = ["Small", "wink"]
    for item in wanted.objects:
        bpy.context.scene.collection.objects.link(item)
    bpy.data.objects["Small"].override_create(remap_local_usages=True).data.override_create(
        remap_local_usages=True
    )

    def overridden() -> Any:
        return next(item for item in bpy.data.objects if item.override_library and item.name == "Small")

    frames = range(1, 20)
    shown = played(overridden(), frames)
    assert shown.max() > 0.5
    shape_key_bake.bake([overridden()], frames, shape_key_bake.How(into=into, drivers=drivers))
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "shot.blend"))
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "shot.blend"))
    head = overridden()
    assert shape_key_bake.is_baked(head)
    assert all(curve.mute for curve in head.data.shape_keys.animation_data.drivers)
    np.testing.assert_allclose(played(head, frames), shown, atol=1e-4)
    assert shape_key_bake.restore(head) == len(SMALL_KEYS)
    np.testing.assert_allclose(played(head, frames), shown, atol=1e-6)


def test_values_outside_the_slider_are_baked_as_they_show(addon: ModuleType) -> None:
    rig = performer("wink")
    head = follower(rig, drive=False)
    entries = {entry.shape_key: entry for entry in head.liveportrait.shape_keys.entries}
    entries["eyeBlinkRight"].gain, entries["eyeBlinkRight"].maximum = 3.0, 2.0
    entries["jawOpen"].gain, entries["jawOpen"].minimum = -2.0, -1.0
    shape_key_drivers.drive(head)
    frames = range(1, 30)
    shown = played(head, frames)
    assert shown.max() > 1.2
    for drivers in (shape_key_bake.MUTE, shape_key_bake.REMOVE):
        shape_key_bake.bake([head], frames, shape_key_bake.How(drivers=drivers))
        np.testing.assert_allclose(played(head, frames), shown, atol=2e-4)
