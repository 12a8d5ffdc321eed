# SPDX-License-Identifier: GPL-3.0-or-later
"""Operators, presets, files and the panel of shape keys."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import bpy
import pytest

from tests.blender import heads
from tests.blender.layout_recorder import draw
from tests.blender.performances import motion


def ops() -> Any:
    return bpy.ops.liveportrait


def choose(*items: Any) -> None:
    """Select the objects; the first is active."""
    bpy.ops.object.select_all(action="DESELECT")
    for item in items:
        item.select_set(True)
    bpy.context.view_layer.objects.active = items[0] if items else None


@pytest.fixture
def rig(addon: ModuleType) -> Any:
    from liveportrait_blender import keypoint_rig

    bpy.context.scene.render.fps = 25
    return keypoint_rig.build(bpy.context, motion(20), "Talk", first_frame=1)


@pytest.fixture
def head(rig: Any) -> Any:
    item = heads.small_head()
    choose(item)
    return item


def rows(item: Any) -> list[tuple[str, str]]:
    return [(entry.shape_key, entry.channel) for entry in item.liveportrait.shape_keys.entries]


def driven(item: Any) -> dict[str, Any]:
    from liveportrait_blender import shape_key_drivers

    return shape_key_drivers.driven(item)


def values(item: Any) -> list[dict[str, Any]]:
    from liveportrait_blender import shape_key_presets

    return json.loads(shape_key_presets.dump(item.liveportrait.shape_keys.entries, "x"))["entries"]


def test_match_and_drive_in_two_clicks(head: Any, rig: Any) -> None:
    assert ops().match_shape_keys() == {"FINISHED"}
    settings = head.liveportrait.shape_keys
    assert settings.rig == rig  # the scene's only one
    assert rows(head) == [(name, name) for name in heads.SMALL_KEYS]
    assert ops().drive_shape_keys() == {"FINISHED"}
    assert list(driven(head)) == list(heads.SMALL_KEYS)
    assert ops().undrive_shape_keys() == {"FINISHED"} and not driven(head)


def test_matching_again_keeps_what_was_set_by_hand(head: Any) -> None:
    ops().match_shape_keys()
    settings = head.liveportrait.shape_keys
    settings.entries[0].gain = 0.3
    settings.entries[1].channel = "jawOpen"
    settings.entries.remove(2)
    ops().match_shape_keys()
    assert len(settings.entries) == len(heads.SMALL_KEYS)
    assert settings.entries[0].gain == pytest.approx(0.3) and settings.entries[1].channel == "jawOpen"
    ops().match_shape_keys(start_over=True)
    assert settings.entries[0].gain == 1 and rows(head) == [(name, name) for name in heads.SMALL_KEYS]


def test_several_meshes_at_once_and_the_selected_rig(head: Any, rig: Any) -> None:
    from liveportrait_blender import keypoint_rig

    second = keypoint_rig.build(bpy.context, motion(20), "Second", first_frame=1)
    brows = heads.small_head("Brows", ["browInnerUp"])
    odd = heads.small_head("Odd", ["Key 1"])
    choose(second, head, brows, odd)  # as one does: the rig last, so that it is active
    assert ops().match_shape_keys() == {"FINISHED"}  # the odd one is a warning
    assert head.liveportrait.shape_keys.rig == brows.liveportrait.shape_keys.rig == second
    assert ops().drive_shape_keys() == {"FINISHED"}
    assert len(driven(head)) == len(heads.SMALL_KEYS) and len(driven(brows)) == 1 and not driven(odd)
    choose(odd)
    with pytest.raises(RuntimeError, match="No name of the shape keys"):
        ops().match_shape_keys()


def test_without_a_mesh_the_operators_say_why(rig: Any) -> None:
    choose(rig)
    for name in ("match_shape_keys", "drive_shape_keys", "undrive_shape_keys", "add_shape_key_entry"):
        with pytest.raises(RuntimeError, match="Select a mesh with shape keys"):
            getattr(ops(), name)()
    item = heads.small_head()
    choose(item)
    with pytest.raises(RuntimeError, match="The list is empty"):
        ops().remove_shape_key_entry()
    with pytest.raises(RuntimeError, match="has no entries"):
        ops().drive_shape_keys()


def test_entries_are_added_moved_and_removed(head: Any) -> None:
    settings = head.liveportrait.shape_keys
    head.active_shape_key_index = 3  # jawOpen
    assert ops().add_shape_key_entry() == {"FINISHED"}
    assert rows(head) == [("jawOpen", "jawOpen")]
    ops().add_shape_key_entry()  # the next one without an entry
    assert rows(head)[1] == ("eyeBlinkLeft", "eyeBlinkLeft") and settings.active == 1
    ops().drive_shape_keys()
    ops().move_shape_key_entry(direction="UP")
    assert rows(head)[0][0] == "eyeBlinkLeft" and settings.active == 0
    ops().move_shape_key_entry(direction="UP")  # already there
    assert rows(head)[0][0] == "eyeBlinkLeft"
    ops().remove_shape_key_entry()
    assert rows(head) == [("jawOpen", "jawOpen")] and list(driven(head)) == ["jawOpen"]
    ops().clear_shape_key_entries()
    assert not rows(head) and not driven(head)


def test_the_other_side_and_back(head: Any) -> None:
    ops().match_shape_keys()
    ops().drive_shape_keys()
    ops().mirror_shape_keys()
    assert "lp_eyeBlinkRight" in driven(head)["eyeBlinkLeft"].driver.expression
    assert "lp_jawOpen" in driven(head)["jawOpen"].driver.expression
    ops().mirror_shape_keys()
    assert "lp_eyeBlinkLeft" in driven(head)["eyeBlinkLeft"].driver.expression


def test_a_preset_is_saved_loaded_and_removed(head: Any) -> None:
    from liveportrait_blender import shape_key_presets

    ops().match_shape_keys()
    entry = head.liveportrait.shape_keys.entries[0]
    entry.gain, entry.offset, entry.dead_zone, entry.mirror, entry.minimum = 1.25, -0.1, 0.05, True, -0.5
    head.liveportrait.shape_keys.entries[1].use = False
    wanted = values(head)
    assert ops().save_shape_key_preset(preset="Mein Kopf") == {"FINISHED"}
    assert list(shape_key_presets.own()) == ["Mein Kopf"]
    other = heads.small_head("Other", ["EyeBlink_Left", "jaw_open"])
    choose(other)
    assert ops().load_shape_key_preset(preset="Mein Kopf") == {"FINISHED"}
    assert rows(other) == [("EyeBlink_Left", "eyeBlinkLeft"), ("jaw_open", "jawOpen")]
    assert values(other)[0] == {**wanted[0], "shape_key": "EyeBlink_Left"}
    choose(head)
    ops().clear_shape_key_entries()
    ops().load_shape_key_preset(preset="Mein Kopf")
    assert values(head) == wanted
    assert ops().remove_shape_key_preset(preset="Mein Kopf") == {"FINISHED"}
    assert not shape_key_presets.own()
    with pytest.raises(RuntimeError, match="There is no preset"):
        ops().load_shape_key_preset(preset="Mein Kopf")
    with pytest.raises(RuntimeError, match="You have no preset"):
        ops().remove_shape_key_preset(preset="Faceshift")


@pytest.mark.parametrize("name", ["", "a/b", "..", "../x", "con", "x" * 200, "a\nb", ".hidden"])
def test_a_preset_cannot_be_called_what_no_file_can(head: Any, name: str) -> None:
    from liveportrait_blender import shape_key_presets

    ops().match_shape_keys()
    with pytest.raises(RuntimeError, match="cannot be the name"):
        ops().save_shape_key_preset(preset=name)
    assert not shape_key_presets.own()


def test_shipped_presets_can_be_loaded(rig: Any) -> None:
    item = heads.small_head("MMD", ["あ", "ウィンク２"])
    choose(item)
    ops().load_shape_key_preset(preset="MikuMikuDance")
    assert [row[0] for row in rows(item)] == ["あ", "あ", "あ", "ウィンク２"]
    assert ops().drive_shape_keys() == {"FINISHED"} and len(driven(item)) == 2


def test_a_driven_mesh_stays_driven_when_a_preset_is_loaded(head: Any, tmp_path: Path) -> None:
    ops().match_shape_keys()
    path = tmp_path / "map.json"
    ops().export_shape_key_mapping(filepath=str(path))
    ops().drive_shape_keys()
    head.liveportrait.shape_keys.entries[0].gain = 0.2
    ops().import_shape_key_mapping(filepath=str(path))
    assert "0.2" not in driven(head)["eyeBlinkLeft"].driver.expression
    assert len(driven(head)) == len(heads.SMALL_KEYS)


def test_files_go_out_and_come_back(head: Any, tmp_path: Path) -> None:
    ops().match_shape_keys()
    head.liveportrait.shape_keys.entries[2].gain = 0.1
    wanted = values(head)
    assert ops().export_shape_key_mapping(filepath=str(tmp_path / "köpfe")) == {"FINISHED"}
    path = tmp_path / "köpfe.json"
    assert json.loads(path.read_text(encoding="utf-8"))["format"] == "liveportrait-shape-keys/1"
    ops().clear_shape_key_entries()
    assert ops().import_shape_key_mapping(filepath=str(path)) == {"FINISHED"}
    assert values(head) == wanted
    assert [each.name for each in tmp_path.glob("k*")] == ["köpfe.json"]  # nothing half-written


GOOD = {"shape_key": "jawOpen", "channel": "jawOpen"}


def file_of(*entries: Any, **fields: Any) -> str:
    return json.dumps({"format": "liveportrait-shape-keys/1", "entries": list(entries), **fields})


@pytest.mark.parametrize(
    "text, said",
    [
        ("nothing", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[1, 2]", "no mapping"),
        ("{}", "no mapping"),
        (file_of(GOOD, format="liveportrait-shape-keys/2"), "This version reads"),
        (file_of(entries=None), "no list"),
        (file_of(3), "entry 1 is no object"),
        (file_of(GOOD, {"channel": "jawOpen"}), "entry 2 has no shape_key"),
        (file_of({**GOOD, "channel": "jawOpened"}), "'jawOpened', which does not exist"),
        (file_of({**GOOD, "channel": ["x"]}), "does not exist"),
        (file_of({**GOOD, "gain": "much"}), "gain 'much'"),
        (file_of({**GOOD, "gain": float("nan")}), "gain nan"),
        (file_of({**GOOD, "maximum": 11}), "maximum 11"),
        (file_of({**GOOD, "dead_zone": 1}), "dead_zone 1"),
        (file_of({**GOOD, "use": 1}), "use 1"),
        (file_of({**GOOD, "gain": True}), "gain True"),
        (file_of({**GOOD, "shape_key": "nowhere"}), "None of its shape keys"),
    ],
)
def test_a_wrong_file_is_one_clear_sentence_and_nothing_is_lost(
    head: Any, tmp_path: Path, text: str, said: str
) -> None:
    ops().match_shape_keys()
    ops().drive_shape_keys()
    before = values(head)
    path = tmp_path / "map.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(RuntimeError, match=said):
        ops().import_shape_key_mapping(filepath=str(path))
    assert values(head) == before and len(driven(head)) == len(heads.SMALL_KEYS)


def test_files_that_cannot_be_read(head: Any, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="cannot be read"):
        ops().import_shape_key_mapping(filepath=str(tmp_path / "none.json"))
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RuntimeError, match="no text"):
        ops().import_shape_key_mapping(filepath=str(tmp_path / "bytes.json"))
    (tmp_path / "large.json").write_bytes(b" " * 4_000_001)
    with pytest.raises(RuntimeError, match="too large"):
        ops().import_shape_key_mapping(filepath=str(tmp_path / "large.json"))
    ops().match_shape_keys()
    with pytest.raises(RuntimeError, match="cannot be written"):
        ops().export_shape_key_mapping(filepath=str(tmp_path / "nowhere" / "map.json"))


def test_fields_of_a_later_version_are_passed_over(head: Any, tmp_path: Path) -> None:
    path = tmp_path / "map.json"
    path.write_text(file_of({**GOOD, "smoothing": 3}, colour="red"), encoding="utf-8")
    assert ops().import_shape_key_mapping(filepath=str(path)) == {"FINISHED"}
    assert rows(head) == [("jawOpen", "jawOpen")]


def panel() -> Any:
    from liveportrait_blender.panels.shape_keys import LIVEPORTRAIT_PT_shape_keys

    return draw(LIVEPORTRAIT_PT_shape_keys)


def test_the_panel_leads_from_nothing_to_a_driven_face(addon: ModuleType) -> None:
    from liveportrait_blender import keypoint_rig

    assert "Select a mesh with shape keys" in panel().text
    item = heads.small_head("Small", [*heads.SMALL_KEYS, "tongueOut", "fat"])
    choose(item)
    assert "Create or import a performance" in panel().text
    keypoint_rig.build(bpy.context, motion(5), "Talk", first_frame=1)
    choose(item)
    shown = panel()
    assert "liveportrait.match_shape_keys" in shown.ids and "liveportrait.drive_shape_keys" not in shown.ids
    ops().match_shape_keys()
    shown = panel()
    assert {
        "shape_key",
        "channel",
        "gain",
        "offset",
        "minimum",
        "maximum",
        "mirror",
        "dead_zone",
        "use",
    } <= shown.names
    assert "0 of 7 shape keys driven" in shown.text and "liveportrait.undrive_shape_keys" not in shown.ids
    assert "tongueOut" in shown.text and "Without an entry: fat" in shown.text
    ops().drive_shape_keys()
    shown = panel()
    assert "7 of 7 shape keys driven" in shown.text and "liveportrait.undrive_shape_keys" in shown.ids
    item.active_shape_key_index = item.data.shape_keys.key_blocks.find("jawOpen")
    bpy.ops.object.shape_key_remove()
    assert "Not on the mesh: jawOpen" in panel().text


def test_the_panel_offers_to_replace_drivers_of_ones_own(head: Any) -> None:
    head.data.shape_keys.key_blocks["jawOpen"].driver_add("value").driver.expression = "0.25"
    ops().match_shape_keys()
    ops().drive_shape_keys()
    shown = panel()
    assert "Drivers of your own are kept: jawOpen" in shown.text and "5 of 6 shape keys driven" in shown.text
    ((_, button),) = [each for each in shown.operators if each[1].given.get("replace")]
    assert ops().drive_shape_keys(**button.given) == {"FINISHED"}
    assert "jawOpen" in driven(head) and "your own" not in panel().text


def test_a_rig_that_was_deleted_is_said_to_be_followed_still_and_comes_back(head: Any, rig: Any) -> None:
    """Deleting takes it out of the scene only, since drivers refer to it."""
    ops().match_shape_keys()
    ops().drive_shape_keys()
    assert "deleted" not in panel().text and not ops().put_rig_back.poll()
    choose(rig)
    bpy.ops.object.delete()
    choose(head)
    shown = panel()
    assert '"Talk" was deleted from the scene' in shown.text and "liveportrait.put_rig_back" in shown.ids
    assert ops().put_rig_back() == {"FINISHED"}
    assert bpy.data.objects["Talk"].name in bpy.context.scene.objects and "deleted" not in panel().text


def test_the_menus_show_presets(head: Any) -> None:
    from liveportrait_blender.panels import shape_keys

    ops().match_shape_keys()
    ops().save_shape_key_preset(preset="Mine")
    shown = draw(shape_keys.LIVEPORTRAIT_MT_shape_key_presets)
    assert {"Mine", "Faceshift", "Remove Mine"} <= set(shown.texts) and "Remove Faceshift" not in shown.texts
    assert "liveportrait.import_shape_key_mapping" in draw(shape_keys.LIVEPORTRAIT_MT_shape_keys).ids
