# SPDX-License-Identifier: GPL-3.0-or-later
"""Clips and picture sequences as frames at one constant rate, decoded while they are asked for."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import replace
from fractions import Fraction
from itertools import chain
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import Colorspace, Interpolation, VideoReformatter
from av.video.stream import VideoStream

from backend.errors import MediaError
from backend.media import rates
from backend.media.containers import demuxed, opened, tick, video_stream
from backend.media.headers import is_picture
from backend.media.pictures import read_head, read_picture, upright
from backend.media.probing import (
    SEQUENCE_RATE,
    ClipFacts,
    MediaInfo,
    clip_facts,
    picture_info,
    sequence_info,
    sequence_pictures,
)

SEEK_AFTER = 3  # seconds into a clip from where a seek is cheaper than decoding up to there
SEEK_MARGIN = 1  # seconds that are decoded ahead of the first frame wanted
LONGEST_STEP = 60  # seconds between pictures; longer ones, and steps back of more than one, are faults
LARGE = 1_000_000  # px from which decoding on several threads is worth its start
UNSPECIFIED = 2  # AVCOL_SPC_UNSPECIFIED
EXACT = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT


class Clip:
    """A clip, a folder of pictures, or one picture, read at a constant rate.

    info: what it is. After frames() has ended, `truncated` says whether something was missing and `warning`
    what, in one line ("" when all was well).
    """

    def __init__(self, path: Path | str, fps: Fraction | None = None) -> None:
        """fps: the rate of a folder of pictures (25 when None); clips have their own.

        Raises MediaError when this cannot be read as a clip.
        """
        self.path = Path(path)
        self.warning = ""
        self._facts: ClipFacts | None = None
        self._pictures: list[Path] = []
        self.info: MediaInfo
        rate = fps or SEQUENCE_RATE
        if self.path.is_dir():
            self._pictures = sequence_pictures(self.path)
            self.info = sequence_info(self._pictures, rate)
        elif is_picture(head := read_head(self.path)):
            self._pictures = [self.path]
            self.info = replace(picture_info(self.path, head), fps=rate, duration=float(1 / rate))
        else:
            self._facts = clip_facts(self.path)
            self.info = self._facts.info

    @property
    def truncated(self) -> bool:
        """Whether the last frames() met damage or an early end."""
        return bool(self.warning)

    def frames(
        self,
        fps: Fraction | None = None,
        start_frame: int = 0,
        stop_frame: int | None = None,
        exact: bool = False,
    ) -> Generator[np.ndarray, None, None]:
        """Frames [start_frame, stop_frame) at `fps` (None: the clip's own), each its own (h,w,3) uint8 RGB.

        Frame k shows the last picture with timestamp <= start + k/fps. What a damaged clip still holds is
        given and `warning` set. `exact` rounds colours to the nearest level and blends the halved colour
        planes, for frames that are shown; without it they are one level darker and a millisecond (at 512 px)
        cheaper, for frames that are measured. Raises MediaError when it holds nothing, ValueError for an
        impossible range.
        """
        if start_frame < 0 or (fps is not None and fps <= 0):
            raise ValueError("frames are counted from 0, at a rate above 0")
        self.warning = ""
        if self._facts is None:
            return self._of_pictures(fps, start_frame, stop_frame)
        return self._of_clip(self._facts, fps, start_frame, stop_frame, exact)

    def _of_pictures(
        self, fps: Fraction | None, first: int, stop: int | None
    ) -> Generator[np.ndarray, None, None]:
        own = self.info.fps or SEQUENCE_RATE
        timed = ((k / own, 1 / own, picture) for k, picture in enumerate(self._pictures))
        rgb = np.empty(0)
        for picture, again in rates.constant_rate(timed, fps or own, Fraction(0), first, stop):
            if not again:
                rgb = read_picture(picture).rgb
                self._check_same_size(picture, rgb)
            yield rgb.copy()

    def _check_same_size(self, picture: Path, rgb: np.ndarray) -> None:
        height, width = rgb.shape[:2]
        if (width, height) != (self.info.width, self.info.height):
            raise MediaError(
                f"{picture.name} has {width} x {height} px, the first picture of its folder "
                f"{self.info.width} x {self.info.height}.",
                "Give pictures of one size.",
            )

    def _of_clip(
        self, facts: ClipFacts, fps: Fraction | None, first: int, stop: int | None, exact: bool
    ) -> Generator[np.ndarray, None, None]:
        rate = fps or facts.fps
        late = min(facts.late, 1 / (4 * rate))
        convert = _Converter(facts, exact)
        with opened(self.path) as container:
            reading = _Reading(container, self.path, facts)
            with closing(reading.pictures_for(facts.start + first / rate + late)) as pictures:
                for frame, _ in rates.constant_rate(pictures, rate, facts.start, first, stop, late):
                    yield convert(frame)  # also when it repeats: what was given belongs to the caller
            self.warning = reading.warning()


class _Reading:
    """One pass through a clip's pictures, and what went wrong in it."""

    def __init__(self, container: InputContainer, path: Path, facts: ClipFacts) -> None:
        self._container, self._path, self._facts = container, path, facts
        self._stream = video_stream(container, path)
        if facts.size[0] * facts.size[1] >= LARGE:
            self._stream.thread_type = "AUTO"
        self._faults: list[str] = []
        self._damaged = 0
        self._jumps = False
        self._end = facts.start
        self._ended = False

    def pictures_for(self, target: Fraction) -> Generator[tuple[Fraction, Fraction, VideoFrame], None, None]:
        """(timestamp, duration, picture) in order, from one that is shown at `target` seconds or before."""
        if target - self._facts.start > SEEK_AFTER and self._seek(target - SEEK_MARGIN):
            decoded = self._decoded()
            first = next(decoded, None)
            if first is not None and first.pts is not None and first.pts * tick(self._stream) <= target:
                yield from self._timed(chain((first,), decoded), first.pts * tick(self._stream))
                return
            # The index led elsewhere: from the beginning, which is always right.
            self._faults.clear()
            self._damaged = 0
            if not self._seek(Fraction(0)):
                raise MediaError(
                    f"{self._path.name} cannot be read from its beginning again.", "Convert it to MP4."
                )
        yield from self._timed(self._decoded(), self._facts.start)

    def _seek(self, seconds: Fraction) -> bool:
        try:
            self._container.seek(int(seconds // tick(self._stream)), stream=self._stream, backward=True)
        except (av.FFmpegError, OSError):
            return False
        return True

    def _decoded(self) -> Iterator[VideoFrame]:
        """Whole pictures; damaged ones are counted and left out."""
        packets: Iterator[av.Packet[VideoStream]] = demuxed(self._container, self._stream, self._faults)
        for packet in packets:
            try:
                frames = packet.decode()
            except (av.FFmpegError, OSError):
                self._damaged += 1
                continue
            for frame in frames:
                if frame.is_corrupt:
                    self._damaged += 1
                else:
                    yield frame
        self._ended = True

    def _timed(
        self, frames: Iterator[VideoFrame], begin: Fraction
    ) -> Iterator[tuple[Fraction, Fraction, VideoFrame]]:
        """Pictures with ascending timestamps in seconds; absent and wild ones follow from the rate."""
        unit, step = tick(self._stream), 1 / self._facts.fps
        offset = Fraction(0)
        time: Fraction | None = None
        for frame in frames:
            expected = begin if time is None else time + step
            if frame.pts is None:
                stamp = expected
            else:
                stamp = frame.pts * unit + offset
                if not -1 <= stamp - expected <= LONGEST_STEP:
                    offset += expected - stamp
                    stamp = expected
                    self._jumps = True
            time = stamp if time is None else max(stamp, time)
            length = (frame.duration or 0) * unit
            length = length if 0 < length <= LONGEST_STEP else step
            self._end = time + length
            yield time, length, frame

    def warning(self) -> str:
        """What was wrong with the pictures read so far, one line; "" when nothing was."""
        name = self._path.name
        duration = self._facts.duration
        missing = Fraction(0) if duration is None else self._facts.start + duration - self._end
        if self._ended and missing > max(Fraction(1, 4), 3 / self._facts.fps):
            seconds = float(self._end - self._facts.start)
            return f"{name} is cut off: it ends after {seconds:.1f} of {float(duration or 0):.1f} seconds."
        if self._damaged or self._faults:
            return f"{name} is damaged; where a picture is missing the one before it was used."
        if self._jumps:
            return f"The timestamps of {name} jump; its pictures were taken one after the other."
        return ""


class _Converter:
    """Decoded pictures to upright (h,w,3) uint8 RGB of the clip's size."""

    def __init__(self, facts: ClipFacts, exact: bool) -> None:
        self._facts = facts
        self._how = EXACT if exact else Interpolation.BILINEAR
        self._reformatter = VideoReformatter()

    def __call__(self, frame: VideoFrame) -> np.ndarray:
        width, height = self._facts.size
        # Players take BT.709 for large pictures that do not say what they are, BT.601 for others.
        unsaid = frame.colorspace == UNSPECIFIED and (height > 576 or width > 1024)
        # One thread: dividing so little work costs more than it gains (2.2 ms against 0.1 at 512 px).
        rgb = self._reformatter.reformat(
            frame,
            width=width,
            height=height,
            format="rgb24",
            src_colorspace=Colorspace.ITU709 if unsaid else None,
            interpolation=self._how,
            threads=1,
        ).to_ndarray()
        return upright(np.asarray(rgb, np.uint8), self._facts.orientation)
