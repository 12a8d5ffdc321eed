# SPDX-License-Identifier: GPL-3.0-or-later
"""Drivers on shape keys: they say what the formula reckons, and follow every edit of the list."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bpy
import numpy as np
import pytest

from tests.blender import heads
from tests.blender.following import block, drive, driven, entry, head, own_driver, played, rig  # noqa: F401
from tests.blender.performances import motion

MAPPINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "gain and offset": {"gain": 1.7, "offset": -0.05},
    "a negative gain": {"gain": -0.8, "offset": 0.9},
    "a range": {"minimum": 0.1, "maximum": 0.3},
    "a range beyond 0..1": {"minimum": -2.0, "maximum": 3.0, "gain": 4.0, "offset": -0.5},
    "a dead zone": {"dead_zone": 0.2, "gain": 1.3},
    "tiny numbers": {"gain": 3e-5, "offset": 2e-6},
    "mirrored": {"mirror": True},
    "ends the wrong way round": {"minimum": 0.8, "maximum": 0.2},
}


@pytest.mark.parametrize("how", MAPPINGS)
@pytest.mark.parametrize("channel", ["eyeBlinkLeft", "jawOpen"])
def test_the_driver_says_what_value_of_reckons(rig: Any, channel: str, how: str) -> None:  # noqa: F811
    from liveportrait_blender import shape_key_drivers

    item = heads.small_head()
    item.liveportrait.shape_keys.rig = rig
    made = entry(item, "jawOpen", channel, **MAPPINGS[how])
    drive(item)
    shown, channels = played(item, rig)
    reckoned = shape_key_drivers.value_of(made, channels)
    np.testing.assert_allclose(shown["jawOpen"], reckoned, atol=2e-6)
    table = np.stack(list(channels.values())[:52], 1)
    np.testing.assert_array_equal(shape_key_drivers.value_of(made, table), reckoned)
    if how == "plain":
        assert np.ptp(reckoned) > 0.2
    if how == "mirrored" and channel == "eyeBlinkLeft":
        np.testing.assert_allclose(shown["jawOpen"], channels["eyeBlinkRight"], atol=1e-6)


def test_the_heads_turn_can_be_followed_in_both_directions(rig: Any) -> None:  # noqa: F811
    from liveportrait_blender import shape_key_drivers

    item = heads.small_head()
    item.liveportrait.shape_keys.rig = rig
    made = entry(item, "jawOpen", "headYaw", minimum=-1.0, dead_zone=0.05, gain=2.0, mirror=True)
    drive(item)
    shown, channels = played(item, rig)
    np.testing.assert_allclose(shown["jawOpen"], shape_key_drivers.value_of(made, channels), atol=2e-6)
    assert shown["jawOpen"].min() < -0.1 and shown["jawOpen"].max() > 0.1
    assert (shown["jawOpen"] * channels["headYaw"] <= 1e-9).all()  # mirrored: the other way


def test_entries_of_one_shape_key_are_added_within_the_first_ones_range(rig: Any) -> None:  # noqa: F811
    from liveportrait_blender import shape_key_drivers

    item = heads.small_head()
    settings = item.liveportrait.shape_keys
    settings.rig = rig
    entry(item, "jawOpen", "eyeBlinkLeft", gain=1.5, maximum=0.9)
    entry(item, "jawOpen", "eyeBlinkRight", gain=0.5)
    entry(item, "jawOpen", "mouthSmileLeft", gain=-1.0, minimum=-0.4, maximum=0.0, dead_zone=0.1)
    drive(item)
    shown, channels = played(item, rig)
    parts = [shape_key_drivers.value_of(each, channels) for each in settings.entries]
    np.testing.assert_allclose(shown["jawOpen"], np.clip(sum(parts), 0.0, 0.9), atol=2e-6)
    np.testing.assert_allclose(
        shape_key_drivers.key_values(settings.entries, channels)["jawOpen"], shown["jawOpen"], atol=2e-6
    )
    assert shown["jawOpen"].max() == pytest.approx(0.9) and (block(item, "jawOpen").slider_min == 0)


def test_every_driver_is_a_simple_expression(head: Any) -> None:  # noqa: F811
    report = drive(head)
    assert report.driven == list(heads.SMALL_KEYS)
    for curve in driven(head).values():
        assert curve.driver.is_simple_expression and curve.driver.is_valid
        assert len(curve.driver.expression) < 256


@pytest.fixture
def busy(rig: Any) -> Any:  # noqa: F811
    """A head with a shape key that adds up more than one expression can say, and one that does not."""
    from liveportrait_blender import rig_channels

    item = heads.small_head()
    item.liveportrait.shape_keys.rig = rig
    for number, name in enumerate(rig_channels.names()):
        entry(item, "jawOpen", name, gain=0.0123456 * (number + 1), minimum=-0.123, maximum=0.0912)
    item.liveportrait.shape_keys.entries[0].maximum = 3.0
    entry(item, "browInnerUp", "browInnerUp")
    return item


def sums(item: Any) -> list[str]:
    return [name for name in item.data.shape_keys.keys() if name.startswith("lp_sum_")]  # noqa: SIM118


def said(item: Any) -> dict[str, str]:
    drivers = item.data.shape_keys.animation_data.drivers
    return {curve.data_path: curve.driver.expression for curve in drivers}


def test_more_than_one_expression_can_say_is_added_up_in_parts(busy: Any, rig: Any) -> None:  # noqa: F811
    from liveportrait_blender import shape_key_drivers

    report = drive(busy)
    assert report.driven == ["jawOpen", "browInnerUp"] and not report.is_warning
    assert len(sums(busy)) > 5
    for curve in busy.data.shape_keys.animation_data.drivers:
        assert curve.driver.is_simple_expression and curve.driver.is_valid
        assert len(curve.driver.expression) < 256
    shown, channels = played(busy, rig)
    reckoned = shape_key_drivers.key_values(busy.liveportrait.shape_keys.entries, channels)
    np.testing.assert_allclose(shown["jawOpen"], reckoned["jawOpen"], atol=2e-6)
    assert np.ptp(shown["jawOpen"]) > 0.1


def test_parts_come_and_go_with_the_driver_that_adds_them(busy: Any, rig: Any) -> None:  # noqa: F811
    from liveportrait_blender import shape_key_drivers

    drive(busy)
    before = said(busy)
    drive(busy)
    assert said(busy) == before
    block(busy, "jawOpen").name = "Kiefer"
    assert drive(busy).renamed == [("jawOpen", "Kiefer")]
    entries = busy.liveportrait.shape_keys.entries
    entries[3].gain = -0.5
    shown, channels = played(busy, rig)
    reckoned = shape_key_drivers.key_values(entries, channels)
    np.testing.assert_allclose(shown["Kiefer"], reckoned["Kiefer"], atol=2e-6)
    assert len(sums(busy)) == len(before) - 2
    for row in entries[4:-1]:
        row.use = False
    assert not sums(busy) and len(busy.data.shape_keys.animation_data.drivers) == 2
    for row in entries[4:-1]:
        row.use = True
    assert sums(busy)
    shape_key_drivers.undrive(busy)
    assert not sums(busy) and not len(busy.data.shape_keys.animation_data.drivers)


def test_parts_play_in_a_saved_file_and_in_a_copy_of_the_head(
    busy: Any, rig: Any, tmp_path: Path  # noqa: F811
) -> None:
    from liveportrait_blender import shape_key_drivers

    drive(busy)
    twin = busy.copy()
    twin.data = busy.data.copy()
    bpy.context.scene.collection.objects.link(twin)
    twin.name = "Twin"
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "shot.blend"))
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "shot.blend"))
    bpy.data.objects.remove(bpy.data.objects["Small"])
    twin, talk = bpy.data.objects["Twin"], bpy.data.objects["Talk"]
    shown, channels = played(twin, talk)
    reckoned = shape_key_drivers.key_values(twin.liveportrait.shape_keys.entries, channels)
    np.testing.assert_allclose(shown["jawOpen"], reckoned["jawOpen"], atol=2e-6)


def test_edits_reach_the_drivers_at_once(head: Any, rig: Any) -> None:  # noqa: F811
    drive(head)
    settings = head.liveportrait.shape_keys
    row = next(each for each in settings.entries if each.shape_key == "eyeBlinkLeft")
    muted_by_user = driven(head)["jawOpen"]
    muted_by_user.mute = True
    row.channel, row.gain = "eyeBlinkRight", 0.5
    shown, channels = played(head, rig)
    np.testing.assert_allclose(shown["eyeBlinkLeft"], 0.5 * channels["eyeBlinkRight"], atol=1e-6)
    row.use = False
    assert "eyeBlinkLeft" not in driven(head)
    row.use = True
    assert "eyeBlinkLeft" in driven(head)
    row.shape_key = "browInnerUp"  # the other shape key is free, the sum goes to this one
    assert (
        "eyeBlinkLeft" not in driven(head)
        and "lp_eyeBlinkRight" in driven(head)["browInnerUp"].driver.expression
    )
    assert driven(head)["jawOpen"].mute  # the artist's
    before = own_driver(head, "jawOpen").driver.expression
    drive(head)
    assert own_driver(head, "jawOpen").driver.expression == before and driven(head)["jawOpen"].mute


def test_the_same_entry_twice_counts_once(head: Any, rig: Any) -> None:  # noqa: F811
    entry(head, "jawOpen", "jawOpen")
    report = drive(head)
    assert report.doubled == ["jawOpen"] and report.is_warning
    shown, channels = played(head, rig)
    np.testing.assert_allclose(shown["jawOpen"], channels["jawOpen"], atol=1e-6)


def test_undrive_keeps_the_face_or_brings_it_to_rest(head: Any, rig: Any) -> None:  # noqa: F811
    from liveportrait_blender import shape_key_drivers

    drive(head)
    bpy.context.scene.frame_set(20)
    shown = {each.name: each.value for each in head.data.shape_keys.key_blocks[1:]}
    assert max(shown.values()) > 0.1
    assert sorted(shape_key_drivers.undrive(head)) == sorted(heads.SMALL_KEYS)
    bpy.context.scene.frame_set(30)
    assert {each.name: each.value for each in head.data.shape_keys.key_blocks[1:]} == pytest.approx(shown)
    drive(head)
    shape_key_drivers.undrive(head, keep_values=False)
    assert not any(each.value for each in head.data.shape_keys.key_blocks[1:])
    assert shape_key_drivers.undrive(head) == []


def test_a_rig_whose_channels_were_taken_out_gets_them_again(head: Any, rig: Any) -> None:  # noqa: F811
    from liveportrait_blender import rig_channels

    rig_channels.remove(rig)
    assert len(drive(head).driven) == len(heads.SMALL_KEYS)
    shown, channels = played(head, rig)
    np.testing.assert_allclose(shown["jawOpen"], channels["jawOpen"], atol=1e-6)


def test_two_heads_with_their_own_performances(head: Any, rig: Any) -> None:  # noqa: F811
    from liveportrait_blender import keypoint_rig, shape_key_mapping

    second = keypoint_rig.build(bpy.context, motion(40, seed=9), "Second", first_frame=1)
    other = heads.small_head("Other")
    other.liveportrait.shape_keys.rig = second
    shape_key_mapping.match(other)
    drive(head), drive(other)
    for item, performer in ((head, rig), (other, second)):
        shown, channels = played(item, performer)
        for name, values in shown.items():
            np.testing.assert_allclose(values, channels[name], atol=1e-6)


def test_undo_takes_the_drivers_back(head: Any) -> None:  # noqa: F811
    for item in bpy.context.selected_objects:
        item.select_set(False)
    head.select_set(True)
    bpy.context.view_layer.objects.active = head
    bpy.ops.ed.undo_push(message="before")
    assert bpy.ops.liveportrait.drive_shape_keys() == {"FINISHED"}
    bpy.ops.ed.undo_push(message="driven")
    assert driven(bpy.data.objects["Small"])
    bpy.ops.ed.undo()
    assert not driven(bpy.data.objects["Small"])
    assert len(bpy.data.objects["Small"].liveportrait.shape_keys.entries) == len(heads.SMALL_KEYS)
