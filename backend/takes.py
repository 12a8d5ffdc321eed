# SPDX-License-Identifier: GPL-3.0-or-later
"""A driving performance that is known from beginning to end: smoothed, with a reference frame for each frame,
and with the driver's mouths at hand.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from fractions import Fraction

import numpy as np

from backend.capture import Cancel, MotionStream, capture_stream
from backend.clip_rules import clip_rules
from backend.driving import Driving, select_frames
from backend.engines import Engine
from backend.motion import MOUTH_SHAPE, Motion
from backend.options import Options
from backend.progress import Progress
from backend.reference_frame import choose_reference, most_neutral_frame
from backend.retargeting import rules_of
from backend.spool import Spool


@dataclass(frozen=True)
class Take:
    """motion: smoothed as asked. captured: before that, without mouths. references (n,): the frame that
    relative motion starts from, for every frame. still: one frame in all. mouths: of the driver, `mouths_fps`
    a second. notes: what the user should know.
    """

    motion: Motion
    captured: Motion
    references: np.ndarray
    mouths: Spool | np.ndarray | None = None
    mouths_fps: Fraction = Fraction(25)
    notes: list[str] = field(default_factory=list)
    stream: MotionStream | None = None

    @property
    def still(self) -> bool:
        return len(self.motion) == 1

    @property
    def warnings(self) -> list[str]:
        """What the user should know."""
        damage = [self.stream.warning] if self.stream is not None and self.stream.warning else []
        return [*self.notes, *damage, *lost_faces(self.captured)]

    def mouths_at(self, frames: np.ndarray) -> np.ndarray | None:
        """The driver's mouths (k,48,64,3) at frames (k,) of the motion; None where they are not known."""
        if self.mouths is None or not len(self.mouths):
            return None
        ratio = self.mouths_fps / self.motion.fps
        near = [min(math.floor(int(k) * ratio + Fraction(1, 2)), len(self.mouths) - 1) for k in frames]
        return self.mouths.read(near) if isinstance(self.mouths, Spool) else self.mouths[near]


def take_of(
    motion: Motion,
    options: Options,
    mouths: Spool | None = None,
    mouths_fps: Fraction | None = None,
    stream: MotionStream | None = None,
) -> Take:
    """A known motion, smoothed and with its reference frames chosen as the options say.

    `mouths` holds the patches at `mouths_fps` where the motion itself has none.
    """
    notes: list[str] = []
    smoothed = motion.smooth(options.smoothing) if len(motion) > 1 else motion
    references = reference_frames(smoothed, options, notes)
    return Take(
        replace(smoothed, mouth=None),
        replace(motion, mouth=None),
        references,
        motion.mouth if mouths is None else mouths,
        motion.fps if mouths_fps is None else mouths_fps,
        notes,
        stream,
    )


def read_take(
    driving: Driving,
    options: Options,
    engine: Engine,
    stack: ExitStack,
    *,
    fps: Fraction | None = None,
    progress: Progress | None = None,
    cancel: Cancel | None = None,
) -> Take:
    """The whole performance, at `fps` where that is given; what it keeps on disk goes with `stack`.

    Raises InputError, MediaError, NoFaceError, Cancelled.
    """
    if driving.motion is not None:
        motion = select_frames(driving.motion, options)
        return take_of(motion if fps is None else motion.resample(fps), options)
    stream = capture_stream(
        driving, options, engine, mouths=engine.wants_mouths, progress=progress, cancel=cancel
    )
    mouths = stack.enter_context(Spool(MOUTH_SHAPE, np.uint8))
    kept = []
    with closing(stream):
        for part in stream.chunks:
            if part.mouth is not None:
                mouths.append(part.mouth)
            kept.append(replace(part, mouth=None))
    motion = Motion.concatenate(kept)
    resampled = motion if fps is None else motion.resample(fps)
    return take_of(resampled, options, mouths, motion.fps, stream)


def reference_frames(motion: Motion, options: Options, notes: list[str]) -> np.ndarray:
    """For every frame the one that relative motion starts from, (n,) intp: options.reference_frame in the
    shot that it lies in, in every other shot the first with a face, or with "auto" the most neutral.
    """
    main = choose_reference(
        motion, options.reference_frame, only_with_face=rules_of(options).reference_has_face, notes=notes
    )
    references = np.full(len(motion), main, np.intp)
    if not clip_rules(options).reference_per_shot:
        return references
    for shot in motion.shots:
        if not shot.start <= main < shot.stop:
            references[shot] = shot.start + reference_of_shot(motion[shot], options)
    if len(motion.shots) > 1 and options.relative:
        notes.append(shots_note(len(motion.shots)))
    return references


def reference_of_shot(shot: Motion, options: Options) -> int:
    """The reference frame of a shot that does not hold the chosen one."""
    if options.reference_frame == "auto":
        return most_neutral_frame(shot)
    return int(np.argmax(shot.valid))


def shots_note(shots: int) -> str:
    return f"the driving clip has {shots} shots; each starts from a reference frame of its own"


def lost_faces(motion: Motion) -> list[str]:
    """A line about the frames without a face, if there are any."""
    lost = int(np.count_nonzero(~motion.valid))
    if not lost:
        return []
    return [f"no face in {lost} of {len(motion)} driving frames; their motion is interpolated"]


def runs(numbers: np.ndarray) -> Iterator[slice]:
    """The parts of (n,) in which all numbers are equal, in order."""
    edges = [0, *(int(i) + 1 for i in np.flatnonzero(np.diff(numbers))), len(numbers)]
    yield from (slice(a, b) for a, b in zip(edges, edges[1:], strict=False) if a < b)
