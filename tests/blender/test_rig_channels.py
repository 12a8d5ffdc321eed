# SPDX-License-Identifier: GPL-3.0-or-later
"""ARKit's channels on the rig: Blender's drivers give what the backend reckons, the add-on or not."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path

import bpy
import numpy as np
import pytest

from liveportrait_blender import keypoint_rig, motion_file, rig_channels, rig_controls
from tests.blender.performances import motion

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = ROOT / "backend" / "data" / "library"
# Runs in the backend's environment.
ASK = """
import sys, numpy as np
from backend.blendshapes import channels
from backend.motion_files import load_motion
np.save(sys.argv[2], channels(load_motion(sys.argv[1]), "auto"))
"""


def played(rig: bpy.types.Object, frames: range) -> np.ndarray:
    """(k, 52): the properties as Blender evaluates them."""
    found = []
    for frame in frames:
        bpy.context.scene.frame_set(frame)
        posed = rig.evaluated_get(bpy.context.evaluated_depsgraph_get())
        found.append([posed[name] for name in rig_channels.names()])
    return np.array(found)


@pytest.mark.parametrize("clip", ["wink", "talk"])
def test_channels_are_the_backends(backend_python: Path, tmp_path: Path, clip: str) -> None:
    path, answer = LIBRARY / f"{clip}.npz", tmp_path / "answer.npy"
    done = subprocess.run([backend_python, "-c", ASK, path, answer], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    wanted = np.load(answer)
    performed = motion_file.read(path)
    bpy.context.scene.render.fps = round(performed.fps)
    rig = keypoint_rig.build(bpy.context, performed, clip, first_frame=1)
    np.testing.assert_allclose(
        rig_channels.values(performed, rig_channels.neutral_of(rig)), wanted, atol=1e-5
    )
    np.testing.assert_allclose(played(rig, range(1, len(performed) + 1)), wanted, atol=1e-4)
    assert wanted.max() > 0.5


def test_wink_closes_the_subjects_right_eye() -> None:
    rig = keypoint_rig.build(bpy.context, motion_file.read(LIBRARY / "talk.npz"), "Talk", first_frame=1)
    names = rig_channels.names()
    before = played(rig, range(1, 2))[0]
    rig["wink"] = 20.0
    rig.update_tag()
    change = played(rig, range(1, 2))[0] - before
    assert change[names.index("eyeBlinkRight")] > 0.3
    assert abs(change[names.index("eyeBlinkLeft")]) < 0.1


def test_channels_follow_controls_as_the_sampled_motion_says() -> None:
    rig = keypoint_rig.build(bpy.context, motion(5, fps=(24, 1)), "Talk", first_frame=1)
    for name, value in (("smile", 1.0), ("blink_left", -9.0), ("lips_open", 60.0), ("yaw", 20.0)):
        rig[name] = value
    sampled = keypoint_rig.sample(rig, range(1, 6))
    wanted = rig_channels.values(sampled, rig_channels.neutral_of(rig))
    np.testing.assert_allclose(played(rig, range(1, 6)), wanted, atol=1e-4)


def test_channels_are_relative_to_the_neutral_that_is_set() -> None:
    performed = motion(20, fps=(24, 1))
    rig = keypoint_rig.build(bpy.context, performed, "Talk", first_frame=1)
    rig_channels.set_neutral(rig, rig_channels.neutral_inputs(performed.take(slice(6, 7))))
    assert np.abs(played(rig, range(7, 8))).max() < 1e-4
    assert np.abs(played(rig, range(1, 21))).max() > 0.01


def test_unknown_channels_say_so_and_stay_zero() -> None:
    rig = keypoint_rig.build(bpy.context, motion(20), "Talk", first_frame=1)
    assert rig_channels.unknown()
    for name, why in rig_channels.unknown().items():
        assert rig[name] == 0.0
        assert why.rstrip(".") in rig.id_properties_ui(name).as_dict()["description"]
    driven = {curve.data_path for curve in rig.animation_data.drivers}
    assert not driven & {f'["{name}"]' for name in rig_channels.unknown()}


def test_every_driver_is_simple_and_reads_back() -> None:
    rig = keypoint_rig.build(bpy.context, motion(20), "Talk", first_frame=1)
    for curve in rig.animation_data.drivers:
        assert curve.driver.is_simple_expression and curve.driver.is_valid, curve.driver.expression
        assert len(curve.driver.expression) <= rig_controls.SIMPLE_LENGTH


def test_long_sums_are_split(monkeypatch: pytest.MonkeyPatch) -> None:
    longer = copy.deepcopy(rig_channels.table())
    row = next(row for row in longer["channels"] if row["name"] == "jawOpen")
    inputs = list(longer["neutral"])
    row["terms"] = [{"input": name, "coefficient": 0.123456 * (k - 15)} for k, name in enumerate(inputs)]
    monkeypatch.setattr(rig_channels, "table", lambda: longer)
    performed = motion(20, fps=(24, 1))
    rig = keypoint_rig.build(bpy.context, performed, "Talk", first_frame=1)
    assert "jawOpen_part_0" in rig
    wanted = rig_channels.values(performed, rig_channels.neutral_of(rig))
    np.testing.assert_allclose(played(rig, range(1, 21)), wanted, atol=1e-4)
    rig_channels.remove(rig)
    assert not [name for name in rig.keys() if name.startswith("jawOpen")]  # noqa: SIM118


def test_head_angles_are_channels_too() -> None:
    performed = motion(5, fps=(24, 1))
    rig = keypoint_rig.build(bpy.context, performed, "Talk", first_frame=1)
    bpy.context.scene.frame_set(3)
    posed = rig.evaluated_get(bpy.context.evaluated_depsgraph_get())
    angles = [posed[name] for name in rig_channels.HEAD_ANGLES]
    np.testing.assert_allclose(angles, rig.pose.bones["head"].rotation_euler, atol=1e-5)


def test_channels_play_in_a_saved_file_without_the_addon(tmp_path: Path) -> None:
    performed = motion(10, fps=(24, 1))
    rig = keypoint_rig.build(bpy.context, performed, "Talk", first_frame=1)
    rig["smile"] = 0.8
    wanted = played(rig, range(1, 11))
    path = tmp_path / "talk.blend"
    bpy.ops.wm.save_as_mainfile(filepath=str(path))
    # A process that never sees the add-on, with scripts of files disabled.
    code = f"""
import bpy, numpy as np
bpy.context.preferences.filepaths.use_scripts_auto_execute = False
bpy.ops.wm.open_mainfile(filepath={str(path)!r}, use_scripts=False)
rig, found = bpy.data.objects["Talk"], []
for frame in range(1, 11):
    bpy.context.scene.frame_set(frame)
    posed = rig.evaluated_get(bpy.context.evaluated_depsgraph_get())
    found.append([posed[name] for name in {rig_channels.names()!r}])
np.save({str(tmp_path / "played.npy")!r}, found)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert (tmp_path / "played.npy").exists(), done.stderr
    np.testing.assert_allclose(np.load(tmp_path / "played.npy"), wanted, atol=1e-6)
    assert (
        "auto-run disabled" not in done.stdout.lower() and "cycle" not in (done.stdout + done.stderr).lower()
    )
