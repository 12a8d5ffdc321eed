# SPDX-License-Identifier: GPL-3.0-or-later
"""The image plane: rendered pictures are the frames that came, each at its scene frame."""

from __future__ import annotations

from pathlib import Path

import bpy
import numpy as np
import pytest

from tests.blender.frames import landed, look_at, rendered, write_frames


@pytest.mark.parametrize("start", [1, 5, -3])
def test_each_scene_frame_shows_its_picture(addon, tmp_path: Path, start: int) -> None:
    pictures = write_frames(tmp_path / "anna", 4, (128, 128))
    result = landed(tmp_path / "anna", start)
    scene = bpy.context.scene
    look_at(result.owner, scene, (128, 128))
    for offset, index in {-20: 0, -1: 0, 0: 0, 1: 1, 3: 3, 4: 3, 90: 3}.items():
        frame = start + offset
        shown = rendered(scene, frame, tmp_path / "out.png")
        assert np.abs(shown[:, :, :3].astype(int) - pictures[index]).max() <= 1, frame
        assert (shown[:, :, 3] == 255).all()


def test_alpha_lets_what_is_behind_through(addon, tmp_path: Path) -> None:
    pictures = write_frames(tmp_path / "anna", 1, (32, 32), channels=4)
    result = landed(tmp_path / "anna", 1)
    look_at(result.owner, bpy.context.scene, (32, 32))
    shown = rendered(bpy.context.scene, 1, tmp_path / "out.png")
    assert np.abs(shown[:, :, 3].astype(int) - pictures[0][:, :, 3]).max() <= 1
    solid = pictures[0][:, :, 3] > 128
    assert np.abs(shown[solid][:, :3].astype(int) - pictures[0][solid][:, :3]).max() <= 2


def test_the_plane_has_the_shape_of_the_picture(addon, tmp_path: Path) -> None:
    pictures = write_frames(tmp_path / "wide", 2, (32, 16))
    result = landed(tmp_path / "wide", 1)
    assert tuple(result.owner.dimensions) == pytest.approx((2.0, 0.0, 1.0))
    look_at(result.owner, bpy.context.scene, (32, 16))
    shown = rendered(bpy.context.scene, 2, tmp_path / "out.png")
    assert np.abs(shown[:, :, :3].astype(int) - pictures[1]).max() <= 1
