# SPDX-License-Identifier: GPL-3.0-or-later
"""The way of a frame: capture -> retarget -> render, each callable alone and streamed.

Decoding, capturing, rendering and encoding overlap. Memory is constant apart from the Motion.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Generator, Iterator, Mapping, Sequence, Sized
from contextlib import ExitStack, closing
from fractions import Fraction
from pathlib import Path

import numpy as np

from backend import __version__, media
from backend.capture import Cancel, capture_stream, check_cancel
from backend.driving import Driving, at_rest, fingerprint, fingerprint_of, open_driving, select_frames
from backend.engines import Choice, Engine, choose, pasting
from backend.errors import Cancelled, InputError
from backend.large_pictures import cost_of
from backend.live import live
from backend.motion import Motion
from backend.motion_files import save_motion
from backend.options import Options
from backend.paste import PastePlan
from backend.performance import (
    Performance,
    retargeted,
    streamed_performance,
    whole_performance,
)
from backend.progress import Progress, Silent
from backend.results import (
    Result,
    Summary,
    check_writable,
    make_folder,
    open_result,
    read_summary,
    refuse_overwriting,
)
from backend.scenes import Part, measured_elsewhere, sound_of, stage_scene
from backend.source import RENDERED_CROP, Canvas, Source, check_source, open_source
from backend.staging import Staged, face_in_frames
from backend.takes import lost_faces

__all__ = ["animate", "capture", "capture_to_file", "live", "render"]

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
    driving: Driving | str | Path | None,
    output: Path,
    options: Options,
    *,
    faces: Mapping[int, Driving | str | Path] | None = None,
    resume: bool = False,
    engine: Engine | None = None,
    progress: Progress | None = None,
    cancel: Cancel | None = None,
) -> Summary:
    """Make a result: an MP4 or a folder. Returns what result.json says.

    `faces` gives faces a driving of their own, by number; `driving` is for options.face. `resume` goes on
    after the last whole frame of the same job. Raises the errors of `backend.errors`; frames that were
    finished by then stay, marked as a part.
    """
    progress = progress or Silent()
    result = open_result(output)
    given = [entry for entry in (driving, *(faces or {}).values()) if isinstance(entry, str | Path)]
    result.check([path for path in [source_path, *map(Path, given)] if path.exists()])
    choice = choose(options) if engine is None else Choice(engine, "given by the caller")
    parts = _parts(driving, faces or {}, options, progress)
    check_source(source_path)
    summary = _summary(choice, source_path, parts, options)
    if note := cost_of(source_path, options, output.suffix.lower() != ".mp4"):
        progress.warn(note)
        summary.warnings.append(note)
    first, done = result.resume(summary.job) if resume else (0, False)
    if done:
        progress.warn(f"{output} is complete already")
        summary.take_over(read_summary(output / "result.json"))
        return summary
    with ExitStack() as stack:
        still = media.probe(source_path).kind == "picture"
        if still and len(parts) == 1 and parts[0].number == options.face:
            staged = _staged(
                source_path, parts[0].driving, options, choice.engine, result, progress, cancel, stack, first
            )
        else:
            staged = stage_scene(
                source_path, parts, options, choice.engine, result, stack, progress, cancel, first
            )
        stack.enter_context(closing(staged.frames))
        summary.fps, summary.size = staged.fps, staged.size
        _write(result, summary, staged, choice.engine, progress)
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


def _parts(
    driving: Driving | str | Path | None,
    faces: Mapping[int, Driving | str | Path],
    options: Options,
    progress: Progress,
) -> list[Part]:
    """Which face is driven by what. The same file is opened once."""
    opened: dict[str, Driving] = {}

    def open_once(what: Driving | str | Path) -> Driving:
        if isinstance(what, Driving):
            return what
        return opened.setdefault(str(what), open_driving(what))

    if driving is None and not faces:
        if not options.controls:
            raise InputError(
                "There is nothing to perform.",
                "Give a driving clip, picture, motion or name, or an expression control such as --smile 0.8.",
            )
        # A control that has a value a frame says how many frames there are.
        lengths = [len(value) for value in options.controls.values() if isinstance(value, Sized)]
        driving = at_rest(max(lengths, default=1), options.fps)
    own = {number: open_once(what) for number, what in faces.items()}
    if driving is not None:
        wanted = options.face if options.face is not None or not own else 0
        if wanted is not None and wanted in own:
            progress.warn(f"face {wanted} has a driving of its own, so {Path(str(driving)).name} is not used")
        else:
            return sorted(
                [Part(wanted, open_once(driving)), *(Part(n, d) for n, d in own.items())],
                key=lambda part: part.number or 0,
            )
    return [Part(number, own[number]) for number in sorted(own)]


def _staged(
    source_path: Path,
    driving: Driving,
    options: Options,
    engine: Engine,
    result: Result,
    progress: Progress,
    cancel: Cancel | None,
    stack: ExitStack,
    first: int,
) -> Staged:
    """The one face of a picture, its driving read while it is rendered where that is possible."""
    if driving.motion is not None:
        performance = whole_performance(capture(driving, options, engine), options, first)
    else:
        performance = streamed_performance(driving, options, engine, progress, cancel, stack, first)
    performance.notes.extend(measured_elsewhere(driving, options, engine))
    source = open_source(source_path, options, engine)
    canvas = Canvas(source, options, deep=result.keeps_depth, flat=not result.keeps_alpha)
    if canvas.alpha is not None and not result.keeps_alpha:
        performance.notes.append("MP4 has no transparency, so the picture is on black; a folder keeps it")
    return Staged(
        _render(source, performance, options, engine, canvas, cancel),
        performance.fps,
        source.output_size(options),
        performance.total,
        sound_of(options, [(driving, performance.start)], source_path),
        lambda: {"motion.npz": performance.motion},
        lambda: performance.warnings,
        canvas.alpha,
        canvas.bits,
        first,
        face_in_frames(source.motion, source.crop, source.pastes(options), source.output_size(options)),
    )


def _render(
    source: Source,
    performance: Performance,
    options: Options,
    engine: Engine,
    canvas: Canvas,
    cancel: Cancel | None,
) -> Generator[np.ndarray, None, None]:
    """Whole frames, one after the other; see `render`."""
    plan = canvas.plan() if pasting(engine) else None
    drawn = _drawn(source, performance, options, engine, plan, cancel)
    # A GPU draws the next batch while this one is put in its place and written.
    ahead = drawn if engine.device == "cpu" else media.prefetch(drawn, depth=1)
    with closing(ahead) as batches:
        for batch in batches:
            for face in batch:
                yield canvas.frame(face, pasted=plan is not None)


def _drawn(
    source: Source,
    performance: Performance,
    options: Options,
    engine: Engine,
    plan: PastePlan | None,
    cancel: Cancel | None,
) -> Generator[np.ndarray, None, None]:
    """Batches of faces as the engine renders them, or pasted as planned."""
    pastes = pasting(engine)
    x0, y0, x1, y1 = source.window
    size = 3 * (x1 - x0) * (y1 - y0) if source.native else 3 * RENDERED_CROP**2
    size = size if plan is None else plan.below.nbytes
    batch = int(np.clip(BATCH_BYTES // max(size, 1), 1, BATCH))
    for keypoints, mouths in retargeted(source.motion, performance, options, engine):
        for start in range(0, len(keypoints.driving), batch):
            check_cancel(cancel)
            piece = slice(start, start + batch)
            keys = keypoints.source[piece], keypoints.driving[piece]
            if plan is None or pastes is None:
                shown = None if mouths is None else mouths[piece]
                yield engine.render(source.appearance, *keys, shown)
            else:
                yield pastes.render_pasted(source.appearance, *keys, plan)


def _summary(choice: Choice, source: Path, parts: Sequence[Part], options: Options) -> Summary:
    inputs = {"source": {"name": source.name, "sha256": fingerprint(source)}}
    for part in parts:
        role = "driving" if len(parts) == 1 else f"face {part.number or 0}"
        inputs[role] = {"name": part.driving.name, "sha256": fingerprint_of(part.driving)}
    summary = Summary(
        engine=choice.engine.name,
        engine_why=choice.why,
        device=choice.engine.device,
        fps=Fraction(25),
        size=(0, 0),
        options=options,
        inputs=inputs,
        version=__version__,
    )
    same = {name: summary.as_json()[name] for name in ("engine", "version", "options", "inputs")}
    for irrelevant in ("engine", "device", "audio"):
        del same["options"][irrelevant]
    numbers = [part.number for part in parts]
    text = json.dumps([same, numbers], sort_keys=True)
    summary.job = hashlib.sha256(text.encode()).hexdigest()
    return summary


def _write(result: Result, summary: Summary, staged: Staged, engine: Engine, progress: Progress) -> None:
    """Bring the frames to disk and complete the summary."""
    # Before the first frame exists nothing is written, so a performance without a face leaves no trace.
    frame = next(staged.frames, None)
    if frame is None and staged.first == 0:
        raise InputError("There is nothing to render.", "Choose another range of frames.")
    done = staged.first
    try:
        with result.writing(summary, staged.alpha, staged.bits, staged.sound) as write:
            while frame is not None:
                write(frame)
                done += 1
                progress.update("render", done, staged.total)
                frame = next(staged.frames, None)
    except Cancelled as error:
        raise Cancelled(error.message, "Finished frames are kept." if summary.frames else "") from error
    note = getattr(engine, "note", "")  # of engines that find out while they draw
    motions, warnings = staged.motions(), [*staged.warnings(), *([note] if note else [])]
    summary.valid_frames = int(np.count_nonzero(next(iter(motions.values())).valid))
    summary.warnings.extend(warnings)
    summary.face = staged.face
    result.complete(summary, motions)
    for warning in warnings:
        progress.warn(warning)
