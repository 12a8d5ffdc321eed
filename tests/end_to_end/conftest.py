# SPDX-License-Identifier: GPL-3.0-or-later
"""Results that several tests look at, made once."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from backend import media
from backend.cli import main
from backend.engines import choose
from backend.library import load_library
from backend.options import Options
from backend.pipeline import render
from backend.source import open_source
from tests.end_to_end.commands import write_tone

FRAMES = 40


@pytest.fixture(scope="session")
def talking(astronaut: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `animate` makes of the photograph and the library's talk."""
    folder = tmp_path_factory.mktemp("animate") / "talking"
    assert main(["animate", str(astronaut), "talk", "-o", str(folder), "--frames", f"0:{FRAMES}"]) == 0
    return folder


@pytest.fixture(scope="session")
def clip(astronaut: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A talking clip with sound at 30000/1001 frames a second, 320 px square."""
    folder = tmp_path_factory.mktemp("clip")
    rate = Fraction(30000, 1001)
    engine = choose(Options()).engine
    source = open_source(astronaut, Options(), engine)
    tone = write_tone(folder / "tone.wav", 3.0)
    with media.ClipWriter(folder / "clip.mp4", rate, 320, 320, audio=tone) as writer:
        for frame in render(source, load_library("talk")[:FRAMES], Options(), engine):
            writer.write(frame[:320, 64:384])
    return folder / "clip.mp4"
