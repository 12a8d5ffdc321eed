# SPDX-License-Identifier: GPL-3.0-or-later
"""Clips out: H.264 with AAC in an MP4, encoded on a thread of its own.

The clip grows as NAME.partial.mp4 in fragments, each of which plays without what follows: whatever ends the
job, a full disk or a lost process, the pictures before it are kept. A clip that is whole is rewritten without
fragments and with its index in front, and only then gets its name.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from queue import SimpleQueue
from threading import Semaphore, Thread
from types import TracebackType
from typing import Self

import av
import numpy as np
from av.container import OutputContainer
from av.video.reformatter import (
    ColorPrimaries,
    ColorRange,
    Colorspace,
    ColorTrc,
    Interpolation,
    VideoReformatter,
)

from backend.errors import LivePortraitError, OutputError
from backend.media.sound import Sound, open_sound

# Measured at 512 px on one core: 4.4 ms a frame; superfast takes 2.5 ms and twice the bytes, medium 12 ms.
PRESET = "veryfast"
CRF = 15  # visually lossless
KEY_SECONDS = 2  # between key pictures, for quick scrubbing
CARRIED = ("title", "comment", "artist", "description")  # metadata that a clip keeps when it is put in order
FRAGMENTS = "frag_keyframe+delay_moov+default_base_moof"
WAITING_BYTES = 64 << 20  # of frames between the renderer and the encoder
SOUND_AHEAD = Fraction(1)  # seconds


class ClipWriter:
    """Writes an MP4: `with ClipWriter(...) as writer: writer.write(rgb)`.

    Left normally it makes the whole clip. Left by an exception, or when it cannot go on (OutputError), what
    is finished stays as `partial`.
    """

    def __init__(
        self,
        path: Path | str,
        fps: Fraction,
        width: int,
        height: int,
        audio: Path | str | None = None,
        audio_start: float = 0.0,
        audio_stop: float | None = None,
        crf: int = CRF,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """width, height: px of the frames; H.264 wants even ones, so an odd last column or row is doubled.

        audio: a file whose sound goes along from audio_start to audio_stop (seconds after its first picture,
        or after its first sample where it has no pictures), as long as there are pictures. metadata: title,
        comment, artist.
        Raises OutputError when the file cannot be made, MediaError when `audio` cannot be opened.
        """
        self.path = Path(path)
        self.partial = self.path.with_name(f"{self.path.stem}.partial.mp4")
        self._fps, self._size = Fraction(fps), (height, width)
        self._error: LivePortraitError | None = None
        self._frames = 0
        self._sound: Sound | None = None
        self._refuse_own_sound(audio)
        try:
            self._file = _File(self.partial)
            self._container = av.open(self._file, "w", format="mp4", options={"movflags": FRAGMENTS})
            self._container.metadata.update(metadata or {})
            self._stream = self._video_stream(crf)
            if audio is not None:
                self._sound = open_sound(self._container, Path(audio), audio_start, audio_stop)
            self._container.start_encoding()
        except (av.FFmpegError, OSError) as error:
            self._discard()
            raise self._failure(error) from error
        except LivePortraitError:
            self._discard()
            raise
        self._reformatter = VideoReformatter()
        self._queue: SimpleQueue[np.ndarray | None] = SimpleQueue()
        self._slots = Semaphore(int(np.clip(WAITING_BYTES // (3 * width * height), 2, 8)))
        self._thread = Thread(target=self._encode_queue, name="encode", daemon=True)
        self._thread.start()

    def write(self, rgb: np.ndarray) -> None:
        """Add a frame, (h,w,3) uint8 RGB; it is copied. Waits when the encoder is behind.

        Raises OutputError when frames before it could not be written.
        """
        if rgb.shape != (*self._size, 3) or rgb.dtype != np.uint8:
            raise ValueError(f"a frame of {rgb.shape} {rgb.dtype} for a clip of {self._size}")
        self._slots.acquire()
        if self._error is not None:
            self._slots.release()
            raise self._error
        self._queue.put(rgb.copy())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._queue.put(None)
        self._thread.join()
        self._close()
        if error is None and self._error is None and self._frames:
            self._publish()
            return
        keep_whole_fragments(self.partial)
        if self._error is not None and self.partial.exists():
            self._error.hint += f" Finished frames are in {self.partial.name}."
        if error is None and self._error is not None:
            raise self._error

    def _refuse_own_sound(self, audio: Path | str | None) -> None:
        if audio is not None and self.partial.exists() and self.partial.samefile(audio):
            raise OutputError(
                f"Writing {self.path.name} would overwrite its own sound.", "Choose another output."
            )

    def _video_stream(self, crf: int) -> av.VideoStream:
        height, width = self._size
        options = {"preset": PRESET, "crf": str(crf)}
        stream = self._container.add_stream("libx264", rate=self._fps, options=options)
        stream.width, stream.height = width + width % 2, height + height % 2
        stream.pix_fmt = "yuv420p"
        stream.time_base = 1 / self._fps
        context = stream.codec_context
        context.time_base = 1 / self._fps
        context.gop_size = max(round(KEY_SECONDS * self._fps), 1)
        context.colorspace, context.color_range = Colorspace.ITU709, ColorRange.MPEG
        context.color_primaries, context.color_trc = ColorPrimaries.BT709, ColorTrc.BT709
        return stream

    def _encode_queue(self) -> None:
        while (rgb := self._queue.get()) is not None:
            try:
                if self._error is None:
                    self._encode(rgb)
            except (av.FFmpegError, OSError, MemoryError) as error:
                self._error = self._failure(error)
            except BaseException as error:  # noqa: BLE001 - a thread has nobody else to tell
                self._error = LivePortraitError(f"The encoder failed: {error!r}.", "Please report this.")
            finally:
                self._slots.release()

    def _encode(self, rgb: np.ndarray) -> None:
        frame = self._reformatter.reformat(
            av.VideoFrame.from_ndarray(_even(rgb), format="rgb24"),
            format="yuv420p",
            dst_colorspace=Colorspace.ITU709,
            dst_color_range=ColorRange.MPEG,
            # Without accurate rounding colours are off by a tenth of a level; areas suit halved colour.
            interpolation=Interpolation.AREA | Interpolation.ACCURATE_RND,
            threads=1,
        )
        frame.pts, frame.time_base = self._frames, 1 / self._fps
        self._container.mux(self._stream.encode(frame))
        self._frames += 1
        if self._sound is not None:
            self._sound.write_until(self._frames / self._fps - SOUND_AHEAD)

    def _close(self) -> None:
        """Write out what the encoders hold, as far as that goes; errors are kept."""
        try:
            if self._error is None and self._frames:
                self._container.mux(self._stream.encode(None))
                if self._sound is not None:
                    self._sound.finish(self._frames / self._fps)
        except (av.FFmpegError, OSError) as error:
            self._error = self._failure(error)
        try:
            self._container.close()
        except (av.FFmpegError, OSError) as error:
            self._error = self._error or self._failure(error)
        finally:
            self._file.close()
            if self._file.error is not None:
                self._error = self._error or self._failure(self._file.error)
            if self._sound is not None:
                self._sound.close()

    def _discard(self) -> None:
        container: OutputContainer | None = getattr(self, "_container", None)
        if container is not None:
            with suppress(av.FFmpegError, OSError, ValueError):
                container.close()
        file: _File | None = getattr(self, "_file", None)
        if file is not None:
            file.close()
            with suppress(OSError):
                self.partial.unlink(missing_ok=True)

    def _publish(self) -> None:
        """Give the whole clip its name."""
        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
        try:
            try:
                _rewrite(self.partial, temporary)
                _check_whole(temporary)
                temporary.replace(self.path)
                self.partial.unlink()
            except (av.FFmpegError, OSError):
                # No room for a second copy: in fragments the clip is as whole, if slower to open.
                temporary.unlink(missing_ok=True)
                self.partial.replace(self.path)
        except OSError as error:
            raise self._failure(error) from error

    def _failure(self, error: BaseException) -> OutputError:
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
        return OutputError(
            f"Cannot write {self.path}: {reason}.",
            "Free some space or choose another output.",
            details=repr(error),
        )


class _File:
    """A file to write to whose failures are seen: those of libavformat's own files get lost on the way here.

    error: the first one. Nothing is written behind it, so that what stands before it is whole.
    """

    def __init__(self, path: Path) -> None:
        self._raw = path.open("w+b", buffering=0)
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        if self.error is not None:
            raise self.error
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[self._raw.write(rest) or 0 :]
        except OSError as error:
            self.error = error
            raise
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._raw.seek(offset, whence)

    def tell(self) -> int:
        return self._raw.tell()

    def close(self) -> None:
        self._raw.close()


def _even(rgb: np.ndarray) -> np.ndarray:
    """With the last column and row doubled where their number is odd."""
    height, width = rgb.shape[:2]
    if height % 2 or width % 2:
        return np.pad(rgb, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    return rgb


def _rewrite(fragmented: Path, whole: Path) -> None:
    """The same packets in an MP4 with one index, in front."""
    with (
        av.open(str(fragmented.absolute()), metadata_errors="ignore") as source,
        # By its name, since moving the index to the front takes a second look at the file.
        av.open(str(whole.absolute()), "w", format="mp4", options={"movflags": "+faststart"}) as target,
    ):
        target.metadata.update({k: v for k, v in source.metadata.items() if k in CARRIED})
        streams = {
            stream.index: target.add_stream_from_template(stream, opaque=True) for stream in source.streams
        }
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream_index]
                target.mux(packet)


def _check_whole(path: Path) -> None:
    """Raise OSError for a clip without its end or its index: libavformat says nothing about a full disk."""
    ends = dict(boxes(path))
    if not {b"moov", b"mdat"} <= ends.keys() or max(ends.values()) != path.stat().st_size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def keep_whole_fragments(path: Path) -> None:
    """Cut a broken-off file behind its last whole fragment; remove it when it has none."""
    with suppress(OSError):
        whole = _whole_fragments(path)
        if whole:
            os.truncate(path, whole)
        else:
            path.unlink(missing_ok=True)


def _whole_fragments(path: Path) -> int:
    """Bytes up to the end of the last mdat box that follows a moof box; 0 when there is none."""
    whole = at = 0
    kinds: set[bytes] = set()
    for kind, at in boxes(path):
        kinds.add(kind)
        if kind == b"mdat" and {b"moov", b"moof"} <= kinds:
            whole = at
    return at if whole and at == path.stat().st_size else whole


def boxes(path: Path) -> Iterator[tuple[bytes, int]]:
    """Type and end of each whole box at the top of an MP4.

    ISO/IEC 14496-12, 4.2: 32-bit size, type, and a 64-bit size where the first one is 1.
    """
    size = path.stat().st_size
    at = 0
    with path.open("rb") as file:
        while at + 8 <= size:
            file.seek(at)
            head = file.read(16)
            length, kind = int.from_bytes(head[:4], "big"), head[4:8]
            if length == 1:
                length = int.from_bytes(head[8:16], "big")
            if length < 8 or at + length > size:
                return
            at += length
            yield kind, at
