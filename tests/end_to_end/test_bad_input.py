# SPDX-License-Identifier: GPL-3.0-or-later
"""Every wrong, truncated, hostile or missing input ends in one clear line; nothing is lost or left behind."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from backend.cli import main
from backend.library import library_file
from backend.motion_files import load_motion
from tests.end_to_end.commands import ROOT, run, write_tone

Fail = Callable[..., str]


@pytest.fixture
def fail(capsys: pytest.CaptureFixture[str]) -> Fail:
    """Run a command that must fail with one line; returns the line."""

    def command(*arguments: str | Path, code: int = 2) -> str:
        found = main([str(argument) for argument in arguments])
        told = capsys.readouterr()
        assert told.err.count("\n") == 1, told.err
        assert told.err.startswith("error: ")
        assert "Unexpected" not in told.err and "Traceback" not in told.err
        assert found == code, told.err
        assert told.out == ""
        return told.err

    return command


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def truncate(path: Path, copy: Path, share: float) -> Path:
    data = path.read_bytes()
    copy.write_bytes(data[: int(len(data) * share)])
    return copy


def write_picture(path: Path, picture: np.ndarray) -> Path:
    cv2.imwrite(str(path), picture)
    return path


@pytest.fixture(scope="module")
def wall(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture without a face."""
    picture = np.random.default_rng(0).integers(90, 140, (400, 300, 3), dtype=np.uint8)
    return write_picture(tmp_path_factory.mktemp("wall") / "wall.png", picture)


def test_a_source_without_a_face(fail: Fail, wall: Path, out: Path) -> None:
    assert "No face was found" in fail("animate", wall, "nod", "-o", out)
    assert not out.exists()


def test_a_driving_picture_without_a_face(fail: Fail, astronaut: Path, wall: Path, out: Path) -> None:
    assert "No face was found" in fail("animate", astronaut, wall, "-o", out)
    assert not out.exists()


def test_a_driving_clip_without_a_face(fail: Fail, astronaut: Path, wall: Path, tmp_path: Path) -> None:
    folder = tmp_path / "walls"
    folder.mkdir()
    for number in range(4):
        (folder / f"{number}.png").write_bytes(wall.read_bytes())
    output = tmp_path / "out.mp4"
    assert "No face was found in the clip" in fail("animate", astronaut, folder, "-o", output)
    assert not list(tmp_path.glob("*.mp4"))


def test_a_face_that_is_too_small_says_the_size_needed(
    fail: Fail, astronaut: Path, tmp_path: Path, out: Path
) -> None:
    small = write_picture(tmp_path / "small.png", cv2.resize(cv2.imread(str(astronaut)), (140, 140)))
    line = fail("animate", small, "nod", "-o", out)
    assert "pixels large; at least 32 are needed" in line


def test_a_face_that_is_not_there(fail: Fail, astronaut: Path, out: Path) -> None:
    assert "no face number 3" in fail("animate", astronaut, "nod", "-o", out, "--face", "3")


@pytest.mark.parametrize("role", ["source", "driving"])
@pytest.mark.parametrize("content", [b"", b"not a picture at all" * 50, bytes(range(256)) * 40])
@pytest.mark.parametrize("name", ["bad.png", "bad.mp4", "bad", "bad.npz"])
def test_unreadable_files(
    fail: Fail, astronaut: Path, tmp_path: Path, out: Path, role: str, content: bytes, name: str
) -> None:
    bad = tmp_path / name
    bad.write_bytes(content)
    line = fail("animate", *((bad, "nod") if role == "source" else (astronaut, bad)), "-o", out)
    assert "bad" in line
    assert not out.exists()


def test_a_truncated_source_picture(fail: Fail, astronaut: Path, tmp_path: Path, out: Path) -> None:
    cut = truncate(astronaut, tmp_path / "cut.png", 0.3)
    assert "cut.png" in fail("animate", cut, "nod", "-o", out)


def test_a_clip_that_ends_too_early_is_used_as_far_as_it_goes(
    astronaut: Path, clip: Path, tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut = truncate(clip, tmp_path / "cut.mp4", 0.6)
    assert main(["animate", str(astronaut), str(cut), "-o", str(out)]) == 0
    assert capsys.readouterr().err.startswith("warning: cut.mp4")
    told = json.loads((out / "result.json").read_text("utf-8"))
    assert 0 < told["frames"] < 40 and told["complete"] and told["warnings"]


def test_a_clip_that_ends_before_its_first_picture(
    fail: Fail, astronaut: Path, clip: Path, tmp_path: Path, out: Path
) -> None:
    cut = truncate(clip, tmp_path / "cut.mp4", 0.01)
    assert "cut.mp4" in fail("animate", astronaut, cut, "-o", out)


def test_a_clip_without_frames(fail: Fail, astronaut: Path, tmp_path: Path, out: Path) -> None:
    empty = tmp_path / "empty.mkv"
    with av.open(str(empty), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        container.start_encoding()
    assert "empty.mkv" in fail("animate", astronaut, empty, "-o", out)


@pytest.mark.parametrize("role", ["source", "driving"])
def test_sound_without_pictures(fail: Fail, astronaut: Path, tmp_path: Path, out: Path, role: str) -> None:
    tone = write_tone(tmp_path / "tone.wav", 0.5)
    line = fail("animate", *((tone, "nod") if role == "source" else (astronaut, tone)), "-o", out)
    assert "tone.wav" in line and "no pictures" in line


def test_frames_beyond_the_end(fail: Fail, astronaut: Path, clip: Path, out: Path) -> None:
    assert "1000" in fail("animate", astronaut, clip, "-o", out, "--frames", "1000:")
    assert "1000" in fail("animate", astronaut, "nod", "-o", out, "--frames", "1000:")
    assert not out.exists()


def test_a_reference_frame_beyond_the_end(fail: Fail, astronaut: Path, clip: Path, out: Path) -> None:
    assert "reference frame 500" in fail("animate", astronaut, clip, "-o", out, "--reference-frame", "500")


def test_directories(fail: Fail, astronaut: Path, tmp_path: Path, out: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "notes.txt").write_text("no pictures here")
    assert "folder" in fail("animate", folder, "nod", "-o", out)
    assert "folder" in fail("animate", astronaut, folder, "-o", out)


def test_a_clip_where_render_wants_a_motion(fail: Fail, astronaut: Path, clip: Path, out: Path) -> None:
    assert "not a motion file" in fail("render", astronaut, clip, "-o", out)


def test_missing_files(fail: Fail, astronaut: Path, tmp_path: Path, out: Path) -> None:
    assert "no file" in fail("animate", tmp_path / "none.png", "nod", "-o", out)
    assert "no file" in fail("animate", astronaut, tmp_path / "none.mp4", "-o", out)


class Attack:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.mark}",)


def test_a_hostile_pickle_runs_nothing(fail: Fail, astronaut: Path, tmp_path: Path, out: Path) -> None:
    mark = tmp_path / "mark"
    for name in ("evil.pkl", "evil.mp4"):
        (tmp_path / name).write_bytes(pickle.dumps({"motion": [Attack(mark)]}))
        line = fail("animate", astronaut, tmp_path / name, "-o", out)
        assert "posix.system" in line and "nothing in the file was run" in line
    assert not mark.exists() and not out.exists()


@pytest.mark.parametrize("damage", ["nan", "shape", "missing", "scale"])
def test_impossible_motion_files(fail: Fail, astronaut: Path, tmp_path: Path, out: Path, damage: str) -> None:
    with np.load(library_file("nod")) as file:
        arrays = dict(file)
    if damage == "nan":
        arrays["expression"] = np.full_like(arrays["expression"], np.nan)
    elif damage == "shape":
        arrays["rotation"] = arrays["rotation"][:, :2]
    elif damage == "missing":
        del arrays["translation"]
    else:
        arrays["scale"] = -arrays["scale"]
    np.savez(tmp_path / "bad.npz", **arrays)
    field = {"nan": "expression", "shape": "rotation", "missing": "translation", "scale": "scale"}[damage]
    assert field in fail("animate", astronaut, tmp_path / "bad.npz", "-o", out)
    assert not out.exists()


def test_outputs_that_cannot_be_written_are_found_first(
    fail: Fail, astronaut: Path, clip: Path, tmp_path: Path
) -> None:
    blocker = tmp_path / "file.txt"
    blocker.write_text("kept")
    began = time.monotonic()
    assert "not a folder" in fail("animate", astronaut, clip, "-o", blocker / "a" / "out.mp4", code=1)
    assert "not a folder" in fail("animate", astronaut, clip, "-o", blocker / "frames", code=1)
    assert "is a folder" in fail("animate", astronaut, clip, "-o", _folder(tmp_path / "x.mp4"))
    assert ".mp4" in fail("animate", astronaut, clip, "-o", tmp_path / "out.mov")
    assert ".mp4" in fail("animate", astronaut, clip, "-o", blocker)
    assert ".npz" in fail("capture", clip, "-o", tmp_path / "motion.txt")
    assert "not a folder" in fail("capture", clip, "-o", blocker / "m.npz", code=1)
    assert time.monotonic() - began < 60
    assert blocker.read_text() == "kept"


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_write_protected_folder(fail: Fail, astronaut: Path, tmp_path: Path) -> None:
    locked = _folder(tmp_path / "locked")
    locked.chmod(0o500)
    try:
        assert "Cannot write" in fail("animate", astronaut, "nod", "-o", locked / "a.mp4", code=1)
    finally:
        locked.chmod(0o700)


def test_inputs_are_never_overwritten(
    fail: Fail, astronaut: Path, clip: Path, talking: Path, tmp_path: Path
) -> None:
    mine = tmp_path / "mine.mp4"
    mine.write_bytes(clip.read_bytes())
    assert "input of this job" in fail("animate", astronaut, mine, "-o", mine)
    assert mine.read_bytes() == clip.read_bytes()
    assert "input of this job" in fail("animate", astronaut, talking, "-o", talking)
    assert "input of this job" in fail("animate", talking / "000003.png", "nod", "-o", talking)
    part = tmp_path / "new.partial.mp4"
    part.write_bytes(clip.read_bytes())
    assert "input of this job" in fail("animate", astronaut, part, "-o", tmp_path / "new.mp4")
    motion = talking / "motion.npz"
    assert "input of this job" in fail("render", astronaut, motion, "-o", talking)
    assert "input of this job" in fail("capture", motion, "-o", motion)
    assert len(load_motion(motion)) == len(list(talking.glob("*.png")))


def test_other_peoples_pictures_are_not_overwritten(fail: Fail, astronaut: Path, tmp_path: Path) -> None:
    folder = _folder(tmp_path / "holiday")
    (folder / "000000.png").write_bytes(astronaut.read_bytes())
    assert "no result of this program" in fail("animate", astronaut, "nod", "-o", folder)
    assert (folder / "000000.png").read_bytes() == astronaut.read_bytes()


def test_an_earlier_result_survives_a_job_that_fails(
    fail: Fail, astronaut: Path, wall: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "result"
    assert main(["animate", str(astronaut), "nod", "-o", str(folder), "--frames", "0:2"]) == 0
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    fail("animate", wall, "nod", "-o", folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


LIMIT = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, ({0}, {0}))"


@pytest.mark.skipif(sys.platform == "win32", reason="no file size limits there")
def test_a_full_disk_keeps_a_marked_part_of_a_clip(astronaut: Path, tmp_path: Path) -> None:
    done = run("animate", astronaut, "talk", "-o", tmp_path / "a.mp4", prelude=LIMIT.format(200_000))
    assert done.returncode == 1, done.stderr
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("error: ")
    assert not (tmp_path / "a.mp4").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["a.partial.mp4"]
    with av.open(str(tmp_path / "a.partial.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) >= 30


@pytest.mark.skipif(sys.platform == "win32", reason="no file size limits there")
def test_a_full_disk_leaves_no_half_pictures(astronaut: Path, tmp_path: Path) -> None:
    done = run("animate", astronaut, "talk", "-o", tmp_path / "a", prelude=LIMIT.format(200_000))
    assert done.returncode == 1, done.stderr
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("error: ")
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["result.json"]
    assert json.loads((tmp_path / "a" / "result.json").read_text("utf-8"))["complete"] is False


@pytest.mark.skipif(sys.platform == "win32", reason="signals work differently there")
@pytest.mark.parametrize("name", ["frames", "clip.mp4"])
def test_ctrl_c_keeps_the_finished_frames(astronaut: Path, tmp_path: Path, name: str) -> None:
    long = tmp_path / "long.npz"
    assert main(["capture", "talk", "-o", str(long), "--fps", "1000"]) == 0
    output = tmp_path / name
    command = [
        sys.executable,
        "-m",
        "backend",
        "animate",
        str(astronaut),
        str(long),
        "-o",
        str(output),
        "--json",
    ]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        while json.loads(process.stdout.readline() or '{"done": 99}').get("done", 0) < 20:
            pass
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        line = process.stderr.read()
        assert process.wait(20) == 130, line
    assert line.count("\n") == 1 and "kept" in line
    if name == "frames":
        told = json.loads((output / "result.json").read_text("utf-8"))
        frames = sorted(output.glob("*.png"))
        assert told["complete"] is False and told["frames"] == len(frames) >= 15
        assert all(cv2.imread(str(path)) is not None for path in frames)
        assert {path.suffix for path in output.iterdir()} == {".png", ".json"}
    else:
        assert not output.exists()
        with av.open(str(tmp_path / "clip.partial.mp4")) as container:
            assert sum(1 for _ in container.decode(video=0)) >= 5
