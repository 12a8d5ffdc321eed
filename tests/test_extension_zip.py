# SPDX-License-Identifier: GPL-3.0-or-later
"""What goes into the extension's zip and into the file for machines without a network. Blender's part of it,
and the zip as a whole, are tested inside Blender; nothing is fetched here.
"""

from __future__ import annotations

import json
import re
import sys
import tomllib
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import backend
from liveportrait_blender import names
from scripts import build_extension, environment, machine, offline_bundle
from scripts.environment import ROOT
from scripts.machine import SetupError

WHEEL = next(iter(build_extension.BUNDLED))


@pytest.fixture
def kept_wheel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A stand-in for the wheel that was fetched before."""
    wheel = tmp_path / "wheels" / WHEEL
    wheel.parent.mkdir()
    wheel.write_bytes(b"websockets")
    monkeypatch.setattr(build_extension, "KEPT_WHEELS", wheel.parent)
    pin = build_extension.BUNDLED[WHEEL][0]
    monkeypatch.setitem(build_extension.BUNDLED, WHEEL, (pin, offline_bundle.sha256(wheel)))
    return wheel


# --- the manifest -------------------------------------------------------------------------------------------


def manifest() -> dict[str, Any]:
    return tomllib.loads((ROOT / build_extension.MANIFEST).read_text(encoding="utf-8"))


def test_one_version_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    versions = {
        "manifest": manifest()["version"],
        "script": build_extension.read_version(),
        "add-on": names.VERSION,
        "backend": backend.__version__,
        "project": project["version"],
    }
    assert set(versions.values()) == {backend.__version__}, versions


def test_the_manifest_keeps_to_blenders_rules() -> None:
    said = manifest()
    assert said["id"] == build_extension.PACKAGE and said["type"] == "add-on"
    assert said["blender_version_min"] == "4.2.0" and "blender_version_max" not in said
    assert "Blender" not in said["name"]  # the rules of Blender's platform for extensions
    assert said["license"] == ["SPDX:GPL-3.0-or-later"]
    assert set(said["permissions"]) == {"files", "network"}
    for text in (said["tagline"], *said["permissions"].values()):
        assert 0 < len(text) <= 64 and text[-1].isalnum(), text
    assert all(re.match(r"\d{4} .", holder) for holder in said["copyright"])


def test_the_client_is_the_same_release_on_both_sides_and_runs_everywhere() -> None:
    assert manifest()["wheels"] == [f"./wheels/{name}" for name in build_extension.BUNDLED]
    for name, (pin, digest) in build_extension.BUNDLED.items():
        assert pin in environment.read_pins("mesh")
        assert name == f"{pin.replace('==', '-')}-py3-none-any.whl"
        assert re.fullmatch(r"[0-9a-f]{64}", digest)


# --- the zip ------------------------------------------------------------------------------------------------


def test_it_holds_the_addon_the_backend_and_what_they_need(kept_wheel: Path) -> None:
    inside = build_extension.contents()
    wanted = {
        "__init__.py": "liveportrait_blender/__init__.py",
        "data/expression_controls.json": "liveportrait_blender/data/expression_controls.json",
        "backend/__main__.py": "backend/__main__.py",
        "backend/data/library/smile.npz": "backend/data/library/smile.npz",
        "requirements/mesh.txt": "requirements/mesh.txt",
        "LICENSE": "LICENSE",
        "blender_manifest.toml": "blender_manifest.toml",
    }
    assert {name: inside[name] for name in wanted} == {name: ROOT / path for name, path in wanted.items()}
    assert inside[f"wheels/{WHEEL}"] == kept_wheel
    assert list(inside) == sorted(inside)


def test_what_only_developers_need_stays_out(kept_wheel: Path) -> None:
    for name in build_extension.contents():
        assert not re.search(r"(^|/)(tests|scripts|docs|__pycache__|\.[^/]*)(/|$)|\.pyc$", name), name
        assert not re.fullmatch(r"requirements/(bpy.*|test|demo)\.txt", name), name


@pytest.mark.parametrize("name", ["holiday.jpeg", "model.onnx", "notes.txt~"])
def test_a_file_that_was_left_behind_is_not_shipped(
    kept_wheel: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    for folder in ("liveportrait_blender", "backend", "requirements"):
        (tmp_path / folder).mkdir()
    monkeypatch.setattr(build_extension, "ROOT", tmp_path)
    stray = tmp_path / "backend" / name
    stray.write_bytes(b"")
    with pytest.raises(SetupError, match=rf"^backend/{re.escape(name)}: no part of the extension"):
        build_extension.contents()
    stray.unlink()
    assert f"backend/{name}" not in build_extension.contents()


def test_order_and_times_of_the_sources_do_not_show(tmp_path: Path) -> None:
    made = []
    for turn, names_ in enumerate((["b.py", "a/c.json", "w.whl"], ["w.whl", "a/c.json", "b.py"])):
        packed, target = tmp_path / f"{turn}.zip", tmp_path / f"{turn}-ordered.zip"
        with zipfile.ZipFile(packed, "w") as writing:
            for name in names_:
                entry = zipfile.ZipInfo(name, (2026 - turn, 1, 1, 0, 0, 0))
                entry.external_attr = (0o600 if turn else 0o777) << 16
                writing.writestr(entry, name * 100)
        build_extension.put_in_order(packed, target)
        made.append(target.read_bytes())
    assert made[0] == made[1]
    with zipfile.ZipFile(tmp_path / "0-ordered.zip") as read:
        assert read.namelist() == ["a/c.json", "b.py", "w.whl"]
        assert read.read("b.py").decode() == "b.py" * 100


# --- fetching -----------------------------------------------------------------------------------------------


class Pip:
    """Stands in for pip: puts files into the folder that it is told."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.asked: list[list[str]] = []

    def run(self, command: Sequence[str], failure: str, *_: object) -> None:
        self.asked.append(list(command))
        folder = Path(command[list(command).index("--dest") + 1])
        for name, data in self.files.items():
            (folder / name).write_bytes(data)


def test_the_wheel_is_fetched_once_and_again_when_it_is_damaged(
    kept_wheel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pip = Pip({WHEEL: b"websockets"})
    monkeypatch.setattr(machine, "run", pip.run)
    monkeypatch.setattr(build_extension, "any_pip", lambda: ["pip"])
    assert build_extension.fetch_bundled_wheel().read_bytes() == b"websockets"
    assert pip.asked == []
    kept_wheel.write_bytes(b"web")
    assert build_extension.fetch_bundled_wheel().read_bytes() == b"websockets"
    assert len(pip.asked) == 1 and "websockets==17.4" in pip.asked[0]


def test_another_wheel_than_the_pinned_one_is_refused(
    kept_wheel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept_wheel.unlink()
    monkeypatch.setattr(machine, "run", Pip({WHEEL: b"something else"}).run)
    monkeypatch.setattr(build_extension, "any_pip", lambda: ["pip"])
    with pytest.raises(SetupError, match="something else than"):
        build_extension.fetch_bundled_wheel()
    assert not kept_wheel.exists()


# --- without a network --------------------------------------------------------------------------------------


def wheels_of_the_profile() -> dict[str, bytes]:
    pins = offline_bundle.pins_here()
    return {f"{pin.replace('-', '_').replace('==', '-')}-py3-none-any.whl": pin.encode() for pin in pins}


def test_the_offline_file_says_what_it_holds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pip = Pip(wheels_of_the_profile())
    monkeypatch.setattr(machine, "run", pip.run)
    made = offline_bundle.build(tmp_path, (3, 11), ["pip"])
    assert made.name == f"liveportrait-offline-{offline_bundle.this_platform()}-py311.zip"
    assert pip.asked[0][pip.asked[0].index("--python-version") + 1] == "3.11"
    with zipfile.ZipFile(made) as packed:
        said = json.loads(packed.read("liveportrait-offline.json"))
        held = {name: packed.read(name) for name in packed.namelist() if name.startswith("wheels/")}
    assert said["format"] == 1 and said["profile"] == "mesh" and said["python"] == "3.11"
    assert said["platform"] == offline_bundle.this_platform()
    assert said["pins"] == offline_bundle.pins_here()
    assert set(held) == {f"wheels/{name}" for name in said["wheels"]}
    assert len(said["wheels"]) == len(said["pins"])
    import hashlib

    assert {n: hashlib.sha256(d).hexdigest() for n, d in held.items()} == {
        f"wheels/{name}": digest for name, digest in said["wheels"].items()
    }


@pytest.mark.parametrize("spoil", ["one less", "one more", "a source"])
def test_an_offline_file_that_is_not_whole_is_not_made(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, spoil: str
) -> None:
    files = wheels_of_the_profile()
    if spoil != "one more":
        files.pop(next(iter(files)))
    if spoil == "one more":
        files["requests-2.0-py3-none-any.whl"] = b""
    elif spoil == "a source":
        files["absl-py-2.5.1.tar.gz"] = b""
    monkeypatch.setattr(machine, "run", Pip(files).run)
    with pytest.raises(SetupError, match="one wheel for each"):
        offline_bundle.build(tmp_path, (3, 11), ["pip"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("system", "kind", "word"),
    [
        ("linux", "x86_64", "linux-x64"),
        ("win32", "AMD64", "windows-x64"),
        ("darwin", "arm64", "macos-arm64"),
    ],
)
def test_platforms_are_called_as_blender_calls_them(
    monkeypatch: pytest.MonkeyPatch, system: str, kind: str, word: str
) -> None:
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(offline_bundle.platform, "machine", lambda: kind)
    assert offline_bundle.this_platform() == word


def test_a_platform_without_blender_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offline_bundle.platform, "machine", lambda: "riscv64")
    with pytest.raises(SetupError, match="There is no Blender for"):
        offline_bundle.this_platform()
