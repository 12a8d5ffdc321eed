# SPDX-License-Identifier: GPL-3.0-or-later
"""A clip as source: steady crops, pictures in any order, gaps in place, several faces in one frame."""

from __future__ import annotations

from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from backend import media
from backend.composition import Patch, compose
from backend.driving import Driving, open_driving
from backend.engines import choose
from backend.errors import InputError, NoFaceError
from backend.motion import Motion
from backend.motion_files import load_motion
from backend.options import Options
from backend.pipeline import animate
from backend.progress import Silent
from backend.results import FolderResult, Sound
from backend.scenes import Part, sound_of, stage_scene
from backend.source_clip import SourceClip, open_clip
from backend.territories import alone, territory
from tests.backend.fakes import FakeEngine
from tests.backend.moving_faces import crossing, head, scene, write_clip
from tests.backend.synthetic_motion import make_motion
from tests.end_to_end.commands import write_tone

SIZE = (360, 270)


def walk(astronaut: Path, frames: int = 20, gone: range = range(0)) -> list[np.ndarray]:
    """She goes to the right; in the frames `gone` she is away. The wall's level counts the frames."""
    she = head(astronaut)
    return [
        scene(SIZE, [] if k in gone else [(she, 130 + 4 * k, 135)], level=60 + 4 * (k % 4))
        for k in range(frames)
    ]


@pytest.fixture(scope="module")
def walking(astronaut: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("walk") / "walk.mp4", walk(astronaut))


@pytest.fixture(scope="module")
def interrupted(astronaut: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Away in frames 8 to 15 of 24, and for one frame at 20."""
    frames = walk(astronaut, 24, range(8, 16))
    frames[20] = scene(SIZE, [], level=70)
    return write_clip(tmp_path_factory.mktemp("gap") / "gap.mp4", frames)


@pytest.fixture
def stack() -> object:
    with ExitStack() as stack:
        yield stack


def opened(path: Path, stack: ExitStack, options: Options | None = None) -> SourceClip:
    return open_clip(path, [None], options or Options(), FakeEngine(), stack)


def driving(n: int, **fields: object) -> Driving:
    values = {"mouth": None, "valid": np.ones(n, bool), "fps_numerator": 25, "fps_denominator": 1, **fields}
    motion = make_motion(n, **values)
    return Driving("motion", "made up", None, motion=motion)


def frames_in(folder: Path) -> list[np.ndarray]:
    return [media.read_picture(path).rgb for path in sorted(folder.glob("0*.png"))]


def test_every_frame_is_measured_in_its_own_crop(walking: Path, stack: ExitStack) -> None:
    clip = opened(walking, stack)
    face = clip.faces[0]
    assert clip.frames == 20 and clip.fps == 25 and clip.size == SIZE
    assert face.visible.all() and face.squares is not None
    moved = np.diff(face.squares[:, 0])
    assert np.abs(moved[4:-4] - 4).max() < 1.0


def test_the_crop_is_steadier_than_the_landmarks(walking: Path, stack: ExitStack) -> None:
    jitter = []
    for options in (Options(), Options(compatibility="upstream")):
        squares = opened(walking, stack, options).faces[0].squares
        assert squares is not None
        jitter.append(np.abs(np.diff(squares[3:-3], n=2, axis=0)).mean(axis=0))
    assert (jitter[0] < 0.5 * jitter[1]).all()


def test_pictures_come_in_any_order(walking: Path, stack: ExitStack) -> None:
    clip = opened(walking, stack)
    plain = list(media.Clip(walking).frames(exact=True))
    order = np.array([3, 4, 5, 5, 5, 4, 3, 2, 9, 0, 1, 2, 19, 19])
    pictures = list(clip.pictures(order))
    assert len(pictures) == len(order)
    for number, picture in zip(order, pictures, strict=True):
        assert_array_equal(picture, plain[number])
    pictures[3][:] = 0
    assert pictures[4].any()


def test_long_ways_back_are_decoded_in_parts(walking: Path, stack: ExitStack) -> None:
    clip = opened(walking, stack, Options(fps=Fraction(75)))
    assert clip.frames == 60
    order = np.arange(60)[::-1]
    plain = list(media.Clip(walking).frames(Fraction(75), exact=True))
    for number, picture in zip(order, clip.pictures(order), strict=True):
        assert_array_equal(picture, plain[number])


def test_frames_without_a_face_stay_in_place_and_are_shown_as_they_are(
    interrupted: Path, stack: ExitStack, tmp_path: Path
) -> None:
    clip = opened(interrupted, stack)
    face = clip.faces[0]
    assert np.flatnonzero(~face.visible).tolist() == list(range(8, 16))  # 20 is bridged
    assert np.flatnonzero(~face.motion.valid).tolist() == [*range(8, 16), 20]
    summary = animate(interrupted, driving(24), tmp_path / "out", Options(), engine=FakeEngine())
    assert summary.frames == 24
    assert any("not seen in 8 of 24 source frames" in line for line in summary.warnings)
    plain = list(media.Clip(interrupted).frames(exact=True))
    for number, frame in enumerate(frames_in(tmp_path / "out")):
        same = np.array_equal(frame, plain[number])
        assert same == (8 <= number < 16), number


def test_upstream_drops_the_frames_before_the_first_face(astronaut: Path, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "late.mp4", walk(astronaut, 12, range(5)))
    with ExitStack() as stack:
        assert opened(clip, stack).frames == 12
        assert opened(clip, stack, Options(compatibility="upstream")).frames == 7


def test_upstream_cuts_rates_to_whole_numbers(astronaut: Path, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "ntsc.mp4", walk(astronaut, 6), Fraction(30000, 1001))
    with ExitStack() as stack:
        assert opened(clip, stack).fps == Fraction(30000, 1001)
        assert opened(clip, stack, Options(compatibility="upstream")).fps == 29


@pytest.mark.parametrize("rate", [None, Fraction(24), Fraction(60)])
def test_a_folders_pictures_are_one_a_frame(astronaut: Path, tmp_path: Path, rate: Fraction | None) -> None:
    (tmp_path / "shots").mkdir()
    for number, picture in enumerate(walk(astronaut, 6)):
        cv2.imwrite(str(tmp_path / "shots" / f"{number}.png"), picture[:, :, ::-1])
    options = Options(fps=rate, multiplier=0.0, length_policy="cut")
    animate(tmp_path / "shots", driving(9), tmp_path / "out", options, engine=FakeEngine())
    made = frames_in(tmp_path / "out")
    corner = (slice(-20, None), slice(-20, None))
    assert len(made) == 6
    for frame, picture in zip(made, walk(astronaut, 6), strict=True):
        assert_array_equal(frame[corner], picture[corner])


@pytest.mark.parametrize(("policy", "frames"), [("cut", 7), ("constant", 20), ("cycle", 20), ("mirror", 20)])
def test_a_short_driving_meets_a_long_source(walking: Path, tmp_path: Path, policy: str, frames: int) -> None:
    options = Options(length_policy=policy)  # type: ignore[arg-type]
    summary = animate(walking, driving(7), tmp_path / "out", options, engine=FakeEngine())
    assert summary.frames == frames
    said = next(line for line in summary.warnings if line.startswith("The lengths differ"))
    assert "the source has 20" in said and "has 7 frames" in said
    assert f"{frames} are made (--length-policy {policy})." in said


@pytest.mark.parametrize("policy", ["cycle", "mirror", "constant"])
def test_a_short_source_meets_a_long_driving(walking: Path, tmp_path: Path, policy: str) -> None:
    options = Options(length_policy=policy, multiplier=0.0)  # type: ignore[arg-type]
    animate(walking, driving(50), tmp_path / "out", options, engine=FakeEngine())
    made = frames_in(tmp_path / "out")
    assert len(made) == 50
    shown = {"cycle": 45 % 20, "mirror": 38 - 30, "constant": 19}[policy]
    at = {"cycle": 45, "mirror": 30, "constant": 45}[policy]
    corner = (slice(-20, None), slice(-20, None))
    assert_array_equal(made[at][corner], list(media.Clip(walking).frames(exact=True))[shown][corner])


def test_every_shot_of_the_driving_starts_anew(walking: Path, tmp_path: Path) -> None:
    cuts = np.zeros(20, bool)
    cuts[9] = True
    animate(walking, driving(20, cuts=cuts), tmp_path / "out", Options(), engine=FakeEngine())
    at_rest = [k for k, frame in enumerate(frames_in(tmp_path / "out")) if (frame == 128).mean() > 0.3]
    assert at_rest == [0, 9]
    upstream = Options(compatibility="upstream")
    animate(walking, driving(20, cuts=cuts), tmp_path / "b", upstream, engine=FakeEngine())
    at_rest = [k for k, frame in enumerate(frames_in(tmp_path / "b")) if (frame == 128).mean() > 0.3]
    assert 9 not in at_rest


@pytest.mark.parametrize("options", [Options(), Options(steady_source_eyes=True, multiplier=0.7)])
def test_long_clips_are_retargeted_in_parts(
    walking: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: Options
) -> None:
    cuts = np.zeros(20, bool)
    cuts[9] = True
    made = []
    for name, at_once in (("whole", 1000), ("parts", 6)):
        monkeypatch.setattr("backend.roles.AT_ONCE", at_once)
        engine = choose(Options(engine="mesh")).engine
        animate(walking, driving(20, cuts=cuts), tmp_path / name, options, engine=engine)
        made.append(np.stack(frames_in(tmp_path / name)))
    assert_array_equal(made[0], made[1])


def test_a_driving_of_another_rate_keeps_its_speed(walking: Path, tmp_path: Path) -> None:
    motion = make_motion(40, mouth=None, valid=np.ones(40, bool), fps_numerator=50, fps_denominator=1)
    fast = Driving("motion", "fast", None, motion=motion)
    assert animate(walking, fast, tmp_path / "a", Options(), engine=FakeEngine()).frames == 20
    assert len(load_motion(tmp_path / "a" / "motion.npz")) == 20
    upstream = Options(compatibility="upstream", length_policy="constant")
    assert animate(walking, fast, tmp_path / "b", upstream, engine=FakeEngine()).frames == 40


def test_a_still_driving_moves_a_whole_clip(walking: Path, astronaut: Path, tmp_path: Path) -> None:
    for name, what in (("one", driving(1)), ("picture", open_driving(astronaut))):
        summary = animate(walking, what, tmp_path / name, Options(), engine=FakeEngine())
        assert summary.frames == 20, name
        assert summary.fps == 25


def test_engines_that_measure_pixels_see_each_frames_crop(walking: Path, tmp_path: Path) -> None:
    engine = FakeEngine(native=False)
    summary = animate(walking, driving(20), tmp_path / "out", Options(), engine=engine)
    assert summary.frames == 20 and summary.size == SIZE
    assert sum(shape[0] for shape in engine.crops if shape[1:] == (256, 256, 3)) == 20
    alone = animate(walking, driving(3), tmp_path / "b", Options(paste_back=False), engine=engine)
    assert alone.size == (512, 512)
    whole = animate(walking, driving(3), tmp_path / "c", Options(crop=False), engine=engine)
    assert whole.frames == 3


def test_without_paste_back_all_frames_have_one_size(interrupted: Path, tmp_path: Path) -> None:
    options = Options(paste_back=False)
    summary = animate(interrupted, driving(24), tmp_path / "out", options, engine=FakeEngine())
    assert {frame.shape[:2] for frame in frames_in(tmp_path / "out")} == {summary.size[::-1]}
    assert summary.size[0] == summary.size[1]


def test_a_clip_without_anybody_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "empty.mp4", [scene(SIZE, [])] * 4)
    with pytest.raises(NoFaceError, match="No face"):
        animate(clip, driving(4), tmp_path / "out", Options(), engine=FakeEngine())
    assert not (tmp_path / "out").exists()


def test_the_sound_is_the_drivings_or_the_sources(astronaut: Path, tmp_path: Path) -> None:
    tone = write_tone(tmp_path / "tone.wav", 1.0)
    loud = write_clip(tmp_path / "loud.mp4", walk(astronaut, 4), audio=tone)
    mute = write_clip(tmp_path / "mute.mp4", walk(astronaut, 4))
    ours, none = open_driving(loud), open_driving(mute)

    def heard(audio: str, what: Driving, source: Path) -> Sound | None:
        return sound_of(Options(audio=audio), [(what, 0.5)], source)  # type: ignore[arg-type]

    assert heard("auto", ours, mute) == Sound(loud, 0.5)
    assert heard("auto", none, loud) == Sound(loud, 0.0)
    assert heard("source", ours, mute) is None
    assert heard("driving", none, loud) is None
    assert heard("none", ours, loud) is None


def test_each_face_performs_its_own_motion(astronaut: Path, tmp_path: Path) -> None:
    picture = tmp_path / "two.png"
    cv2.imwrite(str(picture), crossing(astronaut, 2)[0][..., ::-1])
    faces: dict[int, Driving | str | Path] = {0: driving(6), 1: driving(9)}
    summary = animate(picture, None, tmp_path / "out", Options(), faces=faces, engine=FakeEngine())
    assert summary.frames == 6
    assert set(summary.inputs) == {"source", "face 0", "face 1"}
    assert len(load_motion(tmp_path / "out" / "motion_1.npz")) == 6
    assert not (tmp_path / "out" / "motion.npz").exists()
    clip = write_clip(tmp_path / "two.mp4", crossing(astronaut, 24))
    made = animate(clip, None, tmp_path / "clip", Options(), faces=faces, engine=FakeEngine())
    assert made.frames == 6


def test_a_driving_for_all_and_one_of_its_own(astronaut: Path, tmp_path: Path) -> None:
    picture = tmp_path / "two.png"
    cv2.imwrite(str(picture), crossing(astronaut, 2)[0][..., ::-1])
    both = animate(picture, driving(5), tmp_path / "a", Options(), faces={1: driving(5)}, engine=FakeEngine())
    assert set(both.inputs) == {"source", "face 0", "face 1"}
    options = Options(face=1)
    warned: list[str] = []

    class Listening(Silent):
        def warn(self, message: str) -> None:
            warned.append(message)

    one = animate(
        picture,
        "nod",
        tmp_path / "b",
        options,
        faces={1: driving(5)},
        engine=FakeEngine(),
        progress=Listening(),
    )
    assert set(one.inputs) == {"source", "driving"}
    assert warned[0] == "face 1 has a driving of its own, so nod is not used"


@pytest.mark.parametrize("options", [Options(crop=False), Options(paste_back=False)])
def test_several_faces_need_crop_and_paste_back(astronaut: Path, tmp_path: Path, options: Options) -> None:
    with pytest.raises(InputError, match="need crop and paste-back"), ExitStack() as stack:
        parts = [Part(0, driving(2)), Part(1, driving(2))]
        stage_scene(astronaut, parts, options, FakeEngine(), FolderResult(tmp_path), stack, Silent())


def test_neighbours_are_not_painted_over() -> None:
    picture = np.full((100, 200, 3), 50, np.uint8)
    left = Patch((0, 0, 140, 100), np.full((100, 140, 3), 90, np.uint8), (50.0, 50.0, 60.0))
    right = Patch((60, 0, 200, 100), np.full((100, 140, 3), 200, np.uint8), (150.0, 50.0, 60.0))
    made = compose(picture.copy(), [left, right])
    assert (made[:, :85] == 90).all() and (made[:, 115:] == 200).all()
    first, second = (
        territory(left.window, left.place, [right.place])[:, 60:],
        territory(right.window, right.place, [left.place])[:, :80],
    )
    assert np.abs(first + second - 1).max() < 0.02
    assert_array_equal(compose(picture.copy(), [right, left]), made)


def test_an_engine_sees_nobody_else() -> None:
    picture = np.full((100, 200, 3), 60, np.uint8)
    picture[:, 130:] = 250
    window, here, there = (0, 0, 180, 100), (50.0, 50.0, 50.0), (150.0, 50.0, 50.0)
    seen = alone(picture, window, here, [there])
    assert seen[:, 130:].max() < 120
    assert_array_equal(seen[:, :100], picture[:, :100])
    assert_array_equal(alone(picture, window, here, []), picture[:, :180])


def test_what_a_face_leaves_alone_stays_bit_identical() -> None:
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (80, 120, 3), dtype=np.uint8)
    left = Patch((0, 0, 80, 80), picture[:, :80].copy(), (40.0, 40.0, 30.0))
    right = Patch((40, 0, 120, 80), picture[:, 40:].copy(), (80.0, 40.0, 30.0))
    right.pixels[20:40, 50:60] = 7
    made = compose(picture.copy(), [left, right])
    changed = (made != picture).any(axis=-1)
    assert changed[20:40, 90:100].all()
    assert np.count_nonzero(changed) <= 200


@pytest.mark.slow
def test_a_real_clip_is_edited(shared_data: Path, tmp_path: Path) -> None:
    engine = choose(Options(engine="mesh")).engine
    source, performance = shared_data / "portraits" / "s18.mp4", shared_data / "driving" / "d0.mp4"
    options = Options(frames=(0, 40))
    summary = animate(source, performance, tmp_path / "out", options, engine=engine)
    assert summary.fps == media.Clip(source).info.fps
    made = frames_in(tmp_path / "out")
    own = list(media.Clip(source).frames(stop_frame=len(made), exact=True))
    with ExitStack() as stack:
        face = open_clip(source, [None], Options(fps=None), engine, stack).faces[0]
    assert isinstance(face.motion, Motion)
    lips_before, lips_after = face.motion.lip_ratio[36], 0.0
    clip = write_clip(tmp_path / "made.mp4", made[30:38])
    with ExitStack() as stack:
        lips_after = open_clip(clip, [None], Options(), engine, stack).faces[0].motion.lip_ratio[6]
    assert lips_after > lips_before + 0.05  # d0 shows its teeth there, the source does not
    assert_array_equal(made[30][:20, :20], own[30][:20, :20])
