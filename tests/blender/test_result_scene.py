# SPDX-License-Identifier: GPL-3.0-or-later
"""A result in its scene: sound, comparison, colours, what made it, and what the panel says of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import bpy
import numpy as np
import pytest

from tests.blender.frames import landed, look_at, picture, rendered, write_frames, write_png, write_tone
from tests.blender.layout_recorder import draw

SOUND = bpy.app.version >= (4, 5, 0)  # the wheel of 4.2 is built without
needs_sound = pytest.mark.skipif(not SOUND, reason="this build of Blender has no sound")


@pytest.fixture
def tone(tmp_path: Path) -> Path:
    return write_tone(tmp_path / "tone.wav", 4)


def strips() -> list:
    from liveportrait_blender import compat

    editor = bpy.context.scene.sequence_editor
    return list(compat.strips(editor)) if editor else []


def span(strip) -> tuple[int, int, int]:
    """(first scene frame, frames heard, frames skipped)."""
    if bpy.app.version >= (5, 2, 0):
        return int(strip.left_handle), int(strip.duration), int(strip.left_handle_offset)
    return strip.frame_final_start, strip.frame_final_duration, int(strip.frame_offset_start)


def frames(tmp_path: Path, name: str, count: int = 10, seed: int = 0) -> list[np.ndarray]:
    return write_frames(tmp_path / name, count, (16, 16), seed=seed)


@needs_sound
@pytest.mark.parametrize("rate", [24, 30, 60])
def test_sound_begins_with_the_result_and_in_the_clip_where_it_does(
    addon, tmp_path: Path, tone: Path, rate: int
) -> None:
    bpy.context.scene.render.fps = rate
    frames(tmp_path, "a")
    made = landed(tmp_path / "a", start=7, sound=str(tone), sound_start=1.5)
    assert strips() == [made.strip] and span(made.strip) == (7, 10, round(1.5 * rate))
    assert Path(bpy.path.abspath(made.strip.sound.filepath)).resolve() == tone


@needs_sound
def test_made_again_there_is_one_strip(addon, tmp_path: Path, tone: Path) -> None:
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "film.blend"))
    frames(tmp_path, "a")
    frames(tmp_path, "b", 20)
    one = landed(tmp_path / "a", sound=str(tone))
    one.strip.volume = 0.25
    two = landed(tmp_path / "b", start=5, sound=str(tone), replaces=one.image.session_uid)
    assert strips() == [two.strip] and span(two.strip) == (5, 20, 0) and two.strip.volume == 0.25
    assert two.strip.sound.filepath.startswith("//")
    other = write_tone(tmp_path / "other.wav", 2)
    three = landed(tmp_path / "a", sound=str(other), replaces=two.image.session_uid)
    assert strips() == [three.strip]
    bpy.ops.liveportrait.delete_result()
    assert not strips() and not bpy.data.sounds


@needs_sound
def test_another_result_gets_another_channel_and_no_strip_of_hers_is_touched(addon, tmp_path, tone) -> None:
    from liveportrait_blender import compat

    editor = bpy.context.scene.sequence_editor_create()
    hers = compat.strips(editor).new_sound("hers", str(tone), 3, 1)
    frames(tmp_path, "a")
    made = landed(tmp_path / "a", sound=str(tone))
    assert made.strip.channel == 4 and hers.channel == 3 and span(hers)[0] == 1 and len(strips()) == 2


def test_a_file_without_sound_gives_none(addon, tmp_path: Path) -> None:
    frames(tmp_path, "a")
    silent = write_png(tmp_path / "silent.png", picture(1))
    made = landed(tmp_path / "a", sound=str(silent))
    assert made.strip is None and not strips() and not bpy.data.sounds
    assert made.image.liveportrait.strip == ""


def compared(tmp_path: Path, driving: Path | str, **more):
    source = write_png(tmp_path / "anna.png", picture(99, (16, 16)))
    pictures = frames(tmp_path, "a")
    made = landed(tmp_path / "a", start=3, source=str(source), driving=str(driving), **more)
    bpy.ops.liveportrait.compare()
    return made, pictures


def seen(name: str, frame: int, tmp_path: Path) -> np.ndarray:
    """What a plane shows, alone in the picture."""
    scene, owner = bpy.context.scene, bpy.data.objects[name]
    for other in bpy.data.objects:
        other.hide_render = other.type == "MESH" and other != owner
    bpy.context.view_layer.update()
    look_at(owner, scene, (16, 16))
    return rendered(scene, frame, tmp_path / "seen.png")[:, :, :3].astype(int)


@pytest.mark.parametrize("rate", [25, 50, 20])
def test_source_driving_and_result_stand_side_by_side_in_step(addon, tmp_path: Path, rate: int) -> None:
    """A folder of pictures has one for each scene frame, as the result; here from its third on."""
    bpy.context.scene.render.fps = rate
    clip = write_frames(tmp_path / "clip", 9, (16, 16), seed=40)
    made, pictures = compared(tmp_path, tmp_path / "clip", recipe={"options": {"frames": [2, None]}})
    planes = [bpy.data.objects[name] for name in ("anna: source", "anna: driving", "anna")]
    places = [one.location.x for one in planes]
    assert places == sorted(places) and all(b - a > 1 for a, b in zip(places, places[1:]))
    assert np.abs(seen("anna: source", 8, tmp_path) - picture(99, (16, 16))).max() <= 1
    for frame in (-5, 3, 4, 6, 40):
        index = min(2 + max(frame - 3, 0), 8)
        assert np.abs(seen("anna: driving", frame, tmp_path) - clip[index]).max() <= 1, (frame, index)
    assert np.abs(seen("anna", 6, tmp_path) - pictures[3]).max() <= 1
    node = planes[1].active_material.node_tree
    assert all(curve.driver.is_simple_expression for curve in node.animation_data.drivers)


def test_the_comparison_goes_away_with_all_that_it_brought(addon, tmp_path: Path) -> None:
    write_frames(tmp_path / "clip", 3, (16, 16), seed=40)
    names = ("objects", "meshes", "materials", "images", "collections")
    made, _ = compared(tmp_path, tmp_path / "clip")
    bpy.ops.liveportrait.compare()
    assert {name: len(getattr(bpy.data, name)) for name in names if name != "materials"} == {
        "objects": 1, "meshes": 1, "images": 1, "collections": 0,
    }  # fmt: skip
    assert made.owner.active_material is not None


@pytest.mark.parametrize("driving", ["library:wink", ""])
def test_a_driving_without_pictures_has_no_plane(addon, tmp_path: Path, driving: str) -> None:
    compared(tmp_path, driving)
    assert "anna: source" in bpy.data.objects and "anna: driving" not in bpy.data.objects


def test_a_portrait_that_is_gone_is_said(addon, tmp_path: Path) -> None:
    frames(tmp_path, "a")
    landed(tmp_path / "a", source=str(tmp_path / "gone.png"))
    with pytest.raises(RuntimeError, match="portrait of this result is gone"):
        bpy.ops.liveportrait.compare()


def test_the_view_transform_is_changed_on_request_only(addon, tmp_path: Path) -> None:
    view = bpy.context.scene.view_settings
    view.view_transform = "AgX"
    frames(tmp_path, "a")
    landed(tmp_path / "a")
    assert view.view_transform == "AgX"
    bpy.ops.liveportrait.use_standard_view()
    assert view.view_transform == "Standard"
    assert not bpy.ops.liveportrait.use_standard_view.poll()


# --- what made it -------------------------------------------------------------------------------------------


def test_a_moved_project_still_finds_what_made_a_result(addon, tmp_path: Path) -> None:
    from liveportrait_blender import recipes, results

    home = tmp_path / "home"
    home.mkdir()
    bpy.ops.wm.save_as_mainfile(filepath=str(home / "film.blend"))
    source = write_png(home / "portraits" / "anna.png", picture(1))
    folder = results.new_folder(bpy.context, "anna")
    write_frames(folder, 2)
    landed(folder, source=str(source), driving="library:wink")
    bpy.ops.wm.save_mainfile()
    shutil.move(home, tmp_path / "moved")
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "moved" / "film.blend"))
    (image,) = results.all_results()
    assert recipes.source_of(image) == tmp_path / "moved" / "portraits" / "anna.png"
    assert recipes.driving_of(image) == "library:wink"


def test_a_source_that_only_the_cache_held_is_kept_with_the_result(addon, tmp_path: Path) -> None:
    from liveportrait_blender import inputs, preferences, recipes

    made = bpy.data.images.new("painted", 4, 4)
    source = inputs.from_image(made).value
    assert source.is_relative_to(preferences.cache_folder())
    frames(tmp_path, "a")
    image = landed(tmp_path / "a", source=str(source)).image
    shutil.rmtree(preferences.cache_folder())
    found = recipes.source_of(image)
    assert found is not None and found.parent == tmp_path / "a" and found.is_file()


def test_its_settings_come_back(addon, tmp_path: Path) -> None:
    source = write_png(tmp_path / "anna.png", picture(1))
    frames(tmp_path, "a")
    options = {"multiplier": 1.5, "region": "lips", "stitch": False, "fps": "25", "controls": {"smile": 0.5}}
    landed(tmp_path / "a", source=str(source), driving="library:wink", recipe={"options": options})
    settings = bpy.context.scene.liveportrait
    settings.options.lock_scale = True
    bpy.ops.liveportrait.load_recipe()
    assert settings.source_path == str(source) and settings.driving_library == "wink"
    assert settings.options.as_options() == {"multiplier": 1.5, "region": "lips", "stitch": False}
    assert settings.controls.as_controls() == {"smile": 0.5}


def test_again_asks_for_the_same_source_driving_and_place(addon, tmp_path: Path, monkeypatch) -> None:
    """What is chosen in the panel meanwhile does not matter, its options do."""
    from liveportrait_blender import runtime, scene_jobs

    asked = {}

    def animate(context, **given):
        asked.update(given)
        raise scene_jobs.UserError("Enough.", "")

    monkeypatch.setattr(runtime, "missing", lambda: ("", ""))
    monkeypatch.setattr(scene_jobs, "animate", animate)
    source = write_png(tmp_path / "anna.png", picture(1))
    frames(tmp_path, "a")
    made = landed(
        tmp_path / "a", start=12, source=str(source), driving="library:wink",
        recipe={"options": {"frames": [3, 9], "multiplier": 2}},
    )  # fmt: skip
    with pytest.raises(RuntimeError, match="Enough"):
        bpy.ops.liveportrait.animate_again()
    assert asked["source"] == str(source) and asked["driving"] == "library:wink"
    assert asked["replaces"] == made.image and asked["start"] == 12
    assert asked["options"] == {"frames": [3, 9]}
    source.unlink()
    with pytest.raises(RuntimeError, match="portrait of this result is gone"):
        bpy.ops.liveportrait.animate_again()


# --- the panel ----------------------------------------------------------------------------------------------


def panel():
    return draw(bpy.types.LIVEPORTRAIT_PT_result)


def test_the_note_on_consent_is_shown_once(addon, tmp_path: Path) -> None:
    assert "liveportrait.note_consent" in panel().ids
    bpy.ops.liveportrait.note_consent()
    assert "liveportrait.note_consent" not in panel().ids


def test_the_panel_warns_of_what_would_be_stumbled_over(addon, tmp_path: Path) -> None:
    from liveportrait_blender import results

    scene = bpy.context.scene
    scene.view_settings.view_transform = "AgX"
    folder = results.new_folder(bpy.context, "anna")
    write_frames(folder, 2)
    landed(folder, result={"fps": 25.0})
    scene.render.fps = 24
    drawn = panel()
    assert {"wm.save_mainfile", "liveportrait.use_standard_view"} <= set(drawn.ids)
    assert "Made for 25 frames a second, the scene has 24" in " ".join(drawn.texts)
    assert "AgX changes the portrait's colours" in " ".join(drawn.texts)
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "film.blend"))
    assert "liveportrait.move_results" in panel().ids
    bpy.ops.liveportrait.move_results()
    bpy.ops.liveportrait.use_standard_view()
    scene.render.fps = 25
    fixes = {"wm.save_mainfile", "liveportrait.move_results", "liveportrait.use_standard_view"}
    assert not fixes & panel().ids


def test_a_result_longer_than_the_scene_is_said_and_the_scene_follows(addon, tmp_path: Path) -> None:
    scene = bpy.context.scene
    scene.frame_start, scene.frame_end = 1, 4
    frames(tmp_path, "anna")
    image = landed(tmp_path / "anna", start=3).image
    last = 3 + image.liveportrait.frames - 1
    assert last > 4 and scene.frame_end == 4  # landing leaves the scene as it is
    assert f"It ends at frame {last}, the scene at 4" in panel().text
    bpy.ops.liveportrait.set_scene_range()
    assert (scene.frame_start, scene.frame_end) == (3, last)
    assert "the scene at" not in panel().text and "liveportrait.set_scene_range" in panel().ids


def test_several_results_are_listed_and_can_be_selected(addon, tmp_path: Path) -> None:
    from liveportrait_blender import results

    assert "Nothing is animated yet" in panel().texts
    for name in ("anna", "bert"):
        frames(tmp_path, name)
        landed(tmp_path / name, name=name)
    assert results.active(bpy.context).name == "bert"
    bpy.ops.liveportrait.select_result(image="anna")
    assert results.active(bpy.context).name == "anna" and bpy.context.selected_objects == [bpy.context.object]
    assert {"anna", "bert"} <= set(panel().texts)
    bpy.ops.object.camera_add()
    for operator in ("compare", "delete_result", "animate_again", "load_recipe", "show_result_folder"):
        with pytest.raises(RuntimeError, match="Select the plane that shows the result"):
            getattr(bpy.ops.liveportrait, operator)()


def test_frames_json_survives(addon, tmp_path: Path) -> None:
    frames(tmp_path, "a")
    landed(tmp_path / "a", result={"fps": 25.0, "engine": "mesh", "warnings": ["ü"]})
    assert json.loads((tmp_path / "a" / "result.json").read_text("utf-8"))["warnings"] == ["ü"]
