# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line is a contract: its words, defaults, exit codes and one-line failures."""

from __future__ import annotations

import io
import json
from fractions import Fraction
from pathlib import Path

import pytest

from backend.cli import build_parser, main
from backend.cli_options import options_from
from backend.errors import InputError
from backend.expressions import controls
from backend.options import Options
from backend.progress import JsonLines, Rate


def parse(*flags: str) -> Options:
    return options_from(build_parser().parse_args(["animate", "a.png", "b.mp4", "-o", "c.mp4", *flags]))


def failure(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Exit code and the one line on standard error."""
    code = main(arguments)
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1, captured.err
    assert captured.err.startswith("error: ")
    return code, captured.err


def test_without_flags_the_options_are_the_documented_defaults() -> None:
    assert parse() == Options()


def test_every_word_of_the_contract_is_understood() -> None:
    options = parse(
        *("--engine", "mesh", "--models", "m", "--device", "cpu", "--absolute"),
        *("--driving-option", "pose-friendly", "--multiplier", "0.5", "--region", "lips"),
        *("--no-stitch", "--no-crop", "--no-rotate", "--no-paste-back", "--no-driving-crop"),
        *("--normalize-lips", "--eye-retargeting", "--lip-retargeting", "--lock-scale"),
        *("--eye-gain", "1.5", "--lip-gain", "2", "--smoothing", "0.5", "--crop-scale", "2.5"),
        *("--crop-x", "0.1", "--crop-y", "-0.2", "--driving-crop-scale", "2", "--driving-crop-x", "0.1"),
        *("--driving-crop-y", "-0.3", "--reference-frame", "auto", "--face", "1", "--frames", "10:20"),
        *("--driving-face", "2"),
        *("--fps", "30000/1001", "--compatibility", "upstream"),
        *("--length-policy", "mirror", "--source-smoothing", "auto", "--observation-variance", "1e-5"),
        *("--steady-source-eyes", "--silence-lips"),
    )
    assert options == Options(
        engine="mesh",
        models=Path("m"),
        device="cpu",
        relative=False,
        driving_option="pose-friendly",
        multiplier=0.5,
        region="lips",
        stitch=False,
        crop=False,
        rotate=False,
        paste_back=False,
        driving_crop=False,
        normalize_lips=True,
        eye_retargeting=True,
        lip_retargeting=True,
        lock_scale=True,
        eye_gain=1.5,
        lip_gain=2.0,
        smoothing=0.5,
        crop_scale=2.5,
        crop_x=0.1,
        crop_y=-0.2,
        driving_crop_scale=2.0,
        driving_crop_x=0.1,
        driving_crop_y=-0.3,
        reference_frame="auto",
        face=1,
        driving_face=2,
        frames=(10, 20),
        fps=Fraction(30000, 1001),
        compatibility="upstream",
        length_policy="mirror",
        source_smoothing="auto",
        observation_variance=1e-5,
        steady_source_eyes=True,
        silence_lips=True,
    )


@pytest.mark.parametrize("control", controls(), ids=lambda control: control.name)
def test_every_expression_control_is_a_flag_with_its_published_range(control) -> None:
    for value in (control.minimum, control.maximum):
        assert parse(control.flag, repr(float(value))).controls == {control.name: value}
    for value in (control.minimum - 1, control.maximum + 1):
        with pytest.raises(InputError, match=control.flag):
            parse(control.flag, str(value))


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("24", Fraction(24)),
        ("23.976", Fraction(24000, 1001)),
        ("29.97", Fraction(30000, 1001)),
        ("12.5", Fraction(25, 2)),
    ],
)
def test_frame_rates_are_exact(text: str, rate: Fraction) -> None:
    assert parse("--fps", text).fps == rate


@pytest.mark.parametrize(
    ("text", "frames"), [("3:9", (3, 9)), ("3:", (3, None)), (":9", (0, 9)), (":", (0, None))]
)
def test_frame_ranges_are_half_open_and_may_be_open(text: str, frames: tuple[int, int | None]) -> None:
    assert parse("--frames", text).frames == frames


@pytest.mark.parametrize(
    "flags",
    [
        ("--frames", "9:3"),
        ("--frames", "5"),
        ("--frames", "a:b"),
        ("--fps", "0"),
        ("--fps", "1/0"),
        ("--fps", "fast"),
        ("--face", "-1"),
        ("--multiplier", "nan"),
        ("--crop-scale", "0"),
        ("--smoothing", "-1"),
        ("--source-smoothing", "-1"),
        ("--observation-variance", "-1"),
        ("--length-policy", "stretch"),
        ("--reference-frame", "first"),
        ("--region", "ears"),
        ("--engine", "magic"),
        ("--no-such-flag",),
        ("--relative", "--absolute"),
    ],
    ids=" ".join,
)
def test_a_wrong_flag_is_one_line_and_exit_code_2(capsys: pytest.CaptureFixture[str], flags) -> None:
    code, line = failure(capsys, "animate", "a.png", "b.mp4", "-o", "c.mp4", *flags)
    assert code == 2
    assert flags[-1] in line or flags[0] in line


@pytest.mark.parametrize("arguments", [(), ("dance",), ("animate",), ("animate", "a.png", "b.mp4")], ids=str)
def test_a_missing_argument_is_one_line_and_exit_code_2(
    capsys: pytest.CaptureFixture[str], arguments
) -> None:
    code, line = failure(capsys, *arguments)
    assert code == 2
    assert "--help" in line


def test_a_fault_of_ours_is_one_line_and_exit_code_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("the wheel came off")

    monkeypatch.setattr("backend.doctor.examine", broken)
    code, line = failure(capsys, "doctor")
    assert code == 1
    assert "the wheel came off" in line and "--verbose" in line


def test_verbose_shows_where_a_failure_comes_from(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["animate", str(tmp_path / "no.png"), "nod", "-o", str(tmp_path / "o.mp4"), "--verbose"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_failures_are_also_told_as_json(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["animate", str(tmp_path / "no.png"), "nod", "-o", str(tmp_path / "o.mp4"), "--json"]) == 2
    event = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert event["event"] == "error"
    assert event["code"] == "bad-input" and "no.png" in event["message"] and event["hint"]


def test_an_unknown_driving_names_the_library(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, line = failure(capsys, "animate", "a.png", "moonwalk", "-o", str(tmp_path / "o.mp4"))
    assert code == 2
    assert "moonwalk" in line and "nod" in line and "wink" in line


def test_doctor_says_that_the_main_way_works(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["works"] is True
    found = {line["subject"]: line["found"] for line in told["findings"]}
    assert found["mediapipe"] == "0.10.21"
    assert found["engine"].startswith("mesh on cpu: ")
    assert "H.264" in found["codecs"]


def test_doctor_says_what_to_do_about_a_lack(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backend.doctor.PACKAGES", ("a-package-nobody-has",))
    assert main(["doctor"]) == 1
    told = capsys.readouterr().out
    assert "a-package-nobody-has" in told and "Reinstall" in told


def test_doctor_says_why_the_neural_engine_cannot_run_and_what_changes_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Whatever the machine: here there are no weights."""
    main(["doctor", "--device", "cpu", "--engine", "neural", "--models", str(tmp_path), "--json"])
    lines = {line["subject"]: line for line in json.loads(capsys.readouterr().out)["findings"]}
    neural = lines["neural engine"]
    assert neural["state"] == "note" and neural["found"].startswith("cannot run: ")
    assert "python -m backend models download" in neural["advice"] or "profile" in neural["advice"]


def test_doctor_about_an_engine_that_cannot_run_here(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--engine", "neural", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    engine = next(line for line in told["findings"] if line["subject"] == "engine")
    assert engine["state"] == "lack" and engine["advice"]


def test_progress_lines_come_at_most_ten_a_second_and_end_with_the_last_frame() -> None:
    now = [0.0]
    stream = io.StringIO()
    lines = JsonLines(stream, clock=lambda: now[0])
    for done in range(1, 101):
        now[0] += 0.01
        lines.update("render", done, 100)
    told = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert len(told) <= 12
    assert told[-1]["done"] == 100 and told[-1]["eta"] == 0
    assert told[-1]["fps"] == pytest.approx(100, rel=0.02)


def test_the_rate_begins_anew_with_each_stage() -> None:
    now = [0.0]
    rate = Rate(clock=lambda: now[0])
    assert rate.measure("capture", 1, 10) == (None, None)
    now[0] = 1.0
    assert rate.measure("capture", 6, 10) == (5.0, 0.8)
    assert rate.measure("render", 1, 10) == (None, None)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["animate", "a.png", "b.mp4", "-o", "c", "--smothing", "1"],
            ("Did you mean --smoothing?", "animate --help"),
        ),
        (["render", "a.png", "b.npz", "--outptu", "c"], ("no option --outptu", "--output?", "render --help")),
        (
            ["capture", "b.mp4", "-o", "c.npz", "--multiplier=2"],
            ("no option --multiplier.", "capture --help"),
        ),
        (["models", "list", "--model", "x"], ("--models?", "models list --help")),
        (
            ["animate", "a", "b", "-o", "c", "--smoothing", "lots"],
            ("'lots' is not off, auto or a number from 0",),
        ),
        (
            ["animate", "a", "-o", "c", "--face", "0:nod", "--face", "1"],
            ("Nothing drives face 1", "1:DRIVING"),
        ),
    ],
    ids=lambda value: " ".join(value)[:60],
)
def test_what_is_wrong_with_an_option_is_said(
    capsys: pytest.CaptureFixture[str], arguments: list[str], said: tuple[str, ...]
) -> None:
    code, line = failure(capsys, *arguments)
    assert code == 2
    for words in said:
        assert words in line


def test_a_capture_has_the_options_that_it_depends_on(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["capture", "--help"])
    shown = capsys.readouterr().out
    assert "--driving-crop-scale" in shown and "--frames" in shown and "--face N" in shown
    assert not any(flag in shown for flag in ("--stitch", "--smile", "--region", "--paste-back", "--audio"))
    given = build_parser().parse_args(["capture", "a.mp4", "-o", "b.npz", "--face", "1"])
    assert options_from(given) == Options(driving_face=1)


def test_on_a_terminal_a_line_says_what_came_out(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    assert main(["capture", "nod", "-o", str(tmp_path / "a.npz"), "--frames", "0:15"]) == 0
    assert capsys.readouterr().err.splitlines()[-1].endswith("a.npz: 15 frames, 0.5 s at 30 fps")
