# SPDX-License-Identifier: GPL-3.0-or-later
"""Driving shape keys leaves alone what a mesh brings along that is the user's, and says so."""

from __future__ import annotations

from typing import Any

import bpy
import numpy as np
import pytest

from tests.blender import heads
from tests.blender.following import (  # noqa: F401
    block,
    drive,
    driven,
    entry,
    foreign,
    head,
    own_driver,
    played,
    remove_key,
    rig,
)


def test_drivers_of_the_users_own_are_kept_until_they_may_go(head: Any) -> None:  # noqa: F811
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


def test_a_new_name_is_followed(head: Any, rig: Any) -> None:  # noqa: F811
    drive(head)
    block(head, "eyeBlinkLeft").name = 'Zwinkern "L"'
    report = drive(head)
    assert report.renamed == [("eyeBlinkLeft", 'Zwinkern "L"')] and not report.missing
    assert 'Zwinkern "L"' in [each.shape_key for each in head.liveportrait.shape_keys.entries]
    shown, channels = played(head, rig)
    np.testing.assert_allclose(shown['Zwinkern "L"'], channels["eyeBlinkLeft"], atol=1e-6)


def test_a_missing_shape_key_is_said_and_its_entry_stays(head: Any) -> None:  # noqa: F811
    drive(head)
    remove_key(head, "jawOpen")
    report = drive(head)
    assert report.missing == ["jawOpen"] and "jawOpen" in " ".join(report.sentences())
    assert len(report.driven) == len(heads.SMALL_KEYS) - 1
    assert "jawOpen" in [each.shape_key for each in head.liveportrait.shape_keys.entries]


def test_muted_locked_soloed_and_absolute_keys_are_left_so_and_said(head: Any) -> None:  # noqa: F811
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


def test_the_basis_is_never_driven(head: Any) -> None:  # noqa: F811
    entry(head, "Basis", "jawOpen")
    report = drive(head)
    assert report.basis == ["Basis"] and "Basis" not in report.driven and own_driver(head, "Basis") is None


def test_a_narrow_range_is_kept_a_wider_one_asked_for_is_made_and_taken_back(rig: Any) -> None:  # noqa: F811
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


def test_keyframes_stay_and_are_said(head: Any) -> None:  # noqa: F811
    block(head, "jawOpen").value = 0.7
    block(head, "jawOpen").keyframe_insert("value", frame=1)
    report = drive(head)
    assert report.keyed == ["jawOpen"]
    from liveportrait_blender import fcurves, shape_key_drivers

    shape_key_drivers.undrive(head)
    assert ('key_blocks["jawOpen"].value', 0) in fcurves.curves_of(head.data.shape_keys)
    bpy.context.scene.frame_set(2)
    assert block(head, "jawOpen").value == pytest.approx(0.7)


def test_several_meshes_and_one_shared_key_block(head: Any, rig: Any) -> None:  # noqa: F811
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


def test_what_cannot_be_driven_says_why(rig: Any) -> None:  # noqa: F811
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
