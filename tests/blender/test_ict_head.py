# SPDX-License-Identifier: GPL-3.0-or-later
"""A real head performs the published templates: the right eye winks, the jaw opens, it laughs, it shakes."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import bpy
import numpy as np
import pytest

from liveportrait_blender import (
    channel_samples,
    head_binding,
    keypoint_rig,
    motion_file,
    shape_key_bake,
    shape_key_drivers,
    shape_key_mapping,
)
from tests.blender.heads import DATA, ict_head

ROOT = Path(__file__).resolve().parents[2]
TEMPLATES = ("wink", "open_lip", "laugh", "shake_face")


@pytest.fixture
def motions(backend_python: Path, tmp_path: Path) -> dict[str, Any]:
    """The templates as the add-on reads them."""
    if not (DATA / "templates").is_dir():
        pytest.skip(f"the templates are absent: {DATA / 'templates'}")
    found = {}
    for name in TEMPLATES:
        target = tmp_path / f"{name}.npz"
        command = [backend_python, "-m", "backend", "convert", DATA / "templates" / f"{name}.pkl", target]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        found[name] = motion_file.read(target)
    return found


def points(head: Any) -> np.ndarray:
    """(n, 3) of the head as it is evaluated now, in its own axes."""
    evaluated = head.evaluated_get(bpy.context.evaluated_depsgraph_get())
    found = np.empty(3 * len(evaluated.data.vertices), np.float32)
    evaluated.data.vertices.foreach_get("co", found)
    return found.reshape(-1, 3)


def moved_by(head: Any, shape_key: str) -> np.ndarray:
    """(n, 3) what a shape key does at 1."""
    blocks = head.data.shape_keys.key_blocks
    both = np.empty((2, 3 * len(head.data.vertices)), np.float32)
    blocks[shape_key].data.foreach_get("co", both[0])
    blocks[shape_key].relative_key.data.foreach_get("co", both[1])
    return (both[0] - both[1]).reshape(-1, 3)


def test_a_real_head_performs_the_templates(addon: ModuleType, motions: dict[str, Any]) -> None:
    head = ict_head()
    shape_key_mapping.match(head)
    shown: dict[str, dict[str, np.ndarray]] = {}
    turned = {}
    for name, motion in motions.items():
        bpy.context.scene.render.fps = round(float(motion.fps))
        rig = keypoint_rig.build(bpy.context, motion, name, first_frame=1)
        head.liveportrait.shape_keys.rig = rig
        shape_key_drivers.drive(head)
        head_binding.bind(rig, head)
        samples = channel_samples.sample(rig, range(1, len(motion) + 1))
        shown[name] = shape_key_bake.values_at(head, samples)
        turned[name] = samples.values["headYaw"] - head_binding.rest_of(rig)[1]
        peak = 1 + int(np.argmax(shown[name]["jawOpen" if name == "open_lip" else "eyeBlink_R"]))
        bpy.context.scene.frame_set(peak)
        blocks = head.data.shape_keys.key_blocks
        for key, line in shown[name].items():  # what Blender evaluates is what is baked
            assert blocks[key].value == pytest.approx(line[peak - 1], abs=1e-3), key
        if name == "wink":
            at = points(head)
            lids = {
                side: np.abs(moved_by(head, f"eyeBlink_{side}")).sum(1).argmax() for side in ("L", "R")
            }
            rest = np.empty(3 * len(head.data.vertices), np.float32)
            head.data.vertices.foreach_get("co", rest)
            down = {side: rest.reshape(-1, 3)[k, 2] - at[k, 2] for side, k in lids.items()}
            assert rest.reshape(-1, 3)[lids["R"], 0] < 0  # the image's left, seen from the front
            assert down["R"] > 1.5 * down["L"] > 0
        if name == "shake_face":
            matrix = head.evaluated_get(bpy.context.evaluated_depsgraph_get()).matrix_world
            nose = matrix.to_3x3() @ -bpy.context.scene.cursor.matrix.to_3x3().col[1]
            assert np.sign(nose.x) == -np.sign(turned[name][peak - 1])
        bpy.data.objects.remove(rig)
    right, left = (shown["wink"][f"eyeBlink_{side}"] for side in "RL")
    assert right.max() > 0.5 and right.max() > 2 * left[right.argmax()]
    # The template opens the lips by a fifth of their width, so the jaw does not open far.
    jaw, lips = shown["open_lip"]["jawOpen"], motions["open_lip"].lip_ratio
    assert np.corrcoef(jaw, lips)[0, 1] > 0.9
    assert jaw[lips.argmax()] > 0.15 and np.median(jaw) < 0.03
    assert min(shown["laugh"]["mouthSmile_L"].max(), shown["laugh"]["mouthSmile_R"].max()) > 0.25
    assert np.ptp(turned["shake_face"]) > 0.2


def test_the_librarys_wink_shuts_the_right_eye_only(addon: ModuleType) -> None:
    head = ict_head()
    shape_key_mapping.match(head)
    wink = motion_file.read(ROOT / "backend" / "data" / "library" / "wink.npz")
    rig = keypoint_rig.build(bpy.context, wink, "wink", first_frame=1)
    head.liveportrait.shape_keys.rig = rig
    frames = list(keypoint_rig.frame_range(rig, bpy.context.scene))
    samples = channel_samples.sample(rig, range(frames[0], frames[1] + 1))
    values = shape_key_bake.values_at(head, samples)
    assert values["eyeBlink_R"].max() > 0.95 and values["eyeBlink_L"].max() < 0.1
