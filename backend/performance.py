# SPDX-License-Identifier: GPL-3.0-or-later
"""A driving performance on its way to a still source: streamed from a clip or already whole, retargeted in
parts.

With a fixed reference frame and no smoothing nothing needs the whole performance, so it is retargeted while
the clip is still being read; the result is the same either way.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import numpy as np

from backend import media
from backend.capture import CHUNK, Cancel, MotionStream, capture_stream
from backend.clip_rules import clip_rules
from backend.driving import Driving
from backend.engines import Engine
from backend.errors import InputError
from backend.motion import Motion
from backend.options import Options
from backend.progress import Progress
from backend.reference_frame import choose_reference
from backend.retargeting import Retargeted, retarget, rules_of
from backend.takes import Take, lost_faces, read_take, reference_of_shot, runs, shots_note, take_of


@dataclass
class Performance:
    """Motion as it reaches the renderer.

    parts: consecutive Motions. fps, start: of the whole. still: it has one frame. first: number of the first
    frame in parts. total: frames, perhaps an estimate. notes: what the user should know. kept: all that is
    known of the motion so far, without mouths. stream: what is being read. take: the whole, where it is
    known; otherwise reference frames have still to be found in `parts`.
    """

    parts: Iterator[Motion]
    fps: Fraction
    start: float
    still: bool = False
    first: int = 0
    total: int | None = None
    notes: list[str] = field(default_factory=list)
    kept: list[Motion] = field(default_factory=list)
    stream: MotionStream | None = None
    take: Take | None = None

    @property
    def motion(self) -> Motion:
        """All of it, once it has been read."""
        return Motion.concatenate(self.kept)

    @property
    def warnings(self) -> list[str]:
        """What the user should know, once it has been read."""
        damage = [self.stream.warning] if self.stream is not None and self.stream.warning else []
        return [*self.notes, *damage, *lost_faces(self.motion)]


def streamed_performance(
    driving: Driving,
    options: Options,
    engine: Engine,
    progress: Progress,
    cancel: Cancel | None,
    stack: ExitStack,
    first: int = 0,
) -> Performance:
    """The performance of a clip or picture from frame `first` on, read ahead on a thread where the options
    allow that, else read first.

    What it begins ends with `stack`. While frames are rendered beside it, only "render" is reported.
    """
    waits = options.smoothing != "off" or options.reference_frame == "auto" or options.fps is not None
    if waits or first:
        take = read_take(driving, options, engine, stack, fps=options.fps, progress=progress, cancel=cancel)
        return performance_of(take, first)
    stream = capture_stream(driving, options, engine, mouths=engine.wants_mouths, cancel=cancel)
    stack.enter_context(closing(stream))
    parts = stack.enter_context(closing(media.prefetch(stream.chunks, depth=2)))
    return Performance(parts, stream.fps, stream.start, total=stream.total, stream=stream)


def whole_performance(motion: Motion, options: Options, first: int = 0) -> Performance:
    """A known motion from frame `first` on, smoothed and with its reference frames chosen as the options
    say.
    """
    return performance_of(take_of(motion, options), first)


def performance_of(take: Take, first: int = 0) -> Performance:
    """A known take from frame `first` on."""

    def parts() -> Iterator[Motion]:
        for start in range(first, len(take.motion), CHUNK):
            part = take.motion[start : start + CHUNK]
            yield replace(part, mouth=take.mouths_at(np.arange(start, start + len(part))))

    return Performance(
        parts(),
        take.motion.fps,
        take.motion.start,
        still=take.still,
        first=first,
        total=len(take.motion),
        notes=take.notes,
        kept=[take.captured],
        stream=take.stream,
        take=take,
    )


def retargeted(
    source: Motion, performance: Performance, options: Options, engine: Engine
) -> Iterator[tuple[Retargeted, np.ndarray | None]]:
    """Keypoints and the driver's mouths, part by part, exactly as if the whole motion were retargeted at
    once.
    """
    if performance.take is None:
        pieces = _referred(performance, options)
    else:
        pieces = _known(performance, performance.take)
    fixed = replace(options, smoothing="off", reference_frame=0)
    at = performance.first
    for part, reference in pieces:
        chosen = replace(fixed, controls=controls_of(options, at, len(part)))
        done = retarget(
            source,
            part,
            chosen,
            engine,
            reference=None if performance.still else replace(reference, mouth=None),
        )
        performance.notes.extend(note for note in done.notes if note not in performance.notes)
        at += len(part)
        yield done, part.mouth


def _known(performance: Performance, take: Take) -> Iterator[tuple[Motion, Motion]]:
    """Pieces of one reference frame each, and that."""
    at = performance.first
    for part in performance.parts:
        numbers = take.references[at : at + len(part)]
        for run in runs(numbers):
            yield part[run], take.motion[int(numbers[run.start])]
        at += len(part)


def _referred(performance: Performance, options: Options) -> Iterator[tuple[Motion, Motion]]:
    """As _known while the performance is still being read: its references are found on the way."""
    main, main_shot, parts = _find_reference(performance, options)
    reference = main
    shots, at = 1, 0
    for part in parts:
        for shot in part.shots:
            piece = part[shot]
            begins = at == 0 or (piece.cuts is not None and bool(piece.cuts[0]))
            if begins and clip_rules(options).reference_per_shot:
                reference = main if at == main_shot else piece[reference_of_shot(piece, options)]
                shots += at > 0
            yield piece, reference
            at += len(piece)
    if shots > 1 and options.relative:
        performance.notes.append(shots_note(shots))


def _find_reference(performance: Performance, options: Options) -> tuple[Motion, int, Iterator[Motion]]:
    """Read parts until the reference frame is known; returns it, the first frame of its shot, and all parts
    from the beginning.
    """
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
    shot = next(shot.start for shot in beginning.shots if shot.start <= at < shot.stop)
    return beginning[at], shot, _kept(performance, itertools.chain(read, performance.parts))


def _kept(performance: Performance, parts: Iterable[Motion]) -> Iterator[Motion]:
    for part in parts:
        performance.kept.append(replace(part, mouth=None))
        yield part


def controls_of(options: Options, first: int, count: int, leads: bool = False) -> Mapping[str, Any]:
    """The controls of a part; those that hold a value a frame are cut to it, with any value in front where
    one frame more `leads` the part. Behind their end the last value stays.
    """
    cut: dict[str, Any] = {}
    for name, value in options.controls.items():
        values = np.asarray(value)
        if values.size == 1:
            cut[name] = value
        else:
            piece = values[np.minimum(np.arange(first, first + count), values.size - 1)]
            cut[name] = np.concatenate([piece[:1], piece]) if leads else piece
    return cut
