# SPDX-License-Identifier: GPL-3.0-or-later
"""What is written plays everywhere in the right colours, and is whole or plainly a part, come what may."""

from __future__ import annotations

import errno
import signal
import struct
import subprocess
import sys
import textwrap
import threading
import zlib
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from backend.errors import Cancelled, MediaError, OutputError
from backend.media import Clip, ClipWriter, SequenceWriter, clip_writer, probe, read_picture, sequence_writer
from backend.media.png import encode_png
from tests.backend.media_samples import SIDE, number_in, numbered

ROOT = Path(__file__).resolve().parents[2]
NTSC = Fraction(30000, 1001)


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


def numbers(path: Path) -> list[int]:
    return [number_in(frame) for frame in Clip(path).frames()]


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def smooth(width: int, height: int) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 255 / width, y * 255 / height, 255 - (x + y) * 255 / (width + height)], -1).astype(
        np.uint8
    )


def boxes(content: bytes) -> list[bytes]:
    """The kinds of an MP4's top-level boxes."""
    at, kinds = 0, []
    while at < len(content):
        (size,) = struct.unpack_from(">I", content, at)
        kinds.append(content[at + 4 : at + 8])
        at += size
    return kinds


@pytest.mark.parametrize("fps", [NTSC, Fraction(25), Fraction(24000, 1001), Fraction(60), Fraction(15, 2)])
def test_every_frame_at_exactly_its_time(tmp_path: Path, fps: Fraction) -> None:
    path = tmp_path / "clip.mp4"
    with ClipWriter(path, fps, SIDE, SIDE) as writer:
        for k in range(70):
            writer.write(numbered(k))
    assert files(tmp_path) == {"clip.mp4"}
    info = probe(path)
    assert (info.fps, info.frames, info.start, info.has_audio) == (fps, 70, 0.0, False)
    assert numbers(path) == list(range(70))
    with av.open(str(path)) as container:
        times = [(frame.pts or 0) * (frame.time_base or 0) for frame in container.decode(video=0)]
    assert times == [k / fps for k in range(70)]


def test_the_file_is_what_players_and_blender_open(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    with ClipWriter(
        path, Fraction(30), 64, 48, metadata={"title": "Porträt", "comment": "made by a test"}
    ) as writer:
        for _ in range(5):
            writer.write(smooth(64, 48))
    kinds = boxes(path.read_bytes())
    assert kinds[0] == b"ftyp" and kinds.index(b"moov") < kinds.index(b"mdat") and b"moof" not in kinds
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        assert (context.name, context.pix_fmt) == ("h264", "yuv420p")
        tags = (context.colorspace, context.color_primaries, context.color_trc, context.color_range)
        assert tags == (1, 1, 1, 1)  # BT.709 three times, limited range
        assert (container.metadata["title"], container.metadata["comment"]) == ("Porträt", "made by a test")


def test_colours_come_back(tmp_path: Path) -> None:
    path, picture = tmp_path / "clip.mp4", smooth(256, 192)
    with ClipWriter(path, Fraction(30), 256, 192) as writer:
        for _ in range(3):
            writer.write(picture)
    for exact, bound in ((True, 1.0), (False, 2.0)):
        for frame in Clip(path).frames(exact=exact):
            error = frame.astype(int) - picture
            assert np.abs(error).mean() < bound
            assert np.abs(error.mean(axis=(0, 1))).max() < bound
    # The matrix by the numbers of ITU-R BT.709, 3.2 and 3.5, apart from any converter.
    with av.open(str(path)) as container:
        planes = next(container.decode(video=0)).to_ndarray()
    luma = 16 + picture @ [0.2126, 0.7152, 0.0722] * 219 / 255
    assert np.abs(planes[:192].astype(float) - luma).mean() < 1


def test_odd_sizes_get_one_more_column_and_row(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    with ClipWriter(path, Fraction(30), 65, 47) as writer:
        writer.write(smooth(65, 47))
    frame = next(Clip(path).frames())
    assert frame.shape == (48, 66, 3)
    assert np.abs(frame[:47, :65].astype(int) - smooth(65, 47)).mean() < 3


def test_a_frame_can_be_used_again_at_once(tmp_path: Path) -> None:
    buffer = np.empty((SIDE, SIDE, 3), np.uint8)
    with (
        ClipWriter(tmp_path / "clip.mp4", Fraction(25), SIDE, SIDE) as clip,
        SequenceWriter(tmp_path / "f") as folder,
    ):
        for k in range(40):
            buffer[:] = numbered(k)
            clip.write(buffer)
            folder.write(buffer)
        buffer[:] = 0
    assert numbers(tmp_path / "clip.mp4") == list(range(40)) == numbers(tmp_path / "f")


def test_frames_of_another_size_or_kind_are_a_programming_error(tmp_path: Path) -> None:
    for frame in (numbered(0, 32), numbered(0).astype(np.float32), numbered(0)[..., 0]):
        with (
            pytest.raises(ValueError, match="a frame of"),
            ClipWriter(tmp_path / "c.mp4", NTSC, SIDE, SIDE) as writer,
        ):
            writer.write(frame)
    for frame in (numbered(0).astype(np.float32), numbered(0)[..., 0]):
        with pytest.raises(ValueError, match="a frame of"), SequenceWriter(tmp_path / "folder") as folder:
            folder.write(frame)
    assert files(tmp_path) == {"folder"}


def test_a_job_that_breaks_off_keeps_its_frames_as_a_part(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"an earlier result")
    with pytest.raises(Cancelled), ClipWriter(path, Fraction(25), SIDE, SIDE) as writer:
        for k in range(33):
            writer.write(numbered(k))
        raise Cancelled("Cancelled.")
    assert files(tmp_path) == {"clip.mp4", "clip.partial.mp4"}
    assert numbers(tmp_path / "clip.partial.mp4") == list(range(33))
    assert path.read_bytes() == b"an earlier result"
    with ClipWriter(path, Fraction(25), SIDE, SIDE) as writer:
        writer.write(numbered(0))
    assert files(tmp_path) == {"clip.mp4"}


def test_nothing_is_left_of_a_job_without_frames(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), ClipWriter(tmp_path / "clip.mp4", NTSC, SIDE, SIDE):
        raise KeyboardInterrupt
    with ClipWriter(tmp_path / "clip.mp4", NTSC, SIDE, SIDE):
        pass
    assert files(tmp_path) == set()


def run(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    code = textwrap.dedent(script)
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)


NOISE = """
    import os, resource, signal, sys
    from fractions import Fraction
    from pathlib import Path
    import numpy as np
    from backend.errors import OutputError
    from backend.media import ClipWriter, SequenceWriter
    from tests.backend.media_samples import numbered
    random = np.random.default_rng(0)
    out = Path(sys.argv[1])

    def frames(count):
        for k in range(count):
            yield numbered(k, 128) // 2 + random.integers(0, 60, (128, 128, 1), np.uint8)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits on the size of files are POSIX's")
@pytest.mark.parametrize(("room", "least"), [(20_000, 0), (400_000, 40), (900_000, 90)])
def test_a_full_disk_keeps_what_fitted_and_says_so(tmp_path: Path, room: int, least: int) -> None:
    path = tmp_path / "clip.mp4"
    done = run(
        NOISE
        + """
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
    try:
        with ClipWriter(out, Fraction(25), 128, 128) as writer:
            for frame in frames(1000):
                writer.write(frame)
    except OutputError as error:
        print(error)
    """,
        path,
        room,
    )
    assert done.returncode == 0, done.stderr
    assert "Cannot write" in done.stdout and done.stdout.count("\n") == 1
    assert ("clip.partial.mp4" in done.stdout) == (least > 0)
    assert files(tmp_path) == ({"clip.partial.mp4"} if least else set())
    if least:
        clip = Clip(tmp_path / "clip.partial.mp4")
        shown = [number_in(np.where(frame > 85, 255, 0)) for frame in clip.frames()]
        assert len(shown) >= least and shown == list(range(len(shown)))


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX's")
def test_a_process_that_is_killed_leaves_a_part_that_plays(tmp_path: Path) -> None:
    done = run(
        NOISE
        + """
    with ClipWriter(out, Fraction(25), 128, 128) as writer:
        for frame in frames(300):
            writer.write(frame)
        os.kill(os.getpid(), signal.SIGKILL)
    """,
        tmp_path / "clip.mp4",
    )
    assert done.returncode == -signal.SIGKILL
    assert files(tmp_path) == {"clip.partial.mp4"}
    shown = [
        number_in(np.where(frame > 85, 255, 0)) for frame in Clip(tmp_path / "clip.partial.mp4").frames()
    ]
    assert len(shown) >= 150 and shown == list(range(len(shown)))


@pytest.mark.parametrize("silent", [False, True])
def test_no_room_to_rewrite_still_gives_the_whole_clip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, silent: bool
) -> None:
    rewrite = clip_writer._rewrite

    def full(source: Path, target: Path) -> None:
        rewrite(source, target)
        target.write_bytes(target.read_bytes()[:-100])
        if not silent:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(clip_writer, "_rewrite", full)
    with ClipWriter(tmp_path / "clip.mp4", Fraction(25), SIDE, SIDE) as writer:
        for k in range(60):
            writer.write(numbered(k))
    assert files(tmp_path) == {"clip.mp4"}
    assert numbers(tmp_path / "clip.mp4") == list(range(60))


def test_an_encoder_that_fails_stops_the_next_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(rgb: np.ndarray) -> np.ndarray:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(clip_writer, "_even", fail)
    with (
        pytest.raises(OutputError, match="No space left on device") as caught,
        ClipWriter(tmp_path / "clip.mp4", Fraction(25), SIDE, SIDE) as writer,
    ):
        for k in range(1000):
            writer.write(numbered(k))
    assert caught.value.exit_code == 1 and caught.value.hint
    assert files(tmp_path) == set()


@pytest.mark.parametrize("place", ["absent/clip.mp4", "file/clip.mp4"])
def test_a_place_that_cannot_be_written_is_found_at_once(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_bytes(b"no folder")
    with pytest.raises(OutputError, match="Cannot write"):
        ClipWriter(tmp_path / place, NTSC, SIDE, SIDE)
    with pytest.raises(OutputError, match="Cannot make the folder"):
        SequenceWriter(tmp_path / "file" / "frames")


def test_sound_that_cannot_be_read_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "text.wav").write_bytes(b"no sound")
    for name in ("text.wav", "absent.wav"):
        with pytest.raises(MediaError):
            ClipWriter(tmp_path / "clip.mp4", NTSC, SIDE, SIDE, audio=tmp_path / name)
    assert files(tmp_path) == {"text.wav"}


def test_its_own_sound_is_not_overwritten(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), ClipWriter(tmp_path / "clip.mp4", NTSC, SIDE, SIDE) as writer:
        writer.write(numbered(0))
        raise KeyboardInterrupt
    part = tmp_path / "clip.partial.mp4"
    content = part.read_bytes()
    with pytest.raises(OutputError, match="its own sound"):
        ClipWriter(tmp_path / "clip.mp4", NTSC, SIDE, SIDE, audio=part)
    assert part.read_bytes() == content


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("transparent", [False, True])
def test_a_sequence_is_bit_exact(tmp_path: Path, bits: int, transparent: bool) -> None:
    dtype = np.uint8 if bits == 8 else np.uint16
    random = np.random.default_rng(0)
    frames = random.integers(0, 1 << bits, (12, 33, 47, 3)).astype(dtype)
    alpha = random.integers(0, 256, (33, 47)).astype(np.uint8) if transparent else None
    with SequenceWriter(tmp_path, bits=bits, alpha=alpha, start_index=5) as writer:
        for frame in frames:
            writer.write(frame)
    assert files(tmp_path) == {f"{k:06d}.png" for k in range(5, 17)}
    for k, frame in enumerate(frames, 5):
        path = tmp_path / f"{k:06d}.png"
        picture = read_picture(path)
        assert np.array_equal(picture.rgb if bits == 8 else picture.deep, frame)  # type: ignore[arg-type]
        assert (picture.alpha is None) == (alpha is None)
        assert alpha is None or np.array_equal(picture.alpha, alpha)  # type: ignore[arg-type]


def test_depths_are_converted(tmp_path: Path) -> None:
    with SequenceWriter(tmp_path / "deep", bits=16) as deep, SequenceWriter(tmp_path / "flat") as flat:
        deep.write(np.full((4, 4, 3), 200, np.uint8))
        flat.write(np.full((4, 4, 3), 200 * 257 + 128, np.uint16))
    assert read_picture(tmp_path / "deep" / "000000.png").deep[0, 0, 0] == 200 * 257  # type: ignore[index]
    assert read_picture(tmp_path / "flat" / "000000.png").rgb[0, 0, 0] == 200


def test_pngs_are_valid_for_other_readers_and_carry_texts(tmp_path: Path) -> None:
    with SequenceWriter(tmp_path, metadata={"Title": "Porträt 肖像"}) as writer:
        writer.write(smooth(50, 20))
    content = (tmp_path / "000000.png").read_bytes()
    assert "Porträt 肖像".encode() in content and b"iTXtTitle\0" in content
    decoded = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(decoded[..., ::-1], smooth(50, 20))
    with av.open(str(tmp_path / "000000.png")) as container:
        assert np.array_equal(next(container.decode(video=0)).to_ndarray(format="rgb24"), smooth(50, 20))
    header = encode_png(np.zeros((2, 3, 1), np.uint8))[8:33]
    assert struct.unpack(">I", header[-4:])[0] == zlib.crc32(header[4:-4])


def test_a_sequence_that_fails_has_no_holes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def encode(pixels: np.ndarray, metadata: object) -> bytes:
        if number_in(pixels) == 7:
            raise OSError(errno.ENOSPC, "No space left on device")
        return encode_png(pixels)

    monkeypatch.setattr(sequence_writer, "encode_png", encode)
    with (
        pytest.raises(OutputError, match="000007.png: No space left on device"),
        SequenceWriter(tmp_path) as writer,
    ):
        for k in range(1000):
            writer.write(numbered(k))
    assert files(tmp_path) == {f"{k:06d}.png" for k in range(7)}


def test_a_cancelled_sequence_keeps_its_frames(tmp_path: Path) -> None:
    with pytest.raises(Cancelled), SequenceWriter(tmp_path) as writer:
        for k in range(9):
            writer.write(numbered(k))
        raise Cancelled("Cancelled.")
    assert numbers(tmp_path) == list(range(9))
