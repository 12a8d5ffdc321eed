# SPDX-License-Identifier: GPL-3.0-or-later
"""The panels: whatever is chosen, they draw; what cannot be done says why; every option is to be found."""

from __future__ import annotations

import importlib
import struct
import zlib
from pathlib import Path
from types import ModuleType
from typing import Any

import bpy
import pytest

from .layout_recorder import Drawn, draw


@pytest.fixture
def settings(addon: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Of a scene in a Blender that has a backend, which does not run."""
    from liveportrait_blender import runtime

    monkeypatch.setattr(runtime, "missing", lambda: ("", ""))
    return bpy.context.scene.liveportrait


def panels() -> list[type]:
    """Every panel of the add-on that stands in the sidebar."""
    registration = importlib.import_module("liveportrait_blender.registration")
    return [
        class_
        for module in registration._registered
        for class_ in getattr(module, "CLASSES", ())
        if issubclass(class_, bpy.types.Panel) and getattr(class_, "bl_space_type", "") == "VIEW_3D"
    ]


def panel(name: str) -> Drawn:
    return draw(getattr(bpy.types, f"LIVEPORTRAIT_PT_{name}"))


def small_png(path: Path) -> Path:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + bytes([200, 150, 100]) * 4 for _ in range(4))
    head = struct.pack(">IIBBBBB", 4, 4, 8, 2, 0, 0, 0)
    chunks = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
    return path


def test_every_panel_hangs_in_the_tab(addon: ModuleType) -> None:
    names = {class_.bl_idname if hasattr(class_, "bl_idname") else class_.__name__ for class_ in panels()}
    assert "LIVEPORTRAIT_PT_main" in names
    for class_ in panels():
        assert class_.bl_category == "LivePortrait" and class_.bl_region_type == "UI"
        if class_.__name__ != "LIVEPORTRAIT_PT_main":
            assert class_.bl_parent_id in names


def test_all_draw_in_an_empty_file(settings: Any) -> None:
    for class_ in panels():
        if getattr(class_, "poll", lambda _: True)(bpy.context):
            draw(class_)


@pytest.mark.parametrize("kind", ["FILE", "IMAGE", "OBJECT", "CLIPBOARD"])
@pytest.mark.parametrize("chosen", [False, True])
def test_every_kind_of_source_draws(settings: Any, tmp_path: Path, kind: str, chosen: bool) -> None:
    settings.source_kind = kind
    if chosen:
        picture = bpy.data.images.load(str(small_png(tmp_path / "a.png")))
        settings.source_path, settings.source_image = str(tmp_path / "a.png"), picture
        bpy.ops.object.empty_add(type="IMAGE")
        bpy.context.active_object.data = picture
    drawn = panel("source")
    assert "source_kind" in drawn.names
    if kind == "FILE" and not chosen:
        assert "liveportrait.open_source" in drawn.ids
    if kind == "OBJECT" and not chosen:
        assert "Select the object" in drawn.text


@pytest.mark.parametrize("kind", ["FILE", "CLIP", "STRIP", "LIBRARY"])
@pytest.mark.parametrize("chosen", [False, True])
def test_every_kind_of_driving_draws(settings: Any, tmp_path: Path, kind: str, chosen: bool) -> None:
    settings.driving_kind = kind
    if chosen:
        settings.driving_path = str(tmp_path / "walk.npz")
        scene = bpy.context.scene
        scene.sequence_editor_create()
        settings.driving_strip = "Nobody"
    drawn = panel("driving")
    assert "driving_kind" in drawn.names
    if kind == "STRIP":
        assert ("Nobody" if chosen else "no movie or image strip") in drawn.text
    if kind == "LIBRARY":
        assert "driving_library" in drawn.names


def test_a_file_that_is_gone_is_said_with_its_fix(settings: Any, tmp_path: Path) -> None:
    from liveportrait_blender import thumbnails

    settings.source_path = str(tmp_path / "gone.png")
    panel("source")
    thumbnails._wanted.add(settings.source_path)  # what draw asks for where there are timers
    assert thumbnails.look()
    drawn = panel("source")
    assert "not there" in drawn.text and "liveportrait.open_source" in drawn.ids
    small_png(tmp_path / "gone.png")
    thumbnails._wanted.add(settings.source_path)
    assert thumbnails.look()
    assert "not there" not in panel("source").text


def test_every_option_is_in_a_panel(settings: Any) -> None:
    from liveportrait_blender.properties import options

    for row in options.rows().values():
        if row.get("words"):
            setattr(settings.options, options.companion(row), options.VALUE)
    shown: set[str] = set()
    for group in options.table()["groups"]:
        shown |= panel(f"options_{group['name'].replace(' ', '_')}").names
    wanted = set(options.rows()) | {
        beside for row in options.rows().values() if (beside := options.companion(row))
    }
    assert shown == wanted


def test_every_control_is_in_a_panel(settings: Any) -> None:
    from liveportrait_blender.properties import controls

    shown: set[str] = set()
    for name in ("mouth", "eyes", "head"):
        shown |= panel(f"controls_{name}").names
    assert shown == {
        name for key, row in controls.rows().items() for name in (key, controls.switch(row)) if name
    }


def test_changed_options_are_counted_and_reset(settings: Any) -> None:
    settings.options.multiplier = 1.5
    settings.options.region = "lips"
    assert "2 changed" in panel("options").text
    assert bpy.ops.liveportrait.reset_options() == {"FINISHED"}
    assert settings.options.as_options() == {}


def test_drawing_changes_nothing(settings: Any) -> None:
    before = (settings.options.as_options(), settings.controls.as_controls(), settings.source_kind)
    for class_ in panels():
        if getattr(class_, "poll", lambda _: True)(bpy.context):
            draw(class_)
    assert before == (settings.options.as_options(), settings.controls.as_controls(), settings.source_kind)


def test_a_very_large_portrait_is_said_to_cost(settings: Any, tmp_path: Path) -> None:
    from liveportrait_blender import thumbnails

    path = tmp_path / "poster.png"
    head = struct.pack(">I4sIIBBBBB", 13, b"IHDR", 12000, 9000, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + head)
    settings.source_path = str(path)
    assert "pixels" not in panel("source").text  # draw opens nothing
    thumbnails._wanted.add(str(path))
    assert thumbnails.look()
    drawn = panel("source").text
    assert "12000 x 9000 pixels" in drawn and "2.9 GB of memory" in drawn
    settings.options.paste_back = False
    assert "12000" not in panel("source").text


def one_face(number: int) -> dict[str, int]:
    return {"number": number, "x": 0, "y": 0, "width": 9, "height": 9, "size": 9}


def test_several_faces_can_be_chosen_from(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from liveportrait_blender import faces

    settings.source_path = "/a.png"
    assert "Choose a Face" in panel("source").text
    found = faces.Found(faces.chosen(bpy.context, "source"))
    monkeypatch.setitem(faces._found, "source", found)
    faces.take(found, {"faces": [one_face(0)]}, {})
    assert "One face" in panel("source").text
    faces.take(found, {"faces": [one_face(0), one_face(1), one_face(2)]}, {})
    buttons = [button for name, button in panel("source").operators if name == "liveportrait.choose_face"]
    assert [button.given["number"] for button in buttons] == [0, 1, 2, -1]
    bpy.ops.liveportrait.choose_face(**buttons[2].given)
    assert settings.options.as_options() == {"face": 2}
    bpy.ops.liveportrait.choose_face(**buttons[3].given)
    assert settings.options.as_options() == {}

    settings.source_path = "/another.png"  # its faces are not known
    assert "Choose a Face" in panel("source").text
    bpy.ops.liveportrait.choose_face(role="source", number=2)
    assert "Face 2 Is Used" in panel("source").text


@pytest.mark.parametrize("told", [{}, {"faces": 3}, {"faces": [{}]}, {"faces": [{"number": "x"}]}])
def test_what_is_no_list_of_faces_is_an_error(settings: Any, told: Any) -> None:
    from liveportrait_blender import faces

    found = faces.Found()
    faces.take(found, told, {})
    assert "no list of faces" in found.error and not found.faces
    faces.take(found, {"faces": []}, {})
    assert found.error == "No face was found."


def show_jobs(*jobs: dict[str, Any]) -> Any:
    """Have the jobs in the list of the interface."""
    state = bpy.context.window_manager.liveportrait
    state.jobs.clear()
    for words in jobs:
        item = state.jobs.add()
        for name, value in words.items():
            setattr(item, name, value)
    return state


RUNNING = {"name": "1-1", "label": "Anna: talk", "state": "running", "factor": 0.5, "text": "5 of 10"}
FAILED = {"name": "1-2", "label": "B", "state": "failed", "error": "No face was found.", "hint": "Crop it."}


def test_progress_and_its_end(settings: Any) -> None:
    assert not panel("animate").progress
    show_jobs(RUNNING)
    drawn = panel("animate")
    assert drawn.progress == [0.5] and "5 of 10" in drawn.text
    assert [button.given for name, button in drawn.operators if name == "liveportrait.cancel_job"] == [
        {"job": "1-1"}
    ]


def test_what_failed_is_told_with_a_way_on(settings: Any) -> None:
    show_jobs(FAILED)
    drawn = panel("animate")
    assert "No face was found." in drawn.text and "Crop it." in drawn.text
    assert {"liveportrait.resume_job", "liveportrait.remove_job"} <= drawn.ids
    show_jobs(FAILED, RUNNING)
    assert "liveportrait.cancel_job" in panel("animate").ids


@pytest.mark.parametrize("chosen", [0, 1, 7])
def test_the_list_of_jobs(settings: Any, chosen: int) -> None:
    class_ = bpy.types.LIVEPORTRAIT_PT_jobs
    show_jobs()
    assert not class_.poll(bpy.context)
    show_jobs(RUNNING, FAILED).active_job = chosen
    assert class_.poll(bpy.context)
    drawn = panel("jobs")
    assert "Anna: talk" in drawn.text and "50%" in drawn.text
    assert ("liveportrait.cancel_job" in drawn.ids) == (chosen == 0)
    assert ("liveportrait.resume_job" in drawn.ids) == (chosen == 1)


@pytest.mark.parametrize(
    ("kind", "fix"),
    [(kind, "") for kind in ("stopped", "starting", "ready", "busy", "silent")]
    + [("failed", "wm.path_open")],
)
def test_every_state_of_the_backend_is_said(
    settings: Any, monkeypatch: pytest.MonkeyPatch, kind: str, fix: str
) -> None:
    from liveportrait_blender import runtime
    from liveportrait_blender.session_state import SessionState

    monkeypatch.setattr(runtime.session, "_state", SessionState(kind, "So it is.", "Do this.", fix=fix))
    drawn = panel("main")
    assert ("So it is" if kind != "stopped" else "starts when it is needed") in drawn.text
    if kind in ("silent", "failed"):
        assert "Do this." in drawn.text and (not fix or fix in drawn.ids)


def test_what_is_missing_is_said_with_its_fix(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from liveportrait_blender import runtime

    assert "Choose a portrait first" in panel("animate").text
    settings.source_path = "/a.png"
    assert "Choose a driving clip first" in panel("animate").text
    settings.controls.smile = 0.5
    assert "Choose" not in panel("animate").text
    settings.driving_kind = "LIBRARY"
    assert "With expression controls" in panel("animate").text
    monkeypatch.setattr(runtime, "missing", lambda: ("There is no backend", "wm.path_open"))
    drawn = panel("main")
    assert "There is no backend" in drawn.text and "wm.path_open" in drawn.ids


@pytest.mark.parametrize("width", [120, 250, 800])
def test_long_sentences_are_wrapped_to_the_sidebar(addon: ModuleType, width: int) -> None:
    from types import SimpleNamespace

    from liveportrait_blender.panels import layout

    from .layout_recorder import Recorder

    context = SimpleNamespace(
        region=SimpleNamespace(width=width),
        preferences=SimpleNamespace(system=SimpleNamespace(ui_scale=1.0)),
    )
    drawn = Drawn()
    sentence = "The backend stopped three times in a minute, so it is not started again by itself."
    layout.blocked(Recorder(drawn), context, sentence)
    assert " ".join(drawn.texts) == sentence
    assert max(map(len, drawn.texts)) <= max(width / 6.2, 12)


def test_a_path_is_broken_after_its_folders(addon: ModuleType) -> None:
    from types import SimpleNamespace

    from liveportrait_blender.panels import layout

    from .layout_recorder import Recorder

    context = SimpleNamespace(
        region=SimpleNamespace(width=200),
        preferences=SimpleNamespace(system=SimpleNamespace(ui_scale=1.0)),
    )
    drawn = Drawn()
    layout.wrapped(Recorder(drawn), "/home/anna/projects/liveportrait/anna cannot be written", context)
    assert drawn.texts == ["/home/anna/projects/", "liveportrait/anna", "cannot be written"]


def test_without_a_backend_every_way_to_one_is_offered(
    addon: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LIVEPORTRAIT_PYTHON", raising=False)
    drawn = panel("main")
    assert "not set up" in drawn.text
    assert {
        "liveportrait.set_up_backend", "liveportrait.set_up_offline", "liveportrait.open_preferences"
    } <= drawn.ids  # fmt: skip
    assert bpy.app.online_access or "internet" in drawn.text


def test_while_it_is_set_up_only_that_is_shown(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from liveportrait_blender import set_up

    monkeypatch.setattr(set_up, "is_running", lambda: True)
    drawn = panel("main")
    assert len(drawn.progress) == 1 and "liveportrait.cancel_set_up" in drawn.ids


def test_a_cancelled_job_says_what_it_left_and_can_go_on(settings: Any) -> None:
    settings.source_path, settings.driving_kind = "/a.png", "LIBRARY"
    job = bpy.context.window_manager.liveportrait.jobs.add()
    job.name, job.label, job.state, job.text = "7", "Anna: talk", "cancelled", "Cancelled"
    job.hint = "8 finished frames are kept."
    drawn = panel("animate")
    assert "Cancelled. 8 finished frames are kept." in drawn.text
    assert {"liveportrait.resume_job", "liveportrait.remove_job"} <= set(drawn.ids)
    other = bpy.context.window_manager.liveportrait.jobs.add()
    other.name, other.label, other.state = "8", "Anna: wink", "running"
    assert "Cancelled" not in panel("animate").text
    other.state = "done"
    assert "Cancelled" not in panel("animate").text


def test_moving_the_first_slider_does_not_shift_the_others(settings: Any) -> None:
    settings.source_path = "/a.png"
    before = panel("controls")
    settings.controls.smile = 0.4
    after = panel("controls")
    assert before.texts == after.texts and before.ids == after.ids


def test_with_a_remote_backend_nobody_is_told_that_all_stays_here(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from liveportrait_blender import preferences, runtime
    from liveportrait_blender.session_state import SessionState

    monkeypatch.setattr(runtime.session, "_state", SessionState("stopped", "Not running."))
    here = panel("result").text
    assert "stays on this machine" in here and "sent to" not in here
    monkeypatch.setattr(preferences, "is_remote", lambda: True)
    away = panel("result").text
    assert "sent to the remote backend" in away and "stays on" not in away
    assert "is connected when it is needed" in panel("main").text


@pytest.mark.parametrize("kind", ["source", "driving"])
def test_a_file_browser_opens_beside_what_was_chosen_before(
    settings: Any, tmp_path: Path, kind: str
) -> None:
    from types import SimpleNamespace

    from liveportrait_blender.operators.source import start_beside

    def opened(*given: str) -> str:
        operator = SimpleNamespace(
            filepath="", properties=SimpleNamespace(is_property_set=lambda name: name in given)
        )
        start_beside(operator, settings, f"{kind}_path", "source_path")
        return operator.filepath

    assert opened() == ""
    settings.source_path = str(tmp_path / "anna.png")
    assert Path(opened()) == tmp_path and opened().endswith(("/", "\\"))
    assert opened("filepath") == ""
    settings.source_path = str(tmp_path / "gone" / "anna.png")
    assert opened() == ""
