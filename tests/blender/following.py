# SPDX-License-Identifier: GPL-3.0-or-later
"""A rig and a small head that follows it, for tests: fixtures, and what Blender shows of both.

    from tests.blender.following import head, rig  # noqa: F401
"""

from __future__ import annotations

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
