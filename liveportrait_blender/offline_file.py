# SPDX-License-Identifier: GPL-3.0-or-later
"""The offline file: the packages of a profile in one zip, for machines without a network. Imports no bpy.

scripts/build_extension.py --offline writes it; data/offline.json holds the names that both sides use:

    liveportrait-offline.json   {"format": 1, "profile": "mesh", "platform": "linux-x64", "python": "3.11",
                                 "pins": ["absl-py==2.5.1", ...], "wheels": {"NAME.whl": "SHA-256 in hex"}}
    wheels/NAME.whl

Nothing in it is believed: names, sizes and checksums are held against the manifest, and the pins against the
add-on's own list.
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
import sys
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .paths import data_file

# What zipfile raises for files that are damaged, encrypted or packed in a way it does not know.
BAD_ZIP = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)
MOST_FILES, MOST_BYTES, MANIFEST_BYTES = 500, 16 << 30, 1 << 20
CHUNK = 1 << 20
_WHEEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.!+-]{0,200}\.whl")


class OfflineError(Exception):
    """The file does not serve. sentence: why; hint: what to do."""

    def __init__(self, sentence: str, hint: str = "Get the file that belongs to this version.") -> None:
        super().__init__(f"{sentence} {hint}")
        self.sentence, self.hint = sentence, hint


@dataclass(frozen=True)
class Manifest:
    """What an offline file says about itself. size: bytes of all wheels."""

    profile: str
    python: tuple[int, int]
    platform: str
    pins: tuple[str, ...]
    sha256: dict[str, str]
    size: int


def this_platform() -> str:
    """This machine in the words of Blender's extensions: linux-x64, windows-x64, macos-arm64, ..."""
    words, machine = _table(), platform.machine().lower()
    return f"{words['systems'].get(sys.platform, sys.platform)}-{words['machines'].get(machine, machine)}"


def _table() -> dict[str, Any]:
    table: dict[str, Any] = json.loads(data_file("offline.json").read_text(encoding="utf-8"))
    return table


def look_into(path: Path) -> Manifest:
    """The manifest of an offline file; its checksums are left to `unpack`. Raises OfflineError."""
    try:
        with zipfile.ZipFile(path) as archive:
            return _manifest(archive)
    except (OSError, *BAD_ZIP) as error:
        raise _unreadable(path, error) from error


def check(manifest: Manifest, pins: Sequence[str]) -> None:
    """Whether it serves here, with the add-on's own list of the profile. Raises OfflineError."""
    if manifest.platform != this_platform():
        raise OfflineError(f"The offline file is for {manifest.platform}, and this is {this_platform()}.")
    if {_plain(pin) for pin in manifest.pins} != {_plain(pin) for pin in _held_here(pins)}:
        raise OfflineError("The offline file was made for another version of this extension.")


def unpack(path: Path, folder: Path, cancelled: Callable[[], bool] = lambda: False) -> Manifest:
    """Put the wheels into `folder`, each checked. Stops between two pieces once cancelled.

    Raises:
        OfflineError: it is damaged, or not such a file.
        OSError: `folder` cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with zipfile.ZipFile(path) as archive:
            manifest, inner = _manifest(archive), _table()["wheels"]
            for name, wanted in manifest.sha256.items():
                digest = hashlib.sha256()
                with archive.open(f"{inner}{name}") as source, (folder / name).open("wb") as target:
                    while piece := source.read(CHUNK):
                        if cancelled():
                            return manifest
                        digest.update(piece)
                        target.write(piece)
                if digest.hexdigest() != wanted.lower():
                    (folder / name).unlink()
                    sentence = f"The offline file is damaged: {name} is not what it should be."
                    raise OfflineError(sentence, "Copy it again.")
            return manifest
    except BAD_ZIP as error:
        raise _unreadable(path, error) from error


def _manifest(archive: zipfile.ZipFile) -> Manifest:
    entries = {entry.filename: entry for entry in archive.infolist() if not entry.is_dir()}
    words = _table()
    about = entries.pop(words["manifest"], None)
    if about is None or about.file_size > MANIFEST_BYTES:
        raise OfflineError("This is no offline file of this extension.")
    try:
        told = json.loads(archive.read(about))
        manifest = _read(told, words["format"], sum(entry.file_size for entry in entries.values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise OfflineError("This is no offline file of this extension.") from error
    names = {f"{words['wheels']}{name}" for name in manifest.sha256}
    if names != set(entries) or not all(_WHEEL.fullmatch(name) for name in manifest.sha256):
        raise OfflineError("The offline file is damaged: it does not hold what it says.", "Copy it again.")
    if len(entries) > MOST_FILES or manifest.size > MOST_BYTES:
        raise OfflineError("The offline file is larger than any could be.")
    return manifest


def _read(told: dict[str, Any], wanted: int, size: int) -> Manifest:
    if told["format"] != wanted:
        raise OfflineError(f"The offline file is of another kind ({str(told['format'])[:60]}).")
    major, minor = str(told["python"]).split(".")
    sums = {str(name): str(digest) for name, digest in told["wheels"].items()}
    pins = tuple(str(pin) for pin in told["pins"])
    return Manifest(str(told["profile"]), (int(major), int(minor)), str(told["platform"]), pins, sums, size)


def _held_here(pins: Sequence[str]) -> list[str]:
    """The pins whose marker, if they have one, is about this system, without it."""
    held = []
    for pin in pins:
        name, _, marker = (part.strip() for part in pin.partition(";"))
        if not marker or re.fullmatch(rf"sys_platform == [\"']{re.escape(sys.platform)}[\"']", marker):
            held.append(name)
    return held


def _plain(pin: str) -> str:
    return re.sub(r"[-_.]+", "-", pin.replace(" ", "")).lower()


def _unreadable(path: Path, error: Exception) -> OfflineError:
    if isinstance(error, FileNotFoundError):
        return OfflineError(f"{path} is not there.", "Choose the offline file again.")
    if isinstance(error, OSError):
        return OfflineError(f"{path} cannot be read ({error.strerror}).", "Choose the offline file again.")
    sentence = f"{path.name} is no offline file of this extension, or is not whole."
    return OfflineError(sentence, "Copy it again.")
