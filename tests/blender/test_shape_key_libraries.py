# SPDX-License-Identifier: GPL-3.0-or-later
"""Heads and performances of other files: linked, overridden, appended."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bpy
import numpy as np
import pytest

from tests.blender import heads
from tests.blender.following import drive, driven, entry, head, played, rig  # noqa: F401


@pytest.fixture
def library(head: Any, tmp_path: Path) -> Path:  # noqa: F811
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

    item, talk = link(library, "Small", "Talk")
    item = item.override_create(remap_local_usages=True)
    item.data.override_create(remap_local_usages=True)
    settings = item.liveportrait.shape_keys
    assert settings.rig == talk
    settings.entries[0].gain = 0.5
    entry(item, "jawOpen", "mouthFunnel", gain=2.0)
    assert drive(item).driven == list(heads.SMALL_KEYS)
    settings.entries[1].maximum = 2.0  # an override's range cannot be saved, so it is not widened
    report = drive(item)
    assert report.clamped == [settings.entries[1].shape_key] and report.is_warning
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "shot.blend"))
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "shot.blend"))
    item = next(each for each in bpy.data.objects if each.name == "Small" and each.override_library)
    settings, talk = item.liveportrait.shape_keys, item.liveportrait.shape_keys.rig
    assert settings.entries[0].gain == 0.5 and len(settings.entries) == len(heads.SMALL_KEYS) + 1
    assert len(driven(item)) == len(heads.SMALL_KEYS)
    shown, channels = played(item, talk)
    np.testing.assert_allclose(shown["eyeBlinkLeft"], 0.5 * channels["eyeBlinkLeft"], atol=1e-6)
    # What the library's list holds can be switched off, and what was added here be taken out.
    assert shape_key_mapping.remove(item, len(settings.entries) - 1)
    assert not shape_key_mapping.remove(item, 0) and not settings.entries[0].use
    assert len(settings.entries) == len(heads.SMALL_KEYS)


def test_a_linked_rig_drives_a_mesh_of_this_file(library: Path) -> None:
    from liveportrait_blender import shape_key_mapping

    (talk,) = link(library, "Talk")
    item = heads.small_head("Mine")
    item.liveportrait.shape_keys.rig = talk
    shape_key_mapping.match(item)
    drive(item)
    shown, channels = played(item, talk)
    np.testing.assert_allclose(shown["jawOpen"], channels["jawOpen"], atol=1e-6)
    assert np.ptp(shown["jawOpen"]) > 0.05
