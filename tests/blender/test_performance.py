# SPDX-License-Identifier: GPL-3.0-or-later
"""From a result to curves and back into the portrait, through a backend that really works."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import bpy
import numpy as np
import pytest

from liveportrait_blender import performance
from tests.blender.frames import read_png
from tests.blender.working import animate, folder_of, frames_of, ops, portrait, working  # noqa: F401

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = ROOT / "backend" / "data" / "library"


def pictures(image: Any) -> np.ndarray:
    return np.stack([read_png(file)[..., :3].astype(int) for file in frames_of(folder_of(image))])


def the_result() -> Any:
    (image,) = [image for image in bpy.data.images if image.liveportrait.is_result]
    return image


def select(item: Any) -> None:
    bpy.context.view_layer.objects.active = item


def test_an_unedited_performance_renders_the_same_and_an_edited_one_what_it_shows(
    working: Any,  # noqa: F811
    portrait: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "shot.blend"))
    image = animate(portrait, frames=(0, 15), start_frame=7, name="Anna")
    first, plane = pictures(image), bpy.data.objects["Anna"]
    assert ops().create_performance() == {"FINISHED"}
    rig = bpy.context.object
    assert rig.name == "Anna Performance" and rig.liveportrait.rig.result == image
    assert ops().render_performance() == {"FINISHED"}
    assert performance.MOUTH not in working.session.jobs[-1].warnings  # a library motion has no mouth to miss
    again = the_result()
    assert rig.liveportrait.rig.result == again and again.name == "Anna"
    assert again.liveportrait.frames == len(first) and again.liveportrait.start_frame == 7
    unedited = pictures(again)
    assert unedited.shape == first.shape  # the picture of the neutral frame is not among them
    # The driver's own mouth is a picture, which curves do not have: the mouth's inside is drawn instead.
    assert np.abs(unedited - first).mean() < 1.5

    # A control held throughout is there in every picture, the first one included, as the backend draws it.
    rig["smile"] = 1.2
    assert ops().render_performance() == {"FINISHED"}
    smiling = pictures(the_result())
    changed = np.abs(smiling - unedited).mean(axis=(1, 2, 3))
    assert changed.min() > 0.3
    rig["smile"] = 0.0
    assert ops().render_performance() == {"FINISHED"}
    np.testing.assert_array_equal(pictures(the_result()), unedited)
    assert plane.name in bpy.data.objects and len(bpy.data.images) == 1


def test_that_the_drivers_own_mouth_is_no_longer_shown_is_said_once(
    working: Any, portrait: Path, tmp_path: Path  # noqa: F811
) -> None:
    (tmp_path / "clip").mkdir()
    for number in range(3):
        shutil.copy(portrait, tmp_path / "clip" / f"{number:03d}.png")
    animate(portrait, str(tmp_path / "clip"), name="Anna", length_policy="cut")
    ops().create_performance()
    said = []
    for _ in range(2):
        assert ops().render_performance() == {"FINISHED"}
        said.append(performance.MOUTH in working.session.jobs[-1].warnings)
    assert said == [True, False]


def test_a_control_of_the_rig_shows_what_the_control_of_the_backend_shows(
    working: Any,  # noqa: F811
    portrait: Path,  # noqa: F811
) -> None:
    scene = bpy.context.scene
    scene.render.fps = 30
    animate(portrait, frames=(0, 6), start_frame=1, name="Anna")
    ops().create_performance()
    rig = bpy.context.object
    ops().render_performance()
    base = pictures(the_result())
    motion = folder_of(the_result()) / "motion.npz"
    for name, value in (("smile", 1.0), ("blink", -12.0), ("zoom", 1.1), ("move_x", 0.1), ("yaw", 10.0)):
        rig[name] = value
        select(rig)
        ops().render_performance()
        ours = pictures(rig.liveportrait.rig.result)
        rig[name] = 1.0 if name == "zoom" else 0.0
        options = f'{{"controls": {{"{name}": {value}}}}}'
        scene.liveportrait.source_path = str(portrait)
        before = set(bpy.data.images)
        assert ops().render_motion(motion=str(motion), options=options) == {"FINISHED"}
        (theirs,) = set(bpy.data.images) - before
        moved = np.abs(ours - base).mean()
        assert moved > 0.2, name
        shown = pictures(theirs)
        alike = np.corrcoef((ours - base).ravel(), (shown - base).ravel())[0, 1]
        # Lids that the rig closes close as the driver's do, by the share of the portrait's own opening; and
        # the rig turns the driver's head, whose axes are not quite the portrait's.
        assert alike > {"blink": 0.95, "yaw": 0.8}.get(name, 0.99), name
        assert np.abs(ours - shown).mean() < {"blink": 0.3, "yaw": 0.6}.get(name, 0.05) * moved, name


def test_a_rig_is_made_anew_from_its_own_result(working: Any, portrait: Path) -> None:  # noqa: F811
    animate(portrait, frames=(0, 10), start_frame=1, name="Anna")
    ops().create_performance()
    rig = bpy.context.object
    rig["smile"] = 1.0
    ops().render_performance()
    smiling = pictures(the_result())
    bpy.data.objects.remove(rig)
    select(bpy.data.objects["Anna"])
    assert ops().create_performance() == {"FINISHED"}
    assert ops().render_performance() == {"FINISHED"}
    assert np.abs(pictures(the_result()) - smiling).max() <= 1  # the smile is in the curves now


def test_a_rendered_performance_is_animated_again_from_its_rig(
    working: Any, portrait: Path  # noqa: F811
) -> None:
    animate(portrait, frames=(0, 10), start_frame=1, name="Anna")
    ops().create_performance()
    rig, plane = bpy.context.object, bpy.data.objects["Anna"]
    ops().render_performance()
    unedited = pictures(the_result())
    rig["smile"] = 1.0
    select(plane)
    assert ops().animate_again() == {"FINISHED"}
    smiling = pictures(the_result())
    assert smiling.shape == unedited.shape and rig.liveportrait.rig.result == the_result()
    assert np.abs(smiling - unedited).mean() > 0.3
    bpy.data.objects.remove(rig)
    with pytest.raises(RuntimeError, match='performed "Anna" is gone. Create Performance Rig'):
        ops().animate_again()


def test_controls_of_the_result_come_into_the_rig(working: Any, portrait: Path) -> None:  # noqa: F811
    options = '{"controls": {"smile": 0.7, "yaw": 5}}'
    animate(portrait, frames=(0, 6), start_frame=3, name="Anna", options=options)
    ops().create_performance()
    assert bpy.context.object["smile"] == pytest.approx(0.7) and bpy.context.object["yaw"] == 5


def test_templates_come_in_and_go_out(working: Any, tmp_path: Path) -> None:  # noqa: F811
    from liveportrait_blender import keypoint_rig, motion_file

    path = tmp_path / "out.pkl"
    assert ops().import_performance(filepath=str(LIBRARY / "wink.npz"), start_frame=1.0) == {"FINISHED"}
    rig = bpy.context.object
    bpy.context.scene.render.fps = 30
    assert ops().export_performance(filepath=str(path)) == {"FINISHED"}
    assert path.stat().st_size > 1000
    assert ops().import_performance(filepath=str(path), start_frame=1.0) == {"FINISHED"}
    back = bpy.context.object
    assert back != rig
    frames = range(1, 20)
    first, second = (keypoint_rig.sample(one, frames) for one in (rig, back))
    np.testing.assert_allclose(first.expression, second.expression, atol=1e-5)
    np.testing.assert_allclose(first.rotation, second.rotation, atol=1e-5)
    assert ops().export_performance(filepath=str(tmp_path / "out.npz")) == {"FINISHED"}
    assert len(motion_file.read(tmp_path / "out.npz")) == len(motion_file.read(LIBRARY / "wink.npz"))
    assert sorted(file.name for file in tmp_path.glob("out*")) == ["out.npz", "out.pkl"]


def test_from_a_window_a_template_comes_in_when_it_is_read(working: Any, tmp_path: Path) -> None:  # noqa: F811
    from liveportrait_blender import keypoint_rig
    from tests.blender.working import until

    ops().import_performance(filepath=str(LIBRARY / "nod.npz"), start_frame=1.0)
    first = bpy.context.object
    target = tmp_path / "nod.pkl"
    motion = keypoint_rig.sample(first, range(1, 20))
    record = performance.convert_motion(motion, "pkl", lambda path: performance.keep(path, target))
    until(lambda: not record.folder.exists())
    assert target.is_file()

    def read(path: Path) -> None:
        ops().import_performance("EXEC_DEFAULT", True, filepath=str(path), name="Back", start_frame=3.0)

    record = performance.convert(target, "npz", read)
    until(lambda: not record.folder.exists())
    assert bpy.context.object.name == "Back" and keypoint_rig.first_frame(bpy.context.object) == 3.0

    target.write_bytes(b"\x80\x04nothing")
    record = performance.convert(target, "npz", read)
    until(lambda: not record.folder.exists())
    assert record.state == "failed" and record.error
    assert len(keypoint_rig.rigs(bpy.context.scene)) == 2
