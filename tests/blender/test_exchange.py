# SPDX-License-Identifier: GPL-3.0-or-later
"""Curves as files: what Blender writes is what the backend writes, and a recording becomes a performance."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import bpy
import numpy as np
import pytest

from liveportrait_blender import channel_samples, curve_file, keypoint_rig, rig_channels
from tests.blender.performances import motion
from tests.blender.test_shape_key_bake import follower, performer
from tests.blender.working import working  # noqa: F401

ROOT = Path(__file__).resolve().parents[2]
# Runs in the backend's environment.
BOTH = """
import sys
from fractions import Fraction
from pathlib import Path
import numpy as np
from backend.blendshape_names import CHANNELS
from backend.curve_files import load_curves, to_csv, to_json
from backend.curves import Curves
folder = Path(sys.argv[1])
given = np.load(folder / "given.npz")
values = np.stack([given[name] for name in CHANNELS], 1).astype(np.float32)
rate, start = Fraction(*given["rate"].tolist()), float(given["start"])
curves = Curves(values, given["head"], given["valid"], rate, start)
for suffix, text in ((".csv", to_csv(curves)), (".json", to_json(curves))):
    assert (folder / f"anna{suffix}").read_text(encoding="utf-8") == text, suffix
    back = load_curves(folder / f"anna{suffix}")
    print(len(back), back.fps, round(back.start, 4), int(back.valid.sum()))
"""


def ops() -> Any:
    return bpy.ops.liveportrait


def test_files_are_to_the_letter_what_the_backend_writes(
    addon: ModuleType, backend_python: Path, tmp_path: Path
) -> None:
    bpy.context.scene.render.fps, bpy.context.scene.render.fps_base = 30, 1.001
    valid = np.ones(70, bool)
    valid[30:34] = False
    rig = keypoint_rig.build(bpy.context, motion(70, fps=(30000, 1001), valid=valid), "Anna", first_frame=5)
    head = follower(rig)
    bpy.context.view_layer.objects.active = head  # the mesh that follows it stands for the performance
    for name in ("anna.csv", "anna.json"):
        assert ops().export_curves(filepath=str(tmp_path / name)) == {"FINISHED"}
    samples = channel_samples.sample(rig, keypoint_rig_frames(rig))
    about = {"valid": samples.valid, "start": samples.start, "head": curve_file.head_angles(samples)}
    rate = [samples.rate.numerator, samples.rate.denominator]
    np.savez(tmp_path / "given.npz", **samples.values, **about, rate=rate)
    done = subprocess.run([backend_python, "-c", BOTH, tmp_path], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["70 30000/1001 0.5 66"] * 2
    first = (tmp_path / "anna.csv").read_text().splitlines()[1]
    assert first.startswith("00:00:00:15.000,61,")


def test_a_library_motion_gives_the_backends_own_table(
    addon: ModuleType, backend_python: Path, tmp_path: Path
) -> None:
    """Channels, and which way the head turns."""
    command = [backend_python, "-m", "backend", "convert", "shake", tmp_path / "theirs.csv"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    bpy.context.scene.render.fps = 30  # the motion's own
    performer("shake")
    assert ops().export_curves(filepath=str(tmp_path / "ours.csv")) == {"FINISHED"}
    ours, theirs = ((tmp_path / name).read_text().splitlines() for name in ("ours.csv", "theirs.csv"))
    assert ours[0] == theirs[0] and len(ours) == len(theirs)
    assert [row.split(",")[:2] for row in ours] == [row.split(",")[:2] for row in theirs]
    tables = [np.array([row.split(",")[2:] for row in rows[1:]], float) for rows in (ours, theirs)]
    np.testing.assert_allclose(*tables, atol=2e-4)
    assert np.ptp(tables[0][:, 52]) > 0.2


def test_timecodes_say_the_time() -> None:
    from fractions import Fraction

    assert curve_file.timecode(0.0, 2, Fraction(30000, 1001)) == "00:00:00:02.002"
    assert curve_file.timecode(3725.5, 12, Fraction(24)) == "01:02:06:00.000"
    assert curve_file.timecode(-0.5, 0, Fraction(24)) == "00:00:00:00.000"


def test_the_edited_curves_are_exported(addon: ModuleType, tmp_path: Path) -> None:
    rig = performer("talk")
    rig["wink"] = 20.0
    rig.update_tag()
    assert ops().export_curves(filepath=str(tmp_path / "wink")) == {"FINISHED"}
    rows = (tmp_path / "wink.csv").read_text().splitlines()
    place = rows[0].split(",").index("EyeBlinkRight")
    shown = channel_samples.sample(rig, keypoint_rig_frames(rig)).values["eyeBlinkRight"]
    written = [float(row.split(",")[place]) for row in rows[1:]]
    np.testing.assert_allclose(written, shown, atol=1e-6)
    assert min(written) > 0.4


def keypoint_rig_frames(rig: Any) -> range:
    first, last = keypoint_rig.frame_range(rig, bpy.context.scene)
    return range(first, last + 1)


@pytest.mark.parametrize("suffix", [".csv", ".json"])
def test_a_recording_becomes_a_performance(working: Any, tmp_path: Path, suffix: str) -> None:  # noqa: F811
    bpy.context.scene.render.fps = 25
    rig = performer("smile")
    path = tmp_path / f"anna{suffix}"
    assert ops().export_curves(filepath=str(path)) == {"FINISHED"}
    before = channel_samples.sample(rig, keypoint_rig_frames(rig))
    bpy.context.scene.frame_set(11)
    assert ops().import_curves(filepath=str(path)) == {"FINISHED"}
    made = bpy.context.view_layer.objects.active
    assert made != rig and made.name.startswith("anna") and keypoint_rig.is_rig(made)
    frames = keypoint_rig_frames(made)
    assert frames[0] == 11 and len(frames) == len(before)
    after = channel_samples.sample(made, frames)
    for name in rig_channels.names():
        np.testing.assert_allclose(after.values[name], before.values[name], atol=0.07, err_msg=name)
    assert after.values["mouthSmileLeft"].max() > 0.9 * before.values["mouthSmileLeft"].max() > 0.5
    assert rig_channels.neutral_of(made) == pytest.approx(rig_channels.neutral_inputs(None))


def test_what_cannot_be_read_or_written_is_said(working: Any, tmp_path: Path) -> None:  # noqa: F811
    with pytest.raises(RuntimeError, match="does not exist"):
        ops().import_curves(filepath=str(tmp_path / "none.csv"))
    (tmp_path / "prose.csv").write_text("once upon a time\nthere was\n")
    with pytest.raises(RuntimeError, match="called like an ARKit channel"):
        ops().import_curves(filepath=str(tmp_path / "prose.csv"))
    with pytest.raises(RuntimeError, match="no file of curves"):
        ops().import_curves(filepath=str(tmp_path / "song.mp3"))
    performer("wink")
    with pytest.raises(RuntimeError, match="cannot be written"):
        ops().export_curves(filepath=str(tmp_path / "no" / "folder.csv"))
