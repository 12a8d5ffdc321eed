# SPDX-License-Identifier: GPL-3.0-or-later
"""The demo: which steps it takes, how it fails, and the two small scripts that it uses."""

from __future__ import annotations

import json
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from backend.library import load_library
from backend.motion_files import load_motion
from scripts import build_extension, demo
from scripts.environment import ROOT
from scripts.machine import NoPython, SetupError


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[list[str]]:
    """Runs of the demo write to a folder of the test, and their steps are kept instead of run.

    There is no Blender on this machine.
    """
    taken: list[list[str]] = []

    def ensure(profile: str, python: str | None = None) -> str:
        if profile.startswith("bpy-"):
            raise NoPython("Python 3.11 is needed and none was found.")
        return sys.executable

    monkeypatch.setattr(demo, "OUTPUT", tmp_path / "demo_output")
    monkeypatch.setattr(demo, "ensure", ensure)
    monkeypatch.setattr(demo, "_step", lambda python, *arguments: taken.append(list(arguments)))
    return taken


@pytest.fixture
def blender(
    steps: list[list[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> list[tuple[list[str], dict[str, str]]]:
    """A Blender that does as if it had animated; gives what was called, and with which variables."""
    calls: list[tuple[list[str], dict[str, str]]] = []
    output = tmp_path / "demo_output"
    said = {
        "frames": str(output / "liveportrait" / "Demo"),
        "count": 132,
        "renders": [str(output / f"render_{frame:04d}.png") for frame in (34, 67, 100)],
        "blend": str(output / "demo.blend"),
    }

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        calls.append((command, options["env"]))
        assert Path(options["cwd"]).is_dir()
        return subprocess.CompletedProcess(command, 0, f"Saved\n{json.dumps(said)}\n", "noise")

    monkeypatch.setattr(demo, "ensure", lambda profile, python=None: f"/env/{profile}/python")
    monkeypatch.setattr(build_extension, "build", lambda folder: folder / "extension.zip")
    monkeypatch.setattr(demo, "_photograph", lambda python: "/pictures/astronaut.png")
    monkeypatch.setattr(demo.subprocess, "run", run)
    return calls


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["demo.py", *arguments])
    return demo.main()


def test_alone_it_animates_the_photograph_with_the_library(
    steps: list[list[str]],
    astronaut: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert call(monkeypatch) == 0
    driving = str(tmp_path / "demo_output" / "driving.npz")
    assert steps[0][:4] == ["scripts/join_motions.py", *demo.MOTIONS]
    assert steps[1][:5] == ["-m", "backend", "animate", str(astronaut), driving]
    assert [Path(step[step.index("-o") + 1]).name for step in steps[1:]] == [
        "result.mp4",
        "frames",
        "strip.jpg",
    ]
    printed = capsys.readouterr().out
    assert all(name in printed for name in ("result.mp4", "frames", "strip.jpg"))
    assert "none was found.\nBlender as a Python module cannot be had here" in printed


def test_in_blender_the_installed_extension_animates(
    steps: list[list[str]],
    blender: list[tuple[list[str], dict[str, str]]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("BLENDER_USER_CONFIG", "/home/artist/config")
    monkeypatch.setenv("LIVEPORTRAIT_USER_FOLDER", "/home/artist/liveportrait")
    assert call(monkeypatch) == 0
    output = tmp_path / "demo_output"
    [(command, around)] = blender
    assert command[0] == f"/env/bpy-{demo.BLENDER}/python"
    driving = str(output / "driving.npz")
    assert command[3:] == [
        str(output / "extension.zip"),
        "/env/demo/python",
        "/pictures/astronaut.png",
        driving,
        str(output),
    ]
    # A user's own Blender is neither read nor changed.
    assert not {"BLENDER_USER_CONFIG", "LIVEPORTRAIT_USER_FOLDER"} & set(around)
    assert not Path(around["BLENDER_USER_RESOURCES"]).exists()
    assert steps[-1][:2] == ["scripts/contact_sheet.py", str(output / "liveportrait" / "Demo")]
    printed = capsys.readouterr().out
    assert all(name in printed for name in ("demo.blend", "render_0034.png", "132 frames", "extension.zip"))


def test_a_blender_that_fails_shows_why(
    steps: list[list[str]],
    blender: list[tuple[list[str], dict[str, str]]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    failed = subprocess.CompletedProcess([], 1, "STATUS Installed", "RuntimeError: no face")
    monkeypatch.setattr(demo.subprocess, "run", lambda command, **options: failed)
    with pytest.raises(SetupError, match="--no-blender"):
        call(monkeypatch)
    assert "RuntimeError: no face" in capsys.readouterr().err


def test_blender_can_be_left_out(
    steps: list[list[str]],
    blender: list[tuple[list[str], dict[str, str]]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    assert call(monkeypatch, "--no-blender", "a.png", "smile") == 0
    assert blender == []
    assert steps[-1][:2] == ["scripts/contact_sheet.py", str(tmp_path / "demo_output" / "frames")]


def test_given_files_are_found_from_where_the_caller_stands(
    steps: list[list[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "Großmutter.png").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    assert call(monkeypatch, "Großmutter.png", "smile") == 0
    assert steps[0][3:5] == [str(tmp_path / "Großmutter.png"), "smile"]


def test_a_source_alone_is_refused(steps: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit) as caught:
        call(monkeypatch, "portrait.png")
    assert caught.value.code == 2
    assert steps == []


def test_frames_of_an_earlier_run_do_not_show_through(
    steps: list[list[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    old = tmp_path / "demo_output" / "frames" / "000999.png"
    old.parent.mkdir(parents=True)
    old.write_bytes(b"")
    assert call(monkeypatch, "a.png", "smile") == 0
    assert not old.exists()


def test_a_step_that_fails_ends_the_demo_with_its_code() -> None:
    with pytest.raises(SystemExit) as caught:
        demo._step(sys.executable, "-c", "raise SystemExit(2)")
    assert caught.value.code == 2


def run_script(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts" / name), *arguments]
    return subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)


def test_motions_are_joined_one_after_another(tmp_path: Path) -> None:
    joined = tmp_path / "joined.npz"
    assert run_script("join_motions.py", "smile", "talk", "-o", str(joined)).returncode == 0
    smile, talk, both = load_library("smile"), load_library("talk"), load_motion(joined)
    assert both.fps == smile.fps == Fraction(both.fps_numerator, both.fps_denominator)
    assert len(both) == len(smile) + len(talk.resample(smile.fps))
    np.testing.assert_allclose(both.expression[: len(smile)], smile.expression, atol=1e-6)
    np.testing.assert_allclose(both.expression[-1], talk.expression[-1], atol=1e-3)


def test_an_unknown_motion_is_one_line(tmp_path: Path) -> None:
    result = run_script("join_motions.py", "frown-at-the-moon", "-o", str(tmp_path / "x.npz"))
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1 and "frown-at-the-moon" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_contact_sheet_shows_the_first_and_the_last_frame(tmp_path: Path) -> None:
    frames = tmp_path / "frames"
    frames.mkdir()
    for index in range(11):
        picture = np.full((40, 60, 3), index * 20, np.uint8)
        picture[:, :30] = 255
        (frames / f"{index:06d}.png").write_bytes(cv2.imencode(".png", picture)[1].tobytes())
    sheet = tmp_path / "sheet.png"
    options = ["--count", "3", "--height", "20", "--region", "30,0,30,40"]
    result = run_script("contact_sheet.py", str(frames), "-o", str(sheet), *options)
    assert result.returncode == 0, result.stderr
    pixels = cv2.imdecode(np.frombuffer(sheet.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
    assert pixels is not None and pixels.shape == (20, 45, 3)
    assert [int(pixels[10, x, 0]) for x in (5, 20, 40)] == [0, 100, 200]


@pytest.mark.parametrize(("region", "frames"), [("0,0,9,9", 0), ("500,500,9,9", 1)])
def test_a_contact_sheet_of_nothing_is_one_line(tmp_path: Path, region: str, frames: int) -> None:
    for index in range(frames):
        picture = np.zeros((8, 8, 3), np.uint8)
        (tmp_path / f"{index}.png").write_bytes(cv2.imencode(".png", picture)[1].tobytes())
    result = run_script(
        "contact_sheet.py", str(tmp_path), "-o", str(tmp_path / "sheet.jpg"), "--region", region
    )
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "sheet.jpg").exists()
