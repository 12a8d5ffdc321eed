# SPDX-License-Identifier: GPL-3.0-or-later
"""The way of a frame: capture -> retarget -> render, each callable alone and streamed.

With a fixed reference frame and no smoothing nothing needs the whole performance, so frames are rendered
while the clip is still being read; the result is the same either way. Memory is constant apart from the
Motion.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from backend import __version__, media
from backend.capture import CHUNK, Cancel, capture_stream, check_cancel
from backend.driving import Driving, fingerprint, open_driving, select_frames
from backend.engines import Choice, Engine, choose
from backend.errors import InputError
from backend.motion import MOUTH_SHAPE, Motion
from backend.motion_files import save_motion
from backend.options import Options
from backend.progress import Progress, Silent
from backend.reference_frame import choose_reference
from backend.results import (
    Result,
    Sound,
    Summary,
    check_writable,
    make_folder,
    open_result,
    refuse_overwriting,
)
from backend.retargeting import Retargeted, retarget, rules_of
from backend.source import Canvas, Source, open_source
from backend.spool import Spool

BATCH_BYTES = 16 << 20  # of rendered frames that an engine makes at a time
BATCH = 16


def capture(
    driving: Driving | str | Path,
    options: Options,
    engine: Engine,
    progress: Progress | None = None,
    cancel: Cancel | None = None,
    keep_mouth: bool = False,
) -> Motion:
    """The whole performance as a Motion, at `options.fps` when that is given, otherwise at its own rate.

    `keep_mouth` keeps the pictures of the driver's mouth (9 kB a frame). Raises InputError, MediaError,
    NoFaceError, Cancelled.
    """
    opened = driving if isinstance(driving, Driving) else open_driving(driving)
    if opened.motion is not None:
        motion = select_frames(opened.motion, options)
    else:
        with closing(
            capture_stream(opened, options, engine, mouths=keep_mouth, progress=progress, cancel=cancel)
        ) as stream:
            motion = Motion.concatenate(list(stream.chunks))
    return motion if options.fps is None else motion.resample(options.fps)


def render(
    source: Source,
    motion: Motion,
    options: Options,
    engine: Engine,
    *,
    first: int = 0,
    deep: bool = False,
    cancel: Cancel | None = None,
    notes: list[str] | None = None,
) -> Iterator[np.ndarray]:
    """Frames `first`, `first` + 1, ... of a source that performs a motion: (h,w,3) RGB, uint8 or, with `deep`
    and a 16-bit picture, uint16.

    Each array is valid until the next one is asked for. `notes` gets what the user should know. Raises
    InputError, Cancelled.
    """
    performance = _whole(motion, options, first)
    if notes is not None:
        notes.extend(performance.notes)
    return _render(source, performance, options, engine, Canvas(source, options, deep), cancel)


def animate(
    source_path: Path,
    driving: Driving | str | Path,
    output: Path,
    options: Options,
    *,
    engine: Engine | None = None,
    progress: Progress | None = None,
    cancel: Cancel | None = None,
) -> Summary:
    """Make a result: an MP4 or a folder. Returns what result.json says.

    Raises the errors of `backend.errors`; frames that were finished by then stay, marked as a part.
    """
    progress = progress or Silent()
    result = open_result(output)
    given = [] if isinstance(driving, Driving) else [Path(driving)]
    result.check([path for path in [source_path, *given] if path.exists()])
    choice = choose(options) if engine is None else Choice(engine, "given by the caller")
    engine = choice.engine
    opened = driving if isinstance(driving, Driving) else open_driving(driving)
    with ExitStack() as stack:
        performance = _perform(opened, options, engine, progress, cancel, stack)
        source = open_source(source_path, options, engine)
        canvas = Canvas(source, options, result.keeps_depth)
        frames = stack.enter_context(closing(_render(source, performance, options, engine, canvas, cancel)))
        summary = _summary(choice, source, opened, performance, options)
        _write(result, summary, frames, opened, performance, canvas, progress)
    return summary


def capture_to_file(
    driving: str | Path,
    output: Path,
    options: Options,
    *,
    engine: Engine | None = None,
    progress: Progress | None = None,
    cancel: Cancel | None = None,
    keep_mouth: bool = False,
) -> Motion:
    """`capture` into a motion file (.npz) or template (.pkl); that it can be written is found out first."""
    if output.suffix.lower() not in (".npz", ".pkl"):
        raise InputError(
            f"Cannot write {output.name}.", "Give a name that ends in .npz, or .pkl for a template."
        )
    refuse_overwriting(output, [Path(driving)])
    check_writable(output.parent)
    engine = engine or choose(options).engine
    motion = capture(driving, options, engine, progress, cancel, keep_mouth)
    make_folder(output.parent)
    save_motion(motion, output, keep_mouth)
    if progress is not None:
        for note in lost_faces(motion):
            progress.warn(note)
    return motion


def lost_faces(motion: Motion) -> list[str]:
    """A line about the frames without a face, if there are any."""
    lost = int(np.count_nonzero(~motion.valid))
    return (
        [f"no face in {lost} of {len(motion)} driving frames; their motion is interpolated"] if lost else []
    )


@dataclass
class Performance:
    """Motion as it reaches the renderer.

    parts: consecutive Motions. fps, start: of the whole. reference: the frame that relative motion starts
    from; None while it has still to be found in `parts`. first: number of the first frame in parts. total:
    frames, perhaps an estimate. notes: what the user should know. kept: all that is known of the motion so
    far, without mouths.
    """

    parts: Iterator[Motion]
    fps: Fraction
    start: float
    reference: Motion | None = None
    first: int = 0
    total: int | None = None
    notes: list[str] = field(default_factory=list)
    kept: list[Motion] = field(default_factory=list)


def _perform(
    driving: Driving,
    options: Options,
    engine: Engine,
    progress: Progress,
    cancel: Cancel | None,
    stack: ExitStack,
) -> Performance:
    """The driving performance, streamed from the clip where the options allow that. `stack` ends what it
    begins.
    """
    if driving.motion is not None:
        return _whole(capture(driving, options, engine), options)
    streams = options.smoothing == "off" and options.reference_frame != "auto" and options.fps is None
    # While frames are rendered beside it, "render" is the stage that is reported.
    stream = stack.enter_context(
        closing(
            capture_stream(
                driving,
                options,
                engine,
                mouths=engine.wants_mouths,
                progress=None if streams else progress,
                cancel=cancel,
            )
        )
    )
    if streams:
        parts = stack.enter_context(closing(media.prefetch(stream.chunks, depth=2)))
        return Performance(parts, stream.fps, stream.start, total=stream.total)
    mouths = stack.enter_context(Spool(MOUTH_SHAPE, np.uint8))
    kept = []
    for part in stream.chunks:
        if part.mouth is not None:
            mouths.append(part.mouth)
        kept.append(replace(part, mouth=None))
    motion = Motion.concatenate(kept)
    return _whole(
        motion if options.fps is None else motion.resample(options.fps), options, 0, mouths, motion.fps
    )


def _whole(
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
        smoothed[at],
        first,
        len(motion),
        notes,
        [replace(motion, mouth=None)],
    )


def _retargeted(
    source: Source, performance: Performance, options: Options, engine: Engine
) -> Iterator[tuple[Retargeted, np.ndarray | None]]:
    """Keypoints and the driver's mouths, part by part, exactly as if the whole motion were retargeted at
    once.

    Every part gets the reference frame in front, is retargeted relative to it, and loses it again.
    """
    parts = performance.parts
    reference = performance.reference
    if reference is None:
        reference, parts = _find_reference(performance, options)
    still = performance.total == 1
    fixed = replace(options, smoothing="off", reference_frame=0)
    at = performance.first
    for part in parts:
        chosen = replace(fixed, controls=_controls_of(options, at, len(part), with_reference=not still))
        if still:
            done = retarget(source.motion, part, chosen, engine)
        else:
            both = Motion.concatenate([replace(reference, mouth=None), replace(part, mouth=None)])
            done = retarget(source.motion, both, chosen, engine)
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
    if seen == 1:
        performance.total = 1
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


def _render(
    source: Source,
    performance: Performance,
    options: Options,
    engine: Engine,
    canvas: Canvas,
    cancel: Cancel | None,
) -> Generator[np.ndarray, None, None]:
    """Whole frames, one after the other; see `render`."""
    x0, y0, x1, y1 = source.window
    batch = int(np.clip(BATCH_BYTES // max(3 * (x1 - x0) * (y1 - y0), 1), 1, BATCH))
    for keypoints, mouths in _retargeted(source, performance, options, engine):
        for start in range(0, len(keypoints.driving), batch):
            check_cancel(cancel)
            piece = slice(start, start + batch)
            rendered = engine.render(
                source.appearance,
                keypoints.source[piece],
                keypoints.driving[piece],
                None if mouths is None else mouths[piece],
            )
            for face in rendered:
                yield canvas.frame(face)


def _summary(
    choice: Choice, source: Source, driving: Driving, performance: Performance, options: Options
) -> Summary:
    inputs = {
        "source": {"name": source.path.name, "sha256": fingerprint(source.path)},
        "driving": {"name": driving.name},
    }
    if driving.path is not None:
        inputs["driving"]["sha256"] = fingerprint(driving.path)
    return Summary(
        engine=choice.engine.name,
        engine_why=choice.why,
        device=choice.engine.device,
        fps=performance.fps,
        size=source.output_size(options),
        options=options,
        inputs=inputs,
        version=__version__,
    )


def _write(
    result: Result,
    summary: Summary,
    frames: Iterator[np.ndarray],
    driving: Driving,
    performance: Performance,
    canvas: Canvas,
    progress: Progress,
) -> None:
    """Bring the frames to disk and complete the summary."""
    # Before the first frame exists nothing is written, so a performance without a face leaves no trace.
    frame = next(frames, None)
    if frame is None:
        raise InputError("There is nothing to render.", "Choose another range of frames.")
    sound = Sound(driving.path, performance.start) if driving.has_audio and driving.path is not None else None
    done = 0
    with result.writing(summary, canvas.alpha, canvas.bits, sound) as write:
        while frame is not None:
            write(frame)
            done += 1
            progress.update("render", done, performance.total)
            frame = next(frames, None)
    motion = Motion.concatenate(performance.kept)
    summary.valid_frames = int(np.count_nonzero(motion.valid))
    performance.notes.extend(lost_faces(motion))
    summary.warnings.extend(performance.notes)
    result.complete(summary, motion)
    for note in performance.notes:
        progress.warn(note)
