# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a result goes: an MP4, or a folder with 000000.png ..., motion.npz and result.json.

Whether the place can be written is found before any work is done. result.json says "complete": false from the
first frame until the last one is on disk, so an interrupted result is known as such whatever ended it.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field, fields
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from backend import media
from backend.errors import InputError, LivePortraitError, OutputError
from backend.motion import Motion
from backend.motion_files import save_motion
from backend.options import Options

FORMAT = "liveportrait-result/1"
JOB_COMMENT = "LivePortrait for Blender, job "
FRAME_NAME = re.compile(r"\d{6,}\.png")
PNG_END = b"IEND\xaeB`\x82"
UNSURE = 16  # frames that may not have reached the disk when a machine is lost
OTHER_CLIPS = {".mov", ".mkv", ".webm", ".avi", ".m4v", ".gif"}


@dataclass
class Summary:
    """What result.json holds. `inputs` maps "source", "driving", "face 0", ... to {"name", "sha256"}; `job`
    tells jobs apart that would make other frames.
    """

    engine: str
    engine_why: str
    device: str
    fps: Fraction
    size: tuple[int, int]
    options: Options
    inputs: Mapping[str, Mapping[str, str]]
    version: str
    job: str = ""
    frames: int = 0
    valid_frames: int = 0
    warnings: list[str] = field(default_factory=list)
    complete: bool = False
    face: Mapping[str, Any] | None = None  # staging.face_in_frames

    def take_over(self, told: Mapping[str, Any]) -> None:
        """Say of a result that is complete what its own result.json says."""
        self.engine, self.engine_why, self.device = told["engine"], told["engine_why"], told["device"]
        self.fps = Fraction(told["fps_numerator"], told["fps_denominator"])
        self.size = (told["size"][0], told["size"][1])
        self.frames, self.valid_frames = told["frames"], told["valid_frames"]
        self.warnings, self.complete = list(told["warnings"]), True
        self.face = told.get("face")  # not in results of before

    def as_json(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "version": self.version,
            "complete": self.complete,
            "job": self.job,
            "engine": self.engine,
            "engine_why": self.engine_why,
            "device": self.device,
            "fps": float(self.fps),
            "fps_numerator": self.fps.numerator,
            "fps_denominator": self.fps.denominator,
            "frames": self.frames,
            "valid_frames": self.valid_frames,
            "size": list(self.size),
            "face": None if self.face is None else dict(self.face),
            "options": options_as_json(self.options),
            "inputs": {role: dict(facts) for role, facts in self.inputs.items()},
            "warnings": list(dict.fromkeys(self.warnings)),
        }


def options_as_json(options: Options) -> dict[str, Any]:
    """The options with JSON's own types: paths and rates as text."""

    def plain(value: Any) -> Any:
        if isinstance(value, Path | Fraction):
            return str(value)
        if isinstance(value, Mapping):
            return {key: plain(entry) for key, entry in value.items()}
        return list(value) if isinstance(value, tuple) else value

    return {entry.name: plain(getattr(options, entry.name)) for entry in fields(options)}


@dataclass(frozen=True)
class Sound:
    """The part of a clip's sound that belongs to the result: seconds from the clip's first picture."""

    path: Path
    start: float


class Result(Protocol):
    """An output: `check` before any work, `writing` around the frames, `complete` when all are on disk.

    Frames are (h, w, 3) RGB, uint8 or, where `keeps_depth`, uint16; `write` keeps no reference to the array.
    """

    path: Path
    keeps_depth: bool
    keeps_alpha: bool

    def check(self, inputs: Iterable[Path]) -> None:
        """Raise OutputError when this cannot be written, InputError when an input would be overwritten."""

    def resume(self, job: str) -> tuple[int, bool]:
        """Keep the whole frames that this job has left here: how many there are, and whether that is all.

        Raises InputError where they are another job's.
        """

    def writing(
        self, summary: Summary, alpha: np.ndarray | None = None, bits: int = 8, sound: Sound | None = None
    ) -> AbstractContextManager[Callable[[np.ndarray], None]]:
        """A context that gives `write`; left by an error it keeps the whole frames, marked as a part."""

    def complete(self, summary: Summary, motions: Mapping[str, Motion]) -> None:
        """All frames are on disk: write what goes beside them. motions: by file name."""


def open_result(path: Path) -> Result:
    """The result for an output path. Raises InputError for a kind of file that is not written."""
    suffix = path.suffix.lower()
    if suffix == ".mp4":
        return ClipResult(path)
    if suffix in OTHER_CLIPS or path.is_file():
        raise InputError(
            f"Cannot write {path.name}.", "Give a name that ends in .mp4, or a folder for pictures."
        )
    return FolderResult(path)


class ClipResult:
    """An H.264 MP4 with sound. A part of one is left as NAME.partial.mp4; its comment says which job's."""

    keeps_depth = False
    keeps_alpha = False

    def __init__(self, path: Path) -> None:
        self.path = path
        self._partial = path.with_name(f"{path.stem}.partial.mp4")
        self._rest = path.with_name(f"{path.stem}.rest.mp4")
        self._rest_partial = path.with_name(f"{path.stem}.rest.partial.mp4")
        self._kept = 0  # frames that are taken over from before

    def check(self, inputs: Iterable[Path]) -> None:
        if self.path.is_dir():
            raise InputError(f"{self.path} is a folder.", "Give a file name that ends in .mp4.")
        inputs = list(inputs)
        for place in (self.path, self._partial, self._rest, self._rest_partial):
            refuse_overwriting(place, inputs)
        check_writable(self.path.parent)
        if self.path.exists() and not os.access(self.path, os.W_OK):
            raise OutputError(f"{self.path} is write-protected.", "Choose another name.")

    def resume(self, job: str) -> tuple[int, bool]:
        if not self._partial.exists():
            return 0, False
        found, _, fps = media.comment_of(self._partial).removeprefix(JOB_COMMENT).partition(" at ")
        if found != job:
            raise another_job(self._partial)
        self._kept = media.whole_pictures(self._partial)
        if self._kept and media.whole_pictures(self._rest_partial):
            # It was interrupted for a second time, and not in order.
            self._put_together(self._rest_partial, Fraction(fps))
            self._kept = media.whole_pictures(self._partial)
        return self._kept, False

    @contextmanager
    def writing(
        self, summary: Summary, alpha: np.ndarray | None = None, bits: int = 8, sound: Sound | None = None
    ) -> Iterator[Callable[[np.ndarray], None]]:
        make_folder(self.path.parent)
        width, height = summary.size
        summary.frames = self._kept
        heard = (sound.path, sound.start) if sound else (None, 0.0)
        # The rest of a clip gets its sound when it is put together.
        audio, audio_start = (None, 0.0) if self._kept else heard
        if not self._kept:
            for piece in (self._rest, self._rest_partial):
                piece.unlink(missing_ok=True)
        target = self._rest if self._kept else self.path
        told = {**media.CLIP_MARK, "comment": f"{JOB_COMMENT}{summary.job} at {summary.fps}"}
        try:
            with media.ClipWriter(
                target, summary.fps, width, height, audio, audio_start, metadata=told
            ) as writer:

                def write(frame: np.ndarray) -> None:
                    writer.write(frame)
                    summary.frames += 1

                yield write
            if self._rest.exists():
                media.join([self._partial, self._rest], self.path, summary.fps, *heard)
            elif self._kept:  # nothing was left to be made
                media.join([self._partial], self.path, summary.fps, *heard)
        except BaseException:
            with suppress(LivePortraitError):  # the first error says more; both parts stay
                if self._kept and media.whole_pictures(self._rest_partial):
                    self._put_together(self._rest_partial, summary.fps)
            raise
        for piece in (self._partial, self._rest, self._rest_partial):
            piece.unlink(missing_ok=True)

    def _put_together(self, rest: Path, fps: Fraction) -> None:
        """One part of what was there and what has come."""
        media.join([self._partial, rest], self._partial, fps)
        rest.unlink(missing_ok=True)

    def complete(self, summary: Summary, motions: Mapping[str, Motion]) -> None:
        summary.complete = True


class FolderResult:
    """000000.png ..., motion.npz and result.json in a folder."""

    keeps_depth = True
    keeps_alpha = True

    def __init__(self, path: Path) -> None:
        self.path = path
        self._kept = 0  # frames that are taken over from before

    def check(self, inputs: Iterable[Path]) -> None:
        inputs = list(inputs)
        for place in (self.path, self.path / "result.json", *self._motions(), *self._frames()):
            refuse_overwriting(place, inputs)
        check_writable(self.path)
        if self._frames() and not read_summary(self.path / "result.json"):
            raise InputError(
                f"{self.path} holds pictures that are no result of this program.",
                "Choose another folder, so that nothing is overwritten.",
            )

    def resume(self, job: str) -> tuple[int, bool]:
        before = read_summary(self.path / "result.json")
        if not before:
            return 0, False
        if before.get("job") != job:
            raise another_job(self.path)
        self._kept = _whole_frames(self._frames())
        return self._kept, bool(before.get("complete")) and self._kept == before.get("frames")

    @contextmanager
    def writing(
        self, summary: Summary, alpha: np.ndarray | None = None, bits: int = 8, sound: Sound | None = None
    ) -> Iterator[Callable[[np.ndarray], None]]:
        make_folder(self.path)
        self._write_summary(summary)  # from here on the folder is marked as a part of a result
        for old in [*self._frames()[self._kept :], *self._motions()]:
            old.unlink(missing_ok=True)
        try:
            with media.SequenceWriter(self.path, bits, alpha, self._kept, media.PICTURE_MARK) as writer:
                yield writer.write
        except BaseException:
            summary.frames = len(self._frames())
            with suppress(OutputError):  # the first error says more; the mark from the beginning stays
                self._write_summary(summary)
            raise
        summary.frames = len(self._frames())

    def complete(self, summary: Summary, motions: Mapping[str, Motion]) -> None:
        for name, motion in motions.items():
            save_motion(motion, self.path / name)
        summary.complete = True
        self._write_summary(summary)

    def _frames(self) -> list[Path]:
        if not self.path.is_dir():
            return []
        return sorted(child for child in self.path.iterdir() if FRAME_NAME.fullmatch(child.name))

    def _motions(self) -> list[Path]:
        """The motion files of a result."""
        return [self.path / "motion.npz", *sorted(self.path.glob("motion_[0-9]*.npz"))]

    def _write_summary(self, summary: Summary) -> None:
        write_atomically(
            self.path / "result.json", json.dumps(summary.as_json(), indent=1, ensure_ascii=False)
        )


def read_summary(path: Path) -> Mapping[str, Any]:
    """What a result.json says; nothing where there is none of ours."""
    try:
        said = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    ours = isinstance(said, dict) and str(said.get("format", "")).startswith("liveportrait-result/")
    return said if ours else {}


def another_job(path: Path) -> InputError:
    return InputError(
        f"{path} holds the frames of a job with other inputs, options or version.",
        "Leave out --resume to start again, or choose another output.",
    )


def _whole_frames(files: list[Path]) -> int:
    """How many frames from 000000.png on are whole; of the last ones, which a lost machine may have cut off,
    the end is looked at.
    """
    count = 0
    while count < len(files) and files[count].name == f"{count:06d}.png":
        count += 1
    for number in range(max(count - UNSURE, 0), count):
        with files[number].open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(file.tell() - len(PNG_END), 0))
            if file.read() != PNG_END:
                return number
    return count


def refuse_overwriting(target: Path, inputs: Iterable[Path]) -> None:
    """Raise InputError when `target` is one of the job's inputs."""
    for entry in inputs:
        if target.exists() and entry.exists() and target.samefile(entry):
            raise InputError(
                f"{target} is an input of this job.", "Choose another output, so that it is kept."
            )


def check_writable(folder: Path) -> None:
    """Raise OutputError unless files can be made in `folder`, or in its nearest parent that exists."""
    place = folder
    while not place.exists():
        if place.parent == place:
            break
        place = place.parent
    if not place.is_dir():
        raise OutputError(f"{place} is not a folder.", "Choose another output.")
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise OutputError(
            f"Cannot write in {place}: {error.strerror}.",
            "Choose another output or change the folder's permissions.",
        ) from error


def make_folder(folder: Path) -> None:
    """Make a folder and its parents. Raises OutputError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"Cannot make the folder {folder}: {error.strerror}.", "Choose another output."
        ) from error


def write_atomically(path: Path, text: str) -> None:
    """Write UTF-8 text so that `path` holds either the old or the new whole content. Raises OutputError."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text + "\n", "utf-8")
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise OutputError(
            f"Cannot write {path}: {error.strerror}.", "Free some space or choose another output."
        ) from error
