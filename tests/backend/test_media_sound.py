# SPDX-License-Identifier: GPL-3.0-or-later
"""Sound stays where it was in the driving clip, to 20 ms, whatever it was coded as and however it was cut."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from backend.media import ClipWriter, probe
from tests.backend.media_samples import clicks, heard, numbered, write_clip, write_sound

NTSC = Fraction(30000, 1001)
SYNC = 0.02  # seconds
TINY = 16  # px


def dub(
    folder: Path,
    audio: Path,
    seconds: float,
    fps: Fraction = NTSC,
    start: float = 0.0,
    stop: float | None = None,
) -> Path:
    path = folder / "dubbed.mp4"
    with ClipWriter(path, fps, TINY, TINY, audio=audio, audio_start=start, audio_stop=stop) as writer:
        for _ in range(round(seconds * fps)):
            writer.write(numbered(0, TINY))
    return path


def in_sync(found: list[float], expected: list[float]) -> None:
    assert len(found) == len(expected), (found, expected)
    assert max(abs(one - other) for one, other in zip(found, expected)) < SYNC


def driving(
    path: Path, seconds: float, times: list[float], at: Fraction = Fraction(0), **options: object
) -> Path:
    """A clip that clicks at these times (seconds after its first picture); its sound begins at `at`."""
    sound = clicks(seconds - float(at), [time - float(at) for time in times if time >= at])
    pictures = (numbered(0, TINY) for _ in range(round(seconds * NTSC)))
    return write_clip(path, pictures, NTSC, sound=sound, sound_at=at, **options)  # type: ignore[arg-type]


def lengths(path: Path) -> tuple[float, float]:
    """Seconds of pictures and of sound."""
    with av.open(str(path)) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        assert video.duration and video.time_base and audio.duration and audio.time_base
        return float(video.duration * video.time_base), float(audio.duration * audio.time_base)


TIMES = [0.5, 1.25, 2.0, 3.5, 4.75]
KINDS = [
    ("clip.mp4", {}),
    ("clip.mov", {"sound_codec": "pcm_s16le"}),
    ("clip.mkv", {"sound_codec": "pcm_s16le"}),
    ("clip.mkv", {}),
    ("clip.ts", {"codec": "mpeg2video"}),
]


@pytest.mark.parametrize(("name", "options"), KINDS)
@pytest.mark.parametrize("at", [Fraction(0), Fraction(7, 10)])
def test_sound_of_every_kind_stays_in_place(
    tmp_path: Path, name: str, options: dict[str, str], at: Fraction
) -> None:
    source = driving(tmp_path / name, 5.5, TIMES, at, **options)
    expected = [time for time in TIMES if time >= at]
    in_sync(heard(source), expected)
    in_sync(heard(dub(tmp_path, source, 5.5)), expected)


@pytest.mark.parametrize("at", [Fraction(0), Fraction(7, 10)])
@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv"])
def test_a_cut_takes_the_sound_along(tmp_path: Path, name: str, at: Fraction) -> None:
    source = driving(tmp_path / name, 5.5, TIMES, at)
    path = dub(tmp_path, source, 2.0, start=1.1)
    in_sync(heard(path), [0.15, 0.9])
    assert lengths(path)[1] == pytest.approx(2.0, abs=SYNC)
    in_sync(heard(dub(tmp_path, source, 4.0, start=1.1, stop=2.5)), [0.15, 0.9])


def test_a_cut_deep_in_a_clip_is_found_by_its_index(tmp_path: Path) -> None:
    source = driving(tmp_path / "clip.mp4", 40, [k + 0.5 for k in range(40)])
    in_sync(heard(dub(tmp_path, source, 3, start=33.0)), [0.5, 1.5, 2.5])


def test_a_clip_that_starts_late_in_its_file(tmp_path: Path) -> None:
    times = [Fraction(3) + k / NTSC for k in range(round(4 * NTSC))]
    pictures = (numbered(0, TINY) for _ in times)
    sound = clicks(4, [0.5, 2.0])
    source = write_clip(tmp_path / "late.mkv", pictures, NTSC, times=times, sound=sound, sound_at=Fraction(3))
    assert probe(source).start == pytest.approx(3, abs=0.01)
    in_sync(heard(dub(tmp_path, source, 4)), [0.5, 2.0])
    in_sync(heard(dub(tmp_path, source, 2, start=1.0)), [1.0])


def test_aac_is_copied_as_it_is(tmp_path: Path) -> None:
    source = driving(tmp_path / "clip.mp4", 3, [0.5, 1.5])

    def packets(path: Path) -> list[bytes]:
        with av.open(str(path)) as container:
            return [bytes(packet) for packet in container.demux(audio=0) if packet.size]

    copied = packets(dub(tmp_path, source, 3))
    assert len(copied) > 100
    assert packets(source)[: len(copied)] == copied


def test_sound_ends_with_the_pictures(tmp_path: Path) -> None:
    source = driving(tmp_path / "clip.mp4", 6, [0.5, 1.5, 4.5])
    for start in (0.0, 0.25):
        path = dub(tmp_path, source, 2, start=start)
        pictures, sound = lengths(path)
        assert abs(sound - pictures) < 0.03
        in_sync(heard(path), [0.5 - start, 1.5 - start])


def test_sound_that_is_shorter_than_the_pictures(tmp_path: Path) -> None:
    source = write_sound(tmp_path / "short.wav", clicks(1.0, [0.4]))
    path = dub(tmp_path, source, 30)
    assert lengths(path) == pytest.approx((30, 1.0), abs=0.03)
    in_sync(heard(path), [0.4])


def test_a_cut_behind_the_end_of_the_sound(tmp_path: Path) -> None:
    source = write_sound(tmp_path / "short.wav", clicks(1.0, [0.4]))
    path = dub(tmp_path, source, 1, start=5.0)
    assert probe(path).frames == 30


def test_a_sound_file_alone_and_stereo(tmp_path: Path) -> None:
    stereo = np.repeat(clicks(3, [0.5, 2.5]), 2, axis=0)
    for name, codec in (("a.wav", "pcm_s16le"), ("a.m4a", "aac"), ("a.flac", "flac")):
        sound = write_sound(tmp_path / name, stereo, codec)
        in_sync(heard(dub(tmp_path, sound, 3)), [0.5, 2.5])
        in_sync(heard(dub(tmp_path, sound, 1.5, start=1.5)), [1.0])


def test_gaps_in_the_sound_are_silent(tmp_path: Path) -> None:
    """Timestamps that leave out a second are kept, as a recorder that paused writes them."""
    path = tmp_path / "gap.mkv"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("pcm_s16le", rate=44100)
        stream.codec_context.layout = "mono"
        for begin, times in ((0, [0.5]), (2, [0.25])):
            samples = (clicks(1, times) * 32767).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 44100, begin * 44100, Fraction(1, 44100)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    in_sync(heard(dub(tmp_path, path, 3)), [0.5, 2.25])


def test_a_driving_clip_without_sound(tmp_path: Path) -> None:
    source = write_clip(tmp_path / "mute.mp4", [numbered(0, TINY)] * 5)
    path = dub(tmp_path, source, 1)
    assert not probe(path).has_audio


def test_a_part_keeps_its_sound(tmp_path: Path) -> None:
    source = driving(tmp_path / "clip.mp4", 6, TIMES)
    with (
        pytest.raises(KeyboardInterrupt),
        ClipWriter(tmp_path / "out.mp4", NTSC, TINY, TINY, audio=source) as writer,
    ):
        for _ in range(90):
            writer.write(numbered(0, TINY))
        raise KeyboardInterrupt
    in_sync(heard(tmp_path / "out.partial.mp4"), [0.5, 1.25, 2.0])


@pytest.mark.slow
@pytest.mark.parametrize("cut", [0.0, 61.25])
def test_ten_minutes_stay_in_sync(tmp_path: Path, cut: float) -> None:
    times = [1.0, *(30.0 * k + 0.37 for k in range(1, 20)), 599.0]
    source = driving(tmp_path / "long.mp4", 600, times, Fraction(13, 20))
    path = dub(tmp_path, source, 600 - cut, start=cut)
    in_sync(heard(path), [time - cut for time in times if time >= cut])
    pictures, _ = lengths(path)
    assert pictures == pytest.approx(600 - cut, abs=0.02)


def test_a_real_clip_and_a_real_sound_file(shared_data: Path, tmp_path: Path) -> None:
    info = probe(shared_data / "driving" / "d10.mp4")
    path = dub(tmp_path, shared_data / "driving" / "d10.mp4", float(info.frames or 0) / 30, Fraction(30))
    pictures, sound = lengths(path)
    assert pictures == pytest.approx(info.duration) and abs(sound - pictures) < 0.05
    path = dub(tmp_path, shared_data / "driving" / "a-01.wav", 5.27, Fraction(30))
    assert lengths(path) == pytest.approx((5.27, 5.27), abs=0.03)
