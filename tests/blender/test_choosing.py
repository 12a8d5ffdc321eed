# SPDX-License-Identifier: GPL-3.0-or-later
"""Choosing a portrait and a performance, from scripts as by mouse; dropped files; presets."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import bpy
import pytest

from .test_panels import small_png


@pytest.fixture
def settings(addon: ModuleType) -> Any:
    return bpy.context.scene.liveportrait


def refused(operator: Any, **words: Any) -> str:
    """Why an operator did not run."""
    with pytest.raises(RuntimeError) as told:
        operator(**words)
    return str(told.value)


def test_a_portrait_is_opened(settings: Any, tmp_path: Path) -> None:
    path = small_png(tmp_path / "Añna 1.png")
    settings.source_kind, settings.options.use_face = "IMAGE", True
    assert bpy.ops.liveportrait.open_source(filepath=str(path)) == {"FINISHED"}
    assert (settings.source_kind, settings.source_path) == ("FILE", str(path))
    assert not settings.options.use_face  # that was a face of another picture


def test_paths_are_relative_to_a_saved_file(settings: Any, tmp_path: Path) -> None:
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "scene.blend"))
    settings = bpy.context.scene.liveportrait
    bpy.ops.liveportrait.open_source(filepath=str(small_png(tmp_path / "a.png")))
    assert settings.source_path == "//a.png"
    bpy.ops.wm.save_mainfile()
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "scene.blend"))
    assert bpy.context.scene.liveportrait.source_path == "//a.png"


@pytest.mark.parametrize("operator", ["open_source", "open_driving"])
def test_a_wrong_file_is_refused_in_words(settings: Any, tmp_path: Path, operator: str) -> None:
    text = tmp_path / "a.txt"
    text.write_text("no picture")
    run = getattr(bpy.ops.liveportrait, operator)
    assert "a.txt is no" in refused(run, filepath=str(text))
    assert "does not exist" in refused(run, filepath=str(tmp_path / "b.png"))
    assert settings.source_path == settings.driving_path == ""


def test_the_active_objects_texture(settings: Any, tmp_path: Path) -> None:
    assert "Select the object" in refused(bpy.ops.liveportrait.use_object_texture)
    bpy.ops.mesh.primitive_plane_add()
    assert "no image in its material" in refused(bpy.ops.liveportrait.use_object_texture)
    bpy.ops.object.empty_add(type="IMAGE")
    bpy.context.active_object.data = image = bpy.data.images.load(str(small_png(tmp_path / "a.png")))
    assert bpy.ops.liveportrait.use_object_texture() == {"FINISHED"}
    assert (settings.source_kind, settings.source_image) == ("IMAGE", image)


def test_no_clipboard_in_background(settings: Any) -> None:
    assert "no clipboard in background" in refused(bpy.ops.liveportrait.paste_source)


def test_clips_strips_and_the_library(settings: Any, tmp_path: Path) -> None:
    assert "no movie clip" in refused(bpy.ops.liveportrait.use_clip)
    clip = bpy.data.movieclips.load(str(small_png(tmp_path / "a.png")))
    assert bpy.ops.liveportrait.use_clip() == {"FINISHED"}
    assert (settings.driving_kind, settings.driving_clip) == ("CLIP", clip)
    assert "Nobody" in refused(bpy.ops.liveportrait.use_clip, clip="Nobody")

    from liveportrait_blender import compat

    assert "no movie or image strip" in refused(bpy.ops.liveportrait.use_strip)
    editor = bpy.context.scene.sequence_editor_create()
    compat.strips(editor).new_image("Face", str(tmp_path / "a.png"), 1, 1)
    assert bpy.ops.liveportrait.use_strip() == {"FINISHED"}
    assert (settings.driving_kind, settings.driving_strip) == ("STRIP", "Face")
    assert "Nobody" in refused(bpy.ops.liveportrait.use_strip, strip="Nobody")

    assert bpy.ops.liveportrait.use_motion(motion="nod") == {"FINISHED"}
    assert (settings.driving_kind, settings.driving_library) == ("LIBRARY", "nod")
    assert "There are: blink" in refused(bpy.ops.liveportrait.use_motion, motion="dance")


def test_the_library_is_the_backends(settings: Any) -> None:
    from liveportrait_blender import paths
    from liveportrait_blender.properties import options

    folder = paths.backend_code() / "backend/data/library"
    assert [row["name"] for row in options.table()["library"]] == sorted(f.stem for f in folder.glob("*.npz"))


def test_source_and_driving_change_places(settings: Any, tmp_path: Path) -> None:
    assert "Choose a portrait and a driving" in refused(bpy.ops.liveportrait.swap_inputs)
    settings.source_path, settings.driving_path = "/a.png", "/b.mp4"
    assert bpy.ops.liveportrait.swap_inputs() == {"FINISHED"}
    assert (settings.source_path, settings.driving_path) == ("/b.mp4", "/a.png")
    settings.driving_path = "/b.NPZ"
    assert "motion file" in refused(bpy.ops.liveportrait.swap_inputs)
    settings.driving_kind = "LIBRARY"
    assert "Only files" in refused(bpy.ops.liveportrait.swap_inputs)


# --- dropped files ------------------------------------------------------------------------------------------


def test_dropped_files_are_taken_over_a_viewport_alone(settings: Any) -> None:
    from liveportrait_blender.operators import driving, drop

    for handler in (drop.LIVEPORTRAIT_FH_source, drop.LIVEPORTRAIT_FH_driving):
        assert handler.poll_drop(SimpleNamespace(area=SimpleNamespace(type="VIEW_3D")))
        assert not handler.poll_drop(SimpleNamespace(area=SimpleNamespace(type="IMAGE_EDITOR")))
        assert not handler.poll_drop(SimpleNamespace(area=None))
    assert ".npz" not in drop.LIVEPORTRAIT_FH_source.bl_file_extensions.split(";")
    assert ".csv" in driving.DRIVING_SUFFIXES
    assert ".csv" not in drop.LIVEPORTRAIT_FH_driving.bl_file_extensions.split(";")
    assert {".npz", ".pkl", ".mp4"} <= set(drop.LIVEPORTRAIT_FH_driving.bl_file_extensions.split(";"))


def test_a_dropped_file_is_chosen(settings: Any, tmp_path: Path) -> None:
    path = str(small_png(tmp_path / "a.png"))
    bpy.ops.liveportrait.drop_source(filepath=path)
    bpy.ops.liveportrait.drop_driving(filepath=path)
    assert settings.source_path == settings.driving_path == path
    assert "does not exist" in refused(bpy.ops.liveportrait.drop_source, filepath=str(tmp_path / "b.png"))


# --- presets ------------------------------------------------------------------------------------------------


def presets(kind: str) -> list[Path]:
    from liveportrait_blender import paths

    return sorted((paths.HERE / "presets/liveportrait" / kind).glob("*.py"))


def apply(path: Path, menu: str) -> None:
    assert bpy.ops.script.execute_preset(
        filepath=str(path), menu_idname=f"LIVEPORTRAIT_PT_{menu}_presets"
    ) == {"FINISHED"}


def test_blender_finds_the_shipped_presets(addon: ModuleType) -> None:
    for kind in ("options", "expressions"):
        found = [
            file.stem
            for folder in bpy.utils.preset_paths(f"liveportrait/{kind}")
            for file in Path(folder).glob("*.py")
        ]
        assert sorted(found) == [path.stem for path in presets(kind)] and len(found) >= 5


def test_option_presets_start_from_the_defaults_and_leave_the_shot(settings: Any) -> None:
    found = {}
    for path in presets("options"):
        settings.options.multiplier, settings.options.region = 0.3, "eyes"
        settings.options.use_face, settings.options.face = True, 3
        apply(path, "option")
        found[path.stem] = settings.options.as_options()
        assert found[path.stem].pop("face") == 3
    assert found["talking_head_lips_only"]["region"] == "lips"
    assert found["released_liveportrait"] == {"compatibility": "upstream"}
    assert found["natural"] == {"smoothing": "auto"}
    assert len({str(options) for options in found.values()}) == len(found)


def test_expression_presets_start_from_rest(settings: Any) -> None:
    found = []
    for path in presets("expressions"):
        settings.controls.yaw = 0.2
        apply(path, "expression")
        controls = settings.controls.as_controls()
        assert controls and "yaw" not in controls or "yaw" in path.read_text()
        found.append(controls)
    assert len({str(controls) for controls in found}) == len(found)


def test_a_users_preset_is_kept_applied_and_removed(settings: Any) -> None:
    settings.options.multiplier, settings.options.driving_crop = 1.3, "on"
    settings.options.use_face, settings.options.face = True, 3
    assert bpy.ops.liveportrait.add_option_preset(name="My Way") == {"FINISHED"}
    settings.options.set_options({"face": 1})
    path = Path(bpy.utils.preset_find("My_Way", "liveportrait/options"))
    apply(path, "option")
    assert settings.options.as_options() == {"multiplier": 1.3, "driving_crop": True, "face": 1}
    assert bpy.ops.liveportrait.add_option_preset(name="My_Way", remove_name=True) == {"FINISHED"}
    assert not path.exists()


def test_an_expression_is_kept_and_keyed(settings: Any) -> None:
    settings.controls.set_controls({"smile": 0.7, "pitch": 5.0, "eyes_open": 0.4})
    assert bpy.ops.liveportrait.add_expression_preset(name="Mine") == {"FINISHED"}
    assert bpy.ops.liveportrait.key_controls() == {"FINISHED"}
    assert bpy.ops.liveportrait.reset_controls() == {"FINISHED"}
    assert settings.controls.as_controls() == {}
    apply(Path(bpy.utils.preset_find("Mine", "liveportrait/expressions")), "expression")
    assert settings.controls.as_controls() == {"smile": 0.7, "pitch": 5.0, "eyes_open": 0.4}
    bpy.ops.liveportrait.add_expression_preset(name="Mine", remove_name=True)

    bpy.context.scene.frame_set(20)
    settings.controls.set_controls({})
    bpy.ops.liveportrait.key_controls()
    bpy.context.scene.frame_set(1)
    assert settings.controls.as_controls() == {"smile": 0.7, "pitch": 5.0, "eyes_open": 0.4}
