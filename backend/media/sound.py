# SPDX-License-Identifier: GPL-3.0-or-later
"""The sound that goes with a result: where it was in its file, copied or encoded as AAC."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.packet import Packet

from backend.media.containers import audio_stream, demuxed, opened, tick
from backend.media.probing import clip_start

RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)  # Hz, of those that AAC has
USUAL_RATE = 48000  # for all others
BIT_RATE = 96_000  # a channel
FRAME = 1024  # samples in an AAC frame
GAP = Fraction(1, 200)  # seconds that a timestamp may leave the count of samples before it is put right
SEEK_AFTER, SEEK_MARGIN = 3, 1  # seconds, as for pictures
COPIED_FROM = ("mov", "matroska")  # containers whose AAC packets MP4 takes as they are


class Sound(Protocol):
    """A stream of sound in an output container. Times are seconds after the output's first picture."""

    def write_until(self, time: Fraction) -> None:
        """Mux what begins before `time`, as far as it is whole packets."""

    def finish(self, time: Fraction) -> None:
        """Mux what is left before `time`, and no more."""

    def close(self) -> None:
        """Let go of the input."""


def open_sound(output: OutputContainer, path: Path, start: float, stop: float | None) -> Sound | None:
    """The sound of a file from `start` to `stop` as a new stream of `output`; None when it has no sound.

    start, stop: seconds after the file's first picture, or after its first sample where it has no pictures.
    AAC that is not cut is copied. Raises MediaError when the file cannot be opened.
    """
    with ExitStack() as stack:
        container = stack.enter_context(opened(path))
        stream = audio_stream(container)
        if stream is None:
            return None
        origin = clip_start(path) if container.streams.video else None
        if origin is None:
            origin = (stream.start_time or 0) * tick(stream)
        if start == 0 and stop is None and _can_copy(container, stream):
            return _Copied(output, container, stream, origin, stack.pop_all())
        length = None if stop is None else Fraction(stop) - Fraction(start)
        return _Encoded(output, container, stream, origin + Fraction(start), length, stack.pop_all())


def _can_copy(container: InputContainer, stream: AudioStream) -> bool:
    context = stream.codec_context
    return (
        context.name == "aac"
        and bool(context.extradata)
        and container.format.name.startswith(COPIED_FROM)
        and stream.rate in RATES
    )


class _Copied:
    """AAC packets as they are, moved to where they belong."""

    def __init__(
        self,
        output: OutputContainer,
        container: InputContainer,
        stream: AudioStream,
        origin: Fraction,
        stack: ExitStack,
    ) -> None:
        self._output, self._stack = output, stack
        self._stream = output.add_stream_from_template(stream)
        self._packets = self._moved(container, stream, origin)
        self._next = next(self._packets, None)

    def _moved(
        self, container: InputContainer, stream: AudioStream, origin: Fraction
    ) -> Iterator[tuple[Fraction, Packet]]:
        unit = tick(stream)
        shift = round(origin / unit)
        last: int | None = None
        for packet in demuxed(container, stream, []):
            if packet.pts is None or (last is not None and packet.pts <= last):
                continue
            last = packet.pts
            begin = (packet.pts - shift) * unit
            # The packet before the first one is needed to decode that: AAC frames overlap.
            if begin + 2 * (packet.duration or 0) * unit <= 0:
                continue
            packet.pts -= shift
            packet.dts = packet.pts
            packet.stream = self._stream
            yield begin, packet

    def write_until(self, time: Fraction) -> None:
        while self._next is not None and self._next[0] < time:
            self._output.mux(self._next[1])
            self._next = next(self._packets, None)

    def finish(self, time: Fraction) -> None:
        self.write_until(time)

    def close(self) -> None:
        self._stack.close()


class _Encoded:
    """Sound decoded from `begin` (seconds in its file), at most `length` seconds, and encoded as AAC."""

    def __init__(
        self,
        output: OutputContainer,
        container: InputContainer,
        stream: AudioStream,
        begin: Fraction,
        length: Fraction | None,
        stack: ExitStack,
    ) -> None:
        self._output, self._stack, self._length = output, stack, length
        self._rate = stream.rate if stream.rate in RATES else USUAL_RATE
        self._layout = "mono" if stream.channels == 1 else "stereo"
        channels = 1 if stream.channels == 1 else 2
        self._stream = output.add_stream("aac", rate=self._rate)
        self._stream.codec_context.layout = self._layout
        self._stream.codec_context.bit_rate = BIT_RATE * channels
        self._blocks = _blocks(container, stream, self._rate, self._layout, begin)
        self._held = np.zeros((channels, 0), np.float32)
        self._sent = 0  # samples

    def write_until(self, time: Fraction) -> None:
        end = self._samples_before(time)
        while self._sent + FRAME <= end and self._hold(FRAME) == FRAME:
            self._send(FRAME)

    def finish(self, time: Fraction) -> None:
        self.write_until(time)
        rest = self._hold(min(self._samples_before(time) - self._sent, FRAME))
        if rest > 0:
            self._send(rest)
        if self._sent:
            self._output.mux(self._stream.encode(None))

    def close(self) -> None:
        self._stack.close()

    def _samples_before(self, time: Fraction) -> int:
        return round((time if self._length is None else min(time, self._length)) * self._rate)

    def _hold(self, count: int) -> int:
        """How many of `count` samples are there, after decoding as much as it takes."""
        while self._held.shape[1] < count:
            block = next(self._blocks, None)
            if block is None:
                break
            self._held = np.concatenate([self._held, block], axis=1)
        return min(self._held.shape[1], count)

    def _send(self, count: int) -> None:
        samples, self._held = self._held[:, :count], self._held[:, count:]
        frame = AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="fltp", layout=self._layout)
        frame.sample_rate = self._rate
        frame.pts, frame.time_base = self._sent, Fraction(1, self._rate)
        self._sent += count
        self._output.mux(self._stream.encode(frame))


def _blocks(
    container: InputContainer, stream: AudioStream, rate: int, layout: str, begin: Fraction
) -> Iterator[np.ndarray]:
    """(channels, n) float32 blocks that join up from `begin` on; gaps in the file are silent."""
    position = 0
    for time, samples in _resampled(_frames(container, stream, begin), rate, layout):
        wanted = position if time is None else round((time - begin) * rate)
        if wanted - position > GAP * rate:
            while position < wanted:
                silent = min(wanted - position, rate)
                yield np.zeros((samples.shape[0], silent), np.float32)
                position += silent
        elif position - wanted > GAP * rate or (position == 0 and wanted < 0):
            samples = samples[:, position - wanted :]
        if samples.shape[1]:
            yield samples
            position += samples.shape[1]


def _resampled(
    frames: Iterator[AudioFrame], rate: int, layout: str
) -> Iterator[tuple[Fraction | None, np.ndarray]]:
    """(time in seconds, (channels, n) float32) of decoded frames, whose format may change on the way."""
    resampler: AudioResampler | None = None
    kind: tuple[str, str, int] | None = None
    for frame in frames:
        if kind != (frame.format.name, frame.layout.name, frame.sample_rate):
            kind = (frame.format.name, frame.layout.name, frame.sample_rate)
            resampler = AudioResampler("fltp", layout, rate)
        assert resampler is not None
        for part in resampler.resample(frame):
            yield _time(part), part.to_ndarray().astype(np.float32, copy=False)
    if resampler is not None:
        for part in resampler.resample(None):
            yield _time(part), part.to_ndarray().astype(np.float32, copy=False)


def _time(frame: AudioFrame) -> Fraction | None:
    return None if frame.pts is None or frame.time_base is None else Fraction(frame.pts) * frame.time_base


def _frames(container: InputContainer, stream: AudioStream, begin: Fraction) -> Iterator[AudioFrame]:
    """Decoded sound from `begin` seconds or before; what is damaged is left out."""
    unit = tick(stream)
    if begin > SEEK_AFTER:
        container.seek(int((begin - SEEK_MARGIN) // unit), stream=stream, backward=True)
        decoded = _decoded(container, stream)
        first = next(decoded, None)
        if first is not None and first.pts is not None and first.pts * (first.time_base or unit) <= begin:
            yield first
            yield from decoded
            return
        container.seek(0, stream=stream, backward=True)  # the index led elsewhere
    yield from _decoded(container, stream)


def _decoded(container: InputContainer, stream: AudioStream) -> Iterator[AudioFrame]:
    packets: Iterator[Packet[AudioStream]] = demuxed(container, stream, [])
    for packet in packets:
        try:
            yield from packet.decode()
        except (av.FFmpegError, OSError):  # silence takes its place
            continue
