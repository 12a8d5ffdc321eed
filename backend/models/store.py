# SPDX-License-Identifier: GPL-3.0-or-later
"""Where weights lie on this machine, in which of the known layouts, and what is remembered about them.

Known layouts, in or below the folder that the user names: the released one (liveportrait/base_models/*.pth,
liveportrait/retargeting_models/*.pth, liveportrait/landmark.onnx), inside pretrained_weights or not; and
ComfyUI's models/liveportrait with one .safetensors (or .pth) a network.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import platformdirs

from backend.errors import OutputError
from backend.models.catalogue import REPOSITORY, ModelFile

FOLDER_VARIABLE = "LIVEPORTRAIT_MODELS"
RECORD = "models.json"
RECORD_FORMAT = "liveportrait-models/1"

# The folder of one layout below the folder that the user names, the likeliest first.
_INNER = (
    "liveportrait",
    "",
    "pretrained_weights/liveportrait",
    "models/liveportrait",
    "ComfyUI/models/liveportrait",
)


def models_folder(given: Path | None = None) -> Path:
    """The folder of the weights: the given one, else the environment's, else the user's data folder."""
    if given is not None:
        return given.expanduser()
    if named := os.environ.get(FOLDER_VARIABLE):
        return Path(named).expanduser()
    return platformdirs.user_data_path("liveportrait-blender", appauthor=False) / "models"


def target(folder: Path, file: ModelFile) -> Path:
    """Where a released file is put: folder/liveportrait/..., or folder/... if that is the inner folder."""
    path = PurePosixPath(file.path)
    inner = folder.name == path.parts[0] or (folder / "base_models").is_dir()
    return folder.joinpath(*path.parts[1:] if inner and len(path.parts) > 1 else path.parts)


def locate(folder: Path, file: ModelFile) -> Path | None:
    """The file in any of the known layouts, the place where it would be fetched to first."""
    below = PurePosixPath(file.path).relative_to(PurePosixPath(file.path).parts[0])
    names = [below.as_posix()]
    if file.layout is not None:
        names += [f"{file.stem}.safetensors", below.with_suffix(".safetensors").as_posix(), below.name]
    places = (folder / inner / name for inner in _INNER for name in names)
    return next((place for place in (target(folder, file), *places) if place.is_file()), None)


def locate_all(folder: Path, files: Sequence[ModelFile]) -> dict[str, Path]:
    """name -> path of those files that are there, whole or not."""
    found = ((file.name, locate(folder, file)) for file in files)
    return {name: path for name, path in found if path is not None}


@dataclass(frozen=True)
class Fetched:
    """What was fetched as a file: bytes, SHA-256, and the commit of the repository it came from."""

    size: int
    sha256: str
    revision: str


@dataclass
class Record:
    """What is remembered in models.json, beside the weights."""

    repository: str = REPOSITORY
    endpoint: str = ""
    files: dict[str, Fetched] = field(default_factory=dict)

    @property
    def revision(self) -> str | None:
        """The commit that the files came from; None if there is none or more than one."""
        revisions = {fetched.revision for fetched in self.files.values()}
        return revisions.pop() if len(revisions) == 1 else None


def read_record(folder: Path) -> Record:
    """What models.json says; an empty record where there is none or it is damaged (it can be made again)."""
    try:
        content = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        if content["format"] != RECORD_FORMAT:
            return Record()
        files = {name: _fetched(entry) for name, entry in content["files"].items()}
        return Record(str(content["repository"]), str(content["endpoint"]), files)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return Record()


def _fetched(entry: dict[str, Any]) -> Fetched:
    return Fetched(int(entry["size"]), str(entry["sha256"]), str(entry["revision"]))


def write_record(folder: Path, record: Record) -> None:
    """Write models.json in one step. Raises OutputError."""
    content = {"format": RECORD_FORMAT, **asdict(record)}
    with writing(folder):
        handle, name = tempfile.mkstemp(".part", f"{RECORD}.", folder)
        part = Path(name)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(json.dumps(content, indent=1) + "\n")
            part.replace(folder / RECORD)
        finally:
            part.unlink(missing_ok=True)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns the system's refusals to write at `path` into an OutputError of one line."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(
            f"{path} cannot be written ({reason}).",
            "Make room or make it writable, then try again; or name another folder with --models DIR.",
        ) from error
