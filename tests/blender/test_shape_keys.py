# SPDX-License-Identifier: GPL-3.0-or-later
"""Drivers on shape keys: the formula, and whatever a mesh brings along that is the user's."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import bpy
import numpy as np
import pytest

from tests.blender import heads
from tests.blender.performances import motion

FRAMES = range(1, 41)


@pytest.fixture
def rig(addon: ModuleType) -> Any:
    """A rig that performs `motion(40)` from frame 1 on, larger than life."""
    from liveportrait_blender import keypoint_rig

    bpy.context.scene.render.fps = 25
    performed = motion(40)
    performed.expression[:] *= 8
    return keypoint_rig.build(bpy.context, performed, "Talk", first_frame=1)


@pytest.fixture
def head(rig: Any) -> Any:
    """A small head whose mapping is matched, not driven yet."""
    from liveportrait_blender import shape_key_mapping

    item = heads.small_head()
    item.liveportrait.shape_keys.rig = rig
    shape_key_mapping.match(item)
    return item


def drive(item: Any, **words: Any) -> Any:
    from liveportrait_blender import shape_key_drivers

    return shape_key_drivers.drive(item, **words)


def driven(item: Any) -> dict[str, Any]:
    from liveportrait_blender import shape_key_drivers

    return shape_key_drivers.driven(item)


def entry(item: Any, key: str, channel: str, **values: Any) -> Any:
    made = item.liveportrait.shape_keys.entries.add()
    made.shape_key, made.channel = key, channel
    for name, value in values.items():
        setattr(made, name, value)
    return made


def played(item: Any, rig: Any) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """({shape key: values}, {channel: values}) at FRAMES, as Blender evaluates both."""
    from liveportrait_blender import rig_channels

    names = (*rig_channels.names(), *rig_channels.HEAD_ANGLES)
    keys: dict[str, list[float]] = {}
    channels: dict[str, list[float]] = {}
    for frame in FRAMES:
        bpy.context.scene.frame_set(frame)
        graph = bpy.context.evaluated_depsgraph_get()
        for block in item.evaluated_get(graph).data.shape_keys.key_blocks[1:]:
            keys.setdefault(block.name, []).append(block.value)
        posed = rig.evaluated_get(graph)
        for name in names:
            channels.setdefault(name, []).append(posed[name])
    return {k: np.array(v) for k, v in keys.items()}, {k: np.array(v) for k, v in channels.items()}


def block(item: Any, name: str) -> Any:
    return item.data.shape_keys.key_blocks[name]


def foreign(item: Any, name: str) -> Any:
    """A driver of the user's own on a shape key."""
    curve = block(item, name).driver_add("value")
    curve.driver.expression = "0.25"
    return curve


def remove_key(item: Any, name: str) -> None:
    """As a user removes it. Object.shape_key_remove takes the driver away too from 4.5 on and leaves the
    dependency graph with it, which crashes."""
    bpy.context.view_layer.objects.active = item
    item.active_shape_key_index = item.data.shape_keys.key_blocks.find(name)
    assert bpy.ops.object.shape_key_remove() == {"FINISHED"}


def own_driver(item: Any, name: str) -> Any:
    return item.data.shape_keys.animation_data.drivers.find(f'key_blocks["{name}"].value')


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
def test_the_driver_says_what_value_of_reckons(rig: Any, channel: str, how: str) -> None:
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


def test_the_heads_turn_can_be_followed_in_both_directions(rig: Any) -> None:
    from liveportrait_blender import shape_key_drivers

    item = heads.small_head()
    item.liveportrait.shape_keys.rig = rig
    made = entry(item, "jawOpen", "headYaw", minimum=-1.0, dead_zone=0.05, gain=2.0, mirror=True)
    drive(item)
    shown, channels = played(item, rig)
    np.testing.assert_allclose(shown["jawOpen"], shape_key_drivers.value_of(made, channels), atol=2e-6)
    assert shown["jawOpen"].min() < -0.1 and shown["jawOpen"].max() > 0.1
    assert (shown["jawOpen"] * channels["headYaw"] <= 1e-9).all()  # mirrored: the other way


def test_entries_of_one_shape_key_are_added_within_the_first_ones_range(rig: Any) -> None:
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


def test_every_driver_is_a_simple_expression(head: Any) -> None:
    report = drive(head)
    assert report.driven == list(heads.SMALL_KEYS)
    for curve in driven(head).values():
        assert curve.driver.is_simple_expression and curve.driver.is_valid
        assert len(curve.driver.expression) < 256


def test_too_many_entries_for_a_driver_are_said(rig: Any) -> None:
    from liveportrait_blender import rig_channels

    item = heads.small_head()
    item.liveportrait.shape_keys.rig = rig
    for name in rig_channels.names()[:20]:
        entry(item, "jawOpen", name, gain=0.123456, minimum=-0.123, maximum=0.0123)
    entry(item, "browInnerUp", "browInnerUp")
    report = drive(item)
    assert report.too_long == ["jawOpen"] and report.driven == ["browInnerUp"]
    assert "too many" in " ".join(report.sentences()).lower()


def test_edits_reach_the_drivers_at_once(head: Any, rig: Any) -> None:
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


def test_drivers_of_the_users_own_are_kept_until_they_may_go(head: Any) -> None:
    curve = foreign(head, "jawOpen")
    report = drive(head)
    assert report.foreign == ["jawOpen"] and "jawOpen" not in report.driven and report.is_warning
    assert own_driver(head, "jawOpen").driver.expression == "0.25"
    assert "Replace" in " ".join(report.sentences())
    from liveportrait_blender import shape_key_drivers

    shape_key_drivers.undrive(head)
    assert own_driver(head, "jawOpen") == curve and not driven(head)
    report = drive(head, replace=True)
    assert report.replaced == ["jawOpen"] and "jawOpen" in driven(head)


def test_a_new_name_is_followed(head: Any, rig: Any) -> None:
    drive(head)
    block(head, "eyeBlinkLeft").name = 'Zwinkern "L"'
    report = drive(head)
    assert report.renamed == [("eyeBlinkLeft", 'Zwinkern "L"')] and not report.missing
    assert 'Zwinkern "L"' in [each.shape_key for each in head.liveportrait.shape_keys.entries]
    shown, channels = played(head, rig)
    np.testing.assert_allclose(shown['Zwinkern "L"'], channels["eyeBlinkLeft"], atol=1e-6)


def test_a_missing_shape_key_is_said_and_its_entry_stays(head: Any) -> None:
    drive(head)
    remove_key(head, "jawOpen")
    report = drive(head)
    assert report.missing == ["jawOpen"] and "jawOpen" in " ".join(report.sentences())
    assert len(report.driven) == len(heads.SMALL_KEYS) - 1
    assert "jawOpen" in [each.shape_key for each in head.liveportrait.shape_keys.entries]


def test_the_same_entry_twice_counts_once(head: Any, rig: Any) -> None:
    entry(head, "jawOpen", "jawOpen")
    report = drive(head)
    assert report.doubled == ["jawOpen"] and report.is_warning
    shown, channels = played(head, rig)
    np.testing.assert_allclose(shown["jawOpen"], channels["jawOpen"], atol=1e-6)


def test_muted_locked_soloed_and_absolute_keys_are_left_so_and_said(head: Any) -> None:
    block(head, "jawOpen").mute = True
    if hasattr(block(head, "jawOpen"), "lock_shape"):
        block(head, "browInnerUp").lock_shape = True
    head.show_only_shape_key = True
    report = drive(head)
    assert {"jawOpen", "browInnerUp"} <= set(report.driven)
    assert report.muted == ["jawOpen"] and block(head, "jawOpen").mute
    if hasattr(block(head, "jawOpen"), "lock_shape"):
        assert report.locked == ["browInnerUp"] and block(head, "browInnerUp").lock_shape
    assert "only its active shape key" in " ".join(report.notes) and head.show_only_shape_key
    head.data.shape_keys.use_relative = False
    assert "absolute" in " ".join(drive(head).notes) and not head.data.shape_keys.use_relative


def test_the_basis_is_never_driven(head: Any) -> None:
    entry(head, "Basis", "jawOpen")
    report = drive(head)
    assert report.basis == ["Basis"] and "Basis" not in report.driven and own_driver(head, "Basis") is None


def test_a_narrow_range_is_kept_a_wider_one_asked_for_is_made_and_taken_back(rig: Any) -> None:
    from liveportrait_blender import shape_key_drivers, shape_key_mapping

    item = heads.small_head()
    item.liveportrait.shape_keys.rig = rig
    block(item, "jawOpen").slider_max = 0.3  # the modeller's limit
    shape_key_mapping.match(item)
    report = drive(item)
    assert not report.widened and block(item, "jawOpen").slider_max == pytest.approx(0.3)
    row = next(each for each in item.liveportrait.shape_keys.entries if each.shape_key == "jawOpen")
    row.maximum, row.minimum, row.gain = 2.0, -1.0, 5.0
    assert block(item, "jawOpen").slider_max == 2 and block(item, "jawOpen").slider_min == -1
    shown, _ = played(item, rig)
    assert shown["jawOpen"].max() > 1.0
    shape_key_drivers.undrive(item)
    assert block(item, "jawOpen").slider_max == pytest.approx(0.3) and block(item, "jawOpen").slider_min == 0


def test_keyframes_stay_and_are_said(head: Any) -> None:
    block(head, "jawOpen").value = 0.7
    block(head, "jawOpen").keyframe_insert("value", frame=1)
    report = drive(head)
    assert report.keyed == ["jawOpen"]
    from liveportrait_blender import fcurves, shape_key_drivers

    shape_key_drivers.undrive(head)
    assert ('key_blocks["jawOpen"].value', 0) in fcurves.curves_of(head.data.shape_keys)
    bpy.context.scene.frame_set(2)
    assert block(head, "jawOpen").value == pytest.approx(0.7)


def test_undrive_keeps_the_face_or_brings_it_to_rest(head: Any, rig: Any) -> None:
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


def test_several_meshes_and_one_shared_key_block(head: Any, rig: Any) -> None:
    from liveportrait_blender import shape_key_drivers, shape_key_mapping

    twin = bpy.data.objects.new("Twin", head.data)
    bpy.context.scene.collection.objects.link(twin)
    other = heads.small_head("Brows", ["browInnerUp", "teeth"])
    other.liveportrait.shape_keys.rig = twin.liveportrait.shape_keys.rig = rig
    shape_key_mapping.match(other)
    shape_key_mapping.match(twin)
    reports = shape_key_drivers.drive_all([head, twin, other])
    assert [len(report.driven) for report in reports] == [len(heads.SMALL_KEYS), 0, 1]
    assert 'shares its shape keys with "Small"' in reports[1].notes[0]
    assert len(head.data.shape_keys.animation_data.drivers) == len(heads.SMALL_KEYS)
    # An edit of the twin's list, which lacks an entry, takes no driver of the first one's away.
    twin.liveportrait.shape_keys.entries.remove(0)
    twin.liveportrait.shape_keys.entries[0].gain = 0.5
    assert len(driven(head)) == len(heads.SMALL_KEYS)


def test_two_heads_with_their_own_performances(head: Any, rig: Any) -> None:
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


def test_what_cannot_be_driven_says_why(rig: Any) -> None:
    from liveportrait_blender.names import UserError

    bare = heads.small_head("Bare", [])
    with pytest.raises(UserError, match="no shape keys"):
        drive(bare)
    item = heads.small_head()
    with pytest.raises(UserError, match="follows no performance"):
        drive(item)
    item.liveportrait.shape_keys.rig = rig
    with pytest.raises(UserError, match="no entries"):
        drive(item)


def test_a_rig_whose_channels_were_taken_out_gets_them_again(head: Any, rig: Any) -> None:
    from liveportrait_blender import rig_channels

    rig_channels.remove(rig)
    assert len(drive(head).driven) == len(heads.SMALL_KEYS)
    shown, channels = played(head, rig)
    np.testing.assert_allclose(shown["jawOpen"], channels["jawOpen"], atol=1e-6)


def test_undo_takes_the_drivers_back(head: Any) -> None:
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


@pytest.fixture
def library(head: Any, tmp_path: Path) -> Path:
    """A file with the rig and the head, matched and not driven."""
    path = tmp_path / "library.blend"
    bpy.ops.wm.save_as_mainfile(filepath=str(path))
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=True)
    bpy.context.scene.render.fps = 25
    return path


def link(path: Path, *names: str) -> list[Any]:
    with bpy.data.libraries.load(str(path), link=True) as (_, wanted):
        wanted.objects = list(names)
    for name in names:
        bpy.context.scene.collection.objects.link(bpy.data.objects[name])
    return [bpy.data.objects[name] for name in names]


def test_linked_data_is_not_written_and_says_so(library: Path) -> None:
    from liveportrait_blender import shape_key_drivers, shape_key_mapping
    from liveportrait_blender.names import UserError

    item, _ = link(library, "Small", "Talk")
    with pytest.raises(UserError, match="linked from another file"):
        drive(item)
    with pytest.raises(UserError, match="linked from another file"):
        shape_key_mapping.match(item)
    assert not driven(item)
    override = item.override_create(remap_local_usages=True)  # the object alone, not the mesh
    with pytest.raises(UserError, match="library override of the mesh"):
        drive(override)
    assert shape_key_drivers.why_not(override)


def test_overridden_data_is_driven_and_stays_so_in_the_file(library: Path, tmp_path: Path) -> None:
    from liveportrait_blender import shape_key_mapping

    item, rig = link(library, "Small", "Talk")
    item = item.override_create(remap_local_usages=True)
    item.data.override_create(remap_local_usages=True)
    settings = item.liveportrait.shape_keys
    assert settings.rig == rig
    settings.entries[0].gain = 0.5
    entry(item, "jawOpen", "mouthFunnel", gain=2.0)
    assert drive(item).driven == list(heads.SMALL_KEYS)
    settings.entries[1].maximum = 2.0  # an override's range cannot be saved, so it is not widened
    report = drive(item)
    assert report.clamped == [settings.entries[1].shape_key] and report.is_warning
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "shot.blend"))
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "shot.blend"))
    item = next(each for each in bpy.data.objects if each.name == "Small" and each.override_library)
    settings, rig = item.liveportrait.shape_keys, item.liveportrait.shape_keys.rig
    assert settings.entries[0].gain == 0.5 and len(settings.entries) == len(heads.SMALL_KEYS) + 1
    assert len(driven(item)) == len(heads.SMALL_KEYS)
    shown, channels = played(item, rig)
    np.testing.assert_allclose(shown["eyeBlinkLeft"], 0.5 * channels["eyeBlinkLeft"], atol=1e-6)
    # What the library's list holds can be switched off, and what was added here be taken out.
    assert shape_key_mapping.remove(item, len(settings.entries) - 1)
    assert not shape_key_mapping.remove(item, 0) and not settings.entries[0].use
    assert len(settings.entries) == len(heads.SMALL_KEYS)


def test_a_linked_rig_drives_a_mesh_of_this_file(library: Path) -> None:
    from liveportrait_blender import shape_key_mapping

    (rig,) = link(library, "Talk")
    item = heads.small_head("Mine")
    item.liveportrait.shape_keys.rig = rig
    shape_key_mapping.match(item)
    drive(item)
    shown, channels = played(item, rig)
    np.testing.assert_allclose(shown["jawOpen"], channels["jawOpen"], atol=1e-6)
    assert np.ptp(shown["jawOpen"]) > 0.05
