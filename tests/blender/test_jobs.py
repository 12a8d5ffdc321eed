# SPDX-License-Identifier: GPL-3.0-or-later
"""Jobs that are cancelled, interrupted or overtaken; what operators say when they cannot run; the command."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import bpy
import numpy as np
import pytest

from tests.blender.frames import write_png
from tests.blender.working import (  # noqa: F401
    PATIENCE,
    animate,
    folder_of,
    frames_of,
    ops,
    portrait,
    until,
    working,
)  # fmt: skip


def begin(portrait: Path, **more: Any) -> Any:  # noqa: F811
    """A job of 180 frames, as a button begins it: the record."""
    from liveportrait_blender import scene_jobs

    bpy.context.scene.render.fps = 30
    return scene_jobs.animate(bpy.context, source=str(portrait), driving="talk", options=more, name="Anna")


def results() -> list[Any]:
    return [image for image in bpy.data.images if image.liveportrait.is_result]


def test_a_cancelled_job_keeps_its_frames_and_goes_on_later(working: Any, portrait: Path) -> None:  # noqa: F811
    record = begin(portrait)
    until(lambda: record.frames >= 3)
    assert ops().cancel_job() == {"FINISHED"}
    until(lambda: record.settled)
    assert record.state == "cancelled" and "frames are kept" in record.hint
    kept = len(frames_of(record.folder))
    assert 3 <= kept < 180 and not results()
    assert ops().resume_job(job=record.key) == {"FINISHED"}
    again = working.session.record(record.key)
    until(lambda: again.settled)
    assert again.state == "done" and len(frames_of(record.folder)) == 180
    (image,) = results()
    assert folder_of(image) == record.folder
    assert ops().remove_job(job=record.key) == {"FINISHED"}
    assert not working.session.jobs and len(frames_of(record.folder)) == 180


def test_the_list_of_jobs_shows_them(working: Any, portrait: Path) -> None:  # noqa: F811
    record = begin(portrait)
    until(lambda: record.frames >= 3)
    shown = bpy.context.window_manager.liveportrait.jobs
    assert [job.name for job in shown] == [record.key]
    assert shown[0].state == "running" and 0 < shown[0].factor < 1 and "180" in shown[0].text
    working.session.cancel(record.key)
    until(lambda: record.settled)
    assert [job.state for job in shown] == ["cancelled"]


def test_a_backend_that_is_killed_at_work_is_started_again_and_the_job_goes_on(
    working: Any, portrait: Path  # noqa: F811
) -> None:
    record = begin(portrait)
    until(lambda: record.frames >= 5)
    os.kill(working.session.call("status")["pid"], signal.SIGKILL)
    until(lambda: record.settled)
    assert record.state == "done" and record.error == ""
    assert len(frames_of(record.folder)) == 180 and len(results()) == 1


def test_a_backend_that_keeps_dying_is_given_up(working: Any, portrait: Path) -> None:  # noqa: F811
    record = begin(portrait)
    for least in (3, 4, 5):
        until(lambda least=least: record.settled or (working.session.state.up and record.frames >= least))
        if not record.settled:
            os.kill(working.session.call("status")["pid"], signal.SIGKILL)
            until(lambda: not working.session.state.up)
    until(lambda: record.settled)
    assert record.state == "failed" and "3 times" in record.error
    assert f"{record.frames} finished frames are kept" in record.hint
    assert len(frames_of(record.folder)) >= 3 and not results()
    state = working.session.state
    assert state.kind == "failed" and state.sentence == record.error and state.log.is_file()
    # Asking again starts it again.
    assert ops().resume_job(job=record.key) == {"FINISHED"}
    again = working.session.record(record.key)
    until(lambda: again.settled)
    assert again.state == "done" and len(results()) == 1


def test_a_job_of_a_file_that_was_closed_lands_nowhere(
    working: Any, portrait: Path, tmp_path: Path  # noqa: F811
) -> None:
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "one.blend"))
    record = begin(portrait)
    until(lambda: record.frames >= 3)
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=True)
    until(lambda: record.settled)
    assert not results() and not bpy.data.objects
    assert len(frames_of(record.folder)) >= 3
    # The next job is for the file that is open now.
    animate(portrait, frames=(0, 3))
    assert len(results()) == 1


def test_a_result_whose_scene_is_gone_says_where_its_frames_are(working: Any, portrait: Path) -> None:  # noqa: F811
    record = begin(portrait, frames=[0, 10])
    old = bpy.context.scene
    bpy.data.scenes.new("another")
    bpy.data.scenes.remove(old)
    until(lambda: record.settled)
    assert record.state == "done" and not record.landed
    assert "no longer open" in record.error and str(record.folder) in record.hint
    assert len(frames_of(record.folder)) == 10


def test_what_has_no_face_is_one_sentence_and_leaves_nothing(working: Any, tmp_path: Path) -> None:  # noqa: F811
    grey = write_png(tmp_path / "grey.png", np.full((64, 64, 3), 128, np.uint8))
    with pytest.raises(RuntimeError, match="face"):
        animate(grey)
    (record,) = working.session.jobs
    assert record.state == "failed" and record.error and not record.folder.exists()
    assert not results()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"source": "/no/such.png", "driving": "talk"}, "no such|There is no file"),
        ({"driving": "talk", "source": "talk"}, "no picture"),
        ({"driving": "no-such-motion"}, "The library has"),
        ({"driving": "talk", "options": "{"}, "no JSON"),
        ({"driving": "talk", "options": '{"nonsense": 1}'}, "no option"),
        ({"driving": "talk", "options": '{"controls": {"smile": 9}}'}, "smile"),
        ({"driving": "talk", "replace": True}, "no result to replace"),
    ],
)
def test_wrong_input_of_a_script_is_one_sentence(
    working: Any, portrait: Path, given: dict[str, Any], said: str  # noqa: F811
) -> None:
    with pytest.raises(RuntimeError, match=said) as caught:
        ops().animate(**{"source": str(portrait), **given})
    assert "Traceback" not in str(caught.value)


def test_too_fast_a_scene_is_refused(working: Any, portrait: Path) -> None:  # noqa: F811
    bpy.context.scene.render.fps = 2000
    with pytest.raises(RuntimeError, match="too fast"):
        ops().animate(source=str(portrait), driving="talk")


# --- what operators say -------------------------------------------------------------------------------------


def reason(name: str, **given: Any) -> str:
    """Why an operator cannot run."""
    with pytest.raises(RuntimeError) as caught:
        getattr(ops(), name)(**given)
    return str(caught.value)


def test_without_a_backend_every_operator_says_so(addon: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LIVEPORTRAIT_PYTHON", raising=False)
    from liveportrait_blender import runtime

    runtime.forget_settings()
    names = ("animate", "preview_clip", "capture", "render_motion", "render_controls", "start_live_preview")
    for name in names:
        assert "not set up" in reason(name), name
    assert runtime.missing()[1] == "liveportrait.set_up_backend"


def test_every_operator_says_what_it_misses(working: Any, portrait: Path) -> None:  # noqa: F811
    settings = bpy.context.scene.liveportrait
    settings.driving_kind = "FILE"
    for name in ("preview_clip", "render_motion", "render_controls", "start_live_preview"):
        assert "portrait" in reason(name), name
    settings.source_path = str(portrait)
    assert "driving clip" in reason("preview_clip")
    assert "Move or key a slider" in reason("render_controls")
    for name in ("cancel_job", "resume_job", "remove_job"):
        assert "job" in reason(name).lower(), name
    assert "not running" in reason("free_gpu_memory")
    assert "off" in reason("stop_live_preview")
    # In a script it is told by the operator itself.
    assert "driving clip" in reason("animate")
    assert "driving clip" in reason("capture")


# --- the session and Blender --------------------------------------------------------------------------------


def test_nothing_starts_until_it_is_needed(working: Any) -> None:  # noqa: F811
    from liveportrait_blender import pump

    pump.drain()
    assert working.session.state.kind == "stopped" and not working.session.active
    assert not bpy.app.timers.is_registered(pump._tick)  # in background mode there never is one


def test_disabling_the_addon_ends_the_backend(working: Any, addon: Any, portrait: Path) -> None:  # noqa: F811
    animate(portrait, frames=(0, 2))
    pid = working.session.call("status")["pid"]
    addon.unregister()
    listed = subprocess.run(["ps", "-p", str(pid), "-o", "stat="], capture_output=True, text=True).stdout
    assert listed.strip() in ("", "Z")
    addon.register()


def test_one_fault_does_not_drop_what_else_has_come(working: Any, portrait: Path, caplog: Any) -> None:  # noqa: F811
    from liveportrait_blender import pump

    working.session.ensure()
    until(lambda: working.session.state.up)
    seen: list[Any] = []

    def faulty(result: Any, error: Any) -> None:
        raise RuntimeError("a fault of a taker")

    for then in (faulty, lambda result, error: seen.append(result), faulty):
        working.session.later("status", {}, then)
    until(lambda: len(seen) == 1)
    pump.drain()
    assert seen[0]["pid"] and "a fault of a taker" in caplog.text


def test_a_drain_lands_nothing_and_a_step_lands_one(
    working: Any, portrait: Path, monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:
    """A result's landing, with its undo step, takes longer than a drain may."""
    from liveportrait_blender import pump

    records = [begin(portrait, frames=[0, 2]), begin(portrait, frames=[2, 4])]
    end = time.monotonic() + PATIENCE
    while not all(record.ended for record in records) and time.monotonic() < end:
        pump.drain()
        time.sleep(0.02)
    for _ in range(10):
        pump.drain()
    assert all(record.state == "done" and not record.settled for record in records) and not results()
    monkeypatch.setattr(pump, "_rendering", lambda: True)
    assert not pump.work() and not results()  # nothing in the file may change meanwhile
    monkeypatch.setattr(pump, "_rendering", lambda: False)
    assert pump.work() and len(results()) == 1
    assert pump.work() and len(results()) == 2 and all(record.landed for record in records)
    assert not pump.work()


def test_a_fault_does_not_end_the_timer(addon: Any, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    from liveportrait_blender import pump, runtime

    def faulty(_seconds: float) -> Any:
        raise RuntimeError("a fault of the session")

    with monkeypatch.context() as broken:
        broken.setattr(runtime.session, "take", faulty)
        assert pump._tick() and "a fault of the session" in caplog.text
    assert pump._tick() is None  # nothing to look after
    done: list[int] = []
    pump.in_turn(lambda: done.append(1))
    assert pump._tick() == 0.0 and done == [1]


def test_one_step_at_a_time_and_a_fault_drops_none(addon: Any, caplog: Any) -> None:
    from liveportrait_blender import pump

    done: list[int] = []

    def step(number: int) -> None:
        done.append(number)
        assert not pump.work()  # none within another
        if number == 1:
            raise RuntimeError("a fault of a step")

    for number in range(3):
        pump.in_turn(functools.partial(step, number))
    pump.drain()
    assert not done
    assert pump.work() and done == [0]
    assert pump.run_until(lambda: len(done) == 3, 5.0) and "a fault of a step" in caplog.text
    assert pump.longest_step > 0.0


# --- the command --------------------------------------------------------------------------------------------


def test_the_command_makes_frames_motions_and_files(
    working: Any, portrait: Path, tmp_path: Path, capfd: Any  # noqa: F811
) -> None:
    from liveportrait_blender import command

    frames, motion, film = tmp_path / "frames", tmp_path / "nod.npz", tmp_path / "shot.blend"
    asked = ["--frames", "0:5", "--no-stitch", "--smoothing", "auto", "--smile", "0.3"]
    assert command.run(["animate", str(portrait), "nod", "-o", str(frames), *asked]) == 0
    said = json.loads((frames / "result.json").read_text())["options"]
    assert len(frames_of(frames)) == 5
    assert (said["stitch"], said["smoothing"], said["controls"]) == (False, "auto", {"smile": 0.3})
    assert command.run(["capture", "nod", "-o", str(motion), "--frames", ":7"]) == 0
    assert command.run(["render", str(portrait), str(motion), "-o", str(tmp_path / "again")]) == 0
    assert len(frames_of(tmp_path / "again")) == 7
    assert command.run(["animate", str(portrait), "wink", "-o", str(film), "--start-frame", "4"]) == 0
    bpy.ops.wm.open_mainfile(filepath=str(film))
    (image,) = results()
    assert image.filepath == "//liveportrait/anna/000000.png" and image.liveportrait.start_frame == 4
    assert not list(tmp_path.glob(".*")) and not list(tmp_path.glob("*.blend1"))
    before = film.read_bytes()
    assert command.run(["animate", str(portrait), "nod", "-o", str(film), "--frames", "0:2"]) == 0
    assert film.with_suffix(".blend1").read_bytes() == before  # what somebody had is kept
    assert bpy.context.preferences.filepaths.save_version > 0
    own = tmp_path / "own"
    assert command.run(["animate", str(portrait), "-o", str(own), "--face", "0:nod", "--frames", "0:3"]) == 0
    assert len(frames_of(own)) == 3 and "nod" in (own / "result.json").read_text()
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    "wrong",
    [
        [], ["dance"], ["animate"], ["animate", "{portrait}", "talk"],
        ["animate", "{portrait}", "no-motion", "-o", "{new}"],
        ["animate", "{portrait}", "talk", "-o", "{new}.mp4"],
        ["animate", "{portrait}", "talk", "-o", "{new}", "--smile", "77"],
        ["animate", "{portrait}", "talk", "-o", "{new}", "--smile", "much"],
        ["animate", "{portrait}", "talk", "-o", "{new}", "--frames", "a:b"],
        ["animate", "{portrait}", "talk", "-o", "{new}", "--nonsense"],
        ["animate", "{portrait}", "-o", "{new}", "--face", "1:no-motion"],
        ["animate", "{portrait}", "-o", "{new}", "--face", "x:nod"],
        ["animate", "{portrait}", "-o", "{new}", "--face", "1:nod", "--face", "1:wink"],
        ["animate", "{portrait}", "nod", "-o", "{new}", "--face", "1", "--face", "0"],
        ["animate", "talk", "talk", "-o", "{new}"],
        ["capture", "talk", "-o", "{new}.txt"],
    ],
)  # fmt: skip
def test_the_command_says_in_a_line_what_is_wrong(
    working: Any, portrait: Path, tmp_path: Path, capfd: Any, wrong: list[str]  # noqa: F811
) -> None:
    from liveportrait_blender import command

    new = tmp_path / "new"
    words = [word.format(portrait=portrait, new=new) for word in wrong]
    assert command.run(words) == 2
    said = capfd.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1
    assert not new.exists() and not new.with_suffix(".mp4").exists()
