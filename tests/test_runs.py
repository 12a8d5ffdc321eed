# SPDX-License-Identifier: GPL-3.0-or-later
"""Which runs scripts/test.py makes of what it is told, what it says and returns. Nothing is run here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from scripts import test as runs
from scripts.environment import BLENDERS, ROOT
from scripts.machine import NoPython, SetupError

BLENDER_TESTS = "tests/blender"


class Machine:
    """Stands in for the environments and for pytest: keeps what would have been run, and answers as told."""

    def __init__(self) -> None:
        self.commands: list[list[str]] = []
        self.variables: dict[str, str] = {}
        self.answers: dict[str, int] = {}
        self.without: set[str] = set()
        self.fetched = 0

    def ensure(self, profile: str, python: str | None = None) -> Path:
        if profile in self.without:
            raise NoPython("Python 3.13 is needed and none was found.")
        return Path("/env") / profile

    def run(self, command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        assert Path(options["cwd"]) == ROOT
        self.commands.append(command)
        self.variables = options["env"]
        return subprocess.CompletedProcess(command, self.answers.get(Path(command[0]).name, 0))

    def fetch(self) -> None:
        self.fetched += 1


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine()
    monkeypatch.setattr(runs, "ensure", made.ensure)
    monkeypatch.setattr(runs, "fetch_bundled_wheel", made.fetch)
    monkeypatch.setattr(subprocess, "run", made.run)
    return made


def call(machine: Machine, monkeypatch: pytest.MonkeyPatch, *words: str) -> tuple[int, dict[str, list[str]]]:
    """The exit code, and what each environment's pytest is told."""
    monkeypatch.setattr(sys, "argv", ["test.py", *words])
    code = runs.main()
    return code, {Path(command[0]).name: command[3:] for command in machine.commands}


def test_alone_it_runs_the_project_and_two_blenders(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, told = call(machine, monkeypatch)
    assert code == 0
    assert list(told) == ["test", "bpy-4.2.23", "bpy-5.0.1"]
    assert told["test"] == []
    assert told["bpy-4.2.23"] == told["bpy-5.0.1"] == [BLENDER_TESTS]
    assert all(command[1:3] == ["-m", "pytest"] for command in machine.commands)
    assert machine.variables["LIVEPORTRAIT_TEST_PYTHON"] == "/env/test"
    assert machine.fetched, "no test may fetch the wheel that goes into the zip"


def test_all_of_them_or_one(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    _, told = call(machine, monkeypatch, "--all-blenders")
    assert list(told) == ["test", *(f"bpy-{version}" for version in BLENDERS)]
    machine.commands.clear()
    _, told = call(machine, monkeypatch, "--blender", "4.5.15", "-x")
    assert told == {"bpy-4.5.15": [BLENDER_TESTS, "-x"]}


def test_options_go_to_every_run_and_files_to_their_own(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, told = call(machine, monkeypatch, "--fast", "-k", "motion")
    assert told["test"] == ["--fast", "-k", "motion"]
    assert told["bpy-5.0.1"] == ["--fast", BLENDER_TESTS, "-k", "motion"]
    inside, outside = "tests/blender/test_registration.py", "tests/test_runs.py"
    for words, expected in {
        (outside,): {"test": [outside]},
        (f"{inside}::test_x", "-x"): {
            "bpy-4.2.23": [f"{inside}::test_x", "-x"],
            "bpy-5.0.1": [f"{inside}::test_x", "-x"],
        },
        (BLENDER_TESTS,): {"bpy-4.2.23": [BLENDER_TESTS], "bpy-5.0.1": [BLENDER_TESTS]},
        (inside, outside): {"test": [outside], "bpy-4.2.23": [inside], "bpy-5.0.1": [inside]},
        ("tests",): {"test": ["tests"], "bpy-4.2.23": ["tests"], "bpy-5.0.1": ["tests"]},
    }.items():
        machine.commands.clear()
        assert call(machine, monkeypatch, *words)[1] == expected


@pytest.mark.parametrize(
    ("answers", "words", "code"),
    [
        ({}, [], 0),
        ({"test": 1}, [], 1),
        ({"bpy-4.2.23": 1}, [], 1),
        ({"bpy-4.2.23": 1, "bpy-5.0.1": 3}, [], 3),
        ({"bpy-5.0.1": -11}, [], 11),  # killed by a signal
        ({"bpy-5.0.1": 5}, [], 5),  # all tests gone is no success
        ({"bpy-4.2.23": 5, "bpy-5.0.1": 5}, ["-k", "motion"], 0),  # but those without a chosen one are fine
        ({"test": 5, "bpy-4.2.23": 5, "bpy-5.0.1": 5}, ["-k", "nothing"], 5),
    ],
)
def test_the_worst_run_decides(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, answers: dict[str, int], words: list[str], code: int
) -> None:
    machine.answers = answers
    assert call(machine, monkeypatch, *words)[0] == code
    assert len(machine.commands) == 3, "a run that fails does not keep the others from running"


def test_the_last_lines_name_every_run(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.answers = {"bpy-4.2.23": 1}
    machine.without = {"bpy-5.2.3"}
    assert call(machine, monkeypatch, "--all-blenders")[0] == 1
    summary = capsys.readouterr().out.split("=== in short\n")[1].splitlines()
    assert summary == [
        "the project: passed",
        "Blender 4.2.23: FAILED",
        "Blender 4.5.15: passed",
        "Blender 5.0.1: passed",
        "Blender 5.2.3: left out. Python 3.13 is needed and none was found.",
    ]


def test_a_blender_that_was_asked_for_is_not_left_out(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.without = {"bpy-5.2.3"}
    with pytest.raises(SetupError, match="Python 3.13"):
        call(machine, monkeypatch, "--blender", "5.2.3")
