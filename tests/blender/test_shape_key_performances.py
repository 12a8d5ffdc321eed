# SPDX-License-Identifier: GPL-3.0-or-later
"""Real performances on heads with shape keys: what Blender shows at a frame is what the backend reckons."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import bpy
import numpy as np
import pytest

from tests.blender import heads

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = ROOT / "backend" / "data" / "library"
# Runs in the backend's environment.
ASK = """
import sys, numpy as np
from backend.blendshapes import channels
from backend.motion_files import load_motion
np.save(sys.argv[2], channels(load_motion(sys.argv[1]), "auto"))
"""


@pytest.fixture
def perform(addon: ModuleType, backend_python: Path, tmp_path: Path) -> Any:
    """perform(path) -> (rig, the backend's channels (n, 52)); a template is converted by the backend."""

    def run(*arguments: Any) -> None:
        done = subprocess.run(
            [backend_python, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr

    def act(path: Path) -> tuple[Any, np.ndarray]:
        from liveportrait_blender import keypoint_rig, motion_file

        if path.suffix == ".pkl":
            if not path.is_file():
                pytest.skip(f"the template is absent: {path}")
            converted = tmp_path / f"{path.stem}.npz"
            run("-m", "backend", "convert", path, converted)
            path = converted
        run("-c", ASK, path, tmp_path / "channels.npy")
        motion = motion_file.read(path)
        scene = bpy.context.scene
        rate = motion.fps
        scene.render.fps, scene.render.fps_base = round(rate), round(rate) / float(rate)
        rig = keypoint_rig.build(bpy.context, motion, path.stem, first_frame=1)
        return rig, np.load(tmp_path / "channels.npy")

    return act


def follow(item: Any, rig: Any) -> None:
    """The head follows the rig, as a user has it do so."""
    bpy.ops.object.select_all(action="DESELECT")
    item.select_set(True)
    bpy.context.view_layer.objects.active = item
    item.liveportrait.shape_keys.rig = rig
    assert bpy.ops.liveportrait.match_shape_keys() == {"FINISHED"}
    assert bpy.ops.liveportrait.drive_shape_keys() == {"FINISHED"}


def played(item: Any, frames: range) -> dict[str, np.ndarray]:
    """{shape key: values at the frames} as Blender evaluates them."""
    found: dict[str, list[float]] = {}
    for frame in frames:
        bpy.context.scene.frame_set(frame)
        key = item.evaluated_get(bpy.context.evaluated_depsgraph_get()).data.shape_keys
        for block in key.key_blocks[1:]:
            found.setdefault(block.name, []).append(block.value)
    return {name: np.array(values) for name, values in found.items()}


def channel(values: np.ndarray, name: str) -> np.ndarray:
    from liveportrait_blender import rig_channels

    return values[:, rig_channels.names().index(name)]


def moved(item: Any, frame: int) -> np.ndarray:
    """(n, 3): how far the points are from the basis, as Blender shows the mesh at a frame."""
    bpy.context.scene.frame_set(frame)
    mesh = item.evaluated_get(bpy.context.evaluated_depsgraph_get()).data
    points, basis = np.empty(3 * len(mesh.vertices), np.float32), np.empty(3 * len(mesh.vertices), np.float32)
    mesh.vertices.foreach_get("co", points)
    item.data.shape_keys.reference_key.data.foreach_get("co", basis)
    return (points - basis).reshape(-1, 3)


def shape(item: Any, name: str) -> np.ndarray:
    """(n, 3): where a shape key moves the points."""
    blocks = item.data.shape_keys.key_blocks
    place, basis = (np.empty(3 * len(item.data.vertices), np.float32) for _ in range(2))
    blocks[name].data.foreach_get("co", place)
    blocks[0].data.foreach_get("co", basis)
    return (place - basis).reshape(-1, 3)


@pytest.mark.parametrize("clip", ["wink", "talk", "laugh"])
def test_every_frame_of_a_small_head_is_the_backends(perform: Any, clip: str) -> None:
    item = heads.small_head()
    rig, wanted = perform(LIBRARY / f"{clip}.npz")
    follow(item, rig)
    shown = played(item, range(1, len(wanted) + 1))
    assert list(shown) == list(heads.SMALL_KEYS)
    for name, values in shown.items():
        np.testing.assert_allclose(values, channel(wanted, name), atol=1e-4)
    assert max(values.max() for values in shown.values()) > 0.4


def test_wink_closes_the_subjects_right_eye_only(perform: Any) -> None:
    item = heads.ict_head()
    rig, wanted = perform(heads.DATA / "templates" / "wink.pkl")
    follow(item, rig)
    shown = played(item, range(1, len(wanted) + 1))
    np.testing.assert_allclose(shown["eyeBlink_R"], channel(wanted, "eyeBlinkRight"), atol=1e-4)
    np.testing.assert_allclose(shown["eyeBlink_L"], channel(wanted, "eyeBlinkLeft"), atol=1e-4)
    peak = int(np.argmax(shown["eyeBlink_R"]))
    # The template half closes the right eye and narrows the left a little: 0.59 and 0.24.
    assert shown["eyeBlink_R"][peak] > 0.5 and shown["eyeBlink_L"][peak] < 0.3
    # What is seen: the lid on the subject's right (-x) comes down, the other hardly moves.
    down = -moved(item, peak + 1)[:, 2]
    lids = {side: shape(item, f"eyeBlink_{side}") for side in "LR"}
    tops = {side: int(np.argmin(lid[:, 2])) for side, lid in lids.items()}
    side = {name: item.data.vertices[top].co.x for name, top in tops.items()}
    assert side["R"] < 0 < side["L"]
    closed = {name: down[top] / -lids[name][top, 2] for name, top in tops.items()}
    assert closed["R"] > 1.7 * closed["L"]


def test_open_lip_opens_the_jaw_and_laugh_smiles(perform: Any) -> None:
    item = heads.ict_head()
    rig, wanted = perform(heads.DATA / "templates" / "open_lip.pkl")
    follow(item, rig)
    shown = played(item, range(1, len(wanted) + 1))
    assert shown["jawOpen"].max() > 0.15  # lips apart, and the jaw by 0.22
    np.testing.assert_allclose(shown["jawOpen"], channel(wanted, "jawOpen"), atol=1e-4)
    chin = int(np.argmin(shape(item, "jawOpen")[:, 2]))
    assert (
        moved(item, int(np.argmax(shown["jawOpen"])) + 1)[chin, 2]
        < 0.9 * 0.15 * shape(item, "jawOpen")[chin, 2]
        < 0
    )

    laughing, wanted = perform(heads.DATA / "templates" / "laugh.pkl")
    item.liveportrait.shape_keys.rig = laughing  # the drivers follow at once
    shown = played(item, range(1, len(wanted) + 1))
    for side, name in (("L", "mouthSmileLeft"), ("R", "mouthSmileRight")):
        assert shown[f"mouthSmile_{side}"].max() > 0.3
        np.testing.assert_allclose(shown[f"mouthSmile_{side}"], channel(wanted, name), atol=1e-4)


def test_all_of_icts_keys_are_the_backends_numbers(perform: Any) -> None:
    item = heads.ict_head()
    rig, wanted = perform(heads.DATA / "templates" / "d0.pkl")
    follow(item, rig)
    frames = range(1, len(wanted) + 1, 10)
    shown = played(item, frames)
    for name, values in shown.items():
        base = name.removesuffix("_L").removesuffix("_R")
        full = base + {"_L": "Left", "_R": "Right"}.get(name[-2:], "")
        wanted_name = base if base in ("browInnerUp", "cheekPuff") else full
        if base in ("PupilDilate", "cheekRaiser"):
            assert not values.any()
        else:
            np.testing.assert_allclose(values, channel(wanted, wanted_name)[::10], atol=1e-4)
    assert sum(values.max() > 0.2 for values in shown.values()) >= 10


def test_it_plays_in_a_saved_file_without_the_addon(perform: Any, tmp_path: Path) -> None:
    item = heads.small_head()
    rig, wanted = perform(LIBRARY / "talk.npz")
    follow(item, rig)
    path = tmp_path / "talk.blend"
    bpy.ops.wm.save_as_mainfile(filepath=str(path))
    frames = range(1, len(wanted) + 1, 7)
    # A process that never sees the add-on, with scripts of files disabled.
    code = f"""
import bpy, numpy as np
bpy.context.preferences.filepaths.use_scripts_auto_execute = False
bpy.ops.wm.open_mainfile(filepath={str(path)!r}, use_scripts=False)
assert not hasattr(bpy.types.Object, "liveportrait")
item, found = bpy.data.objects["Small"], []
for frame in {list(frames)}:
    bpy.context.scene.frame_set(frame)
    key = item.evaluated_get(bpy.context.evaluated_depsgraph_get()).data.shape_keys
    found.append([block.value for block in key.key_blocks[1:]])
np.save({str(tmp_path / "played.npy")!r}, found)
bpy.ops.wm.save_as_mainfile(filepath={str(tmp_path / "again.blend")!r})
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert (tmp_path / "played.npy").exists(), done.stderr
    names = list(heads.SMALL_KEYS)
    reckoned = np.stack([channel(wanted, name)[::7] for name in names], 1)
    np.testing.assert_allclose(np.load(tmp_path / "played.npy"), reckoned, atol=1e-4)
    assert "auto-run disabled" not in done.stdout.lower()
    # With the add-on again the list is still there, also after a Blender without it saved the file.
    for file in (path, tmp_path / "again.blend"):
        bpy.ops.wm.open_mainfile(filepath=str(file))
        settings = bpy.data.objects["Small"].liveportrait.shape_keys
        assert settings.rig == bpy.data.objects["talk"]
        assert [entry.shape_key for entry in settings.entries] == names
        assert settings.entries[0].gain == pytest.approx(1.0) and settings.entries[1].dead_zone == 0


def test_it_plays_on_while_the_addon_is_off(perform: Any) -> None:
    from liveportrait_blender import registration

    item = heads.small_head()
    rig, wanted = perform(LIBRARY / "wink.npz")
    follow(item, rig)
    frames = range(1, len(wanted) + 1)
    registration.unregister()
    try:
        shown = played(item, frames)
    finally:
        registration.register()
    np.testing.assert_allclose(shown["eyeBlinkRight"], channel(wanted, "eyeBlinkRight"), atol=1e-4)
    assert len(item.liveportrait.shape_keys.entries) == len(heads.SMALL_KEYS)
