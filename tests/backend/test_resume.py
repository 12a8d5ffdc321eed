# SPDX-License-Identifier: GPL-3.0-or-later
"""An interrupted job goes on after its last whole frame and makes the same pictures as one that was not."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from threading import Event
from typing import Any

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
from tests.end_to_end.commands import write_tone

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


def whole_clip(path: Path) -> np.ndarray:
    return np.stack(list(media.Clip(path).frames(exact=True)))


@pytest.mark.parametrize("kill", [False, True], ids=["in order", "torn off"])
def test_an_interrupted_mp4_goes_on_with_its_sound(
    kill: bool, walking: Path, performance: Driving, tmp_path: Path
) -> None:
    tone = write_tone(tmp_path / "tone.wav", 8.0)
    long = make_motion(180, mouth=None, valid=np.ones(180, bool), fps_numerator=25, fps_denominator=1)
    driving = Driving("motion", "long", None, motion=long)
    source = write_clip(
        tmp_path / "loud.mp4", (frame for frame in media.Clip(walking).frames(Fraction(25))), audio=tone
    )
    options = Options(length_policy="mirror")
    out = tmp_path / "out.mp4"

    def go(output: Path, **more: Any) -> Summary:
        return animate(source, driving, output, options, engine=FakeEngine(), **more)

    go(tmp_path / "whole.mp4")
    for frames in (70, 130):
        stop = StopAt(frames)
        with pytest.raises(Cancelled):
            go(out, progress=stop, cancel=stop.event, resume=True)
        part = tmp_path / "out.partial.mp4"
        assert 0 < len(whole_clip(part)) <= frames + 1 and not out.exists()
        if kill:
            with part.open("ab") as file:
                file.write(part.read_bytes()[:5000])
    assert len(whole_clip(tmp_path / "out.partial.mp4")) >= 100
    engine = Counting()
    summary = animate(source, driving, out, options, engine=engine, resume=True)
    assert engine.rendered <= 80 and summary.frames == 180
    info, wanted = media.probe(out), media.probe(tmp_path / "whole.mp4")
    assert (info.frames, info.fps, info.has_audio, info.start) == (180, 25, True, wanted.start)
    assert info.duration == pytest.approx(wanted.duration, abs=0.05)
    difference = np.abs(whole_clip(out).astype(int) - whole_clip(tmp_path / "whole.mp4"))
    assert (
        difference.mean(axis=(1, 2, 3)).max() < 1.5
    )  # key pictures lie elsewhere, so levels differ a little
    assert sorted(path.name for path in tmp_path.glob("out*")) == ["out.mp4"]


def test_another_jobs_part_of_an_mp4_is_not_taken(
    astronaut: Path, performance: Driving, tmp_path: Path
) -> None:
    stop = StopAt(30)
    out = tmp_path / "out.mp4"
    with pytest.raises(Cancelled):
        run(astronaut, performance, out, FakeEngine(), progress=stop, cancel=stop.event)
    assert (tmp_path / "out.partial.mp4").exists()
    with pytest.raises(InputError, match="other inputs, options or version"):
        run(astronaut, "nod", out, FakeEngine(), resume=True)
    assert run(astronaut, "nod", out, FakeEngine()).complete
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]


def test_a_complete_result_says_what_it_said(astronaut: Path, performance: Driving, tmp_path: Path) -> None:
    made = run(astronaut, performance, tmp_path / "out", FakeEngine())
    again = run(astronaut, performance, tmp_path / "out", FakeEngine(), resume=True)
    assert again.as_json() == made.as_json()
    assert again.valid_frames == FRAMES and again.size != (0, 0)


def test_a_cancelled_job_says_that_frames_are_kept_only_when_there_are_some(
    astronaut: Path, performance: Driving, tmp_path: Path
) -> None:
    early = Event()
    early.set()
    with pytest.raises(Cancelled, match=r"^Cancelled\.$"):
        run(astronaut, performance, tmp_path / "out", FakeEngine(), cancel=early)
    stop = StopAt(20)
    with pytest.raises(Cancelled, match="Finished frames are kept"):
        run(astronaut, performance, tmp_path / "out", FakeEngine(), progress=stop, cancel=stop.event)


def test_what_an_engine_found_out_while_drawing_is_a_warning(
    astronaut: Path, performance: Driving, tmp_path: Path
) -> None:
    engine = Counting()
    engine.note = "drawn in whole precision"  # type: ignore[attr-defined]
    assert "drawn in whole precision" in run(astronaut, performance, tmp_path / "out", engine).warnings
