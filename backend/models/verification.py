# SPDX-License-Identifier: GPL-3.0-or-later
"""Tells of each file of weights whether it is there, whole, and the released one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from backend.errors import InputError, WeightsError
from backend.models import catalogue, store
from backend.models.catalogue import ModelFile
from backend.models.download import sha256_of
from backend.models.weight_files import check_structure


@dataclass(frozen=True)
class Checked:
    """One file and what was found: "good", "note" (usable, but worth saying), "missing" or "damaged"."""

    file: ModelFile
    path: Path | None
    state: Literal["good", "note", "missing", "damaged"]
    said: str
    size: int | None = None

    @property
    def usable(self) -> bool:
        return self.state in ("good", "note")

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.file.name,
            "path": None if self.path is None else str(self.path),
            "state": self.state,
            "said": self.said,
            "size": self.size,
            "released_size": self.file.size,
            "licence": self.file.licence,
            "required": self.file.required,
        }


def verify(
    folder: Path,
    files: Sequence[ModelFile] | None = None,
    hashing: bool = True,
    progress: Callable[[str], None] | None = None,
) -> list[Checked]:
    """Check every file: structure always, SHA-256 with `hashing` (reads every byte)."""
    record = store.read_record(folder)
    checked = []
    for file in catalogue.FILES if files is None else files:
        if progress is not None:
            progress(file.name)
        checked.append(check(file, store.locate(folder, file), record, hashing))
    return checked


def check(file: ModelFile, path: Path | None, record: store.Record, hashing: bool) -> Checked:
    """Check one file."""
    if path is None:
        said = "not there" if file.required else "not there; the detector's own landmarks serve instead"
        return Checked(file, None, "missing", said)
    size = None
    try:
        check_structure(file, path)
        size = path.stat().st_size
        if not hashing:
            return Checked(file, path, "good", "whole; its checksum was not looked at", size)
        digest = sha256_of(path)
    except (WeightsError, InputError) as error:
        return Checked(file, path, "damaged", error.message, size)
    except OSError as error:
        return Checked(file, path, "damaged", f"{path.name} cannot be read ({error.strerror}).")
    if digest == file.sha256:
        return Checked(file, path, "good", "the released file, SHA-256 agrees", size)
    return _unreleased(file, path, digest, record.files.get(file.name), size)


def _unreleased(
    file: ModelFile, path: Path, digest: str, fetched: store.Fetched | None, size: int
) -> Checked:
    """A sound file that is not the released one."""
    if path.suffix != Path(file.path).suffix:
        said = "keys and shapes are right; a repackaged file, whose SHA-256 nobody published"
        return Checked(file, path, "note", said, size)
    if fetched is None:
        return Checked(file, path, "note", "keys and shapes are right, but it is not the released file", size)
    if fetched.sha256 == digest:
        return Checked(file, path, "good", f"as fetched at {fetched.revision[:12]}, SHA-256 agrees", size)
    return Checked(file, path, "damaged", f"{path.name} has changed since it was fetched.", size)
