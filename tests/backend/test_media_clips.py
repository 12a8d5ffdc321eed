# SPDX-License-Identifier: GPL-3.0-or-later
"""Clips come in at a constant rate, upright and exact to the picture; damaged ones as far as they go."""

from __future__ import annotations

import tracemalloc
from contextlib import closing
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backend.errors import MediaError
from backend.media import Clip, probe
from backend.media.png import encode_png
from tests.backend.media_samples import SIDE, clicks, number_in, numbered, write_clip, write_sound

NTSC = Fraction(30000, 1001)


def numbers(clip: Clip | Path, *args: Any, **options: Any) -> list[int]:
    """The numbers that a clip's frames spell."""
    clip = clip if isinstance(clip, Clip) else Clip(clip)
    return [number_in(frame) for frame in clip.frames(*args, **options)]


def counted(path: Path, count: int = 30, fps: Fraction = Fraction(25), **options: Any) -> Path:
    """A clip whose pictures are numbered 0, 1, ..."""
    return write_clip(path, (numbered(k) for k in range(count)), fps, **options)


CONTAINERS = [
    ("clip.mp4", NTSC, {}),
    ("clip.mov", Fraction(24000, 1001), {}),
    ("clip.mkv", NTSC, {}),
    ("clip.mkv", Fraction(24000, 1001), {}),
    ("clip.ts", Fraction(25), {"codec": "mpeg2video"}),
    ("clip.avi", Fraction(30), {"codec": "mpeg4"}),
    ("clip.mp4", Fraction(50), {"codec_options": {"bf": "0"}}),
    ("clip.nut", Fraction(12), {"codec": "ffv1"}),
    ("clip.mkv", Fraction(25), {"codec": "mjpeg", "pixel_format": "yuvj420p"}),
]


@pytest.mark.parametrize(("name", "fps", "options"), CONTAINERS)
def test_a_clip_at_its_own_rate_is_its_pictures(
    tmp_path: Path, name: str, fps: Fraction, options: Any
) -> None:
    path = counted(tmp_path / name, 40, fps, **options)
    info = probe(path)
    assert (info.kind, info.width, info.height, info.fps) == ("clip", SIDE, SIDE, fps)
    assert info.frames == 40 and not info.has_audio
    assert info.duration == pytest.approx(float(40 / fps), abs=0.05)
    clip = Clip(path)
    assert numbers(clip) == list(range(40))
    assert not clip.truncated and clip.warning == ""


@pytest.mark.parametrize("fps", [Fraction(24000, 1001), Fraction(25), NTSC, Fraction(60), Fraction(7)])
def test_another_rate_shows_the_last_picture_that_has_begun(tmp_path: Path, fps: Fraction) -> None:
    path = counted(tmp_path / "clip.mp4", 50)
    expected = [int(k / fps * 25) for k in range(1000) if k / fps < 2]
    assert numbers(path, fps) == expected
    assert numbers(path, fps, 5, 9) == expected[5:9]


def test_a_variable_rate_is_resampled_by_its_timestamps(tmp_path: Path) -> None:
    times = [
        Fraction(t, 90000) for t in (0, 3000, 9100, 9300, 15000, 30000, 33010, 35990, 39000, 42000, 45000)
    ]
    path = counted(tmp_path / "clip.mkv", len(times), Fraction(30), times=times)
    assert probe(path).fps == 30
    shown = numbers(path, Fraction(100))
    rounded = [round(time * 1000) for time in times]  # Matroska keeps milliseconds
    expected = [max(k for k, time in enumerate(rounded) if time <= 10 * frame) for frame in range(len(shown))]
    assert shown == expected
    assert len(shown) >= 51


def test_a_late_first_timestamp_is_the_start(tmp_path: Path) -> None:
    times = [5 + Fraction(k, 25) for k in range(20)]
    for name in ("late.mkv", "late.ts"):
        path = counted(tmp_path / name, 20, times=times)
        info = probe(path)
        assert info.start >= 4.9 and info.fps == 25
        assert info.duration == pytest.approx(0.8, abs=0.01)
        assert numbers(path) == list(range(20))
        assert numbers(path, None, 15) == list(range(15, 20))


@pytest.mark.parametrize("name", ["long.mp4", "long.mkv", "long.ts", "long.avi"])
def test_a_range_deep_in_a_clip_is_exact(tmp_path: Path, name: str) -> None:
    options: Any = {"codec_options": {"g": "100", "bf": "3"}}
    if name.endswith("avi"):
        options = {"codec": "mpeg4", "codec_options": {"g": "50"}}
    path = counted(tmp_path / name, 500, **options)
    clip = Clip(path)
    for first, stop in ((0, 3), (76, 80), (99, 102), (250, 252), (399, 401), (490, 600)):
        assert numbers(clip, None, first, stop) == list(range(500))[first:stop]
        assert not clip.truncated
    assert numbers(clip, Fraction(50), 700, 704) == [350, 350, 351, 351]
    assert numbers(clip, None, 500) == [] == numbers(clip, None, 20, 20)


def test_absent_timestamps_follow_from_the_rate(tmp_path: Path) -> None:
    path = counted(tmp_path / "raw.h264", 20, container="h264", codec_options={"bf": "0"})
    assert numbers(path) == list(range(20))


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
@pytest.mark.parametrize("mirrored", [False, True])
def test_display_matrices_turn_the_picture_upright(tmp_path: Path, degrees: int, mirrored: bool) -> None:
    picture = np.zeros((48, 80, 3), np.uint8)
    picture[:16, :20] = (250, 30, 30)
    picture[:16, 60:] = (30, 250, 30)
    picture[32:, :20] = (30, 30, 250)
    path = write_clip(tmp_path / "turned.mp4", [picture] * 3, rotation=(degrees, mirrored))
    # FFmpeg's display.h: turned against the clock, then mirrored.
    shown = np.rot90(picture, degrees // 90)
    shown = shown[:, ::-1] if mirrored else shown
    info = probe(path)
    frame = next(Clip(path).frames())
    assert (info.height, info.width) == frame.shape[:2] == shown.shape[:2]
    assert frame.flags.c_contiguous
    assert np.abs(frame.astype(int) - shown).mean() < 12


ODD = {"codec": "ffv1", "pixel_format": "bgr0"}


@pytest.mark.parametrize(
    ("size", "options"),
    [
        ((33, 47), ODD),
        ((33, 47), {"codec": "ffv1", "pixel_format": "yuv420p"}),
        ((48, 64), {"codec": "ffv1", "pixel_format": "yuv422p10le"}),
        ((48, 64), {"codec": "ffv1", "pixel_format": "bgra"}),
        ((48, 64), {"codec": "ffv1", "pixel_format": "gray"}),
        ((48, 64), {"codec": "libx264", "pixel_format": "yuv444p"}),
    ],
)
def test_odd_sizes_deep_grey_and_transparent_pictures(
    tmp_path: Path, size: tuple[int, int], options: Any
) -> None:
    grey = np.linspace(20, 230, size[1]).astype(np.uint8)
    picture = np.repeat(np.repeat(grey[None, :, None], size[0], 0), 3, 2)
    path = write_clip(tmp_path / "clip.mkv", [picture] * 3, **options)
    frames = list(Clip(path).frames(exact=True))
    assert len(frames) == 3 and all(frame.shape == (*size, 3) and frame.dtype == np.uint8 for frame in frames)
    assert np.abs(frames[0].astype(int) - picture).mean() < 2


def test_narrow_pixels_are_made_square(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "wide.mkv", [numbered(5)] * 3, aspect=Fraction(3, 2))
    info = probe(path)
    assert (info.width, info.height) == (SIDE * 3 // 2, SIDE)
    assert next(Clip(path).frames()).shape == (SIDE, SIDE * 3 // 2, 3)


def test_frames_belong_to_the_caller(tmp_path: Path) -> None:
    path = counted(tmp_path / "clip.mp4", 3)
    for kept in Clip(path).frames(Fraction(100)):
        assert number_in(kept) < 3
        kept[:] = 255  # spoils nobody else's


def test_an_animated_gif_is_a_clip(tmp_path: Path) -> None:
    grey = [np.repeat(numbered(k)[..., :1], 3, 2) for k in range(6)]
    path = write_clip(tmp_path / "clip.gif", grey, Fraction(10), codec="gif", pixel_format="gray")
    assert probe(path).kind == "clip"
    assert numbers(path) == list(range(6))


def test_memory_does_not_grow_with_the_clip(tmp_path: Path) -> None:
    path = counted(tmp_path / "clip.mp4", 400)
    clip = Clip(path)
    tracemalloc.start()
    try:
        for _ in clip.frames():
            pass
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 40 * SIDE * SIDE * 3


def test_a_clip_is_decoded_as_it_is_asked_for_and_can_be_read_twice_at_once(tmp_path: Path) -> None:
    clip = Clip(counted(tmp_path / "clip.mp4", 30))
    with closing(clip.frames()) as one, closing(clip.frames()) as two:
        assert [number_in(frame) for frame in islice(one, 3)] == [0, 1, 2]
        assert [number_in(frame) for frame in islice(two, 2)] == [0, 1]
        assert number_in(next(one)) == 3


def noisy(path: Path, count: int) -> tuple[Path, int]:
    """A numbered clip of some kB a picture, its index in front, and where in the file its pictures begin."""
    random = np.random.default_rng(0)
    pictures = [numbered(k, 128) // 2 + random.integers(0, 60, (128, 128, 1), np.uint8) for k in range(count)]
    write_clip(path, pictures, codec_options={"g": "10", "bf": "0"}, options={"movflags": "+faststart"})
    return path, path.read_bytes().index(b"mdat")


def bright(clip: Clip) -> list[int]:
    return [number_in(np.where(frame > 85, 255, 0)) for frame in clip.frames()]


def test_damage_in_the_middle_loses_only_what_it_hit(tmp_path: Path) -> None:
    path, begin = noisy(tmp_path / "clip.mp4", 60)
    assert bright(Clip(path)) == list(range(60))
    content = bytearray(path.read_bytes())
    middle = (begin + len(content)) // 2
    content[middle : middle + 3000] = np.random.default_rng(0).bytes(3000)
    path.write_bytes(content)
    clip = Clip(path)
    shown = bright(clip)
    assert clip.truncated and "damaged" in clip.warning and "\n" not in clip.warning
    assert len(shown) == 60
    assert shown[:20] == list(range(20)) and shown[-20:] == list(range(40, 60))
    assert list(clip.frames(stop_frame=3)) and not clip.truncated  # that part is whole


def test_a_clip_that_is_cut_off_gives_what_there_is(tmp_path: Path) -> None:
    path, begin = noisy(tmp_path / "clip.mp4", 100)
    content = path.read_bytes()
    path.write_bytes(content[: (begin + len(content)) // 2])
    clip = Clip(path)
    shown = bright(clip)
    assert 40 <= len(shown) <= 60
    assert shown[:40] == list(range(40))
    assert clip.truncated and "cut off" in clip.warning and "4.0 seconds" in clip.warning


def refused(path: Path, *words: str) -> None:
    for ask in (probe, Clip):
        with pytest.raises(MediaError) as caught:
            ask(path)
        assert "\n" not in str(caught.value) and caught.value.hint
        assert all(word in str(caught.value) for word in words), str(caught.value)


def test_what_is_no_clip(tmp_path: Path) -> None:
    refused(tmp_path / "absent.mp4", "There is no file")
    for name, content in {
        "empty.mp4": b"",
        "text.mp4": b"hello\n" * 100,
        "text.txt": b"hello\n" * 100,
        "frame_%03d.txt": b"hello\n" * 100,
        "list.m3u8": b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n/etc/hostname\n",
        "list.ffconcat": b"ffconcat version 1.0\nfile '/etc/hostname'\n",
        "zeros.mp4": bytes(5000),
    }.items():
        path = tmp_path / name
        path.write_bytes(content)
        refused(path, name)


def test_a_clip_without_its_index_or_its_pictures(tmp_path: Path) -> None:
    whole = counted(tmp_path / "clip.mp4", 30).read_bytes()
    for name, content in {
        "a.mp4": whole[: len(whole) // 2],
        "b.mp4": whole[:40],
        "c.mp4": whole[:500],
    }.items():
        (tmp_path / name).write_bytes(content)
        refused(tmp_path / name, name, "damaged or cut off")


def test_sound_alone_is_no_clip(tmp_path: Path) -> None:
    for name, codec in (("a.wav", "pcm_s16le"), ("a.m4a", "aac")):
        refused(write_sound(tmp_path / name, clicks(0.5, [0.1]), codec), name, "has sound but no pictures")


def test_a_clip_of_no_pictures(tmp_path: Path) -> None:
    path = counted(tmp_path / "clip.mkv", 3, codec_options={"g": "1"})
    content = path.read_bytes()
    at = content.index(b"\x1fC\xb6u")  # the first cluster: everything before it is headers
    path.write_bytes(content[:at])
    refused(path, "clip.mkv")


def test_sound_is_seen(tmp_path: Path) -> None:
    path = counted(tmp_path / "clip.mp4", 10, sound=clicks(0.4, [0.1]))
    assert probe(path).has_audio and not probe(counted(tmp_path / "mute.mp4", 10)).has_audio


def sequence(folder: Path, count: int = 12) -> Path:
    folder.mkdir()
    for k in range(count):
        (folder / f"shot_{k}.png").write_bytes(encode_png(numbered(k)))
    (folder / "result.json").write_text("{}")
    (folder / ".hidden.png").write_bytes(b"nothing")
    return folder


def test_a_folder_of_pictures_is_a_clip_in_the_order_of_its_numbers(tmp_path: Path) -> None:
    folder = sequence(tmp_path / "shots")
    info = probe(folder)
    assert (info.kind, info.width, info.frames, info.fps) == ("sequence", SIDE, 12, 25)
    assert info.duration == pytest.approx(12 / 25)
    assert numbers(folder) == list(range(12))
    assert numbers(folder, None, 4, 6) == [4, 5]
    assert numbers(folder, Fraction(50)) == [k // 2 for k in range(24)]
    clip = Clip(folder, NTSC)
    assert clip.info.fps == NTSC and numbers(clip) == list(range(12))


def test_one_picture_is_a_clip_of_one_frame(tmp_path: Path) -> None:
    path = tmp_path / "one.png"
    path.write_bytes(encode_png(numbered(7)))
    assert numbers(path) == [7]


def test_folders_that_are_no_sequence(tmp_path: Path) -> None:
    refused(tmp_path, "folder without pictures")
    folder = sequence(tmp_path / "shots", 3)
    (folder / "shot_9.png").write_bytes(encode_png(numbered(0, 32)))
    with pytest.raises(MediaError, match=r"shot_9.png has 32 x 32 px"):
        numbers(folder)


def test_impossible_ranges_are_refused(tmp_path: Path) -> None:
    clip = Clip(counted(tmp_path / "clip.mp4", 3))
    for options in ({"start_frame": -1}, {"fps": Fraction(0)}):
        with pytest.raises(ValueError, match="from 0"):
            clip.frames(**options)


REAL = ["d0", "d1", "d10", "d11", "d12", "d18", "d2", "d3", "d5", "d7"]


@pytest.mark.parametrize("name", REAL)
def test_real_clips(shared_data: Path, name: str) -> None:
    clip = Clip(shared_data / "driving" / f"{name}.mp4")
    middle = (clip.info.frames or 0) // 2
    wanted: list[np.ndarray] = []
    count = 0
    for k, frame in enumerate(clip.frames()):
        count += 1
        if k in (middle, middle + 1):
            wanted.append(frame)
    assert count == clip.info.frames
    assert clip.info.fps in (25, 30) and not clip.truncated
    again = list(clip.frames(start_frame=middle, stop_frame=middle + 2))
    assert all(np.array_equal(one, other) for one, other in zip(wanted, again, strict=True))
