# SPDX-License-Identifier: GPL-3.0-or-later
"""Expression controls of the keypoint rig: the same numbers as the backend's, in Blender's own pose."""

from __future__ import annotations

import subprocess
from pathlib import Path

import bpy
import numpy as np
import pytest

from liveportrait_blender import keypoint_rig, rig_channels, rig_controls, rig_sampling
from liveportrait_blender.rig_control_table import controls
from tests.blender.performances import assert_close, motion

ROOT = Path(__file__).resolve().parents[2]
NAMES = [control.name for control in controls()]


def ask_backend(python: Path, folder: Path, **arrays: np.ndarray) -> dict[str, np.ndarray]:
    question, answer = folder / "question.npz", folder / "answer.npz"
    np.savez(question, **arrays)
    command = [python, "-m", "tests.blender.backend_numbers", question, answer]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with np.load(answer) as file:
        return {name: file[name] for name in file.files}


def key(rig: bpy.types.Object, values: dict[str, np.ndarray], frames: np.ndarray) -> None:
    """Animate properties of the rig, on top of what its Action holds."""
    from liveportrait_blender import fcurves

    curves = {(f'["{name}"]', 0): (frames, value) for name, value in values.items()}
    fcurves.write(rig, rig.animation_data.action, curves)


@pytest.mark.parametrize("together", [False, True], ids=["each alone", "all together"])
def test_rig_and_backend_agree(backend_python: Path, tmp_path: Path, together: bool) -> None:
    random = np.random.default_rng(5)
    each = 6
    n = each * len(NAMES)
    performed = motion(n, fps=(24, 1))
    performed.gaze = np.nan_to_num(performed.gaze, nan=0.05)
    rig = keypoint_rig.build(bpy.context, performed, "Talk", first_frame=1)
    values = {}
    for place, control in enumerate(controls()):
        low, high = control.minimum, control.maximum
        line = np.full(n, rig_controls.value_without_effect(rig, control))
        if together:
            line = random.uniform(low, high, n)
        else:
            line[each * place : each * (place + 1)] = [
                low,
                high,
                (low + line[0]) / 2,
                (high + line[0]) / 2,
                *random.uniform(low, high, 2),
            ]
        values[control.name] = line.astype(np.float32)
    frames = np.arange(n) + 1
    key(rig, values, frames)
    wanted = ask_backend(
        backend_python,
        tmp_path,
        **{f"control {name}": line for name, line in values.items()},
        eyes_rest=rig["eyes_rest"],
        lips_rest=rig["lips_rest"],
        **performed.arrays(),
    )
    assert rig_sampling.why_stepwise(rig) == ""
    for stepwise in (False, True):
        sampled = keypoint_rig.sample(rig, frames, stepwise=stepwise)
        found = {name: float(np.abs(getattr(sampled, name) - line).max()) for name, line in wanted.items()}
        # Ratios and gaze follow a driver whose coefficients have five digits.
        limits = dict.fromkeys(found, 1e-5) | {"eye_ratio": 1e-4, "lip_ratio": 1e-4, "gaze": 1e-4}
        assert all(found[name] < limit for name, limit in limits.items()), found
    changed = np.abs(wanted["expression"] - performed.expression).max()
    assert changed > 0.05


def test_controls_at_rest_change_nothing() -> None:
    performed = motion(8, fps=(24, 1))
    with_controls = keypoint_rig.build(bpy.context, performed, "With", first_frame=1)
    without = keypoint_rig.build(bpy.context, performed, "Without", first_frame=1, controls=False)
    frames = np.arange(8) + 1
    for rig in (with_controls, without):
        assert_close(keypoint_rig.sample(rig, frames, stepwise=True), performed, 2e-6)
    assert not rig_controls.has_controls(without)


@pytest.mark.parametrize("name", NAMES)
def test_a_control_moves_the_rig_that_is_seen(name: str) -> None:
    performed = motion(2, fps=(24, 1))
    rig = keypoint_rig.build(bpy.context, performed, "Talk", first_frame=1)
    control = next(control for control in controls() if control.name == name)
    scene = bpy.context.scene
    scene.frame_set(1)

    def pose() -> np.ndarray:
        rig.update_tag()
        bpy.context.view_layer.update()
        posed = rig.evaluated_get(bpy.context.evaluated_depsgraph_get())
        return np.array([bone.matrix for bone in posed.pose.bones if bone.name != rig_controls.HELPER])

    before = pose()
    rig[name] = control.maximum
    moved = np.abs(pose() - before).max(axis=(1, 2))
    assert moved.max() > 1e-3
    rig[name] = rig_controls.value_without_effect(rig, control)
    np.testing.assert_allclose(pose(), before, atol=1e-6)


def test_drivers_are_simple_and_read_back_as_written() -> None:
    rig = keypoint_rig.build(bpy.context, motion(2), "Talk", first_frame=1)
    for curve in rig.animation_data.drivers:
        assert curve.driver.is_simple_expression, curve.driver.expression
        assert len(curve.driver.expression) <= 255
        assert curve.driver.is_valid
    assert {curve.data_path for curve in rig.animation_data.drivers} >= rig_controls.our_driver_paths()


def test_controls_can_be_overridden_in_a_file_that_links_the_rig(tmp_path: Path) -> None:
    rig = keypoint_rig.build(bpy.context, motion(3, fps=(24, 1)), "Talk", first_frame=1)
    library = tmp_path / "library.blend"
    bpy.data.libraries.write(str(library), {rig})
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=True)
    with bpy.data.libraries.load(str(library), link=True) as (_, wanted):
        wanted.objects = ["Talk"]
    linked = bpy.data.objects["Talk"]
    bpy.context.scene.collection.objects.link(linked)
    override = linked.override_create(remap_local_usages=True)
    before = keypoint_rig.sample(override, [1]).expression[0, 20, 1]
    override["smile"] = 1.0
    override.update_tag()
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "shot.blend"))
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "shot.blend"))
    again = next(item for item in bpy.data.objects if item.name.startswith("Talk") and item.override_library)
    assert again["smile"] == 1.0
    for stepwise in (False, True):
        smiling = keypoint_rig.sample(again, [1], stepwise=stepwise).expression[0, 20, 1]
        assert smiling - before == pytest.approx(-0.01, abs=1e-5)


def test_an_edited_control_is_what_both_ways_sample() -> None:
    rig = keypoint_rig.build(bpy.context, motion(3, fps=(24, 1)), "Talk", first_frame=1)
    smile = next(control for control in controls() if control.name == "smile")
    from liveportrait_blender import fcurves

    curves = fcurves.curves_of(rig, rig_controls.control_action(rig, smile))
    curve = curves['pose.bones["kp_20"].location', 1]
    curve.keyframe_points[2].co[1] = -0.2
    curve.update()
    rig["smile"] = 1.3
    first, second = (keypoint_rig.sample(rig, [1, 2], stepwise=stepwise) for stepwise in (False, True))
    assert_close(first, second, 2e-6)
    rig["smile"] = 0.0
    assert (first.expression - keypoint_rig.sample(rig, [1, 2]).expression)[0, 20, 1] == pytest.approx(-0.2)


def test_a_changed_constraint_or_driver_is_noticed() -> None:
    rig = keypoint_rig.build(bpy.context, motion(3, fps=(24, 1)), "Talk", first_frame=1)
    constraint = rig.pose.bones["kp_20"].constraints["LivePortrait Smile"]
    constraint.influence = 0.5
    assert "LivePortrait Smile" in rig_sampling.why_stepwise(rig)
    rig["smile"] = 1.0
    half = keypoint_rig.sample(rig, [1]).expression[0, 20, 1]
    constraint.influence = 0.0
    assert half - keypoint_rig.sample(rig, [1]).expression[0, 20, 1] == pytest.approx(-0.005, abs=1e-6)
    constraint.influence = 1.0
    assert rig_sampling.why_stepwise(rig) == ""
    rig.animation_data.drivers[0].driver.expression = "0.5"
    assert rig_sampling.why_stepwise(rig) != ""


def test_two_rigs_share_the_controls_actions() -> None:
    first = keypoint_rig.build(bpy.context, motion(2, fps=(24, 1)), "One", first_frame=1)
    actions = len(bpy.data.actions)
    second = keypoint_rig.build(bpy.context, motion(2, fps=(24, 1), seed=2), "Two", first_frame=1)
    assert len(bpy.data.actions) == actions + 1
    second["smile"] = 1.0
    for rig, smile in ((first, 0.0), (second, -0.01)):
        for stepwise in (False, True):
            with_it = keypoint_rig.sample(rig, [1], stepwise=stepwise).expression[0, 20, 1]
            now, rig["smile"] = rig["smile"], 0.0
            without = keypoint_rig.sample(rig, [1], stepwise=stepwise).expression[0, 20, 1]
            rig["smile"] = now
            assert with_it - without == pytest.approx(smile, abs=1e-6)


def test_controls_are_added_and_taken_away() -> None:
    rig = keypoint_rig.build(bpy.context, motion(2, fps=(24, 1)), "Talk", first_frame=1)
    rig_channels.remove(rig)
    rig_controls.remove(rig)
    assert not rig_controls.has_controls(rig) and not rig.animation_data.drivers
    assert not any(bone.constraints for bone in rig.pose.bones)
    rig_controls.add(rig)
    assert rig_controls.has_controls(rig) and rig_sampling.why_stepwise(rig) == ""
    rig_controls.add(rig)
    assert rig_sampling.why_stepwise(rig) == ""
    assert {curve.data_path for curve in rig.animation_data.drivers} == rig_controls.our_driver_paths()
