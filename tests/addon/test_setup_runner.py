# SPDX-License-Identifier: GPL-3.0-or-later
"""Set Up Backend carried out: what goes wrong, cancelling, going on afterwards, and taking it all away."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest

from liveportrait_blender import environments, own_files, pythons
from liveportrait_blender.model_store import Verifying
from liveportrait_blender.setup_plan import Places, python_in, read_pins
from liveportrait_blender.setup_runner import Job, Progress, Runner
from liveportrait_blender.supervisor import Launch

ROOT = Path(__file__).resolve().parents[2]
LISTS = ROOT / "requirements"
PATIENCE = 60.0
STAND_IN = Path(__file__).with_name("stand_in_python.py")

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the stand-in is a script with a #! line")


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An executable that records how it was called."""
    path = tmp_path / "python-stand-in"
    path.write_text(f"#!{sys.executable}\n" + STAND_IN.read_text(encoding="utf-8"))
    path.chmod(0o700)
    monkeypatch.setenv("STAND_IN_RECORD", str(tmp_path / "record"))
    monkeypatch.setattr(pythons, "running", lambda: pythons.probe([str(path)]))
    return path


def run(job: Job) -> Progress:
    runner = Runner(job)
    runner.start()
    progress = runner.wait(PATIENCE)
    assert progress.ended
    return progress


def job(stand_in: Path, **named: Any) -> Job:
    folder = stand_in.parent / "user"
    folder.mkdir(exist_ok=True)
    return Job(named.pop("profile", "mesh"), folder, LISTS, ROOT, python=stand_in, **named)


def calls(stand_in: Path) -> list[tuple[str, list[str], dict[str, str], str]]:
    """What was called in order, the questions about the Python's version left out."""
    lines = [json.loads(line) for line in (stand_in.parent / "record").read_text().splitlines()]
    return [line for line in lines if "-c" not in line[1]]


def test_the_commands_run_as_planned(stand_in: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PYTHONPATH", "PIP_TARGET", "UV_TORCH_BACKEND"):
        monkeypatch.setenv(name, "/elsewhere")
    told = run(job(stand_in))
    assert told.state == "done" and told.factor == 1.0, told
    create, install, check = calls(stand_in)
    folder = stand_in.parent / "user"
    assert create[1] == ["-I", "-m", "venv", str(folder / "environment.part")]
    assert install[1][3:5] == ["install", "--no-deps"] and install[0] == "python"
    assert check[1] == ["-m", "backend", "doctor", "--json"] and check[2]["PYTHONPATH"] == str(ROOT)
    assert all(call[3] == str(folder) for call in (create, install, check))  # never in the extension
    for _, _, variables, _ in calls(stand_in):
        assert "/elsewhere" not in variables.values()
    found = environments.look(folder)
    assert found.kind == "whole" and found.made is not None and found.python is not None
    assert found.made.profile == "mesh" and found.is_current(read_pins(LISTS, "mesh"))
    assert found.python.is_file() and not found.is_current(["mediapipe==1"])
    left = {path.name for path in folder.iterdir()}
    assert left == {"environment", "logs"}
    assert "Collecting mediapipe" in (folder / "logs" / "set-up.log").read_text()


def test_what_is_whole_is_not_made_again_unless_asked(stand_in: Path) -> None:
    run(job(stand_in))
    before = len(calls(stand_in))
    assert run(job(stand_in)).state == "done" and len(calls(stand_in)) == before
    assert run(job(stand_in, again=True)).state == "done" and len(calls(stand_in)) > before


def test_with_uv_the_tools_come_first(stand_in: Path) -> None:
    told = run(job(stand_in, profile="neural-cuda"))
    assert told.state == "done", told
    lines = [(name, arguments) for name, arguments, _, _ in calls(stand_in)]
    by_uv = [arguments for name, arguments in lines if name == "uv"]
    assert [arguments[0] for arguments in by_uv] == ["venv", "pip", "pip"]
    assert by_uv[2][-1] == "torch==2.13.0"


@pytest.mark.parametrize(
    ("mode", "sentence", "hint"),
    [
        ("install:full", "The disk is full.", "Make room"),
        ("install:offline", "The package index cannot be reached.", "Check the network."),
        ("install:nothing", "There is no build of mediapipe==0.10.21", "another Python"),
        ("create:broken", "RuntimeError: the stand-in is broken", "Show the log"),
        ("check:broken", "do not work: ImportError: libGL.so.1", "Install libgl1."),
    ],
)
def test_what_goes_wrong_is_one_line(
    stand_in: Path, monkeypatch: pytest.MonkeyPatch, mode: str, sentence: str, hint: str
) -> None:
    assert run(job(stand_in)).state == "done"
    monkeypatch.setenv("STAND_IN_MODE", mode)
    told = run(job(stand_in, again=True))
    assert told.state == "failed"
    assert sentence in told.sentence and "\n" not in told.sentence and hint in told.hint
    folder = stand_in.parent / "user"
    assert environments.look(folder).kind == "whole"  # the one that was there is still there
    assert not (folder / "environment.part").exists() and not (folder / "set-up.lock").exists()
    monkeypatch.delenv("STAND_IN_MODE")
    assert run(job(stand_in, again=True)).state == "done"


def test_a_python_of_another_version_is_refused(stand_in: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAND_IN_VERSION", "[3, 13, 0]")
    told = run(job(stand_in))
    assert told.state == "failed" and "needs Python 3.11 or 3.12" in told.sentence


def test_too_small_a_disk_is_said_before_anything_is_fetched(
    stand_in: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(1, 1, 10_000_000))
    told = run(job(stand_in))
    assert told.state == "failed" and "not enough room" in told.sentence and "Free 0.9 GB" in told.hint
    assert not (stand_in.parent / "record").exists()


def test_cancelling_ends_the_command_and_keeps_the_old_environment(
    stand_in: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(job(stand_in))
    monkeypatch.setenv("STAND_IN_MODE", "install:hang")
    runner = Runner(job(stand_in, again=True))
    runner.start()
    end = time.monotonic() + PATIENCE
    while "Collecting patience" not in runner.lines:
        assert time.monotonic() < end
        time.sleep(0.01)
    assert runner.progress.state == "running" and 0 < runner.progress.factor < 1
    assert runner.progress.text == "Downloading mediapipe (35.6 MB)"
    child = runner._child
    assert child is not None
    assert "Another Blender" in run(job(stand_in, again=True)).sentence
    runner.cancel()
    told = runner.wait(PATIENCE)
    assert told.state == "cancelled" and "kept" in told.sentence
    assert not own_files.is_alive(child.pid)
    folder = stand_in.parent / "user"
    assert environments.look(folder).kind == "whole" and not (folder / "environment.part").exists()


def test_a_fault_of_its_own_ends_a_set_up(stand_in: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that seemed to run for ever could never be begun again."""
    with monkeypatch.context() as broken:
        broken.setattr("liveportrait_blender.setup_runner.make_plan", lambda request: 1 // 0)
        told = run(job(stand_in))
    assert told.state == "failed" and told.ended and "ZeroDivisionError" in told.sentence
    assert not (stand_in.parent / "user" / "set-up.lock").exists()
    assert run(job(stand_in)).state == "done"


def test_a_lock_that_is_just_being_written_holds(tmp_path: Path) -> None:
    lock = tmp_path / "set-up.lock"
    lock.touch()
    with environments.only_one(lock) as alone:
        assert not alone
    os.utime(lock, (0, 0))  # whoever wrote it was killed long ago
    with environments.only_one(lock) as alone:
        assert alone
    assert not lock.exists()


def test_two_blenders_do_not_set_up_at_once(stand_in: Path) -> None:
    lock = Places(stand_in.parent / "user").lock
    lock.parent.mkdir()
    lock.write_text(str(os.getppid()))  # somebody who lives
    told = run(job(stand_in))
    assert told.state == "failed" and "Another Blender" in told.sentence
    lock.write_text("999999999")  # somebody who was killed half way
    assert run(job(stand_in)).state == "done" and not lock.exists()


def test_one_that_was_killed_half_way_is_made_anew(stand_in: Path) -> None:
    folder = stand_in.parent / "user"
    places = Places(folder)
    (places.building / "bin").mkdir(parents=True)
    (places.building / "rubbish").touch()
    (places.environment / "bin").mkdir(parents=True)  # no marker
    assert environments.look(folder).kind == "broken"
    assert run(job(stand_in)).state == "done"
    assert environments.look(folder).kind == "whole" and not (places.environment / "rubbish").exists()


def test_a_swap_that_was_interrupted_is_put_back(stand_in: Path) -> None:
    run(job(stand_in))
    places = Places(stand_in.parent / "user")
    places.environment.rename(places.old)
    assert environments.look(places.folder).kind == "broken"
    environments.recover(places.folder)
    assert environments.look(places.folder).kind == "whole"


def test_an_environment_whose_python_went_is_broken(stand_in: Path) -> None:
    run(job(stand_in))
    places = Places(stand_in.parent / "user")
    python_in(places.environment).unlink()
    found = environments.look(places.folder)
    assert found.kind == "broken" and "gone" in found.why and "/stand-in" in found.why


# --- taking it away -----------------------------------------------------------------------------------------


def test_removing_takes_all_that_it_brought_and_nothing_else(stand_in: Path, tmp_path: Path) -> None:
    run(job(stand_in))
    folder = stand_in.parent / "user"
    mine = tmp_path / "my models"
    for own in (mine, folder / "models", folder / "cache", folder / "tools"):
        own.mkdir()
        (own / "file").write_text("x" * 10)
    (folder / "notes.txt").write_text("the user's")
    (folder / "backend-of-my-own").mkdir()
    taken = environments.takes(folder, mine, folder / "cache")
    assert {path.name for _, path, _ in taken} == {"environment", "tools", "cache"}
    assert next(size for what, _, size in taken if what == "cache") == 10
    assert environments.remove(folder, [path for _, path, _ in taken]) == []
    left = {path.name for path in folder.iterdir()}
    assert left == {"models", "logs", "notes.txt", "backend-of-my-own"}
    assert (mine / "file").exists()
    assert environments.look(folder).kind == "absent"


def test_nothing_outside_the_folder_is_removed(tmp_path: Path) -> None:
    folder, other = tmp_path / "user", tmp_path / "other"
    (other / "inner").mkdir(parents=True)
    folder.mkdir()
    (folder / "link").symlink_to(other)
    for path in (other, folder, tmp_path, folder / ".." / "other", folder / "link" / "inner"):
        with pytest.raises(own_files.NotOurs):
            own_files.remove_inside(folder, path)
    own_files.remove_inside(folder, folder / "link")
    assert (other / "inner").is_dir() and not (folder / "link").is_symlink()
    assert environments.remove(folder, [other]) == ["other"] and other.is_dir()


def test_read_only_files_go_too(tmp_path: Path) -> None:
    inner = tmp_path / "user" / "tools" / "inner"
    inner.mkdir(parents=True)
    (inner / "file").touch()
    (inner / "file").chmod(0o400)
    inner.chmod(0o500)
    own_files.remove_inside(tmp_path / "user", tmp_path / "user" / "tools")
    assert not (tmp_path / "user" / "tools").exists()


def test_models_are_checked_from_a_folder_that_nobody_minds(tmp_path: Path) -> None:
    """Windows could not replace an extension that a process is in."""
    program = tmp_path / "extension" / "backend"
    program.mkdir(parents=True)
    (program / "__init__.py").touch()
    (program / "__main__.py").write_text(
        "import json, os\nprint(json.dumps({'folder': os.getcwd(), 'files': []}))"
    )
    launch = Launch(Path(sys.executable), program.parent, tmp_path / "cache", tmp_path / "log")
    checking = Verifying(launch)
    checking.start()
    assert checking.wait(30.0) and checking.listing is not None, checking.error
    assert not Path(checking.listing.folder).is_relative_to(program.parent)
    assert sorted(path.name for path in program.iterdir()) == ["__init__.py", "__main__.py"]


@pytest.mark.parametrize("said", ["[]", "3", "null", "rubbish", "", '{"files": [3]}'])
def test_a_check_of_models_always_ends(tmp_path: Path, said: str) -> None:
    """One that seemed to run for ever could never be begun again."""
    program = tmp_path / "backend"
    program.mkdir()
    (program / "__main__.py").write_text(f"print({said!r})")
    launch = Launch(Path(sys.executable), tmp_path, tmp_path / "cache", tmp_path / "log")
    checking = Verifying(launch)
    checking.start()
    assert checking.wait(30.0) and checking.listing is None and checking.error
