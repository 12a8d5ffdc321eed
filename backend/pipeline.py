# SPDX-License-Identifier: GPL-3.0-or-later
"""The way of a frame: capture -> retarget -> render, each callable alone and streamed.

Decoding, capturing, rendering and encoding overlap. Memory is constant apart from the Motion.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import numpy as np

from backend import __version__
from backend.capture import Cancel, capture_stream, check_cancel
from backend.driving import Driving, fingerprint, open_driving, select_frames
from backend.engines import Choice, Engine, choose
from backend.errors import InputError
from backend.motion import Motion
from backend.motion_files import save_motion
from backend.options import Options
from backend.performance import (
    Performance,
    retargeted,
    streamed_performance,
    whole_performance,
)
from backend.progress import Progress, Silent
from backend.results import (
    Result,
    Sound,
    Summary,
    check_writable,
    make_folder,
    open_result,
    refuse_overwriting,
)
from backend.source import Canvas, Source, open_source
from backend.takes import lost_faces

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
            if progress is not None:
                for note in [*lost_faces(motion), *([stream.warning] if stream.warning else [])]:
                    progress.warn(note)
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
    performance = whole_performance(motion, options, first)
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
        if opened.motion is not None:
            performance = whole_performance(capture(opened, options, engine), options)
        else:
            performance = streamed_performance(opened, options, engine, progress, cancel, stack)
        source = open_source(source_path, options, engine)
        canvas = Canvas(source, options, deep=result.keeps_depth, flat=not result.keeps_alpha)
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
    return motion


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
    for keypoints, mouths in retargeted(source.motion, performance, options, engine):
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
    alpha = canvas.alpha
    if alpha is not None and not result.keeps_alpha:
        performance.notes.append("MP4 has no transparency, so the picture is on black; a folder keeps it")
    done = 0
    with result.writing(summary, alpha, canvas.bits, sound) as write:
        while frame is not None:
            write(frame)
            done += 1
            progress.update("render", done, performance.total)
            frame = next(frames, None)
    motion, warnings = performance.motion, performance.warnings
    summary.valid_frames = int(np.count_nonzero(motion.valid))
    summary.warnings.extend(warnings)
    result.complete(summary, motion)
    for warning in warnings:
        progress.warn(warning)
