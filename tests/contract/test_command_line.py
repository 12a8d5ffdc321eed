# SPDX-License-Identifier: GPL-3.0-or-later
"""`--server URL`: the same output as without."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from backend.cli import main
from backend.library import load_library
from backend.motion_files import load_motion
from tests.contract.serving import TOKEN, Running


@pytest.fixture(autouse=True)
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIVEPORTRAIT_TOKEN", TOKEN)


def test_animate(server: Running, portrait: Path, tmp_path: Path) -> None:
    flags = ["--frames", "2:7", "--smile", "0.4", "--absolute"]
    assert main(["animate", str(portrait), "talk", "-o", str(tmp_path / "here"), *flags]) == 0
    there = ["animate", str(portrait), "talk", "-o", str(tmp_path / "there"), *flags, "--server", server.url]
    assert main(there) == 0
    names = sorted(path.name for path in (tmp_path / "here").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "there").iterdir())
    for name in names:
        if name.endswith(".png"):
            assert (tmp_path / "here" / name).read_bytes() == (tmp_path / "there" / name).read_bytes()
    told = json.loads((tmp_path / "there" / "result.json").read_text())
    assert told["complete"] is True and told["frames"] == 5


def test_a_clip_and_a_motion(server: Running, portrait: Path, tmp_path: Path) -> None:
    there = ["--server", server.url]
    assert (
        main(["animate", str(portrait), "wink", "-o", str(tmp_path / "a.mp4"), "--frames", "0:3", *there])
        == 0
    )
    assert (tmp_path / "a.mp4").stat().st_size > 1000
    assert main(["capture", str(portrait), "-o", str(tmp_path / "m.npz"), *there]) == 0
    assert len(load_motion(tmp_path / "m.npz")) == 1
    assert main(["render", str(portrait), str(tmp_path / "m.npz"), "-o", str(tmp_path / "r"), *there]) == 0
    assert (tmp_path / "r" / "000000.png").is_file()


def test_a_template_and_controls_alone(server: Running, portrait: Path, tmp_path: Path) -> None:
    there = ["--server", server.url]
    assert main(["capture", "nod", "-o", str(tmp_path / "nod.pkl"), *there]) == 0
    assert (tmp_path / "nod.pkl").read_bytes()[:1] == b"\x80"
    assert len(load_motion(tmp_path / "nod.pkl")) == len(load_library("nod"))
    assert [path.name for path in tmp_path.iterdir()] == ["nod.pkl"]
    for name, flags in (("here", []), ("there", there)):
        assert main(["animate", str(portrait), "-o", str(tmp_path / name), "--smile", "0.8", *flags]) == 0
    assert (tmp_path / "here" / "000000.png").read_bytes() == (tmp_path / "there" / "000000.png").read_bytes()
    assert main(["capture", "nod", "-o", str(tmp_path / "nod.txt"), *there]) == 2


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["animate", "{none}", "talk"], 2, "no file"),
        (["animate", "{portrait}", "nobody"], 2, "nobody"),
        (["animate", "{noise}", "talk"], 2, "noise.png"),
    ],
)
def test_failures_are_the_same(
    server: Running, portrait: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    arguments: list[str], code: int, said: str,
) -> None:  # fmt: skip
    (tmp_path / "noise.png").write_text("no picture")
    places = {"none": tmp_path / "none.png", "portrait": portrait, "noise": tmp_path / "noise.png"}
    given = [argument.format(**places) for argument in arguments]
    assert main([*given, "-o", str(tmp_path / "out"), "--server", server.url]) == code
    line = capsys.readouterr().err.strip()
    assert line.startswith("error: ") and said in line and "\n" not in line


def test_servers_that_are_not_there(
    server: Running, portrait: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    given = ["animate", str(portrait), "talk", "-o", str(tmp_path / "out"), "--server"]
    for url in ("ws://127.0.0.1:9", "http://127.0.0.1", "nonsense"):
        assert main([*given, url]) == 2
    monkeypatch.setenv("LIVEPORTRAIT_TOKEN", "another token, not the right one")
    assert main([*given, server.url]) == 2
    assert "token" in capsys.readouterr().err.splitlines()[-1]
