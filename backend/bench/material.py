# SPDX-License-Identifier: GPL-3.0-or-later
"""What is measured: real clips and portraits of a folder, or a drawn face and clips made of it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from backend import media
from backend.bench.face import drawn_face
from backend.engines import Engine
from backend.library import load_library
from backend.motion import Motion
from backend.options import Options
from backend.pipeline import render
from backend.source import open_source

PERFORMANCE = ("talk", "look-around", "smile", "nod", "blink")
CLIPS = (".mp4", ".mov", ".webm", ".mkv", ".avi")


class Material:
    """Pictures and clips for one run of the bench. Everything made lies in `scratch`."""

    def __init__(self, data: Path | None, scratch: Path, engine: Engine) -> None:
        self._data, self._scratch, self._engine = data, scratch, engine

    def clips(self) -> list[Path]:
        """The driving clips of the data folder, or one made of the drawn face."""
        found = self._files("driving", CLIPS)
        return found or [self.clip(512, 150)]

    def pairs(self) -> list[tuple[Path, Path]]:
        """Clips and the templates that LivePortrait made of them."""
        templates = {path.stem: path for path in self._files("templates", (".pkl",))}
        return [(clip, templates[clip.stem]) for clip in self.clips() if clip.stem in templates]

    def portrait(self, size: int) -> Path:
        """The drawn face at a size, PNG."""
        path = self._scratch / f"face-{size}.png"
        if not path.exists():
            cv2.imwrite(str(path), cv2.cvtColor(drawn_face(size), cv2.COLOR_RGB2BGR))
        return path

    def clip(self, size: int, frames: int, rate: int = 25) -> Path:
        """A clip of the drawn face that performs library motions, as often as `frames` asks for; no sound."""
        path = self._scratch / f"clip-{size}-{frames}.mp4"
        if path.exists():
            return path
        turn = list(itertools.islice(self._performed(size, rate), min(frames, 10 * rate)))
        with media.ClipWriter(path, Fraction(rate), size, size) as writer:
            for number in range(frames):
                # There and back again, so that the head never jumps.
                place = number % (2 * len(turn) - 2) if len(turn) > 1 else 0
                writer.write(turn[min(place, 2 * len(turn) - 2 - place)])
        return path

    def motion(self, rate: int = 25) -> Motion:
        """Library motions one after the other at a rate."""
        parts = [load_library(name).resample(rate) for name in PERFORMANCE]
        return replace(Motion.concatenate(parts), start=0.0)

    def _performed(self, size: int, rate: int) -> Iterator[np.ndarray]:
        source = open_source(self.portrait(size), Options(), self._engine)
        for frame in render(source, self.motion(rate), Options(), self._engine):
            yield frame.copy()

    def _files(self, folder: str, suffixes: tuple[str, ...]) -> list[Path]:
        place = self._data / folder if self._data is not None else None
        if place is None or not place.is_dir():
            return []
        return sorted((path for path in place.iterdir() if path.suffix.lower() in suffixes), key=_by_number)


def _by_number(path: Path) -> tuple[int, str]:
    """d2 before d10."""
    digits = "".join(letter for letter in path.stem if letter.isdigit())
    return int(digits or 0), path.stem
