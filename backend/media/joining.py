# SPDX-License-Identifier: GPL-3.0-or-later
"""Parts of one clip put together again, picture for picture as they were encoded."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import av
from av.container import InputContainer

from backend.errors import OutputError
from backend.media.clip_writer import CARRIED, SOUND_AHEAD, boxes, keep_whole_fragments
from backend.media.sound import open_sound


def whole_pictures(part: Path) -> int:
    """How many pictures a clip that was broken off holds, after cutting off what is not whole; 0 without
    one.
    """
    if not part.is_file():
        return 0
    if any(kind == b"moof" for kind, _ in boxes(part)):  # a part that was put together has no fragments
        keep_whole_fragments(part)
    try:
        with av.open(str(part.absolute()), metadata_errors="ignore") as container:
            return sum(1 for _ in _packets(container))
    except (av.FFmpegError, OSError, IndexError):
        return 0


def comment_of(clip: Path) -> str:
    """What was written into a clip as its comment; "" where there is none, or no clip."""
    try:
        with av.open(str(clip.absolute()), metadata_errors="ignore") as container:
            return container.metadata.get("comment", "")
    except (av.FFmpegError, OSError):
        return ""


def join(
    parts: Sequence[Path],
    target: Path,
    fps: Fraction,
    audio: Path | None = None,
    audio_start: float = 0.0,
) -> None:
    """Write the pictures of parts that one ClipWriter setting has encoded, one after the other, as one MP4
    with the first one's metadata and a sound from `audio_start` seconds on. The file appears whole or not at
    all.

    Raises OutputError where that cannot be written or the parts are of different kinds.
    """
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        _join(parts, temporary, fps, audio, audio_start)
        temporary.replace(target)
    except (av.FFmpegError, OSError) as error:
        raise OutputError(
            f"Cannot put {target} together: {error}.", "Free some space, or start again without --resume."
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _join(parts: Sequence[Path], whole: Path, fps: Fraction, audio: Path | None, audio_start: float) -> None:
    options = {"movflags": "+faststart"}
    first = str(parts[0].absolute())
    with av.open(first) as like, av.open(str(whole.absolute()), "w", format="mp4", options=options) as target:
        stream = target.add_stream_from_template(like.streams.video[0], opaque=True)
        target.metadata.update({k: v for k, v in like.metadata.items() if k in CARRIED})
        sound = None if audio is None else open_sound(target, audio, audio_start, None)
        before = 0
        try:
            for part in parts:
                with av.open(str(part.absolute())) as source:
                    video = source.streams.video[0]
                    if video.codec_context.extradata != like.streams.video[0].codec_context.extradata:
                        raise OSError(f"{part.name} was encoded in another way")
                    count, begin = 0, Fraction(0)
                    for packet, shown, decoded in _packets(source):
                        begin = begin if count else shown
                        packet.pts = before + round((shown - begin) * fps)
                        packet.dts = before + round((decoded - begin) * fps)
                        packet.duration, packet.time_base = 1, 1 / fps
                        packet.stream = stream
                        target.mux(packet)
                        count += 1
                        if sound is not None:
                            sound.write_until((before + count) / fps - SOUND_AHEAD)
                    before += count
            if sound is not None:
                sound.finish(before / fps)
        finally:
            if sound is not None:
                sound.close()


def _packets(container: InputContainer) -> Iterator[tuple[av.Packet, Fraction, Fraction]]:
    """The pictures as they were encoded; seconds when each is shown and when it is decoded."""
    for packet in container.demux(container.streams.video[0]):
        if packet.dts is not None and packet.pts is not None and packet.time_base is not None:
            yield packet, packet.pts * packet.time_base, packet.dts * packet.time_base
