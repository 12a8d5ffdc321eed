# SPDX-License-Identifier: GPL-3.0-or-later
"""A driving performance on its way to the renderer: streamed from a clip or already whole, retargeted in
parts.

With a fixed reference frame and no smoothing nothing needs the whole performance, so it is retargeted while
the clip is still being read; the result is the same either way.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import numpy as np

from backend import media
from backend.capture import CHUNK, Cancel, MotionStream, capture_stream
from backend.driving import Driving
from backend.engines import Engine
from backend.errors import InputError
from backend.motion import MOUTH_SHAPE, Motion
from backend.options import Options
from backend.progress import Progress
from backend.reference_frame import choose_reference
from backend.retargeting import Retargeted, retarget, rules_of
from backend.spool import Spool


@dataclass
class Performance:
    """Motion as it reaches the renderer.

    parts: consecutive Motions. fps, start: of the whole. reference: the frame that relative motion starts
    from; None while it has still to be found in `parts`. still: it has one frame. first: number of the first
    frame in parts. total: frames, perhaps an estimate. notes: what the user should know. kept: all that is
    known of the motion so far, without mouths. stream: what is being read.
    """

    parts: Iterator[Motion]
    fps: Fraction
    start: float
    reference: Motion | None = None
    still: bool = False
    first: int = 0
    total: int | None = None
    notes: list[str] = field(default_factory=list)
    kept: list[Motion] = field(default_factory=list)
    stream: MotionStream | None = None

    @property
    def motion(self) -> Motion:
        """All of it, once it has been read."""
        return Motion.concatenate(self.kept)

    @property
    def warnings(self) -> list[str]:
        """What the user should know, once it has been read."""
        damage = [self.stream.warning] if self.stream is not None and self.stream.warning else []
        return [*self.notes, *damage, *lost_faces(self.motion)]


def lost_faces(motion: Motion) -> list[str]:
    """A line about the frames without a face, if there are any."""
    lost = int(np.count_nonzero(~motion.valid))
    if not lost:
        return []
    return [f"no face in {lost} of {len(motion)} driving frames; their motion is interpolated"]


def streamed_performance(
    driving: Driving,
    options: Options,
    engine: Engine,
    progress: Progress,
    cancel: Cancel | None,
    stack: ExitStack,
) -> Performance:
    """The performance of a clip or picture, read ahead on a thread where the options allow that, else read
    first.

    What it begins ends with `stack`. While frames are rendered beside it, only "render" is reported.
    """
    waits = options.smoothing != "off" or options.reference_frame == "auto" or options.fps is not None
    stream = capture_stream(
        driving,
        options,
        engine,
        mouths=engine.wants_mouths,
        progress=progress if waits else None,
        cancel=cancel,
    )
    stack.enter_context(closing(stream))
    if not waits:
        parts = stack.enter_context(closing(media.prefetch(stream.chunks, depth=2)))
        return Performance(parts, stream.fps, stream.start, total=stream.total, stream=stream)
    mouths = stack.enter_context(Spool(MOUTH_SHAPE, np.uint8))
    kept = []
    for part in stream.chunks:
        if part.mouth is not None:
            mouths.append(part.mouth)
        kept.append(replace(part, mouth=None))
    motion = Motion.concatenate(kept)
    resampled = motion if options.fps is None else motion.resample(options.fps)
    return replace(whole_performance(resampled, options, 0, mouths, motion.fps), stream=stream)


def whole_performance(
    motion: Motion,
    options: Options,
    first: int = 0,
    mouths: Spool | None = None,
    mouths_fps: Fraction | None = None,
) -> Performance:
    """A known motion from frame `first` on, smoothed and with its reference frame chosen as the options say.

    `mouths` holds the patches at `mouths_fps` where the motion itself has none.
    """
    notes: list[str] = []
    smoothed = motion.smooth(options.smoothing) if len(motion) > 1 else motion
    at = choose_reference(
        smoothed, options.reference_frame, only_with_face=rules_of(options).reference_has_face, notes=notes
    )

    def parts() -> Iterator[Motion]:
        for start in range(first, len(motion), CHUNK):
            part = smoothed[start : start + CHUNK]
            if mouths is not None and len(mouths):
                ratio = (mouths_fps or motion.fps) / motion.fps
                near = [
                    min(math.floor(k * ratio + Fraction(1, 2)), len(mouths) - 1)
                    for k in range(start, start + len(part))
                ]
                part = replace(part, mouth=mouths.read(near))
            yield part

    return Performance(
        parts(),
        motion.fps,
        motion.start,
        reference=smoothed[at],
        still=len(motion) == 1,
        first=first,
        total=len(motion),
        notes=notes,
        kept=[replace(motion, mouth=None)],
    )


def retargeted(
    source: Motion, performance: Performance, options: Options, engine: Engine
) -> Iterator[tuple[Retargeted, np.ndarray | None]]:
    """Keypoints and the driver's mouths, part by part, exactly as if the whole motion were retargeted at
    once.

    Every part gets the reference frame in front, is retargeted relative to it, and loses it again.
    """
    parts = performance.parts
    reference = performance.reference
    if reference is None:
        reference, parts = _find_reference(performance, options)
    fixed = replace(options, smoothing="off", reference_frame=0)
    at = performance.first
    for part in parts:
        chosen = replace(
            fixed, controls=_controls_of(options, at, len(part), with_reference=not performance.still)
        )
        if performance.still:
            done = retarget(source, part, chosen, engine)
        else:
            both = Motion.concatenate([replace(reference, mouth=None), replace(part, mouth=None)])
            done = retarget(source, both, chosen, engine)
            done = replace(done, source=done.source[1:], driving=done.driving[1:])
        performance.notes.extend(note for note in done.notes if note not in performance.notes)
        at += len(part)
        yield done, part.mouth


def _find_reference(performance: Performance, options: Options) -> tuple[Motion, Iterator[Motion]]:
    """Read parts until the reference frame is known; returns it and all parts from the beginning."""
    assert options.reference_frame != "auto"
    read: list[Motion] = []
    seen = 0
    # One frame more, so that a performance of a single frame is known as such.
    while seen <= max(options.reference_frame, 1) and (part := next(performance.parts, None)) is not None:
        read.append(part)
        seen += len(part)
    if not read:
        raise InputError("The driving clip has no pictures.", "Use another clip.")
    performance.still = seen == 1
    beginning = Motion.concatenate([replace(part, mouth=None) for part in read])
    at = choose_reference(
        beginning,
        options.reference_frame,
        only_with_face=rules_of(options).reference_has_face,
        notes=performance.notes,
    )
    return beginning[at], _kept(performance, itertools.chain(read, performance.parts))


def _kept(performance: Performance, parts: Iterable[Motion]) -> Iterator[Motion]:
    for part in parts:
        performance.kept.append(replace(part, mouth=None))
        yield part


def _controls_of(options: Options, first: int, count: int, with_reference: bool) -> Mapping[str, Any]:
    """Controls that hold a value a frame, cut to a part and led by any value for the reference frame before
    it.
    """
    cut: dict[str, Any] = {}
    for name, value in options.controls.items():
        values = np.asarray(value)
        if values.size == 1 or not with_reference:
            cut[name] = value
        else:
            piece = values[first : first + count]
            cut[name] = np.concatenate([piece[:1], piece])
    return cut
