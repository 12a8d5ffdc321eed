# SPDX-License-Identifier: GPL-3.0-or-later
"""A clip as source: the first pass follows its faces and measures their own motion, the second one shows it.

Memory does not grow with the clip, its Motion apart: landmarks wait on disk.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np

from backend import cropping, media, smoothing
from backend.capture import CHUNK, NO_CROP, PICTURE_RATE, Cancel, check_cancel, with_gaps
from backend.clip_rules import clip_rules
from backend.cropping import CROP_SIZE, Rect, SourceCrop, crop_at
from backend.engines import Engine
from backend.errors import InputError
from backend.face_search import Face
from backend.face_tracks import MultiTracker, tracker_for
from backend.faces import named
from backend.motion import Motion
from backend.options import Options
from backend.progress import Progress
from backend.shots import ShotMarks
from backend.source import Source, crop_of, needs_face, prepare
from backend.spool import Spool
from backend.takes import runs
from backend.territories import Place

CROP_SECONDS = 0.06  # width of the Gaussian that steadies the crop: no landmark's jitter, every movement
BRIDGED = 3  # frames: a face lost for no longer is taken to be between the places before and after
BACKWARDS = 24  # frames that are decoded together to be shown in reverse order


@dataclass
class ClipFace:
    """One face of a clip source.

    motion: its own, n frames. squares (n,4) f8: centre x, y, side (px), angle of the crop; None for the whole
    picture. visible (n,) bool: it is seen, or was lost for a moment. below, above (n,): rows of its landmarks
    on disk (on both sides of a moment without), share (n,) the way between them; landmarks None: not needed.
    """

    motion: Motion
    squares: np.ndarray | None
    fixed: SourceCrop
    visible: np.ndarray
    below: np.ndarray
    above: np.ndarray
    share: np.ndarray
    landmarks: Spool | None

    def crop_at(self, frame: int) -> SourceCrop:
        """Where the motion space lies in a frame."""
        if self.squares is None:
            return self.fixed
        return crop_at(Rect(*(float(value) for value in self.squares[frame])))

    def landmarks_at(self, frame: int) -> np.ndarray | None:
        """(k,3) f4 px, k the engine's landmark_count."""
        if self.landmarks is None:
            return None
        low, high = self.landmarks.read([self.below[frame], self.above[frame]])
        return np.asarray(low + np.float32(self.share[frame]) * (high - low), np.float32)


@dataclass
class SourceClip:
    """A measured clip: `frames` pictures at `fps`, of `size` (width, height); faces in the order asked for.

    first: pictures that are left out at the beginning.
    """

    path: Path
    clip: media.Clip
    fps: Fraction
    rate: Fraction | None
    size: tuple[int, int]
    faces: list[ClipFace]
    first: int
    warnings: list[str]

    @property
    def frames(self) -> int:
        return len(self.faces[0].motion)

    def pictures(self, order: np.ndarray) -> Generator[np.ndarray, None, None]:
        """The pictures of frames (k,) in any order, each an array of its own; neighbours that follow each
        other, forwards or backwards, are decoded in one go.
        """
        numbers = [int(number) for number in order]
        at = 0
        while at < len(numbers):
            step = numbers[at + 1] - numbers[at] if at + 1 < len(numbers) else 0
            stop = at + 1
            while abs(step) <= 1 and stop < len(numbers) and numbers[stop] == numbers[stop - 1] + step:
                stop += 1
            yield from self._run(numbers[at:stop])
            at = stop

    def _run(self, numbers: list[int]) -> Iterator[np.ndarray]:
        """Pictures of frames that all go up by one, or down by one, or are the same."""
        if numbers[-1] > numbers[0]:
            yield from self._between(numbers[0], numbers[-1] + 1)
        elif numbers[-1] < numbers[0]:
            for start in range(0, len(numbers), BACKWARDS):
                part = numbers[start : start + BACKWARDS]
                yield from reversed(list(self._between(part[-1], part[0] + 1)))
        else:
            for picture in self._between(numbers[0], numbers[0] + 1):
                yield from (picture.copy() for _ in numbers)

    def _between(self, start: int, stop: int) -> Iterator[np.ndarray]:
        begin, end = start + self.first, stop + self.first
        with closing(self.clip.frames(self.rate, begin, end, exact=True)) as frames:
            yield from frames

    def source_at(
        self,
        face: ClipFace,
        frame: int,
        picture: np.ndarray,
        engine: Engine,
        places: Sequence[Place] = (),
    ) -> Source:
        """The face in one frame, ready to render; places: its own and those of others to part it from."""
        motion = face.motion[frame]
        crop = face.crop_at(frame)
        landmarks = face.landmarks_at(frame)
        return prepare(self.path, media.Picture(picture), landmarks, crop, motion, engine, places=places)


def open_clip(
    path: Path,
    numbers: Sequence[int | None],
    options: Options,
    engine: Engine,
    stack: ExitStack,
    progress: Progress | None = None,
    cancel: Cancel | None = None,
) -> SourceClip:
    """Follow and measure the faces of these numbers (None: the largest); what is kept on disk goes with
    `stack`.

    Raises MediaError, NoFaceError, FaceTooSmallError, Cancelled.
    """
    clip = media.Clip(path, options.fps)  # a folder has no rate of its own
    rules = clip_rules(options)
    rate = options.fps
    fps = rate or clip.info.fps or PICTURE_RATE
    if rate is None and not rules.exact_rates:
        fps = Fraction(max(int(fps), 1))
    seen = _Seen(clip, numbers, options, engine, stack)
    total = clip.info.frames if rate is None else None
    with closing(media.prefetch(clip.frames(rate), 4)) as frames:
        for count, frame in enumerate(frames, 1):
            check_cancel(cancel)
            seen.add(frame)
            if progress is not None:
                progress.update("source", count, total)
    if not seen.cuts:
        raise InputError(f"{path.name} has no pictures.", "Use another clip.")
    with named(path.name):
        seen.require_found()
    first = 0 if rules.first_frames_kept else seen.first_with_a_face()
    faces = [seen.face(place, first) for place in range(len(numbers))]
    measured = _Measuring(clip, rate, first, engine, cancel)
    cuts = np.array(seen.cuts[first:])
    for face, valid in zip(faces, seen.valid, strict=True):
        face.motion = replace(
            measured.motion(face, np.array(valid[first:]), cuts),
            fps_numerator=fps.numerator,
            fps_denominator=fps.denominator,
        )
    warnings = [clip.warning] if clip.warning else []
    size = (clip.info.width, clip.info.height)
    return SourceClip(path, clip, fps, rate, size, faces, first, warnings)


class _Seen:
    """The first pass: which faces are where."""

    def __init__(
        self,
        clip: media.Clip,
        numbers: Sequence[int | None],
        options: Options,
        engine: Engine,
        stack: ExitStack,
    ) -> None:
        self._options, self._engine, self._stack = options, engine, stack
        self._size = (clip.info.width, clip.info.height)
        self._fps = options.fps or clip.info.fps or PICTURE_RATE
        self._wanted = needs_face(options, engine)
        self._marks = ShotMarks()
        self.cuts: list[bool] = []
        self.valid: list[list[bool]] = [[] for _ in numbers]
        self._squares: list[list[tuple[float, float, float, float]]] = [[] for _ in numbers]
        self._spools: list[Spool] = []
        if self._wanted:
            points = (engine.landmark_count, 3)
            self._spools = [stack.enter_context(Spool(points, np.float32)) for _ in numbers]
            if len(numbers) == 1:
                self._one = stack.enter_context(tracker_for(options, numbers[0]))
            else:
                known = [number or 0 for number in numbers]
                self._many = stack.enter_context(MultiTracker(known, options.face_order))

    def add(self, frame: np.ndarray) -> None:
        faces: list[Face | None]
        if not self._wanted:
            self.cuts.append(self._marks.begins(frame, True))
            for valid in self.valid:
                valid.append(True)
            return
        faces = [self._one.update(frame)] if len(self._spools) == 1 else self._many.update(frame)
        self.cuts.append(self._marks.begins(frame, any(face is not None for face in faces)))
        for place, face in enumerate(faces):
            self.valid[place].append(face is not None)
            if face is None:
                continue
            landmarks = self._engine.refine(frame, face.landmarks)
            self._spools[place].append(landmarks[None])
            rect = crop_of(self._options, self._engine, *self._size, landmarks).rect
            if rect is not None:
                self._squares[place].append((rect.cx, rect.cy, rect.size, rect.angle))

    def require_found(self) -> None:
        if self._wanted:
            (self._one if len(self._spools) == 1 else self._many).require_found()

    def first_with_a_face(self) -> int:
        return min(valid.index(True) for valid in self.valid)

    def face(self, place: int, first: int) -> ClipFace:
        """What was seen of one face, from frame `first` on; its motion is still to be measured."""
        valid = np.array(self.valid[place][first:])
        cuts = np.array(self.cuts[first:])
        shots = np.cumsum(cuts)
        below, above, share = _neighbours(valid, shots)
        gap = above - below
        visible = valid | ((share > 0) & (_gap_lengths(valid) <= BRIDGED) & (gap == 1))
        if not clip_rules(self._options).lost_faces_stay:
            visible[:] = True
        squares = None
        if self._squares[place]:
            known = np.array(self._squares[place])
            known[:, 3] = np.unwrap(known[:, 3])
            squares = known[below] + share[:, None] * (known[above] - known[below])
            if clip_rules(self._options).steady_crops:
                sigma = CROP_SECONDS * float(self._fps)
                for shot in runs(shots):
                    squares[shot] = smoothing.gaussian(squares[shot], sigma)
        fixed = SourceCrop(np.eye(2, 3))
        if squares is None:
            fixed = crop_of(self._options, self._engine, *self._size, None)
        spool = self._spools[place] if self._spools else None
        unmeasured = Motion.still(canonical=np.zeros((21, 3)))
        return ClipFace(unmeasured, squares, fixed, visible, below, above, share, spool)


def _neighbours(valid: np.ndarray, shots: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For every frame (n,) the numbers of the faces before and after among those found, and the share of the
    way between them; at the ends and at cuts that of the one side alone.
    """
    frames, found = np.arange(len(valid)), np.flatnonzero(valid)
    above = np.minimum(np.searchsorted(found, frames), len(found) - 1)
    below = np.maximum(np.searchsorted(found, frames, side="right") - 1, 0)
    own_below, own_above = shots[found[below]] == shots, shots[found[above]] == shots
    below, above = (
        np.where(own_above & ~own_below, above, below),
        np.where(own_below & ~own_above, below, above),
    )
    span = found[above] - found[below]
    share = np.where(span > 0, (frames - found[below]) / np.maximum(span, 1), 0.0)
    return below, above, share


def _gap_lengths(valid: np.ndarray) -> np.ndarray:
    """For every frame without a face (n,) how many there are in a row; 0 where there is one."""
    lengths = np.zeros(len(valid), np.intp)
    for run in runs(valid.astype(np.intp)):
        if not valid[run.start]:
            lengths[run] = run.stop - run.start
    return lengths


class _Measuring:
    """The engine's measurement of every frame, from what the first pass left on disk."""

    def __init__(
        self, clip: media.Clip, rate: Fraction | None, first: int, engine: Engine, cancel: Cancel | None
    ) -> None:
        self._clip, self._rate, self._first = clip, rate, first
        self._engine, self._cancel = engine, cancel

    def motion(self, face: ClipFace, valid: np.ndarray, cuts: np.ndarray) -> Motion:
        """The face's own motion, a row for every frame; those without a face are interpolated."""
        with closing(self._batches(valid)) as batches:
            parts = [self._part(face, batch) for batch in batches]
        filled = with_gaps(Motion.concatenate(parts), valid.tolist(), cuts.tolist())
        return filled.fill_invalid()

    def _batches(self, valid: np.ndarray) -> Generator[list[tuple[int, np.ndarray | None]], None, None]:
        """Numbers of frames with a face, and their pictures where the engine looks at those."""
        batch: list[tuple[int, np.ndarray | None]] = []
        with closing(self._pictures(len(valid))) as pictures:
            for number, picture in enumerate(pictures):
                if not valid[number]:
                    continue
                batch.append((number, picture))
                if len(batch) == CHUNK:
                    check_cancel(self._cancel)
                    yield batch
                    batch = []
        if batch:
            yield batch

    def _pictures(self, count: int) -> Generator[np.ndarray | None, None, None]:
        """One for each frame; None where the engine looks at landmarks alone."""
        if self._engine.wants_landmarks:
            yield from [None] * count
            return
        frames = media.prefetch(self._clip.frames(self._rate, self._first, self._first + count), 4)
        with closing(frames):
            yield from frames

    def _part(self, face: ClipFace, batch: list[tuple[int, np.ndarray | None]]) -> Motion:
        crops = [face.crop_at(number) for number, _ in batch]
        small = [
            NO_CROP if picture is None else cropping.crop(picture, crop.M_o2c, CROP_SIZE)
            for crop, (_, picture) in zip(crops, batch, strict=True)
        ]
        if face.landmarks is None:
            return self._engine.measure(np.stack(small))
        landmarks = face.landmarks.read([face.below[number] for number, _ in batch])
        placed = [crop.landmarks_in_crop(points) for crop, points in zip(crops, landmarks, strict=True)]
        return self._engine.measure(np.stack(small), np.stack(placed))
