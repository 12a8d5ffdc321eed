# SPDX-License-Identifier: GPL-3.0-or-later
"""Clips as source, several faces and going on, as a user asks for them on the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from backend import media
from backend.cli import main
from backend.faces import find_faces
from backend.library import load_library
from backend.motion_files import load_motion, save_motion
from tests.backend.moving_faces import crossing, head, scene, write_clip
from tests.end_to_end.commands import write_tone

Fail = Callable[..., str]


@pytest.fixture(scope="module")
def two(astronaut: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two people side by side, so near that their crops overlap."""
    she, he = head(astronaut), head(astronaut, other=True)
    path = tmp_path_factory.mktemp("two") / "two.png"
    cv2.imwrite(str(path), scene((460, 300), [(he, 330, 150), (she, 130, 150)])[..., ::-1])
    return path


@pytest.fixture(scope="module")
def speaker(astronaut: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """She sways at 30000/1001 frames a second, with a tone, and is away in frames 14 to 19 of 30."""
    folder = tmp_path_factory.mktemp("speaker")
    she = head(astronaut)
    frames = [
        scene((360, 280), [] if 14 <= k < 20 else [(she, 180 + 15 * np.sin(k / 4), 140)]) for k in range(30)
    ]
    tone = write_tone(folder / "tone.wav", 2.0)
    return write_clip(folder / "speaker.mp4", frames, Fraction(30000, 1001), audio=tone)


@pytest.fixture
def fail(capsys: pytest.CaptureFixture[str]) -> Fail:
    """Run a command that must fail with one line and exit code 2; returns the line."""

    def command(*arguments: str | Path) -> str:
        found = main([str(argument) for argument in arguments])
        told = capsys.readouterr()
        assert told.err.count("\n") == 1 and told.err.startswith("error: "), told.err
        assert "Unexpected" not in told.err and found == 2
        return told.err

    return command


def run(*arguments: str | Path) -> None:
    assert main([str(argument) for argument in arguments]) == 0


def result(folder: Path) -> dict[str, Any]:
    said = json.loads((folder / "result.json").read_text())
    assert isinstance(said, dict)
    return said


def picture(folder: Path, number: int) -> np.ndarray:
    return media.read_picture(folder / f"{number:06d}.png").rgb


def test_a_clip_performs_a_library_motion(speaker: Path, tmp_path: Path) -> None:
    run("animate", speaker, "talk", "-o", tmp_path / "a.mp4")
    info = media.probe(tmp_path / "a.mp4")
    assert info.fps == Fraction(30000, 1001) and info.frames == 30 and info.has_audio
    run("animate", speaker, "talk", "-o", tmp_path / "b.mp4", "--audio", "none", "--frames", "0:8")
    assert not media.probe(tmp_path / "b.mp4").has_audio


def test_frames_without_her_stay_and_the_result_says_so(speaker: Path, tmp_path: Path) -> None:
    run("animate", speaker, "smile", "-o", tmp_path / "out")
    said = result(tmp_path / "out")
    assert said["frames"] == 30 and said["complete"]
    assert any("not seen in 6 of 30 source frames" in line for line in said["warnings"])
    own = list(media.Clip(speaker).frames(exact=True))
    for number in (14, 19):
        assert np.array_equal(picture(tmp_path / "out", number), own[number])
    changed = [int((picture(tmp_path / "out", k) != own[k]).sum()) for k in (8, 13, 20, 28)]
    assert min(changed[0], changed[3]) > 2 * max(changed[1], changed[2]) or changed[1] > 0


def test_a_scenes_rate_gives_one_picture_a_frame(speaker: Path, tmp_path: Path) -> None:
    run("animate", speaker, "talk", "-o", tmp_path / "out", "--fps", "24")
    said = result(tmp_path / "out")
    assert said["fps"] == 24 and said["frames"] == 25 == len(load_motion(tmp_path / "out" / "motion.npz"))


def test_a_picture_drives_a_clip(speaker: Path, astronaut: Path, tmp_path: Path) -> None:
    run("animate", speaker, astronaut, "-o", tmp_path / "out")
    assert result(tmp_path / "out")["frames"] == 30


def test_each_face_of_a_picture_its_own_motion(two: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run("animate", two, "-o", out, "--face-order", "left-right", "--face", "0:smile", "--face", "1:wink")
    own = media.read_picture(two).rgb
    before = find_faces(own, "left-right")
    moved = np.zeros(2)
    for number in range(0, result(out)["frames"], 6):
        made = picture(out, number).astype(int)
        for place, face in enumerate(before):
            x0, y0, x1, y1 = (int(value) for value in face.box)
            moved[place] = max(moved[place], np.abs(made - own)[y0:y1, x0:x1].mean())
    assert moved.min() > 0.5
    assert (out / "motion_0.npz").exists() and (out / "motion_1.npz").exists()
    one = tmp_path / "one"
    run("animate", two, "nod", "-o", one, "--face-order", "left-right", "--face", "1")
    made = picture(one, 20).astype(int)
    x0, y0, x1, y1 = (int(value) for value in before[0].box)
    assert np.abs(made - own)[y0:y1, x0 : (x0 + x1) // 2].mean() < 0.05


def test_the_face_that_drives_is_chosen_by_itself(
    fail: Fail, two: Path, speaker: Path, astronaut: Path, tmp_path: Path
) -> None:
    run("animate", two, speaker, "-o", tmp_path / "a", "--face", "1", "--frames", "0:3")
    assert result(tmp_path / "a")["valid_frames"] == 3
    run("animate", astronaut, two, "-o", tmp_path / "b", "--driving-face", "1")
    line = fail("animate", two, speaker, "-o", tmp_path / "c", "--face", "1", "--driving-face", "1")
    assert f"{speaker.name}: There is no face number 1: 1 face was found" in line
    line = fail("animate", astronaut, two, "-o", tmp_path / "c", "--driving-face", "2")
    assert "two.png: There is no face number 2" in line
    first, second = tmp_path / "0.npz", tmp_path / "1.npz"
    for number, motion in enumerate((first, second)):
        where = ("--face-order", "left-right", "--no-driving-crop")
        run("capture", two, "-o", motion, "--face", str(number), *where)
    assert load_motion(first).translation[0, 0] < -0.1 < 0.1 < load_motion(second).translation[0, 0]


def test_people_who_cross_keep_their_motions(astronaut: Path, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "crossing.mp4", crossing(astronaut, 40))
    run("animate", clip, "-o", tmp_path / "out", "--face", "0:surprise", "--face", "1:shake")
    said = result(tmp_path / "out")
    assert said["frames"] == 40
    assert any(line.startswith("face 1 is not seen in") for line in said["warnings"])


def test_controls_alone_change_a_still(two: Path, tmp_path: Path) -> None:
    run("animate", two, "--lips-open-target", "0.6", "-o", tmp_path / "out")
    assert result(tmp_path / "out")["frames"] == 1
    before = cv2.imread(str(two))
    after = cv2.imread(str(tmp_path / "out" / "000000.png"))
    landmarks = find_faces(before[..., ::-1].copy())[0].landmarks
    x, y = landmarks[[13, 14], :2].mean(axis=0).astype(int)
    mouth = np.s_[y - 8 : y + 9, x - 8 : x + 9]
    eyes = landmarks[[33, 133, 159, 145], :2].mean(axis=0).astype(int)
    assert np.abs(after[mouth].astype(int) - before[mouth]).mean() > 10
    assert np.abs(after[eyes[1], eyes[0]].astype(int) - before[eyes[1], eyes[0]]).max() < 12


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "There is nothing to perform"),
        (["--face", "0:nod", "--face", "0:talk"], "Face 0 is given two drivings"),
        (["nod", "--face", "0", "--face", "1"], "--face is given twice"),
        (["--face", "0:nod", "--face", "1"], "Nothing drives face 1"),
        (["nod", "--face", "5"], "two.png: There is no face number 5"),
        (["--face", "0:"], "names no driving"),
        (["--face", "left:nod"], "not a whole number"),
        (["--face", "0:nod", "--face", "7:talk"], "There is no face number 7: 2 faces were found"),
        (["--face", "0:nod", "--face", "1:nobody"], "no file or library motion called 'nobody'"),
        (["--face", "0:nod", "--face", "1:talk", "--no-crop"], "need crop and paste-back"),
        (["--face", "0:nod", "--face", "1:talk", "--no-paste-back"], "need crop and paste-back"),
        (["nod", "--frames", "900:"], "900"),
        (["nod", "--reference-frame", "900"], "reference frame 900"),
        (["nod", "--face-order", "by-age"], "by-age"),
        (["nod", "--audio", "loud"], "loud"),
    ],
)
def test_what_cannot_be_is_one_line(
    fail: Fail, two: Path, tmp_path: Path, arguments: list[str], said: str
) -> None:
    assert said in fail("animate", two, *arguments, "-o", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_commands_of_one_face_say_so(fail: Fail, speaker: Path, two: Path, tmp_path: Path) -> None:
    assert "one face" in fail("capture", speaker, "-o", tmp_path / "m.npz", "--face", "0:nod")
    assert "not a motion file" in fail("render", two, "-o", tmp_path / "out", "--face", f"0:{speaker}")


def test_a_clip_whose_face_never_comes(fail: Fail, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "wall.mp4", [scene((320, 240), [])] * 5)
    assert "No face was found" in fail("animate", clip, "nod", "-o", tmp_path / "out")
    sound = write_tone(tmp_path / "tone.wav", 0.2)
    assert "tone.wav" in fail("animate", sound, "nod", "-o", tmp_path / "out")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "empty" in fail("animate", empty, "nod", "-o", tmp_path / "out")


def test_a_motion_of_another_engine_is_used_and_told(
    astronaut: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    motion = replace(load_library("nod")[:6], engine="neural 9.1")
    path = save_motion(motion, tmp_path / "strange.npz")
    run("animate", astronaut, path, "-o", tmp_path / "a")
    assert not any("neural" in line for line in result(tmp_path / "a")["warnings"])
    run("animate", astronaut, path, "-o", tmp_path / "b", "--absolute")
    assert any("measured by 'neural 9.1'" in line for line in result(tmp_path / "b")["warnings"])
    assert "measured by" in capsys.readouterr().err


def test_a_motion_of_a_newer_format_or_without_frames_is_refused(
    fail: Fail, astronaut: Path, tmp_path: Path
) -> None:
    with np.load(save_motion(load_library("nod")[:3], tmp_path / "nod.npz")) as file:
        arrays = dict(file)
    np.savez(tmp_path / "newer.npz", **{**arrays, "format": np.str_("liveportrait-motion/9")})
    assert "newer version" in fail("animate", astronaut, tmp_path / "newer.npz", "-o", tmp_path / "out")
    none = {name: array[:0] if array.ndim and len(array) == 3 else array for name, array in arrays.items()}
    np.savez(tmp_path / "none.npz", **none)
    assert "0 frames" in fail("animate", astronaut, tmp_path / "none.npz", "-o", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_interrupted_folder_goes_on_and_another_jobs_is_refused(
    fail: Fail, speaker: Path, astronaut: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    run("animate", astronaut, "nod", "-o", out, "--frames", "0:20")
    for number in range(12, 20):
        (out / f"{number:06d}.png").unlink()
    (out / "result.json").write_text(json.dumps({**result(out), "complete": False}))
    stamp = (out / "000011.png").stat().st_mtime_ns
    run("animate", astronaut, "nod", "-o", out, "--frames", "0:20", "--resume")
    assert result(out)["complete"] and result(out)["frames"] == 20
    assert (out / "000011.png").stat().st_mtime_ns == stamp
    line = fail("animate", astronaut, "talk", "-o", out, "--frames", "0:20", "--resume")
    assert "other inputs" in line and "--resume" in line
