# SPDX-License-Identifier: GPL-3.0-or-later
"""An interrupted job goes on after its last whole frame and makes the same pictures as one that was not."""

from __future__ import annotations

import json
from pathlib import Path
from threading import Event

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from backend import media
from backend.driving import Driving
from backend.errors import Cancelled, InputError
from backend.options import Options
from backend.pipeline import animate
from backend.progress import Silent
from backend.results import Summary
from tests.backend.fakes import FakeEngine
from tests.backend.moving_faces import head, scene, write_clip
from tests.backend.synthetic_motion import make_motion

FRAMES = 40


class Counting(FakeEngine):
    """Renders; counts the frames."""

    rendered = 0

    def render(self, appearance, source, driving, mouths=None):
        self.rendered += len(driving)
        return super().render(appearance, source, driving, mouths)


class StopAt(Silent):
    """Sets a job's cancel event when so many frames are made."""

    def __init__(self, frames: int) -> None:
        self.frames, self.event = frames, Event()

    def update(self, stage: str, done: int, total: int | None) -> None:
        if stage == "render" and done >= self.frames:
            self.event.set()


@pytest.fixture(scope="module")
def performance() -> Driving:
    motion = make_motion(FRAMES, mouth=None, valid=np.ones(FRAMES, bool), fps_numerator=25, fps_denominator=1)
    return Driving("motion", "made up", None, motion=motion)


@pytest.fixture(scope="module")
def walking(astronaut: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    frames = [scene((320, 260), [(head(astronaut), 140 + k, 130)]) for k in range(FRAMES)]
    return write_clip(tmp_path_factory.mktemp("walk") / "walk.mp4", frames)


def run(source: Path, driving: object, out: Path, engine: FakeEngine, **more: object) -> Summary:
    return animate(source, driving, out, Options(), engine=engine, **more)  # type: ignore[arg-type]


def pictures(folder: Path) -> list[np.ndarray]:
    return [media.read_picture(path).rgb for path in sorted(folder.glob("0*.png"))]


@pytest.mark.parametrize("kind", ["picture and motion", "picture and clip", "clip and motion"])
def test_an_interrupted_folder_goes_on(
    kind: str, astronaut: Path, walking: Path, performance: Driving, tmp_path: Path
) -> None:
    source = walking if kind.startswith("clip") else astronaut
    driving = walking if kind.endswith("clip") else performance
    run(source, driving, tmp_path / "whole", FakeEngine())
    stop = StopAt(20)
    with pytest.raises(Cancelled):
        run(source, driving, tmp_path / "part", FakeEngine(), progress=stop, cancel=stop.event)
    kept = len(pictures(tmp_path / "part"))
    assert 0 < kept < FRAMES
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "part").glob("0*.png")}
    engine = Counting()
    summary = run(source, driving, tmp_path / "part", engine, resume=True)
    assert engine.rendered <= FRAMES - kept + 16
    assert summary.complete and summary.frames == FRAMES
    assert {name: (tmp_path / "part" / name).stat().st_mtime_ns for name in before} == before
    assert_array_equal(np.stack(pictures(tmp_path / "part")), np.stack(pictures(tmp_path / "whole")))
    assert (tmp_path / "part" / "motion.npz").exists()


def test_a_frame_that_was_cut_off_is_made_again(
    astronaut: Path, performance: Driving, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    run(astronaut, performance, out, FakeEngine())
    whole = np.stack(pictures(out))
    said = json.loads((out / "result.json").read_text())
    (out / "result.json").write_text(json.dumps({**said, "complete": False}))
    broken = out / "000030.png"
    broken.write_bytes(broken.read_bytes()[:-40])
    (out / "000033.png").unlink()
    engine = Counting()
    assert run(astronaut, performance, out, engine, resume=True).frames == FRAMES
    assert engine.rendered == 10
    assert_array_equal(np.stack(pictures(out)), whole)


def test_a_complete_result_is_left_alone(astronaut: Path, performance: Driving, tmp_path: Path) -> None:
    run(astronaut, performance, tmp_path / "out", FakeEngine())
    engine = Counting()
    summary = run(astronaut, performance, tmp_path / "out", engine, resume=True)
    assert engine.rendered == 0 and summary.complete and summary.frames == FRAMES


def test_another_jobs_frames_are_not_taken(astronaut: Path, performance: Driving, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(astronaut, performance, out, FakeEngine())
    with pytest.raises(InputError, match="other inputs, options or version"):
        animate(astronaut, performance, out, Options(multiplier=0.5), engine=FakeEngine(), resume=True)
    with pytest.raises(InputError, match="other inputs"):
        run(astronaut, "nod", out, FakeEngine(), resume=True)
    assert len(pictures(out)) == FRAMES
    summary = animate(astronaut, performance, out, Options(multiplier=0.5), engine=FakeEngine())
    assert summary.complete


def test_there_may_be_nothing_to_go_on_with(astronaut: Path, performance: Driving, tmp_path: Path) -> None:
    assert run(astronaut, performance, tmp_path / "new", FakeEngine(), resume=True).frames == FRAMES
