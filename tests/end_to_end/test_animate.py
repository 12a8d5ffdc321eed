# SPDX-License-Identifier: GPL-3.0-or-later
"""The main way from end to end: a photograph performs library motions, clips, pictures, motions and
templates.
"""

from __future__ import annotations

import hashlib
import json
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from backend.cli import main
from backend.library import load_library
from backend.motion import Motion
from backend.motion_files import load_motion
from tests.end_to_end.commands import run
from tests.end_to_end.conftest import FRAMES

FACE = (slice(70, 190), slice(165, 285))  # where the photograph shows the face, rows and columns
MOUTH = (slice(135, 155), slice(200, 250))


def pictures(folder: Path) -> np.ndarray:
    """All frames of a result, (n, h, w, 3) RGB."""
    return np.stack([cv2.imread(str(path))[:, :, ::-1] for path in sorted(folder.glob("*.png"))])


def decoded(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def test_a_folder_holds_the_frames_the_motion_and_the_result(talking: Path, astronaut: Path) -> None:
    names = [f"{number:06d}.png" for number in range(FRAMES)]
    assert sorted(path.name for path in talking.iterdir()) == [*names, "motion.npz", "result.json"]
    assert len(load_motion(talking / "motion.npz")) == FRAMES
    told = json.loads((talking / "result.json").read_text("utf-8"))
    assert told["format"] == "liveportrait-result/1"
    assert told["complete"] is True
    assert told["engine"] == "mesh" and told["engine_why"] and told["device"] == "cpu"
    assert told["frames"] == told["valid_frames"] == FRAMES
    assert told["size"] == [512, 512]
    column, row = np.array(told["face"]["placement"]) @ [*told["face"]["translation"], 1.0]
    assert FACE[0].start < row < FACE[0].stop and FACE[1].start < column < FACE[1].stop
    assert told["fps_numerator"] == load_library("talk").fps_numerator
    assert told["options"]["frames"] == [0, FRAMES]
    assert told["inputs"]["source"]["sha256"] == hashlib.sha256(astronaut.read_bytes()).hexdigest()
    assert len(told["inputs"]["driving"]["sha256"]) == 64
    assert told["warnings"] == []


def test_the_face_moves_and_nothing_else_does(talking: Path, astronaut: Path) -> None:
    frames = pictures(talking).astype(int)
    source = cv2.imread(str(astronaut))[:, :, ::-1]
    assert_array_equal(frames[:, 300:], np.broadcast_to(source[300:], frames[:, 300:].shape))
    changes = np.abs(np.diff(frames, axis=0)).mean(axis=(1, 2, 3))
    assert np.count_nonzero(changes) > FRAMES // 2
    mouth = np.abs(frames[:, MOUTH[0], MOUTH[1]] - source[MOUTH]).mean(axis=(1, 2, 3))
    assert mouth.max() > 6


def test_the_portrait_does_what_the_motion_says(talking: Path, tmp_path: Path) -> None:
    wanted = load_library("talk")[:FRAMES]
    assert main(["capture", str(talking), "-o", str(tmp_path / "again.npz"), "--driving-crop"]) == 0
    shown = load_motion(tmp_path / "again.npz")
    assert len(shown) == FRAMES and shown.valid.all()
    assert np.corrcoef(shown.lip_ratio, wanted.lip_ratio)[0, 1] > 0.8


def test_an_mp4_has_every_frame_at_the_motions_rate(astronaut: Path, tmp_path: Path) -> None:
    output = tmp_path / "deep" / "nod.mp4"
    assert main(["animate", str(astronaut), "nod", "-o", str(output)]) == 0
    motion = load_library("nod")
    with av.open(str(output)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264" and stream.codec_context.pix_fmt == "yuv420p"
        assert stream.average_rate == motion.fps
        assert not container.streams.audio
    frames = decoded(output)
    assert frames.shape == (len(motion), 512, 512, 3)
    assert np.abs(frames[0].astype(int) - frames[len(motion) // 4]).max() > 40
    assert [path.name for path in output.parent.iterdir()] == ["nod.mp4"]


def test_rendering_a_kept_motion_gives_the_same_pictures(
    talking: Path, astronaut: Path, tmp_path: Path
) -> None:
    again = tmp_path / "again"
    assert main(["render", str(astronaut), str(talking / "motion.npz"), "-o", str(again)]) == 0
    assert_array_equal(pictures(again), pictures(talking))


def test_a_clip_drives_with_its_sound(astronaut: Path, clip: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.mp4"
    assert main(["animate", str(astronaut), str(clip), "-o", str(output), "--frames", "5:30"]) == 0
    with av.open(str(output)) as container:
        assert container.streams.video[0].average_rate == Fraction(30000, 1001)
        sound = container.streams.audio[0]
        assert sound.codec_context.name == "aac"
        seconds = sum(frame.samples / frame.sample_rate for frame in container.decode(sound))
    assert len(decoded(output)) == 25
    assert seconds == pytest.approx(25 * 1001 / 30000, abs=0.08)


def test_streaming_and_capturing_first_agree(astronaut: Path, clip: Path, tmp_path: Path) -> None:
    """Frame by frame, apart from the mouth, which only a clip at hand can lend."""
    assert main(["animate", str(astronaut), str(clip), "-o", str(tmp_path / "a")]) == 0
    assert main(["capture", str(clip), "-o", str(tmp_path / "m.npz"), "--keep-mouth"]) == 0
    assert main(["render", str(astronaut), str(tmp_path / "m.npz"), "-o", str(tmp_path / "b")]) == 0
    first, second = load_motion(tmp_path / "a" / "motion.npz"), load_motion(tmp_path / "m.npz")
    assert first.mouth is None and second.mouth is not None
    assert_array_equal(first.expression, second.expression)
    assert_array_equal(pictures(tmp_path / "a"), pictures(tmp_path / "b"))


def test_smoothing_reads_the_clip_first_and_keeps_the_mouths(
    astronaut: Path, clip: Path, tmp_path: Path
) -> None:
    """The second way through the pipeline: without smoothing to do it gives what streaming gives."""
    assert main(["animate", str(astronaut), str(clip), "-o", str(tmp_path / "a")]) == 0
    flags = ["--smoothing", "0", "--frames", "0:"]
    assert main(["animate", str(astronaut), str(clip), "-o", str(tmp_path / "b"), *flags]) == 0
    assert_array_equal(pictures(tmp_path / "a"), pictures(tmp_path / "b"))


def test_the_scenes_rate_gives_one_picture_a_scene_frame(astronaut: Path, clip: Path, tmp_path: Path) -> None:
    assert main(["animate", str(astronaut), str(clip), "-o", str(tmp_path / "a"), "--fps", "12"]) == 0
    told = json.loads((tmp_path / "a" / "result.json").read_text("utf-8"))
    assert told["frames"] == len(pictures(tmp_path / "a")) == 17  # 40 * 1001 / 30000 s * 12
    assert told["fps"] == 12


def test_a_picture_drives_one_frame(astronaut: Path, talking: Path, tmp_path: Path) -> None:
    assert main(["animate", str(astronaut), str(talking / "000020.png"), "-o", str(tmp_path / "a")]) == 0
    assert [path.name for path in sorted((tmp_path / "a").glob("*.png"))] == ["000000.png"]


def test_a_template_drives(astronaut: Path, clip: Path, tmp_path: Path) -> None:
    assert main(["capture", str(clip), "-o", str(tmp_path / "t.pkl"), "--frames", "0:12"]) == 0
    assert main(["animate", str(astronaut), str(tmp_path / "t.pkl"), "-o", str(tmp_path / "a")]) == 0
    template: Motion = load_motion(tmp_path / "t.pkl")
    assert len(pictures(tmp_path / "a")) == len(template) == 12


def test_a_clip_that_is_not_square_is_cropped_to_the_face(clip: Path, tmp_path: Path) -> None:
    """Motion in crop units does not depend on how much of the room the clip shows."""
    assert main(["capture", str(clip), "-o", str(tmp_path / "a.npz"), "--driving-crop"]) == 0
    with av.open(str(clip)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    wide = tmp_path / "wide"
    wide.mkdir()
    for number, frame in enumerate(frames):
        padded = cv2.copyMakeBorder(frame, 0, 0, 90, 30, cv2.BORDER_REPLICATE)
        cv2.imwrite(str(wide / f"{number:06d}.png"), padded[:, :, ::-1])
    assert main(["capture", str(wide), "-o", str(tmp_path / "b.npz")]) == 0
    a, b = load_motion(tmp_path / "a.npz"), load_motion(tmp_path / "b.npz")
    assert_allclose(a.scale, b.scale, rtol=0.03)
    assert_allclose(a.translation, b.translation, atol=0.03)


def test_a_second_result_in_the_same_folder_leaves_nothing_of_the_first(
    astronaut: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "result"
    for frames in ("0:6", "0:3"):
        assert main(["animate", str(astronaut), "wink", "-o", str(folder), "--frames", frames]) == 0
    names = ["000000.png", "000001.png", "000002.png", "motion.npz", "result.json"]
    assert sorted(path.name for path in folder.iterdir()) == names


def test_controls_move_the_face(astronaut: Path, tmp_path: Path) -> None:
    for name, flags in (("a", []), ("b", ["--yaw", "15", "--smile", "1.0"])):
        command = ["animate", str(astronaut), "blink", "-o", str(tmp_path / name), "--frames", "0:1", *flags]
        assert main(command) == 0
    a, b = pictures(tmp_path / "a")[0].astype(int), pictures(tmp_path / "b")[0].astype(int)
    assert np.abs(a - b)[FACE].mean() > 3
    assert_array_equal(a[300:], b[300:])


def test_as_a_user_runs_it_progress_is_json_and_standard_error_is_clean(
    astronaut: Path, tmp_path: Path
) -> None:
    done = run("animate", astronaut, "wink", "-o", tmp_path / "a", "--frames", "0:8", "--json")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert {event["event"] for event in events} == {"progress", "result"}
    assert events[-2]["stage"] == "render" and events[-2]["done"] == events[-2]["total"] == 8
    assert events[-1]["frames"] == 8 and events[-1]["output"] == str(tmp_path / "a")


def test_in_a_pipe_there_is_no_progress_bar(astronaut: Path, tmp_path: Path) -> None:
    done = run("animate", astronaut, "wink", "-o", tmp_path / "a.mp4", "--frames", "0:8")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.slow
def test_a_real_clip_drives_a_real_portrait(shared_data: Path, tmp_path: Path) -> None:
    source, driving = shared_data / "portraits" / "s9.jpg", shared_data / "driving" / "d0.mp4"
    assert main(["animate", str(source), str(driving), "-o", str(tmp_path / "a.mp4")]) == 0
    frames = decoded(tmp_path / "a.mp4")
    assert len(frames) == 78
    assert np.abs(np.diff(frames.astype(np.int16), axis=0)).max() > 40
