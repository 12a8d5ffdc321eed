# SPDX-License-Identifier: GPL-3.0-or-later
"""What drives: a clip, a picture, a motion file, a template, curves or a name of the motion library.

What a path holds is decided by its content, not by its name.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

import numpy as np

from backend import media
from backend.curve_files import is_curve_file
from backend.errors import InputError
from backend.expressions import neutral_expression
from backend.library import library_file, library_names
from backend.motion import FRAME_SHAPES, Motion
from backend.motion_files import load_motion
from backend.options import Options
from backend.templates import mean_canonical

ZIP_MAGIC = b"PK"
PICKLE_MAGIC = b"\x80"
MOTION_SUFFIXES = {".npz", ".pkl", ".pickle"}


@dataclass(frozen=True)
class Driving:
    """An opened driving performance: pixels still to be measured (`info`) or motion already measured
    (`motion`).
    """

    kind: Literal["clip", "picture", "motion"]
    name: str
    path: Path | None
    info: media.MediaInfo | None = None
    motion: Motion | None = None

    @property
    def has_audio(self) -> bool:
        return self.info is not None and self.info.has_audio


def open_driving(what: str | Path) -> Driving:
    """Find out what `what` is; an existing path wins over a library motion of the same name.

    Raises InputError when there is no such thing, MediaError and MotionFileError when it cannot be used.
    """
    path = Path(what)
    if not path.exists():
        try:
            path = library_file(str(what))
        except InputError as error:
            hint = f"Give a clip, a picture, a motion file or one of: {', '.join(library_names())}."
            raise InputError(f"There is no file or library motion called {str(what)!r}.", hint) from error
    if is_motion_file(path):
        return Driving("motion", path.name, path, motion=load_motion(path))
    info = media.probe(path)
    return Driving("picture" if info.kind == "picture" else "clip", path.name, path, info=info)


def at_rest(frames: int = 1, fps: Fraction | None = None) -> Driving:
    """A driving that changes nothing, for expression controls on their own: frames of the neutral face."""
    rate = fps or Fraction(25)
    motion = Motion(
        rotation=np.tile(np.eye(3, dtype=np.float32), (frames, 1, 1)),
        expression=np.tile(neutral_expression(), (frames, 1, 1)),
        scale=np.ones(frames, np.float32),
        translation=np.zeros((frames, 3), np.float32),
        canonical=np.tile(mean_canonical(), (frames, 1, 1)),
        eye_ratio=np.full((frames, 2), 0.35, np.float32),
        lip_ratio=np.zeros(frames, np.float32),
        fps_numerator=rate.numerator,
        fps_denominator=rate.denominator,
        engine="library",
        ratios_estimated=True,
    )
    return Driving("motion", "at rest", None, motion=motion)


def is_motion_file(path: Path) -> bool:
    """True for .npz archives, pickles and files of curves, by their first bytes or, when those say nothing,
    by their name."""
    if not path.is_file():
        return False
    if is_curve_file(path):
        return True
    with path.open("rb") as stream:
        head = stream.read(2)
    return head == ZIP_MAGIC or head[:1] == PICKLE_MAGIC or path.suffix.lower() in MOTION_SUFFIXES


def select_frames(motion: Motion, options: Options) -> Motion:
    """The half-open range `options.frames` of a measured motion; its `start` moves along.

    Raises InputError when nothing is left.
    """
    return motion if options.frames is None else motion[slice(*options.frames)]


def fingerprint_of(driving: Driving) -> str:
    """SHA-256 of the file, or of the numbers of a motion that has none."""
    if driving.path is not None:
        return fingerprint(driving.path)
    digest = hashlib.sha256()
    if driving.motion is not None:
        digest.update(f"{driving.motion.fps} {driving.motion.start}".encode())
        for name in FRAME_SHAPES:
            array = getattr(driving.motion, name)
            digest.update(name.encode() if array is None else array.tobytes())
    return digest.hexdigest()


def fingerprint(path: Path) -> str:
    """SHA-256 of a file's bytes; of a folder, of its files' names and bytes in order of name."""
    digest = hashlib.sha256()
    files = [path] if path.is_file() else sorted(child for child in path.iterdir() if child.is_file())
    for file in files:
        if not path.is_file():
            digest.update(file.name.encode() + b"\0")
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
