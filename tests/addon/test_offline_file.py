# SPDX-License-Identifier: GPL-3.0-or-later
"""The offline file: what is taken, and what is not believed."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from liveportrait_blender import offline_file
from liveportrait_blender.offline_file import OfflineError

WHEELS = {"one-1.0-py3-none-any.whl": b"first", "two-2.0-py3-none-any.whl": b"second"}
PINS = ["one==1.0", "Two==2.0"]


def write(path: Path, holds: Mapping[str, bytes] = WHEELS, **changes: Any) -> Path:
    manifest = {
        "format": 1,
        "profile": "mesh",
        "python": "3.11",
        "platform": offline_file.this_platform(),
        "pins": PINS,
        "wheels": {name: hashlib.sha256(content).hexdigest() for name, content in holds.items()},
        **changes,
    }
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("liveportrait-offline.json", json.dumps(manifest))
        for name, content in holds.items():
            archive.writestr(f"wheels/{name}", content)
    return path


def test_a_good_one_is_unpacked(tmp_path: Path) -> None:
    path = write(tmp_path / "offline.zip")
    manifest = offline_file.look_into(path)
    assert (manifest.profile, manifest.python, manifest.size) == ("mesh", (3, 11), 11)
    offline_file.check(manifest, ["one==1.0", "two==2.0", 'other==1 ; sys_platform == "amiga"'])
    assert offline_file.unpack(path, tmp_path / "wheels") == manifest
    assert {file.name: file.read_bytes() for file in (tmp_path / "wheels").iterdir()} == WHEELS


def test_it_has_to_belong_to_this_version_and_machine(tmp_path: Path) -> None:
    manifest = offline_file.look_into(write(tmp_path / "offline.zip"))
    with pytest.raises(OfflineError, match="another version"):
        offline_file.check(manifest, ["one==1.1", "two==2.0"])
    other = offline_file.look_into(write(tmp_path / "offline.zip", platform="amiga-m68k"))
    with pytest.raises(OfflineError, match="is for amiga-m68k"):
        offline_file.check(other, PINS)


def test_a_changed_wheel_is_found(tmp_path: Path) -> None:
    good = {name: hashlib.sha256(content).hexdigest() for name, content in WHEELS.items()}
    path = write(tmp_path / "offline.zip", {**WHEELS, "two-2.0-py3-none-any.whl": b"evil!!"}, wheels=good)
    with pytest.raises(OfflineError, match=r"damaged: two-2\.0"):
        offline_file.unpack(path, tmp_path / "wheels")
    assert not (tmp_path / "wheels" / "two-2.0-py3-none-any.whl").exists()


def damaged(path: Path, where: bytes) -> Path:
    """One whose entry that ends in `where` is packed, and not as packed things are."""
    write(path)
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    with zipfile.ZipFile(path) as archive:
        entry = next(entry for entry in archive.infolist() if entry.filename.encode().endswith(where))
    data = bytearray(path.read_bytes())
    at = entry.header_offset + 30 + len(entry.filename)
    data[at : at + 3] = b"\xff\xff\xff"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("where", [b"offline.json", b"two-2.0-py3-none-any.whl"])
def test_what_cannot_be_unpacked_is_one_line(tmp_path: Path, where: bytes) -> None:
    path = damaged(tmp_path / "offline.zip", where)
    with pytest.raises(OfflineError, match="not whole"):
        offline_file.look_into(path)
        offline_file.unpack(path, tmp_path / "wheels")


@pytest.mark.parametrize(
    "name", ["../../evil.whl", "/evil.whl", "a\\..\\evil.whl", ".hidden.whl", "evil.py", "a/b.whl"]
)
def test_no_name_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / "offline.zip", {**WHEELS, name: b"evil"})
    with pytest.raises(OfflineError, match="damaged"):
        offline_file.unpack(path, tmp_path / "deep" / "wheels")
    assert sorted(file.name for file in tmp_path.rglob("*")) == ["deep", "offline.zip", "wheels"]


def test_it_has_to_hold_what_it_says(tmp_path: Path) -> None:
    for sums in ({}, {**dict.fromkeys(WHEELS, "0"), "three.whl": "0"}):
        with pytest.raises(OfflineError, match="damaged"):
            offline_file.look_into(write(tmp_path / "offline.zip", wheels=sums))


@pytest.mark.parametrize(
    "changes",
    [
        {"format": 2},
        {"python": "three"},
        {"wheels": []},
        {"pins": 3},
        {"format": None},
    ],
)
def test_a_strange_manifest_is_one_sentence(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(OfflineError) as caught:
        offline_file.look_into(write(tmp_path / "offline.zip", **changes))
    assert caught.value.sentence.endswith(".") and caught.value.hint


@pytest.mark.parametrize("content", [b"", b"no zip", None])
def test_what_is_no_such_file_is_one_sentence(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "offline.zip"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(OfflineError) as caught:
        offline_file.look_into(path)
    assert "offline" in str(caught.value)
    truncated = write(tmp_path / "whole.zip").read_bytes()[:-40]
    path.write_bytes(truncated)
    with pytest.raises(OfflineError, match="not whole"):
        offline_file.look_into(path)
