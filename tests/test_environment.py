# SPDX-License-Identifier: GPL-3.0-or-later
"""How the scripts make, keep and renew the environments. No test here fetches anything."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from scripts import environment, machine
from scripts.environment import BACKEND_PROFILES, MARKER, PROFILES, ROOT
from scripts.machine import SetupError

# --- the lists ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", PROFILES)
def test_every_pin_is_exact_and_named_once(profile: str) -> None:
    pins = environment.read_pins(profile)
    marker = r' ; sys_platform (==|!=) "(win32|linux|darwin)"'
    exact = re.compile(rf"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*({marker})?")
    assert pins
    assert [pin for pin in pins if not exact.fullmatch(pin)] == []
    names = [re.sub(r"[-_.]+", "-", pin.split("==")[0]).lower() for pin in pins]
    assert len(names) == len(set(names))


def test_the_profiles_contain_each_other() -> None:
    mesh, demo, test, neural, cuda = (set(environment.read_pins(name)) for name in BACKEND_PROFILES)
    assert mesh < demo < test
    assert mesh < neural and mesh < cuda


def test_the_pins_that_the_project_depends_on() -> None:
    mesh = environment.read_pins("mesh")
    assert {"mediapipe==0.10.21", "numpy==1.26.4", "opencv-python==4.11.0.86"} <= set(mesh)
    names = {pin.split("==")[0].lower() for pin in environment.read_pins("test")}
    assert len([name for name in names if name.startswith("opencv")]) == 1
    assert not {"onnxruntime", "onnxruntime-gpu"} <= names
    assert not any(pin.startswith(("torch", "jax", "scipy")) for pin in mesh)
    assert "torch==2.13.0" in environment.read_pins("neural-cpu")


@pytest.mark.parametrize("version", environment.BLENDERS)
def test_every_blender_has_a_list_of_its_own(version: str) -> None:
    pins = environment.read_pins(f"bpy-{version}")
    assert f"bpy=={version}" in pins
    assert [pin.split("==")[0] for pin in pins].count("numpy") == 1
    # The same client that the extension brings, the same tools that test the backend.
    shared = {"websockets", "pytest", "hypothesis"}
    of_the_backend = {pin for pin in environment.read_pins("test") if pin.split("==")[0] in shared}
    assert len(of_the_backend) == len(shared)
    assert of_the_backend <= set(pins)


def test_no_list_names_an_index() -> None:
    for path in (ROOT / "requirements").iterdir():
        assert not re.search(r"^--|https?://", path.read_text(encoding="utf-8"), re.MULTILINE), path


def test_the_running_environment_is_what_the_lists_say() -> None:
    folder = Path(sys.prefix)
    if not (folder / MARKER).exists():
        pytest.skip("these tests do not run in an environment that scripts/test.py made")
    made = json.loads((folder / MARKER).read_text(encoding="utf-8"))
    pip = machine.find_pip(machine.find_python(environment.VERSIONS))
    assert pip, "there is no pip to ask"
    assert environment.complaints(pip, sys.executable) == environment.allowed_complaints(made["pins"])
    listed = machine.ask([*pip, "--python", sys.executable, "list", "--format", "json"])
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
    monkeypatch.setattr(machine, "run", made.pip)
    monkeypatch.setattr(machine, "prepare_machine", lambda python, needed: None)
    monkeypatch.setattr(machine, "find_pip", lambda python: ["pip"])
    ask = machine.ask

    def answer(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess([], 1, made.said, "") if command[0] == "pip" else ask(command)

    monkeypatch.setattr(machine, "ask", answer)
    return made


def test_it_is_made_once_and_kept(project: Project) -> None:
    assert project.ensure("mesh") == 1
    assert project.ensure("mesh") == 0
    answer = machine.ask([str(environment.environment_python(project.folder)), "-c", "print(1 + 1)"])
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


def test_every_blender_has_a_place_of_its_own(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    here = (sys.version_info[0], sys.version_info[1])
    monkeypatch.setattr(environment, "BLENDERS", {"4.2.23": here, "5.0.1": here})
    for version in ("4.2.23", "5.0.1"):
        project.write(f"bpy-{version}", f"bpy=={version}")
    for profile in ("test", "bpy-4.2.23", "bpy-5.0.1"):
        assert project.ensure(profile) == 1
    for profile in ("test", "bpy-4.2.23", "bpy-5.0.1"):
        assert project.ensure(profile) == 0
    assert environment.ensure("bpy-5.0.1", root=project.root).is_relative_to(project.root / ".venv-bpy-5.0.1")


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

    assert machine.guarded(lambda: 0) == 0
    assert machine.guarded(fail) == 1
    assert machine.guarded(interrupt) == 130
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
