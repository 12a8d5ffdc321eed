# SPDX-License-Identifier: GPL-3.0-or-later
"""Setting up, starting and removing the backend inside Blender; why something cannot be done."""

from __future__ import annotations

import importlib
import json
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import bpy
import pytest

STAND_IN = Path(__file__).resolve().parents[1] / "addon" / "stand_in_python.py"
ops = bpy.ops.liveportrait


def part(name: str) -> Any:
    """A module of the add-on; they can be imported once it is enabled."""
    return importlib.import_module(f"liveportrait_blender.{name}")


@pytest.fixture
def prefs(addon: ModuleType) -> Any:
    return part("preferences").get()


@pytest.fixture
def online() -> Iterator[None]:
    bpy.context.preferences.system.use_online_access = True
    yield
    bpy.context.preferences.system.use_online_access = False


@pytest.fixture
def stand_in(prefs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, online: None) -> Path:
    """An executable that stands for Blender's own Python, and records how it was called."""
    path = tmp_path / "python-stand-in"
    path.write_text(f"#!{sys.executable}\n" + STAND_IN.read_text(encoding="utf-8"))
    path.chmod(0o700)
    monkeypatch.setenv("STAND_IN_RECORD", str(tmp_path / "record"))
    pythons = part("pythons")
    monkeypatch.setattr(pythons, "running", lambda: pythons.probe([str(path)]))
    return path


@pytest.fixture
def real(prefs: Any, backend_python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The preferences, which name the real backend."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    prefs.backend, prefs.python_path = "PYTHON", str(backend_python)
    return prefs


def refusal(name: str, **given: Any) -> str:
    """Why an operator does not run."""
    with pytest.raises(RuntimeError) as caught:
        getattr(ops, name)(**given)
    return str(caught.value)


# --- why not ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("set_up_backend", "Enable online access in System preferences"),
        ("repair_backend", "There is nothing to repair"),
        ("cancel_set_up", "No set-up is running"),
        ("start_backend", "The backend is not set up yet"),
        ("stop_backend", "The backend is not running"),
        ("restart_backend", "The backend is not running"),
        ("download_models", "Enable online access in System preferences"),
        ("list_models", "The backend is not set up yet"),
        ("verify_models", "The backend is not set up yet"),
        ("show_log", "Nothing has been written down yet"),
        ("copy_error", "There is no error"),
        ("open_preferences", "no window in background mode"),
    ],
)
def test_it_says_why_it_cannot(addon: ModuleType, name: str, reason: str) -> None:
    assert reason in refusal(name)


def test_online_access_is_asked_for_and_given(addon: ModuleType) -> None:
    try:
        assert ops.enable_online_access() == {"FINISHED"}
        assert bpy.app.online_access
        assert "Online access is enabled" in refusal("enable_online_access")
        assert ops.set_up_backend.poll()
    finally:
        bpy.context.preferences.system.use_online_access = False


def test_what_is_missing_names_its_fix(prefs: Any, tmp_path: Path) -> None:
    runtime = part("runtime")

    def missing() -> tuple[str, str]:
        return runtime.missing()

    assert missing() == ("The backend is not set up yet", "liveportrait.set_up_backend")
    prefs.backend = "PYTHON"
    assert missing()[0] == "The backend's Python has not been chosen"
    prefs.python_path = str(tmp_path / "python")
    assert "is not there" in missing()[0] and missing()[1] == "liveportrait.open_preferences"
    (tmp_path / "python").touch()
    runtime.forget_settings()
    assert missing() == ("", "")
    prefs.backend = "REMOTE"
    assert "address" in missing()[0]
    prefs.remote_url = "wss://studio.invalid:4711"
    assert "token" in missing()[0]
    prefs.remote_token = "a token of the studio"
    assert missing() == ("", "")
    prefs.remote_certificate = str(tmp_path / "gone.pem")
    assert "gone.pem is not there" in missing()[0]
    for _, fix in (("", "liveportrait.set_up_backend"), ("", "liveportrait.open_preferences")):
        assert getattr(bpy.ops.liveportrait, fix.partition(".")[2]).get_rna_type()


# --- the preferences ----------------------------------------------------------------------------------------


def test_the_preferences_say_what_is_started(prefs: Any, tmp_path: Path) -> None:
    preferences, python = part("preferences"), tmp_path / "python"
    python.touch()
    prefs.backend, prefs.python_path = "PYTHON", str(python)
    prefs.unload_after, prefs.cache_limit, prefs.port, prefs.log_level = 3, 2, 4711, "DEBUG"
    prefs.models_folder = str(tmp_path / "weights")
    launch = preferences.backend_settings().local
    assert launch.python == python and launch.models == tmp_path / "weights"
    assert (launch.unload_after, launch.cache_bytes, launch.port) == (180.0, 2 << 30, 4711)
    assert launch.log_level == "debug" and launch.copy_to is None  # a checkout runs where it lies
    assert launch.cache == tmp_path / "user-folder" / "cache"
    prefs.device = "cpu"
    assert preferences.default_device() == "cpu"


def test_the_token_is_in_no_preferences_file(
    prefs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret, kept = part("secret"), tmp_path / "user-folder" / "remote-token"
    prefs.backend, prefs.remote_url = "REMOTE", "wss://studio.invalid:4711"
    prefs.remote_token = "do-not-write-this-down"
    assert not kept.exists()
    bpy.ops.wm.save_userpref()
    written = Path(bpy.utils.user_resource("CONFIG")) / "userpref.blend"
    assert b"do-not-write-this-down" not in written.read_bytes()
    prefs.remember_token = True
    assert kept.read_text() == "do-not-write-this-down"
    if os.name != "nt":
        assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    secret.forget()  # Blender is started anew
    assert part("preferences").backend_settings().remote_token == "do-not-write-this-down"
    prefs.remember_token = False
    assert not kept.exists() and prefs.remote_token == "do-not-write-this-down"
    monkeypatch.setenv("LIVEPORTRAIT_REMOTE_TOKEN", "of the farm")
    assert part("preferences").backend_settings().remote_token == "of the farm"


def test_a_farm_names_its_python_by_a_variable(
    prefs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIVEPORTRAIT_PYTHON", str(tmp_path / "python"))
    assert "names no file" in part("preferences").backend_settings().why_not
    (tmp_path / "python").touch()
    assert part("preferences").backend_settings().local.python == tmp_path / "python"


# --- setting up ---------------------------------------------------------------------------------------------


@pytest.mark.skipif(os.name == "nt", reason="the stand-in is a script with a #! line")
def test_set_up_repair_and_remove(prefs: Any, stand_in: Path, tmp_path: Path) -> None:
    user = tmp_path / "user-folder"
    prefs.backend = "PYTHON"
    assert ops.set_up_backend(profile="mesh") == {"FINISHED"}
    assert (prefs.backend, prefs.profile) == ("LOCAL", "mesh")
    launch = part("preferences").backend_settings().local
    assert launch is not None and launch.python.is_relative_to(user / "environment")
    calls = [json.loads(line)[1] for line in (tmp_path / "record").read_text().splitlines()]
    assert ["-m", "backend", "doctor", "--json"] in calls
    assert ops.repair_backend() == {"FINISHED"}
    assert ops.show_log.poll()

    (user / "models").mkdir()
    (user / "models" / "weights").touch()
    assert ops.remove_backend(models=False) == {"FINISHED"}
    assert (user / "models" / "weights").exists()
    assert part("preferences").backend_settings().fix == "liveportrait.set_up_backend"
    assert ops.remove_backend() == {"FINISHED"}
    assert {path.name for path in user.iterdir()} <= {"logs"}


@pytest.mark.skipif(os.name == "nt", reason="the stand-in is a script with a #! line")
def test_removing_leaves_folders_of_the_users_own(prefs: Any, stand_in: Path, tmp_path: Path) -> None:
    mine = tmp_path / "weights of mine"
    mine.mkdir()
    (mine / "precious").touch()
    prefs.models_folder = prefs.cache_folder = str(mine)
    ops.set_up_backend()
    ops.remove_backend()
    assert (mine / "precious").exists()


@pytest.mark.skipif(os.name == "nt", reason="the stand-in is a script with a #! line")
def test_a_set_up_that_fails_says_why(stand_in: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAND_IN_MODE", "install:full")
    assert "The disk is full. Make room" in refusal("set_up_backend")
    assert "The disk is full" in part("operators.help").report_text()
    assert ops.copy_error.poll()
    assert part("runtime").missing()[1] == "liveportrait.set_up_backend"


@pytest.mark.skipif(os.name == "nt", reason="the stand-in is a script with a #! line")
def test_one_set_up_at_a_time_and_it_can_be_cancelled(
    stand_in: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from .layout_recorder import draw

    set_up, pump = part("set_up"), part("pump")
    monkeypatch.setenv("STAND_IN_MODE", "install:hang")
    set_up.begin("mesh")  # as the button does
    assert pump.run_until(lambda: "Collecting patience" in set_up.lines(), 60)
    assert pump.run_until(lambda: bool(set_up.shown.text), 60)
    for name in ("set_up_backend", "set_up_offline", "repair_backend", "remove_backend"):
        assert "is being set up" in refusal(name)
    assert part("runtime").missing() == ("The backend is being set up", "")
    drawn = draw(bpy.types.LIVEPORTRAIT_PT_settings)
    assert drawn.progress and 0 < drawn.progress[0] < 1 and "Downloading mediapipe" in drawn.text
    assert "liveportrait.cancel_set_up" in drawn.ids
    assert ops.cancel_set_up() == {"FINISHED"}
    assert pump.run_until(lambda: set_up.shown.state == "cancelled", 60)
    assert set_up.look not in pump.watchers
    drawn = draw(bpy.types.LIVEPORTRAIT_PT_settings)
    assert "cancelled" in drawn.text and "liveportrait.set_up_backend" in drawn.ids
    monkeypatch.delenv("STAND_IN_MODE")
    assert ops.set_up_backend() == {"FINISHED"}


@pytest.mark.skipif(os.name == "nt", reason="the stand-in is a script with a #! line")
def test_a_backend_that_runs_changes_over_to_the_new_environment(
    stand_in: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_up, runtime, restarts = part("set_up"), part("runtime"), []
    ops.set_up_backend()
    monkeypatch.setattr(runtime.session, "restart", lambda: restarts.append(True))
    set_up.begin("mesh", again=True)
    monkeypatch.setattr(runtime.session, "_state", part("session_state").SessionState("busy"))
    assert set_up.wait(60).state == "done"
    assert restarts == [True]


def test_disabling_ends_a_set_up(addon: ModuleType, stand_in: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_up, pump = part("set_up"), part("pump")
    monkeypatch.setenv("STAND_IN_MODE", "install:hang")
    set_up.begin("mesh")
    assert pump.run_until(lambda: "Collecting patience" in set_up.lines(), 60)
    runner = set_up._runner
    addon.unregister()
    assert runner.progress.state == "cancelled"
    addon.register()


def test_a_file_that_is_no_offline_file_is_refused(prefs: Any, tmp_path: Path) -> None:
    (tmp_path / "holiday.zip").write_bytes(b"PK photographs")
    said = refusal("set_up_offline", filepath=str(tmp_path / "holiday.zip"))
    assert "holiday.zip is no offline file" in said
    assert "is not there" in refusal("set_up_offline", filepath=str(tmp_path / "gone.zip"))


# --- the backend that runs ----------------------------------------------------------------------------------


def test_it_starts_answers_and_stops(real: Any, tmp_path: Path) -> None:
    from .layout_recorder import draw

    runtime, models = part("runtime"), part("operators.models")
    assert ops.start_backend(wait=120) == {"FINISHED"}
    assert runtime.session.state.kind == "ready"
    assert "is running" in refusal("start_backend")
    drawn = draw(bpy.types.LIVEPORTRAIT_PT_settings)
    assert {"liveportrait.stop_backend", "liveportrait.restart_backend"} <= drawn.ids
    assert "Embedded engine" in drawn.text

    assert ops.list_models() == {"FINISHED"}
    assert models.listing.folder == str(tmp_path / "user-folder" / "models")
    assert len(models.listing.files) == 6 and not models.listing.complete
    drawn = draw(bpy.types.LIVEPORTRAIT_PT_models)
    assert "spade generator" in drawn.text and "liveportrait.download_models" in drawn.ids

    assert ops.stop_backend() == {"FINISHED"}
    assert runtime.session.state.kind == "stopped"
    assert ops.show_log() == {"FINISHED"} and "standard input ended" in part("operators.help").report_text()


def test_a_backend_that_cannot_start_says_why(prefs: Any, tmp_path: Path) -> None:
    prefs.backend, prefs.python_path = "PYTHON", str(tmp_path / "python")
    (tmp_path / "python").write_text("#!/bin/sh\necho 'error: The moon is in the wrong phase.' >&2; exit 2\n")
    (tmp_path / "python").chmod(0o700)
    assert "The moon is in the wrong phase." in refusal("start_backend", wait=60)
    assert "The moon is in the wrong phase." in part("operators.help").report_text()
    assert part("runtime").session.state.fix == "liveportrait.show_log"


def test_checksums_of_models_are_compared(real: Any) -> None:
    models = part("operators.models")
    assert ops.verify_models() == {"FINISHED"}
    assert models.listing.verified and not models.listing.complete
    assert {file.state for file in models.listing.files} == {"missing"}


def test_models_of_another_program_are_used_where_they_lie(real: Any, tmp_path: Path) -> None:
    other = tmp_path / "ComfyUI"
    other.mkdir()
    assert "None of LivePortrait's weights" in refusal("choose_models", directory=str(other))
    inner = other / "models" / "liveportrait"
    inner.mkdir(parents=True)
    (inner / "motion_extractor.safetensors").touch()
    assert ops.choose_models(directory=str(other)) == {"FINISHED"}
    assert part("preferences").backend_settings().local.models == other


def test_the_cache_is_measured_and_cleared(real: Any, tmp_path: Path) -> None:
    cache, other = part("operators.cache"), tmp_path / "cache of mine"
    (other / "work" / "key").mkdir(parents=True)
    (other / "work" / "key" / "000000.png").write_bytes(bytes(2_000_000))
    (other / "holiday.jpg").touch()
    real.cache_folder = str(other)
    assert ops.measure_cache() == {"FINISHED"} and cache.shown_size() == 2_000_000
    assert ops.clear_cache() == {"FINISHED"} and cache.shown_size() == 0
    assert (other / "holiday.jpg").exists() and not (other / "work").exists()


def test_it_starts_with_blender_on_request(real: Any) -> None:
    backend, runtime, pump = part("operators.backend"), part("runtime"), part("pump")
    backend._start_with_blender()
    assert runtime.session.state.kind == "stopped"
    real.auto_start = True
    backend._start_with_blender()
    assert pump.run_until(lambda: runtime.session.state.kind == "ready", 120)


def test_every_state_of_the_preferences_draws(prefs: Any) -> None:
    from .layout_recorder import Drawn, Recorder

    settings = part("panels.settings")
    for kind in ("LOCAL", "PYTHON", "REMOTE"):
        prefs.backend = kind
        drawn = Drawn()
        settings.draw_preferences(prefs, Recorder(drawn), bpy.context)
        assert "backend" in drawn.names and "liveportrait.show_log" in drawn.ids
        assert ("remote_token" in drawn.names) == (kind == "REMOTE")
        assert ("liveportrait.set_up_backend" in drawn.ids) == (kind == "LOCAL")
