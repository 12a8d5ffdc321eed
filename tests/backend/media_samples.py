# SPDX-License-Identifier: GPL-3.0-or-later
"""Small clips and sounds whose every picture and moment is known."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.video.stream import VideoStream

SIDE = 64  # px of a numbered picture
CELL = 16  # px of one of its bits
RATE = 44100  # Hz of generated sound


def numbered(number: int, side: int = SIDE) -> np.ndarray:
    """(side,side,3) uint8: sixteen black and white cells that spell a number."""
    bits = np.array([number >> bit & 1 for bit in range(16)], np.uint8).reshape(4, 4)
    grey = np.kron(bits * np.uint8(215) + np.uint8(20), np.ones((side // 4, side // 4), np.uint8))
    return np.repeat(grey[..., None], 3, axis=2)


def number_in(rgb: np.ndarray) -> int:
    """The number that a numbered picture spells."""
    side = rgb.shape[0] // 4
    centres = rgb[side // 2 :: side, side // 2 :: side, 1][:4, :4]
    return sum(1 << bit for bit, value in enumerate(centres.ravel()) if value > 127)


def write_clip(
    path: Path,
    pictures: Iterable[np.ndarray],
    fps: Fraction = Fraction(25),
    *,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    container: str | None = None,
    options: Mapping[str, str] | None = None,
    codec_options: Mapping[str, str] | None = None,
    times: Sequence[Fraction] | None = None,
    time_base: Fraction = Fraction(1, 90000),
    rotation: tuple[float, bool] | None = None,
    aspect: Fraction | None = None,
    sound: np.ndarray | None = None,
    sound_at: Fraction = Fraction(0),
    sound_codec: str = "aac",
) -> Path:
    """A clip of RGB pictures, at a rate or at given times (seconds); `sound` (c,n) begins at `sound_at`."""
    rest = iter(pictures)
    first = next(rest)
    with av.open(str(path), "w", format=container, options=dict(options or {})) as output:
        stream = cast(VideoStream, output.add_stream(codec, rate=fps, options=dict(codec_options or {})))
        stream.height, stream.width = first.shape[:2]
        stream.pix_fmt = pixel_format
        if times is not None:
            stream.codec_context.time_base = time_base
        if rotation is not None:
            stream.set_display_rotation(rotation[0], hflip=rotation[1])
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        audio = None if sound is None else add_sound(output, sound, sound_codec)
        for index, rgb in enumerate(chain((first,), rest)):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
            if times is None:
                frame.pts, frame.time_base = index, 1 / fps
            else:
                frame.pts, frame.time_base = round(times[index] / time_base), time_base
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
        if sound is not None and audio is not None:
            mux_sound(output, audio, sound, sound_at)
    return path


def write_sound(path: Path, sound: np.ndarray, codec: str = "pcm_s16le") -> Path:
    """A file of sound alone."""
    with av.open(str(path), "w") as output:
        mux_sound(output, add_sound(output, sound, codec), sound, Fraction(0))
    return path


def add_sound(output: OutputContainer, sound: np.ndarray, codec: str) -> AudioStream:
    stream = output.add_stream(codec, rate=RATE)
    assert isinstance(stream, AudioStream)
    stream.codec_context.layout = "mono" if len(sound) == 1 else "stereo"
    return stream


def mux_sound(output: OutputContainer, stream: AudioStream, sound: np.ndarray, at: Fraction) -> None:
    layout = "mono" if len(sound) == 1 else "stereo"
    integers = stream.codec_context.name.startswith("pcm_s16")
    for start in range(0, sound.shape[1], 1024):
        block = np.ascontiguousarray(sound[:, start : start + 1024])
        if integers:
            samples = np.ascontiguousarray((block * 32767).astype(np.int16).T.reshape(1, -1))
            frame = av.AudioFrame.from_ndarray(samples, format="s16", layout=layout)
        else:
            frame = av.AudioFrame.from_ndarray(block, format="fltp", layout=layout)
        frame.sample_rate = RATE
        frame.pts, frame.time_base = start + round(at * RATE), Fraction(1, RATE)
        output.mux(stream.encode(frame))
    output.mux(stream.encode(None))


def clicks(seconds: float, times: Iterable[float]) -> np.ndarray:
    """(1,n) float32: silence with a millisecond of a loud tone at each time."""
    sound = np.zeros((1, round(seconds * RATE)), np.float32)
    tone = 0.9 * np.sin(2 * np.pi * 4000 / RATE * np.arange(RATE // 1000)).astype(np.float32)
    for time in times:
        at = round(time * RATE)
        sound[0, at : at + tone.size] = tone[: max(sound.shape[1] - at, 0)]
    return sound


def heard(path: Path) -> list[float]:
    """The times, in seconds after the first picture, at which a file clicks, as a player hears it."""
    with av.open(str(path)) as container:
        origin = 0.0
        if container.streams.video:
            origin = next(container.decode(video=0)).time
            container.seek(0)
        found: list[float] = []
        for frame in container.decode(audio=0):
            samples = np.abs(frame.to_ndarray().astype(np.float64))
            if frame.format.name.startswith("s16"):
                samples = samples.reshape(-1, frame.layout.nb_channels).T / 32768
            assert frame.pts is not None and frame.time_base is not None
            begin = float(frame.pts * frame.time_base) - origin
            for sample in np.flatnonzero(samples.max(axis=0) > 0.25):
                time = begin + sample / frame.sample_rate
                if not found or time - found[-1] > 0.05:
                    found.append(time)
        return found
