# SPDX-License-Identifier: GPL-3.0-or-later
"""From the pixels of a driving clip or picture to its Motion, in chunks, at constant memory.

A chunk ends at a frame with a face, so that frames without one are interpolated from both sides exactly as if
the whole clip were known. A driving crop is the average over the clip and needs every landmark first: they
wait on disk.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Protocol

import numpy as np

from backend import cropping, media
from backend.clip_rules import clip_rules
from backend.cropping import CROP_SIZE as CROP
from backend.driving import Driving
from backend.engines import Engine
from backend.errors import Cancelled, InputError, MediaError
from backend.face_tracks import tracker_for
from backend.faces import Face, choose_face, find_faces, named
from backend.motion import FRAME_SHAPES, MOUTH_SHAPE, Motion
from backend.options import Options
from backend.progress import Progress
from backend.shots import ShotMarks
from backend.spool import Spool

CHUNK = 16  # frames measured together
PREFETCH_BYTES = 32 << 20  # of decoded frames that wait to be measured
NO_CROP = np.empty((0, 0, 3), np.uint8)  # for engines that look at landmarks alone
PICTURE_RATE = Fraction(25)  # frames a second of a driving that is one picture


class Cancel(Protocol):
    """threading.Event, or anything else that can say that the job is not wanted any more."""

    def is_set(self) -> bool: ...


def check_cancel(cancel: Cancel | None) -> None:
    """Raise Cancelled when the job is not wanted any more."""
    if cancel is not None and cancel.is_set():
        raise Cancelled("Cancelled.")


@dataclass
class MotionStream:
    """Motion as it is measured: chunks of filled frames, one after the other, at `fps` from `start` seconds.

    `total` is the expected number of frames, None when it is not known. Close it when it is not read to its
    end.
    """

    chunks: Iterator[Motion]
    fps: Fraction
    start: float
    total: int | None
    clip: media.Clip | None = None

    @property
    def warning(self) -> str:
        """After reading: what was wrong with the clip, if anything."""
        return self.clip.warning if self.clip is not None else ""

    def close(self) -> None:
        close = getattr(self.chunks, "close", None)
        if close is not None:
            close()


def capture_stream(
    driving: Driving,
    options: Options,
    engine: Engine,
    *,
    mouths: bool = False,
    progress: Progress | None = None,
    cancel: Cancel | None = None,
) -> MotionStream:
    """The Motion of a clip or picture, measured while it is read.

    `mouths` fills Motion.mouth where the engine has use for it. Frames without a face are interpolated and
    not valid. Raises (while it is read) NoFaceError when no frame has one, MediaError for pixels that cannot
    be read.
    """
    mouths = mouths and engine.wants_mouths
    if driving.kind == "picture":
        return MotionStream(iter([_capture_picture(driving, options, engine, mouths)]), PICTURE_RATE, 0.0, 1)
    assert driving.path is not None and driving.info is not None
    first, stop = options.frames or (0, None)
    clip = media.Clip(driving.path, options.fps)  # a folder has no rate of its own
    fps = rate_of(clip, options)
    total = (
        None if clip.info.frames is None else max(min(stop or clip.info.frames, clip.info.frames) - first, 0)
    )
    job = _ClipCapture(clip, first, stop, total, options, engine, mouths, progress, cancel)
    return MotionStream(job.chunks(), fps, float(first / (clip.info.fps or PICTURE_RATE)), total, clip)


def _capture_picture(driving: Driving, options: Options, engine: Engine, mouths: bool) -> Motion:
    assert driving.path is not None
    rgb = media.read_picture(driving.path).rgb
    with named(driving.name):
        face = choose_face(find_faces(rgb, options.face_order), options.driving_face)
    motion, _ = measure_frame(engine, rgb, face, options)
    if not mouths:
        motion = replace(motion, mouth=None)
    return replace(motion, fps_numerator=PICTURE_RATE.numerator, fps_denominator=PICTURE_RATE.denominator)


def measure_frame(
    engine: Engine, rgb: np.ndarray, face: Face, options: Options, matrix: np.ndarray | None = None
) -> tuple[Motion, np.ndarray]:
    """A driving frame by itself: its Motion of one frame, with the driver's mouth, and the map (2,3) from its
    px to crop px, which further frames of the same clip are given.
    """
    height, width = rgb.shape[:2]
    landmarks = engine.refine(rgb, face.landmarks)
    if matrix is None and wants_crop(options, width, height):
        matrix = _driving_crop([landmarks], options)
    elif matrix is None:
        matrix = _whole_frame(width, height)
    seen = _Seen(
        landmarks,
        engine.mouth_patch(rgb, face.landmarks) if engine.wants_mouths else None,
        cropping.crop(rgb, matrix, CROP) if not engine.wants_landmarks else None,
    )
    motion = _measure(engine, [seen], matrix)
    assert motion is not None
    return motion, matrix


def wants_crop(options: Options, width: int, height: int) -> bool:
    """Whether a driving of this size is cropped to the face: as asked, otherwise when it is not square."""
    return width != height if options.driving_crop is None else options.driving_crop


def _whole_frame(width: int, height: int) -> np.ndarray:
    """(2,3) frame px -> crop px: the largest side fills the crop, the picture's middle is the crop's.

    For square clips this is the released program's resize to 256; others keep their proportions.
    """
    scale = CROP / max(width, height)
    return np.array([[scale, 0, CROP / 2 - scale * width / 2], [0, scale, CROP / 2 - scale * height / 2]])


@dataclass(frozen=True)
class _Seen:
    """What is kept of a frame: landmarks (k,3) f4 in its px, mouth patch, 256 px crop; None where there is
    none. cut: it begins a new shot.
    """

    landmarks: np.ndarray | None = None
    mouth: np.ndarray | None = None
    crop: np.ndarray | None = None
    cut: bool = False


def _measure(engine: Engine, batch: list[_Seen], matrix: np.ndarray) -> Motion | None:
    """Motion of the frames that have a face (None when there is none); `matrix` (2,3) takes frame px to crop
    px.
    """
    faces = [seen for seen in batch if seen.landmarks is not None]
    if not faces:
        return None
    points = np.stack([seen.landmarks for seen in faces if seen.landmarks is not None])
    crops = [seen.crop for seen in faces if seen.crop is not None] or [NO_CROP] * len(faces)
    mouths = [seen.mouth for seen in faces if seen.mouth is not None]
    motion = engine.measure(np.stack(crops), cropping.transform_points(points, matrix))
    return replace(motion, mouth=np.stack(mouths) if mouths else None)


def _driving_crop(landmarks: Iterable[np.ndarray], options: Options) -> np.ndarray:
    """(2,3) frame px -> crop px of the one upright square that is the average over these frames."""
    square = cropping.average_rectangle(
        landmarks,
        options.driving_crop_scale,
        options.driving_crop_x,
        options.driving_crop_y,
        options.compatibility,
    )
    return cropping.crop_matrix(square, CROP)


class _ClipCapture:
    """One pass over a clip (two with a driving crop)."""

    def __init__(
        self,
        clip: media.Clip,
        first: int,
        stop: int | None,
        total: int | None,
        options: Options,
        engine: Engine,
        mouths: bool,
        progress: Progress | None,
        cancel: Cancel | None,
    ) -> None:
        self._clip, self._first, self._stop, self._total = clip, first, stop, total
        self._options, self._engine, self._mouths = options, engine, mouths
        self._progress, self._cancel = progress, cancel
        self._rules = clip_rules(options)
        self._fps = rate_of(clip, options)
        self._done = 0

    def chunks(self) -> Generator[Motion, None, None]:
        """Filled chunks; see capture_stream."""
        measured = self._cropped() if self._needs_crop() else self._uncropped()
        with closing(measured):
            at = self._first
            for chunk in _filled(measured, self._rules.first_frames_kept):
                yield replace(chunk, start=float(at / (self._clip.info.fps or PICTURE_RATE)))
                at += len(chunk)
        if self._done == 0:
            raise self._no_frames()

    def _needs_crop(self) -> bool:
        info = self._clip.info
        return wants_crop(self._options, info.width, info.height)

    def _no_frames(self) -> InputError:
        if self._options.frames is None:
            return InputError("The driving clip has no pictures.", "Use another clip.")
        return InputError(
            f"The driving clip has no frame in --frames {self._first}:{self._stop or ''}.",
            "Give a range inside it.",
        )

    def _frames(self) -> Generator[np.ndarray, None, None]:
        info = self._clip.info
        depth = int(np.clip(PREFETCH_BYTES // (3 * info.width * info.height), 2, 8))
        frames = media.prefetch(self._clip.frames(start_frame=self._first, stop_frame=self._stop), depth)
        with closing(frames):
            for frame in frames:
                check_cancel(self._cancel)
                yield frame

    def _seen(self, matrix: np.ndarray | None) -> Generator[_Seen, None, None]:
        """What is kept of each frame; at the end it is an error when there was no face at all.

        With a `matrix` also the crop, for engines that measure pixels. Frames themselves are let go at once.
        """
        crop_with = None if self._engine.wants_landmarks else matrix
        marks = ShotMarks()
        with (
            tracker_for(self._options, self._options.driving_face) as tracker,
            closing(self._frames()) as frames,
        ):
            for frame in frames:
                face = tracker.update(frame)
                cut = marks.begins(frame, face is not None) and self._rules.reference_per_shot
                seen = _Seen(cut=cut)
                if face is not None:
                    seen = _Seen(
                        self._engine.refine(frame, face.landmarks),
                        self._engine.mouth_patch(frame, face.landmarks) if self._mouths else None,
                        None if crop_with is None else cropping.crop(frame, crop_with, CROP),
                        cut,
                    )
                self._done += 1
                if self._progress is not None:
                    self._progress.update("capture", self._done, self._total)
                yield seen
            if self._done:
                with named(self._clip.path.name):
                    tracker.require_found()

    def _uncropped(self) -> Generator[_Chunk, None, None]:
        matrix = _whole_frame(self._clip.info.width, self._clip.info.height)
        with closing(self._seen(matrix)) as everything:
            for batch in _batches(everything):
                yield self._measured(batch, matrix)

    def _cropped(self) -> Generator[_Chunk, None, None]:
        """First all landmarks, then the average crop, then the measuring."""
        points = (self._engine.landmark_count, 3)
        with Spool(points, np.float32) as landmarks, Spool(MOUTH_SHAPE, np.uint8) as mouths:
            valid: list[bool] = []
            cuts: list[bool] = []
            with closing(self._seen(None)) as everything:
                for seen in everything:
                    valid.append(seen.landmarks is not None)
                    cuts.append(seen.cut)
                    if seen.landmarks is not None:
                        landmarks.append(seen.landmarks[None])
                    if seen.mouth is not None:
                        mouths.append(seen.mouth[None])
            if valid:
                found = (landmarks.read([number])[0] for number in range(len(landmarks)))
                matrix = _driving_crop(found, self._options)
                yield from self._measured_again(valid, cuts, landmarks, mouths, matrix)

    def _measured_again(
        self, valid: list[bool], cuts: list[bool], landmarks: Spool, mouths: Spool, matrix: np.ndarray
    ) -> Generator[_Chunk, None, None]:
        """Measure what the first pass left on disk; engines that measure pixels see the clip again."""
        taken = 0
        with closing(self._frames()) as frames:
            for at in range(0, len(valid), CHUNK):
                check_cancel(self._cancel)
                batch = []
                for has_face, cut in zip(valid[at : at + CHUNK], cuts[at : at + CHUNK], strict=True):
                    frame = None if self._engine.wants_landmarks else self._again(frames)
                    if not has_face:
                        batch.append(_Seen(cut=cut))
                        continue
                    batch.append(
                        _Seen(
                            landmarks.read([taken])[0],
                            mouths.read([taken])[0] if self._mouths else None,
                            None if frame is None else cropping.crop(frame, matrix, CROP),
                            cut,
                        )
                    )
                    taken += 1
                yield self._measured(batch, matrix)

    def _again(self, frames: Iterator[np.ndarray]) -> np.ndarray:
        """The next frame of the second pass, which has no fewer than the first."""
        frame = next(frames, None)
        if frame is None:
            raise MediaError(f"{self._clip.path.name} changed while it was read.", "Try again.")
        return frame

    def _measured(self, batch: list[_Seen], matrix: np.ndarray) -> _Chunk:
        motion = _measure(self._engine, batch, matrix)
        if motion is not None:
            motion = replace(motion, fps_numerator=self._fps.numerator, fps_denominator=self._fps.denominator)
        return _Chunk([seen.landmarks is not None for seen in batch], motion, [seen.cut for seen in batch])


def rate_of(clip: media.Clip, options: Options) -> Fraction:
    """Frames a second of a clip's motion."""
    fps = clip.info.fps or PICTURE_RATE
    return fps if clip_rules(options).exact_rates else Fraction(max(int(fps), 1))


@dataclass(frozen=True)
class _Chunk:
    """`valid` says per frame whether it has a face, `cuts` whether it begins a new shot; `motion` holds the
    frames with a face alone, None when there are none.
    """

    valid: list[bool]
    motion: Motion | None
    cuts: list[bool]


def _batches(items: Iterable[_Seen]) -> Iterator[list[_Seen]]:
    """Lists of CHUNK items, the last one shorter."""
    batch: list[_Seen] = []
    for item in items:
        batch.append(item)
        if len(batch) == CHUNK:
            yield batch
            batch = []
    if batch:
        yield batch


def _filled(chunks: Iterator[_Chunk], from_the_first: bool = True) -> Iterator[Motion]:
    """Motion with a row for every frame, or for every one `from_the_first` with a face; those after the last
    face wait for the next one.
    """
    waiting: list[bool] = []  # of the frames without a face that are not given out yet: whether it is a cut
    last: Motion | None = None  # the last frame with a face
    for chunk in chunks:
        if chunk.motion is None:
            waiting += chunk.cuts
            continue
        valid, cuts = [False] * len(waiting) + chunk.valid, waiting + chunk.cuts
        first = 0 if from_the_first or last is not None else valid.index(True)
        stop = len(valid) - valid[::-1].index(True)
        waiting = cuts[stop:]
        motion = with_gaps(chunk.motion, valid[first:stop], cuts[first:stop])
        if last is not None:
            motion = Motion.concatenate([last, motion]).fill_invalid()[1:]
        else:
            motion = motion.fill_invalid()
        last = motion[-1]
        yield motion
    if waiting and last is not None:
        yield with_gaps(last, [False] * len(waiting), waiting)


def with_gaps(motion: Motion, valid: list[bool], cuts: list[bool]) -> Motion:
    """`motion`'s rows at the True places of `valid`; the others hold some row until they are filled."""
    rows = np.maximum(np.cumsum(valid) - 1, 0)
    arrays = {
        name: getattr(motion, name)[rows]
        for name in FRAME_SHAPES
        if name not in ("valid", "cuts") and getattr(motion, name) is not None
    }
    return replace(motion, **arrays, valid=np.array(valid), cuts=np.array(cuts) if any(cuts) else None)
