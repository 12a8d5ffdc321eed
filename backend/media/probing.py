# SPDX-License-Identifier: GPL-3.0-or-later
"""What a file or folder is, found without decoding more than one picture."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, cast

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from backend.errors import MediaError
from backend.media import rates
from backend.media.containers import CONVERT, audio_stream, demuxed, opened, tick, video_stream
from backend.media.headers import is_picture, read_header
from backend.media.pictures import check_header, check_size, read_head, unreadable

SEQUENCE_RATE = Fraction(25)  # frames a second of pictures that say nothing about it
SEQUENCE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}
SAMPLE = 300  # packets whose timestamps show the rate
REORDERED = 16  # of them at the end may miss neighbours that are coded later

# Signs of a display matrix's a, b, c, d (x = a p + c q, y = b p + d q) -> Exif's orientation.
ORIENTATIONS = {
    (1, 0, 0, 1): 1,
    (-1, 0, 0, 1): 2,
    (-1, 0, 0, -1): 3,
    (1, 0, 0, -1): 4,
    (0, 1, 1, 0): 5,
    (0, 1, -1, 0): 6,
    (0, -1, -1, 0): 7,
    (0, -1, 1, 0): 8,
}


@dataclass(frozen=True)
class MediaInfo:
    """What a file is.

    width, height: px, upright, with square pixels. fps: the constant rate at which it is read (None for a
    picture). frames, duration (seconds): at that rate; estimates for long clips, None where nothing is known.
    start: seconds, the timestamp of the first picture.
    """

    kind: Literal["picture", "clip", "sequence"]
    width: int
    height: int
    fps: Fraction | None = None
    frames: int | None = None
    duration: float | None = None
    start: float = 0.0
    has_audio: bool = False


@dataclass(frozen=True)
class ClipFacts:
    """What reading a clip needs, exactly: seconds as fractions.

    duration: what the file declares, None when it does not or when that may be the sound's. late: seconds by
    which its timestamps may be rounded up. size: (width, height) before turning.
    """

    info: MediaInfo
    fps: Fraction
    start: Fraction
    duration: Fraction | None
    late: Fraction
    size: tuple[int, int]
    orientation: int


def probe(path: Path | str) -> MediaInfo:
    """What a picture, clip or folder of pictures is. Raises MediaError for anything else."""
    path = Path(path)
    if path.is_dir():
        return sequence_info(sequence_pictures(path), SEQUENCE_RATE)
    head = read_head(path)
    if is_picture(head):
        return picture_info(path, head)
    return clip_facts(path).info


def picture_info(path: Path, head: bytes) -> MediaInfo:
    """What a picture's header says. Raises MediaError when it cannot be read."""
    header = check_header(path, read_header(head), head)
    width, height = header.width, header.height
    if header.orientation >= 5:
        width, height = height, width
    return MediaInfo("picture", width, height, frames=1)


def sequence_pictures(folder: Path) -> list[Path]:
    """The pictures of a folder in the order of the numbers in their names. Raises MediaError without any."""
    try:
        found = [
            path
            for path in folder.iterdir()
            if path.suffix.lower() in SEQUENCE_SUFFIXES and not path.name.startswith(".") and path.is_file()
        ]
    except OSError as error:
        raise unreadable(folder, error) from error
    if not found:
        raise MediaError(
            f"{folder} is a folder without pictures.", "Give a clip, or a folder of numbered pictures."
        )
    return sorted(found, key=lambda path: _natural(path.name))


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts 9 before 10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def sequence_info(pictures: list[Path], fps: Fraction) -> MediaInfo:
    """What a sequence of pictures is at a rate, by the first of them. Raises MediaError."""
    first = picture_info(pictures[0], read_head(pictures[0]))
    count = len(pictures)
    return MediaInfo("sequence", first.width, first.height, fps, count, float(count / fps))


def clip_facts(path: Path) -> ClipFacts:
    """Look at a clip: decode its first picture and read the timestamps of some more. Raises MediaError."""
    with opened(path) as container:
        stream = video_stream(container, path)
        frame, times, whole = _sample(container, stream, path)
        width, height = _display_size(frame, stream)
        check_size(path, width, height)
        orientation = _orientation(frame)
        unit = tick(stream)
        start = _time(frame, stream) if frame.pts is not None else Fraction(0)
        shown = sorted(time for time in times if time >= start)
        declared = [stream.base_rate, stream.average_rate, stream.guessed_rate]
        if len(shown) < 2:
            declared.reverse()  # the base rate may be that of half pictures, which only timestamps can tell
        fps, steady = rates.guess_rate(shown if whole else shown[:-REORDERED], unit, declared)
        late = rates.tolerance(fps, unit) if steady else Fraction(0)
        last = Fraction(frame.duration) * unit if frame.duration else 1 / fps
        declared_end = _declared_duration(container, stream, start)
        duration = shown[-1] - start + last if whole and shown else declared_end
        if not stream.duration and container.streams.audio:
            declared_end = None  # it may be the sound's
        turned = (height, width) if orientation >= 5 else (width, height)
        info = MediaInfo(
            "clip",
            *turned,
            fps,
            None if duration is None else rates.frame_count(duration, fps, late),
            None if duration is None else float(duration),
            float(start),
            audio_stream(container) is not None,
        )
        return ClipFacts(info, fps, start, declared_end, late, (width, height), orientation)


def clip_start(path: Path) -> Fraction | None:
    """Seconds at which a clip's first picture is shown, None when it has no pictures to decode."""
    try:
        return clip_facts(path).start
    except MediaError:
        return None


def _sample(
    container: InputContainer, stream: VideoStream, path: Path
) -> tuple[VideoFrame, list[Fraction], bool]:
    """The first picture, timestamps (seconds) of up to SAMPLE packets, and whether those are all of them."""
    first: VideoFrame | None = None
    times: list[Fraction] = []
    faults: list[str] = []
    whole = True
    for packet in demuxed(container, stream, faults):
        if first is None:
            with suppress(av.FFmpegError):  # the next one may be whole
                first = next(iter(packet.decode()), None)
        stamp = packet.pts if packet.pts is not None else packet.dts
        if stamp is not None and not packet.is_discard:
            times.append(stamp * tick(stream))
        if first is not None and len(times) >= SAMPLE:
            whole = False
            break
    if first is None:
        if times or faults:
            raise MediaError(f"{path.name} is damaged: none of its pictures can be decoded.", CONVERT)
        raise MediaError(f"{path.name} has no pictures in it.", "Use another clip.")
    return first, times, whole


def _time(frame: VideoFrame, stream: VideoStream) -> Fraction:
    assert frame.pts is not None
    return Fraction(frame.pts) * (frame.time_base or tick(stream))


def _display_size(frame: VideoFrame, stream: VideoStream) -> tuple[int, int]:
    """Width and height in square pixels: the width follows the aspect ratio of the stored ones."""
    aspect = stream.sample_aspect_ratio or Fraction(1)
    if not Fraction(1, 4) <= aspect <= 4:
        aspect = Fraction(1)
    return round(frame.width * aspect), frame.height


def _orientation(frame: VideoFrame) -> int:
    """Exif's orientation for a picture's display matrix; 1 for anything but quarter turns and mirrors."""
    matrix = cast(Mapping[str, Any], frame.side_data).get("DISPLAYMATRIX")
    if matrix is None:
        return 1
    a, b, _, c, d = np.frombuffer(bytes(matrix)[:20], np.int32).tolist()
    return ORIENTATIONS.get((_sign(a), _sign(b), _sign(c), _sign(d)), 1)


def _sign(value: int) -> int:
    """-1, 0 or 1 of a 16.16 number; what is small against 1 counts as 0."""
    return 0 if abs(value) < 1 << 12 else (1 if value > 0 else -1)


def _declared_duration(container: InputContainer, stream: VideoStream, start: Fraction) -> Fraction | None:
    """Seconds from the first picture to the end, as the file has it; None when it says nothing."""
    if stream.duration:
        begin = (stream.start_time or 0) * tick(stream)
        left = stream.duration * tick(stream) - (start - begin)
    elif container.duration:
        left = Fraction(container.duration + (container.start_time or 0), av.time_base) - start
    else:
        return None
    return left if left > 0 else None
