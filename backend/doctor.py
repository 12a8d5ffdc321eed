# SPDX-License-Identifier: GPL-3.0-or-later
"""What is installed here, which engine would run and why, and what to do about each lack."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TextIO

from backend import __version__
from backend.errors import LivePortraitError
from backend.options import Options

REINSTALL = "Reinstall the backend's environment."
SYSTEM_LIBRARIES = "Install the system's own libraries; on Debian: apt-get install libgl1 libglib2.0-0."
PACKAGES = ("numpy", "opencv-python", "av", "mediapipe", "rich", "platformdirs")
FREE_SPACE = 1 << 30  # bytes of temporary space below which long clips may fail


@dataclass(frozen=True)
class Finding:
    """One line: what was looked at, what was found, and for a lack what to do. Only "lack" stops the main
    way.
    """

    subject: str
    found: str
    state: Literal["good", "note", "lack"] = "good"
    advice: str = ""


@dataclass
class Findings:
    lines: list[Finding] = field(default_factory=list)

    @property
    def works(self) -> bool:
        """Whether a picture can be animated here."""
        return all(line.state != "lack" for line in self.lines)

    def as_json(self) -> dict[str, Any]:
        return {"works": self.works, "findings": [vars(line) for line in self.lines]}


def examine(options: Options) -> Findings:
    """Look at everything the main way needs. Nothing is changed, and nothing is fetched."""
    findings = Findings()
    add = findings.lines.append
    add(Finding("backend", __version__))
    add(_python())
    add(Finding("machine", f"{platform.system()} {platform.machine()}, {_cores()} processor cores"))
    for package in PACKAGES:
        add(_package(package))
    checks = (
        _codecs,
        _face_models,
        _face_search,
        lambda: _neural_engine(options),
        lambda: _engine(options),
        _library,
        _temporary_space,
    )
    for check in checks:
        add(_guarded(check))
    return findings


def show(findings: Findings, stream: TextIO) -> None:
    """A table for people."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    marks = {"good": ("ok", "green"), "note": ("note", "yellow"), "lack": ("lacks", "red")}
    table = Table(box=None, show_header=False, pad_edge=False)
    for line in findings.lines:
        mark, colour = marks[line.state]
        said = Text(line.found + (f"\n{line.advice}" if line.advice else ""))
        table.add_row(Text(mark, style=colour), Text(line.subject), said)
    console = Console(file=stream, highlight=False)
    console.print(table)
    works = (
        "A picture can be animated here."
        if findings.works
        else "A picture cannot be animated here; see above."
    )
    console.print(Text(works, style="bold"))


def _guarded(check: Callable[[], Finding]) -> Finding:
    """A check's finding; a check that cannot even run is a lack."""
    try:
        return check()
    except LivePortraitError as error:
        return Finding(_subject(check), error.message, "lack", error.hint or REINSTALL)
    except Exception as error:  # noqa: BLE001 - whatever is broken here, the other findings are still wanted
        advice = SYSTEM_LIBRARIES if "shared object" in str(error) else REINSTALL
        return Finding(_subject(check), f"{type(error).__name__}: {error}", "lack", advice)


def _subject(check: Callable[[], Finding]) -> str:
    name = check.__name__.strip("_")
    return "engine" if "lambda" in name else name.replace("_", " ")


def _python() -> Finding:
    version = platform.python_version()
    if (3, 11) <= sys.version_info[:2] <= (3, 12):
        return Finding("python", version)
    return Finding("python", version, "note", "Python 3.11 and 3.12 are what the backend is made for.")


def _cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on Windows and macOS
        return os.cpu_count() or 1


def _package(name: str) -> Finding:
    try:
        return Finding(name, importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return Finding(name, "not installed", "lack", REINSTALL)


def _codecs() -> Finding:
    import av

    lacking = []
    for name in ("libx264", "aac"):
        try:
            av.codec.Codec(name, "w")
        except av.codec.codec.UnknownCodecError:
            lacking.append(name)
    if not lacking:
        return Finding("codecs", "H.264 and AAC can be written")
    return Finding(
        "codecs", f"PyAV has no {', '.join(lacking)}", "lack", "Install the av package's own wheel again."
    )


def _face_models() -> Finding:
    found = importlib.util.find_spec("mediapipe")
    if found is None or found.origin is None:
        return Finding("face models", "MediaPipe is not installed", "lack", REINSTALL)
    modules = Path(found.origin).parent / "modules"
    wanted = (
        "face_detection/face_detection_short_range.tflite",
        "face_detection/face_detection_full_range_sparse.tflite",
        "face_landmark/face_landmark_with_attention.tflite",
        "selfie_segmentation/selfie_segmentation.tflite",
    )
    lacking = [name for name in wanted if not (modules / name).is_file()]
    if not lacking:
        return Finding("face models", f"{len(wanted)} in MediaPipe's package")
    return Finding(
        "face models",
        f"missing: {', '.join(lacking)}",
        "lack",
        "Install mediapipe 0.10.21; later releases do not carry the models.",
    )


def _face_search() -> Finding:
    """Start the face model once: that is where missing system libraries show."""
    import numpy as np

    from backend.faces import find_faces

    find_faces(np.zeros((256, 256, 3), np.uint8))
    return Finding("face search", "the face model starts")


def _engine(options: Options) -> Finding:
    from backend.engines import choose

    choice = choose(options)
    return Finding("engine", f"{choice.engine.name} on {choice.engine.device}: {choice.why}")


def _neural_engine(options: Options) -> Finding:
    """Whether LivePortrait's own networks could run, whichever engine the options would choose."""
    from backend.models import FoundModels, find

    found = find(options if options.engine == "auto" else replace(options, engine="neural"))
    if isinstance(found, FoundModels):
        return Finding("neural engine", f"can run: {found.why}")
    return Finding("neural engine", f"cannot run: {found.why}", "note", found.advice)


def _library() -> Finding:
    from backend.library import library_names

    names = library_names()
    if names:
        return Finding("motion library", ", ".join(names))
    return Finding("motion library", "empty", "note", "Only clips, pictures and motion files can drive.")


def _temporary_space() -> Finding:
    folder = tempfile.gettempdir()
    with tempfile.TemporaryFile(dir=folder):
        free = shutil.disk_usage(folder).free
    text = f"{free / (1 << 30):.1f} GB free in {folder}"
    if free >= FREE_SPACE:
        return Finding("temporary space", text)
    return Finding("temporary space", text, "note", "Long clips may need more.")
