# SPDX-License-Identifier: GPL-3.0-or-later
"""Opening clip and sound files: ordinary files in known containers only; errors that say what is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.stream import VideoStream

from backend.errors import MediaError
from backend.media.pictures import check_file, read_head, unreadable

# Nothing that is text, a playlist, a device or a pattern of names: such "clips" could open other files.
CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg,mxf,nut,dv,ivf,gif,"
    "h264,hevc,m4v,mjpeg,yuv4mpegpipe,wav,w64,aiff,caf,mp3,aac,flac,amr,ac3,eac3,apng,rm,obu,vvc,gxf"
)
CONVERT = "Convert it to an H.264 MP4 and use that."


@contextmanager
def opened(path: Path) -> Iterator[InputContainer]:
    """The container in a file, closed at the end. Raises MediaError when it cannot be opened."""
    check_file(path)
    # An absolute path can never be taken for a URL or a protocol.
    options = {"format_whitelist": CONTAINERS, "protocol_whitelist": "file"}
    try:
        container = av.open(str(path.absolute()), options=options, metadata_errors="ignore")
    except (av.FFmpegError, OSError, ValueError, RuntimeError) as error:
        raise _not_opened(path, error) from error
    with container:
        yield container


def _not_opened(path: Path, error: Exception) -> MediaError:
    if isinstance(error, PermissionError):
        return unreadable(path, error)
    head = read_head(path)
    known = head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free") or head[:4] in (
        b"\x1aE\xdf\xa3",
        b"RIFF",
    )
    if known:
        return MediaError(
            f"{path.name} is damaged or cut off.", "Use another copy of it.", details=str(error)
        )
    return MediaError(
        f"{path.name} is neither a picture nor a clip that can be read.",
        "Use a PNG or JPEG, or an H.264 MP4.",
        details=str(error),
    )


def video_stream(container: InputContainer, path: Path) -> VideoStream:
    """The stream of moving pictures (cover art is none). Raises MediaError when there is none to decode."""
    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not streams:
        if container.streams.audio:
            raise MediaError(f"{path.name} has sound but no pictures.", "Use a clip with pictures.")
        raise MediaError(f"{path.name} has no pictures in it.", "Use another clip.")
    for stream in streams:
        # Without a decoder there is no context, whatever the annotations say.
        if getattr(stream, "codec_context", None) is not None:
            return stream
    raise MediaError(f"{path.name} is coded in a way that cannot be decoded here.", CONVERT)


def audio_stream(container: InputContainer) -> AudioStream | None:
    """The first stream of sound that can be decoded, None when there is none."""
    for stream in container.streams.audio:
        if getattr(stream, "codec_context", None) is not None:
            return stream
    return None


def tick(stream: VideoStream | AudioStream) -> Fraction:
    """Seconds between two timestamps of a stream."""
    return stream.time_base or Fraction(1, 90000)


def demuxed(
    container: InputContainer, stream: VideoStream | AudioStream, faults: list[str]
) -> Iterator[Packet]:
    """Packets up to the flushing one; where reading fails it goes on behind the fault, which is noted."""
    for _ in range(MAX_READ_FAULTS):
        try:
            yield from container.demux(stream)
            return
        except (av.FFmpegError, OSError) as error:
            faults.append(str(error))


MAX_READ_FAULTS = 100  # after so many a file is taken to be at its end
