# SPDX-License-Identifier: GPL-3.0-or-later
"""Curves as CSV and JSON, and as driving."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.blendshape_names import CHANNELS, INDEX
from backend.cli import main
from backend.curve_files import from_csv, from_json, load_curves, timecode, to_csv, to_json
from backend.curves import Curves
from backend.driving import open_driving
from backend.errors import MotionFileError, NoFaceError
from backend.library import load_library
from backend.motion_files import load_motion
from backend.rotations import euler_from_rotation, rotation_from_euler

#: The head of a file that the app recorded.
REAL_HEAD = (
    "Timecode,BlendshapeCount,EyeBlinkLeft,EyeLookDownLeft,EyeLookInLeft,EyeLookOutLeft,EyeLookUpLeft,"
    "EyeSquintLeft,EyeWideLeft,EyeBlinkRight,EyeLookDownRight,EyeLookInRight,EyeLookOutRight,EyeLookUpRight,"
    "EyeSquintRight,EyeWideRight,JawForward,JawRight,JawLeft,JawOpen,MouthClose,MouthFunnel,MouthPucker,"
    "MouthRight,MouthLeft,MouthSmileLeft,MouthSmileRight,MouthFrownLeft,MouthFrownRight,MouthDimpleLeft,"
    "MouthDimpleRight,MouthStretchLeft,MouthStretchRight,MouthRollLower,MouthRollUpper,MouthShrugLower,"
    "MouthShrugUpper,MouthPressLeft,MouthPressRight,MouthLowerDownLeft,MouthLowerDownRight,MouthUpperUpLeft,"
    "MouthUpperUpRight,BrowDownLeft,BrowDownRight,BrowInnerUp,BrowOuterUpLeft,BrowOuterUpRight,CheekPuff,"
    "CheekSquintLeft,CheekSquintRight,NoseSneerLeft,NoseSneerRight,TongueOut,HeadYaw,HeadPitch,HeadRoll,"
    "LeftEyeYaw,LeftEyePitch,LeftEyeRoll,RightEyeYaw,RightEyePitch,RightEyeRoll"
)
RATES = (24, Fraction(24000, 1001), 25, Fraction(30000, 1001), 30, 50, Fraction(60000, 1001), 60)


def some_curves(frames: int, fps: Fraction | int, seed: int = 0, start: float = 0.0) -> Curves:
    random = np.random.default_rng(seed)
    return Curves(
        random.random((frames, 52)).astype(np.float32),
        random.uniform(-1, 1, (frames, 3)).astype(np.float32),
        np.ones(frames, np.bool_),
        Fraction(fps),
        start,
    )


def test_columns_are_named_and_ordered_as_the_app_does() -> None:
    assert to_csv(some_curves(1, 30)).split("\n")[0].lower() == REAL_HEAD.lower()


@given(
    frames=st.integers(2, 90),
    fps=st.sampled_from(RATES),
    seed=st.integers(0, 1000),
    start=st.floats(0, 80000),
)
@settings(max_examples=40, deadline=None)
def test_csv_round_trip(frames: int, fps: Fraction, seed: int, start: float) -> None:
    curves = some_curves(frames, fps, seed, start)
    again = from_csv(to_csv(curves))
    assert len(again) == frames
    np.testing.assert_allclose(again.values, curves.values, atol=1e-6)
    np.testing.assert_allclose(again.head, curves.head, atol=1e-6)
    if frames > 62:  # a second's end is in it, so the codes say how many frames a second has
        assert again.fps == fps
        assert again.start == pytest.approx(start, abs=0.001)


@given(frames=st.integers(1, 40), fps=st.sampled_from(RATES), seed=st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_json_round_trip_is_exact(frames: int, fps: Fraction, seed: int) -> None:
    curves = some_curves(frames, fps, seed, 1.25)
    again = from_json(to_json(curves))
    assert (again.fps, again.start) == (fps, 1.25)
    np.testing.assert_allclose(again.values, curves.values, atol=1e-7)
    np.testing.assert_allclose(again.head, curves.head, atol=1e-7)


@given(st.text(max_size=400) | st.binary(max_size=400))
@settings(max_examples=150, deadline=None)
def test_rubbish_is_one_clear_error(tmp_path_factory: pytest.TempPathFactory, rubbish: str | bytes) -> None:
    path = tmp_path_factory.mktemp("rubbish") / "x.csv"
    path.write_bytes(rubbish if isinstance(rubbish, bytes) else rubbish.encode("utf-8", "surrogatepass"))
    with pytest.raises(MotionFileError) as error:
        load_curves(path)
    assert "\n" not in str(error.value)


def test_timecodes_say_the_time() -> None:
    assert timecode(3661.5, 0, Fraction(30)) == "01:01:01:15.000"
    assert timecode(0, 61, Fraction(60)) == "00:00:01:01.000"
    assert timecode(0, 2, Fraction(30000, 1001)) == "00:00:00:02.002"
    assert timecode(0, 30000, Fraction(30000, 1001)) == "00:16:41:00.000"


def test_any_order_delimiter_case_and_missing_columns_are_read() -> None:
    text = "\ufeffjawOpen;TIMECODE;Eye_Blink_Left;mouthSmile_R;Mood\r\n" + "".join(
        f"0,{k};00:00:0{k // 5}:{5 * (k % 5):02d};1,0;0,5;calm\r\n" for k in range(10)
    )
    curves = from_csv(text)
    assert len(curves) == 10
    np.testing.assert_allclose(curves.values[:, INDEX["jawOpen"]], np.arange(10) / 10, atol=1e-6)
    assert (curves.values[:, INDEX["eyeBlinkLeft"]] == 1).all()
    assert (curves.values[:, INDEX["mouthSmileRight"]] == 0.5).all()
    assert curves.fps == 5


def test_dropped_rows_keep_the_time() -> None:
    whole = some_curves(120, 60)
    lines = to_csv(whole).splitlines()
    assert len(from_csv("\n".join(lines[:40] + lines[44:]))) == 120


def test_rows_without_values_are_frames_without_a_face() -> None:
    curves = some_curves(6, 30)
    curves.valid[2:4] = False
    again = from_csv(to_csv(curves))
    assert again.valid.tolist() == curves.valid.tolist()
    motion = again.motion()
    assert motion.valid.tolist() == curves.valid.tolist()
    middle = (2 * motion.expression[1] + motion.expression[4]) / 3
    np.testing.assert_allclose(motion.expression[2], middle, atol=1e-6)
    curves.valid[:] = False
    with pytest.raises(NoFaceError):
        from_csv(to_csv(curves)).motion()


def test_angles_in_degrees_are_noticed() -> None:
    rows = [f"00:00:0{k // 30}:{k % 30:02d},0.1,{20 * k / 60:.3f}" for k in range(60)]
    curves = from_csv("Timecode,JawOpen,HeadYaw\n" + "\n".join(rows))
    assert curves.head[-1, 0] == pytest.approx(np.radians(20 * 59 / 60), abs=1e-4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "No column"),
        ("Timecode,JawOpen\n", "no frames"),
        ("Timecode,JawOpen\n00:00:00:00,wide\n", "'wide' in line 2"),
        ("Timecode,JawOpen\n00:00:00:00,nan\n", "takes a number"),
        ("Timecode,JawOpen\n00:00:00:00,37\n", "from 0 to 1"),
        ("Timecode,JawOpen,jaw_open\n00:00:00:00,0,0\n", "there twice"),
        ("Timecode,JawOpen\nsoon,0\n", "no timecode"),
        ("Timecode,JawOpen\n00:00:05:00,0\n00:00:01:00,0\n", "goes backwards in line 3"),
        ('{"format": "other"}', "no curves"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "take.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(MotionFileError, match=message) as error:
        load_motion(path)
    assert str(error.value).startswith("take.csv: ")


def test_head_angles_have_the_apps_signs_and_come_back() -> None:
    motion = load_library("nod")[:3]
    motion.rotation[:] = rotation_from_euler([10, 0, 0], [0, 20, 0], [0, 0, 15])
    head = Curves.of(motion).head
    down, to_the_right, to_the_left = head
    assert down[1] == pytest.approx(-np.radians(10), abs=1e-5)
    assert to_the_right[0] == pytest.approx(-np.radians(20), abs=1e-5)
    assert to_the_left[2] == pytest.approx(-np.radians(15), abs=1e-5)
    again = euler_from_rotation(Curves.of(motion).motion().rotation)
    np.testing.assert_allclose(np.stack(again, axis=1), np.diag([10, 20, 15]), atol=1e-3)


def test_curves_drive_and_keep_what_they_say(tmp_path: Path) -> None:
    assert main(["convert", "laugh", str(tmp_path / "laugh.csv")]) == 0
    driving = open_driving(tmp_path / "laugh.csv")
    assert driving.kind == "motion" and driving.motion is not None
    original = load_library("laugh")
    assert (driving.motion.fps, len(driving.motion)) == (original.fps, len(original))
    first, again = Curves.of(original).values, Curves.of(driving.motion).values
    for name in ("mouthSmileLeft", "mouthSmileRight", "jawOpen", "eyeBlinkLeft"):
        assert np.corrcoef(first[:, INDEX[name]], again[:, INDEX[name]])[0, 1] > 0.9, name


def test_convert_goes_between_all_kinds(tmp_path: Path) -> None:
    for first, second in (("wink", "a.npz"), ("a.npz", "b.pkl"), ("b.pkl", "c.json"), ("c.json", "d.npz")):
        given = first if first == "wink" else str(tmp_path / first)
        assert main(["convert", given, str(tmp_path / second)]) == 0
        assert len(load_motion(tmp_path / second)) == len(load_library("wink"))


def test_wrong_commands_are_said_and_nothing_is_lost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["convert", "wink", str(tmp_path / "a.csv")]) == 0
    before = (tmp_path / "a.csv").read_bytes()
    wrong = [
        (["convert", str(tmp_path / "a.csv"), str(tmp_path / "a.csv")], "is an input"),
        (["convert", "wink", str(tmp_path / "a.txt")], "Cannot write a.txt"),
        (["capture", str(tmp_path / "a.csv"), "--csv", str(tmp_path / "a.csv")], "is an input"),
        (["capture", "wink"], "nowhere to write"),
        (["capture", "wink", "--csv", str(tmp_path / "a.xls")], "must end in"),
        (["convert", "wink", str(tmp_path / "b.csv"), "--neutral", "x"], "is no neutral"),
    ]
    for command, message in wrong:
        assert main(command) == 2
        assert message in capsys.readouterr().err
    assert (tmp_path / "a.csv").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv"]


def test_capture_writes_curves_with_and_without_a_motion(tmp_path: Path) -> None:
    assert main(["capture", "smile", "--csv", str(tmp_path / "only.csv")]) == 0
    assert main(["capture", "smile", "-o", str(tmp_path / "m.npz"), "--csv", str(tmp_path / "too.csv")]) == 0
    assert (tmp_path / "only.csv").read_bytes() == (tmp_path / "too.csv").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.npz", "only.csv", "too.csv"]
    assert len(CHANNELS) + 11 == len((tmp_path / "only.csv").read_text().split("\n")[1].split(","))
