# SPDX-License-Identifier: GPL-3.0-or-later
"""How the scripts find a Python and make, keep and renew the environment. No test here fetches anything."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from scripts import environment
from scripts.environment import MARKER, PROFILES, ROOT, Python, SetupError

HERE = Python(sys.executable, sys.version_info[:3], sys.base_prefix)
posix_only = pytest.mark.skipif(os.name == "nt", reason="the stand-ins are shell scripts")


# --- the lists ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", PROFILES)
def test_every_pin_is_exact_and_named_once(profile: str) -> None:
    pins = environment.read_pins(profile)
    exact = re.compile(r'[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*( ; sys_platform == "win32")?')
    assert pins
    assert [pin for pin in pins if not exact.fullmatch(pin)] == []
    names = [re.sub(r"[-_.]+", "-", pin.split("==")[0]).lower() for pin in pins]
    assert len(names) == len(set(names))


def test_the_profiles_contain_each_other() -> None:
    mesh, demo, test, neural = (set(environment.read_pins(profile)) for profile in PROFILES)
    assert mesh < demo < test
    assert mesh < neural


def test_the_pins_that_the_project_depends_on() -> None:
    mesh = environment.read_pins("mesh")
    assert {"mediapipe==0.10.21", "numpy==1.26.4", "opencv-python==4.11.0.86"} <= set(mesh)
    names = {pin.split("==")[0].lower() for pin in environment.read_pins("test")}
    assert len([name for name in names if name.startswith("opencv")]) == 1
    assert not {"onnxruntime", "onnxruntime-gpu"} <= names
    assert not any(pin.startswith(("torch", "jax", "scipy")) for pin in mesh)
    assert "torch==2.13.0" in environment.read_pins("neural-cpu")


def test_no_list_names_an_index() -> None:
    for path in (ROOT / "requirements").iterdir():
        assert not re.search(r"^--|https?://", path.read_text(encoding="utf-8"), re.MULTILINE), path


def test_the_running_environment_is_what_the_lists_say() -> None:
    folder = Path(sys.prefix)
    if not (folder / MARKER).exists():
        pytest.skip("these tests do not run in an environment that scripts/test.py made")
    made = json.loads((folder / MARKER).read_text(encoding="utf-8"))
    pip = environment.find_pip(environment.find_python())
    assert pip, "there is no pip to ask"
    assert environment.complaints(pip, sys.executable) == environment.allowed_complaints(made["pins"])
    listed = environment._ask([*pip, "--python", sys.executable, "list", "--format", "json"])
    # A pin without a local part ("2.13.0") is met by any local build of it ("2.13.0+cpu"), as in PEP 440.
    present = {
        f"{entry['name']}=={entry['version'].split('+')[0]}".lower() for entry in json.loads(listed.stdout)
    }
    expected = {pin.lower() for pin in made["pins"] if ";" not in pin}
    assert {re.sub("_", "-", name) for name in expected} <= {re.sub("_", "-", name) for name in present}


def test_complaints_belong_to_the_packages_of_a_profile() -> None:
    mesh = environment.allowed_complaints(environment.read_pins("mesh"))
    test = environment.allowed_complaints(environment.read_pins("test"))
    assert {line.split()[0] for line in mesh} == {"mediapipe"}
    assert {line.split()[0] for line in test} == {"mediapipe", "scikit-image", "huggingface-hub"}


def test_what_a_profile_brings_is_not_said_to_be_missing() -> None:
    lacks = "scikit-image 0.26.0 requires networkx, which is not installed."
    assert lacks in environment.allowed_complaints(environment.read_pins("demo"))
    assert lacks not in environment.allowed_complaints(environment.read_pins("test"))


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
    return tmp_path


def test_the_running_python_is_taken_when_it_fits() -> None:
    found = environment.find_python()
    assert found.version[:2] in environment.VERSIONS
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
    assert environment.find_python() == Python(str(real), (3, 11, 2), "/somewhere")


@posix_only
def test_pyenv_versions_behind_their_shims_are_found(too_new: Path) -> None:
    real = too_new / "pyenv" / "versions" / "3.12.1" / "bin" / "python3"
    stand_in(real, answering((3, 12, 1), real))
    assert environment.find_python().executable == str(real)


@posix_only
@pytest.mark.parametrize(
    "body", ["exit 1", "echo nonsense", "echo '[1, 2]'", 'echo \'["x", [3, 13, 0], "y"]\'']
)
def test_what_does_not_answer_as_a_fitting_python_is_refused(tmp_path: Path, body: str) -> None:
    assert environment.probe_python([str(stand_in(tmp_path / "python3.11", body))]) is None


def test_no_python_is_one_line_that_says_what_to_do(too_new: Path) -> None:
    with pytest.raises(SetupError, match=r"^Python 3\.11 or 3\.12 is needed .*--python PATH\.$"):
        environment.find_python()


def test_a_wrong_wish_is_not_replaced_by_something_else(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="give --python another"):
        environment.find_python(str(tmp_path / "nothing"))


# --- what the machine lacks ---------------------------------------------------------------------------------


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """A Debian with nothing installed; gives the commands that would have been run as root."""
    commands: list[list[str]] = []

    def run(command: Sequence[str], failure: str, *_: object) -> None:
        commands.append(list(command))
        monkeypatch.setattr(environment, "missing_libraries", lambda: [])

    monkeypatch.setattr(environment, "missing_libraries", lambda: ["libGL.so.1", "libgthread-2.0.so.0"])
    monkeypatch.setattr(environment, "find_pip", lambda python: None)
    monkeypatch.setattr(environment, "has_ensurepip", lambda python: False)
    monkeypatch.setattr(environment.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(environment, "_run", run)
    return commands


def test_an_ordinary_user_gets_the_apt_command(
    bare: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000, raising=False)
    line = "sudo apt-get install --yes --no-install-recommends python3-pip libgl1 libglib2.0-0"
    with pytest.raises(SetupError, match=line) as caught:
        environment.prepare_machine(HERE)
    assert "\n" not in str(caught.value)
    assert bare == []


def test_root_installs_after_naming(
    bare: list[list[str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0, raising=False)
    environment.prepare_machine(HERE)
    assert "python3-pip libgl1 libglib2.0-0" in capsys.readouterr().out
    assert bare[0] == ["apt-get", "update"]
    assert bare[1][-3:] == ["python3-pip", "libgl1", "libglib2.0-0"]


def test_without_apt_the_files_are_named(bare: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment.shutil, "which", lambda name: None)
    with pytest.raises(SetupError, match=r"lacks pip, libGL\.so\.1, libgthread-2\.0\.so\.0"):
        environment.prepare_machine(HERE)


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
    monkeypatch.setattr(environment, "_ask", lambda command: subprocess.CompletedProcess([], 0, said, ""))
    pip = environment.find_pip(Python("/some/python3", (3, minor, 1), "/some"))
    assert pip == (["/some/python3", "-m", "pip"] if fits else None)


def test_settings_that_lead_packages_elsewhere_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PYTHONPATH", "PYTHONHOME", "PIP_TARGET", "PIP_PREFIX"):
        monkeypatch.setenv(name, "elsewhere")
    monkeypatch.setenv("PIP_USER", "1")
    monkeypatch.setenv("PIP_PROXY", "kept")
    variables = environment._clean_variables()
    assert "elsewhere" not in variables.values()
    assert variables["PIP_USER"] == "0"
    assert variables["PIP_PROXY"] == "kept"


# --- making and keeping it ----------------------------------------------------------------------------------


class Project:
    """A project with lists of its own and a stand-in for pip that installs nothing."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = root / ".venv"
        self.installed: list[str] = []
        self.fails = False
        self.said = ""
        (root / "requirements").mkdir()
        self.write("mesh", "# what it needs\nnumpy==1.26.4")
        self.write("demo", "-r mesh.txt\nscikit-image==0.26.0")
        self.write("test", "-r demo.txt\npytest==9.2.0")
        self.write("pip-check-allowed", "scikit-image 0.26.0 requires scipy, which is not installed.")

    def write(self, profile: str, text: str) -> None:
        (self.root / "requirements" / f"{profile}.txt").write_text(text)

    def pip(self, command: Sequence[str], failure: str, *_: object, **__: object) -> None:
        if "install" not in command:
            subprocess.run(command, check=True)
            return
        self.installed.append(Path(command[-1]).stem)
        if self.fails:
            raise SetupError(failure)

    def ensure(self, profile: str) -> int:
        """Makes sure of a profile; how many times pip installed for it."""
        before = len(self.installed)
        python = environment.ensure(profile, sys.executable, self.root)
        assert python.exists()
        return len(self.installed) - before


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    made = Project(tmp_path)
    monkeypatch.setattr(environment, "_run", made.pip)
    monkeypatch.setattr(environment, "prepare_machine", lambda python: None)
    monkeypatch.setattr(environment, "find_pip", lambda python: ["pip"])
    ask = environment._ask

    def answer(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess([], 1, made.said, "") if command[0] == "pip" else ask(command)

    monkeypatch.setattr(environment, "_ask", answer)
    return made


def test_it_is_made_once_and_kept(project: Project) -> None:
    assert project.ensure("mesh") == 1
    assert project.ensure("mesh") == 0
    answer = environment._ask([str(environment.environment_python(project.folder)), "-c", "print(1 + 1)"])
    assert answer.stdout.strip() == "2"


def test_the_tests_environment_serves_the_demo(project: Project) -> None:
    assert [project.ensure(profile) for profile in ("demo", "test", "demo", "mesh", "test")] == [
        1,
        1,
        0,
        0,
        0,
    ]
    assert project.installed == ["demo", "test"]


@pytest.mark.parametrize("changed", ["numpy==1.26.5", "numpy==1.26.4\nav==18.1.0"])
def test_changed_pins_rebuild_it(project: Project, changed: str) -> None:
    project.ensure("test")
    (project.folder / "left-over").write_text("")
    project.write("mesh", changed)
    assert project.ensure("test") == 1
    assert not (project.folder / "left-over").exists()


def test_comments_do_not_rebuild_it(project: Project) -> None:
    project.ensure("mesh")
    project.write("mesh", "# other words\n\nnumpy==1.26.4\n")
    assert project.ensure("mesh") == 0


def test_another_python_rebuilds_it(project: Project) -> None:
    project.ensure("mesh")
    marker = project.folder / MARKER
    made = json.loads(marker.read_text())
    marker.write_text(json.dumps({**made, "python": [[3, 11, 0], "/elsewhere"]}))
    assert project.ensure("mesh") == 1


@pytest.mark.parametrize("spoil", ["marker", "garbage", "python", "everything"])
def test_a_damaged_one_is_rebuilt(project: Project, spoil: str) -> None:
    project.ensure("mesh")
    if spoil == "marker":
        (project.folder / MARKER).unlink()
    elif spoil == "garbage":
        (project.folder / MARKER).write_text("{")
    elif spoil == "python":
        environment.environment_python(project.folder).unlink()
    else:
        for name in (MARKER, "pyvenv.cfg"):
            (project.folder / name).write_text("")
    assert project.ensure("mesh") == 1
    assert project.ensure("mesh") == 0


def test_a_half_built_one_is_recovered(project: Project) -> None:
    project.fails = True
    with pytest.raises(SetupError, match="run this again"):
        project.ensure("mesh")
    assert not json.loads((project.folder / MARKER).read_text())["complete"]
    project.fails = False
    assert project.ensure("mesh") == 1
    assert project.ensure("mesh") == 0


def test_packages_that_do_not_fit_are_refused(project: Project) -> None:
    project.said = "numpy 1.26.4 requires something, which is not installed."
    with pytest.raises(SetupError, match="do not fit together: numpy 1.26.4 requires something"):
        project.ensure("mesh")
    project.said = "No broken requirements found.\n"
    assert project.ensure("mesh") == 1
    project.said = "scikit-image 0.26.0 requires scipy, which is not installed.\n"
    assert project.ensure("demo") == 1


def test_somebody_elses_folder_is_left_alone(project: Project) -> None:
    project.folder.mkdir()
    precious = project.folder / "thesis.txt"
    precious.write_text("all of it")
    with pytest.raises(SetupError, match="in the way"):
        project.ensure("mesh")
    assert precious.read_text() == "all of it"
    assert project.installed == []


def test_an_incomplete_copy_of_the_project_says_so(project: Project) -> None:
    (project.root / "requirements" / "demo.txt").unlink()
    with pytest.raises(SetupError, match="this copy is incomplete"):
        project.ensure("test")


# --- the scripts --------------------------------------------------------------------------------------------


def test_errors_become_one_line_and_an_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> int:
        raise SetupError("This does not work; do that.")

    def interrupt() -> int:
        raise KeyboardInterrupt

    assert environment.guarded(lambda: 0) == 0
    assert environment.guarded(fail) == 1
    assert environment.guarded(interrupt) == 130
    assert capsys.readouterr().err == "This does not work; do that.\nInterrupted.\n"


@pytest.fixture
def small_suite(tmp_path: Path) -> Path:
    """A suite of three tests under this project's conftest: quick, slow, skipped."""
    (tmp_path / "conftest.py").write_text((ROOT / "tests" / "conftest.py").read_text(encoding="utf-8"))
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = slow: x\n")
    (tmp_path / "test_quick.py").write_text("def test_quick(): pass\n")
    (tmp_path / "test_slow.py").write_text("import pytest\n@pytest.mark.slow\ndef test_slow(): pass\n")
    (tmp_path / "test_skip.py").write_text("import pytest\ndef test_skip(): pytest.skip('no reason')\n")
    return tmp_path


def run_suite(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, stdin=subprocess.DEVNULL)


def test_fast_leaves_out_the_slow_tests_and_says_which(small_suite: Path) -> None:
    everything = run_suite(small_suite)
    fast = run_suite(small_suite, "--fast")
    assert everything.returncode == 0 and "2 passed, 1 skipped" in everything.stdout
    assert fast.returncode == 0 and "1 passed, 1 skipped, 1 deselected" in fast.stdout.splitlines()[-1]
    assert "left out by --fast: 1 slow tests" in fast.stdout
    assert "test_slow.py::test_slow" in fast.stdout


@pytest.mark.parametrize("chosen", [["-k", "nothing"], ["test_skip.py"], ["--fast", "test_slow.py"]])
def test_a_run_in_which_nothing_ran_is_no_success(small_suite: Path, chosen: list[str]) -> None:
    assert run_suite(small_suite, *chosen).returncode == pytest.ExitCode.NO_TESTS_COLLECTED
