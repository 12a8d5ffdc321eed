# SPDX-License-Identifier: GPL-3.0-or-later
"""How the scripts find a Python and a pip, and what they do about libraries that a machine lacks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from scripts import machine
from scripts.environment import SYSTEM_LIBRARIES, VERSIONS
from scripts.machine import NoPython, Python, SetupError

HERE = Python(sys.executable, sys.version_info[:3], sys.base_prefix)
posix_only = pytest.mark.skipif(os.name == "nt", reason="the stand-ins are shell scripts")


# --- finding a Python ---------------------------------------------------------------------------------------


def stand_in(path: Path, body: str) -> Path:
    """An executable that only looks like what it is named."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def answering(version: tuple[int, int, int], executable: Path) -> str:
    return f"""echo '{json.dumps([str(executable), version, "/somewhere"])}'"""


@pytest.fixture
def too_new(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine whose running Python is too new, with an empty path and nothing of pyenv."""
    old = stand_in(tmp_path / "running", answering((3, 14, 0), tmp_path / "running"))
    monkeypatch.setattr(sys, "_base_executable", str(old))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    monkeypatch.setattr(sys, "base_prefix", str(tmp_path / "versions" / "3.14.0"))
    return tmp_path


def test_the_running_python_is_taken_when_it_fits() -> None:
    found = machine.find_python(VERSIONS)
    assert found.version[:2] in VERSIONS
    assert found.version == sys.version_info[:3]


@posix_only
def test_a_shim_that_refuses_does_not_hide_the_next_one(
    too_new: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shim = stand_in(
        too_new / "shims" / "python3.11", "echo 'pyenv: python3.11: command not found' >&2; exit 127"
    )
    real = stand_in(too_new / "bin" / "python3.11", answering((3, 11, 2), too_new / "bin" / "python3.11"))
    monkeypatch.setenv("PATH", os.pathsep.join([str(shim.parent), str(real.parent)]))
    assert machine.find_python(VERSIONS) == Python(str(real), (3, 11, 2), "/somewhere")


@posix_only
def test_pyenv_versions_behind_their_shims_are_found(too_new: Path) -> None:
    real = too_new / "pyenv" / "versions" / "3.12.1" / "bin" / "python3"
    stand_in(real, answering((3, 12, 1), real))
    assert machine.find_python(VERSIONS).executable == str(real)


@posix_only
@pytest.mark.parametrize(
    "body", ["exit 1", "echo nonsense", "echo '[1, 2]'", 'echo \'["x", [3, 13, 0], "y"]\'']
)
def test_what_does_not_answer_as_a_fitting_python_is_refused(tmp_path: Path, body: str) -> None:
    assert machine.probe_python([str(stand_in(tmp_path / "python3.11", body))], VERSIONS) is None


@posix_only
def test_versions_beside_the_running_one_are_found(too_new: Path) -> None:
    real = too_new / "versions" / "3.12.1" / "bin" / "python3"
    stand_in(real, answering((3, 12, 1), real))
    assert machine.find_python(VERSIONS).executable == str(real)


@posix_only
def test_a_blender_takes_only_the_python_that_it_was_made_for(too_new: Path) -> None:
    for minor in (11, 12, 13):
        real = too_new / "bin" / f"python3.{minor}"
        stand_in(real, answering((3, minor, 1), real))
    assert machine.find_python([(3, 13)]).version == (3, 13, 1)
    (too_new / "bin" / "python3.13").unlink()
    with pytest.raises(NoPython, match=r"^Python 3\.13 is needed"):
        machine.find_python([(3, 13)])


def test_no_python_is_one_line_that_says_what_to_do(too_new: Path) -> None:
    with pytest.raises(SetupError, match=r"^Python 3\.11 or 3\.12 is needed .*--python PATH\.$"):
        machine.find_python(VERSIONS)


def test_a_wrong_wish_is_not_replaced_by_something_else(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="give --python another"):
        machine.find_python(VERSIONS, str(tmp_path / "nothing"))


# --- what the machine lacks ---------------------------------------------------------------------------------


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """A Debian with nothing installed; gives the commands that would have been run as root."""
    commands: list[list[str]] = []

    def run(command: Sequence[str], failure: str, *_: object) -> None:
        commands.append(list(command))
        monkeypatch.setattr(machine, "missing_libraries", lambda needed: [])

    monkeypatch.setattr(machine, "missing_libraries", lambda needed: ["libGL.so.1", "libgthread-2.0.so.0"])
    monkeypatch.setattr(machine, "find_pip", lambda python: None)
    monkeypatch.setattr(machine, "has_ensurepip", lambda python: False)
    monkeypatch.setattr(machine.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(machine, "run", run)
    return commands


def test_an_ordinary_user_gets_the_apt_command(
    bare: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000, raising=False)
    line = "sudo apt-get install --yes --no-install-recommends python3-pip libgl1 libglib2.0-0"
    with pytest.raises(SetupError, match=line) as caught:
        machine.prepare_machine(HERE, SYSTEM_LIBRARIES)
    assert "\n" not in str(caught.value)
    assert bare == []


def test_root_installs_after_naming(
    bare: list[list[str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0, raising=False)
    machine.prepare_machine(HERE, SYSTEM_LIBRARIES)
    assert "python3-pip libgl1 libglib2.0-0" in capsys.readouterr().out
    assert bare[0] == ["apt-get", "update"]
    assert bare[1][-3:] == ["python3-pip", "libgl1", "libglib2.0-0"]


def test_without_apt_the_files_are_named(bare: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.shutil, "which", lambda name: None)
    with pytest.raises(SetupError, match=r"lacks pip, libGL\.so\.1, libgthread-2\.0\.so\.0"):
        machine.prepare_machine(HERE, SYSTEM_LIBRARIES)


@pytest.mark.parametrize(
    ("said", "minor", "fits"),
    [
        ("pip 23.0.1 from x", 11, True),
        ("pip 23.0.1 from x", 12, False),
        ("pip 24.0 from x", 12, True),
        ("pip 22.2.9 from x", 11, False),
        ("No module named pip", 11, False),
    ],
)
def test_only_a_pip_that_can_fill_the_environment_is_one(
    monkeypatch: pytest.MonkeyPatch, said: str, minor: int, fits: bool
) -> None:
    monkeypatch.setattr(machine, "ask", lambda command: subprocess.CompletedProcess([], 0, said, ""))
    pip = machine.find_pip(Python("/some/python3", (3, minor, 1), "/some"))
    assert pip == (["/some/python3", "-m", "pip"] if fits else None)


def test_settings_that_lead_packages_elsewhere_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PYTHONPATH", "PYTHONHOME", "PIP_TARGET", "PIP_PREFIX"):
        monkeypatch.setenv(name, "elsewhere")
    monkeypatch.setenv("PIP_USER", "1")
    monkeypatch.setenv("PIP_PROXY", "kept")
    variables = machine.clean_variables()
    assert "elsewhere" not in variables.values()
    assert variables["PIP_USER"] == "0"
    assert variables["PIP_PROXY"] == "kept"
