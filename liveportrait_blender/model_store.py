# SPDX-License-Identifier: GPL-3.0-or-later
"""What is known of LivePortrait's weights: which files are here, as the backend told. Imports no bpy."""

from __future__ import annotations

import json
import subprocess
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .backend_code import where_it_lies
from .supervisor import Launch, apart, clean_environment

# Before a backend has told: the released files that the neural engine needs, and their optional sixth.
ALL_BYTES = 636_986_730
LICENCE = "MIT"
SOURCE = "Hugging Face, KwaiVGI/LivePortrait"


@dataclass(frozen=True)
class ModelFile:
    """One of the released files. state: "good", "note" (usable), "missing" or "damaged"; said: more of it."""

    name: str
    state: str
    said: str = ""
    size: int = 0
    licence: str = LICENCE
    required: bool = True

    @property
    def usable(self) -> bool:
        return self.state in ("good", "note")


@dataclass(frozen=True)
class Listing:
    """The files in one folder. verified: checksums were compared, too."""

    folder: str = ""
    repository: str = ""
    files: tuple[ModelFile, ...] = ()
    verified: bool = False

    @property
    def known(self) -> bool:
        return bool(self.files)

    @property
    def complete(self) -> bool:
        return self.known and all(file.usable for file in self.files if file.required)

    @property
    def to_fetch(self) -> int:
        """Bytes that Download Models would fetch."""
        if not self.known:
            return ALL_BYTES
        return sum(file.size for file in self.files if not file.usable)


def read(told: Mapping[str, Any], verified: bool = False) -> Listing:
    """A listing out of what `models.list`, or `models verify --json`, told. Raises ValueError."""
    try:
        files = tuple(
            ModelFile(
                str(each["name"]),
                str(each["state"]),
                str(each.get("said", ""))[:300],
                int(each.get("released_size") or each.get("size") or 0),
                str(each.get("licence", "")),
                bool(each.get("required", True)),
            )
            for each in told["files"]
        )
        return Listing(str(told["folder"]), str(told.get("repository", SOURCE)), files, verified)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError("The backend's list of models cannot be read.") from error


@dataclass
class Verifying:
    """Checksums of all files, compared by the backend's own program on a thread."""

    launch: Launch
    listing: Listing | None = None
    error: str = ""
    _thread: threading.Thread | None = field(default=None, repr=False)
    _child: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="liveportrait-verify", daemon=True)
        self._thread.start()

    def wait(self, timeout: float | None = None) -> bool:
        """Whether it has ended within so many seconds."""
        if self._thread is not None:
            self._thread.join(timeout)
        return self.ended

    @property
    def ended(self) -> bool:
        return self.listing is not None or bool(self.error)

    def cancel(self) -> None:
        if self._child is not None and self._child.poll() is None:
            self._child.kill()

    def _run(self) -> None:
        line = [str(self.launch.python), "-m", "backend", "models", "verify", "--json"]
        if self.launch.models is not None:
            line += ["--models", str(self.launch.models)]
        try:
            self._child = subprocess.Popen(
                line,
                cwd=tempfile.gettempdir(),
                env=clean_environment(**where_it_lies(self.launch.code)),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                **apart(),
            )
            said, complaints = self._child.communicate()
            told = json.loads(said)
            self.listing = read({"folder": str(self.launch.models or ""), **told}, verified=True)
        except OSError as error:
            self.error = f"The backend's Python cannot be run: {error}."
        except (ValueError, TypeError):
            last = complaints.decode("utf-8", "replace").strip().splitlines()[-1:] or ["it said nothing"]
            self.error = f"The models could not be checked: {last[0][:200]}"


def is_model_folder(path: Path) -> bool:
    """Whether any of the weights seem to lie in or below a folder, in one of the layouts that are known."""
    inner = ("", "liveportrait", "pretrained_weights/liveportrait", "models/liveportrait")
    names = ("base_models/motion_extractor.pth", "motion_extractor.safetensors", "motion_extractor.pth")
    more = ("ComfyUI/models/liveportrait",)
    return any((path / folder / name).is_file() for folder in (*inner, *more) for name in names)
