# SPDX-License-Identifier: GPL-3.0-or-later
"""Jobs that belong to a scene: how they are made from what is chosen, waited for, and how they land."""

from __future__ import annotations

import contextlib
import json
import logging
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import bpy

from . import control_curves, face_drivings, inputs, pump, requests, results, runtime
from .job_records import JobRecord
from .names import UserError

HOPELESS = 60.0  # seconds of silence after which waiting ends
PREVIEW_SECONDS = 2

log = logging.getLogger(__name__)


# --- making -------------------------------------------------------------------------------------------------


def animate(
    context: Any,
    *,
    source: str = "",
    driving: str = "",
    options: Mapping[str, Any] | None = None,
    kind: str = "",
    name: str = "",
    start: int | None = None,
    replaces: Any = None,
    seconds: int | None = None,
    faces: Mapping[str, Any] | None = None,
    controls_only: bool = False,
) -> JobRecord:
    """Submit `animate` with what is chosen in the scene, or given: at once. Raises UserError.

    source, driving: files, driving also a name of the library. options: come before the scene's. start: scene
    frame of the first picture [the current one]. replaces: a result's image, whose place is taken. seconds:
    no more than the first so many. faces: drivings of their own by the face's number, texts as driving; with
    them the driving that is chosen in the scene is not used [what the panel lists, of the portrait that is
    chosen there]. controls_only: nor is it then, the expression
    controls alone drive.
    """
    scene = context.scene
    portrait = requests.from_text(source, library=False) if source else inputs.source(context)
    picture = _picture(portrait)
    if replaces is not None and start is None:
        start = replaces.liveportrait.start_frame
    start = scene.frame_current if start is None else start
    more = dict(options or {})
    if "controls" not in more and control_curves.are_animated(scene):
        last = max(scene.frame_end, start)
        more["controls"] = control_curves.sample(scene, range(start, last + 1))
    own = requests.faces_from(faces or {})
    if not (own or source or driving or controls_only) and face_drivings.in_use(context):
        own = face_drivings.chosen(context)
    undriven = not driving and (bool(own) or controls_only)
    performance = None if undriven else _performance(context, driving, more)
    cut = next((one for one in own.values() if one.frames is not None), performance)
    asked = requests.job_options(scene, cut, more)
    label = name or scene.liveportrait.result_name or Path(portrait.label).stem
    folder = results.new_folder(context, label)
    request = requests.AnimateRequest(
        picture,
        None if performance is None else performance.value,
        asked,
        folder,
        label if performance is None else f"{label}: {performance.label}",
        faces={number: chosen.value for number, chosen in own.items()},
    )
    if seconds is not None:
        request = requests.first_seconds(request, seconds)
    return _submit(context, request, portrait, performance, label, kind, start, replaces, own)


def render_controls(
    context: Any, *, kind: str = "", name: str = "", first: int, last: int, replaces: Any = None
) -> JobRecord:
    """Submit the pictures of the scene's animated expression controls, one for each frame from `first` to
    `last`, at once. Raises UserError.
    """
    scene = context.scene
    portrait = inputs.source(context)
    picture = _picture(portrait)
    if last < first:
        raise UserError("The frame range has no frames.", "Let the end come after the start.")
    curves = control_curves.sample(scene, range(first, last + 1))
    if not curves:
        raise UserError("No expression control moves in this range.", "Key one, or move a slider.")
    options = dict(scene.liveportrait.options.as_options())
    options.pop("frames", None)
    options |= {"fps": requests.scene_rate(scene), "controls": curves}
    label = name or scene.liveportrait.result_name or Path(portrait.label).stem
    folder = results.new_folder(context, label)
    request = requests.AnimateRequest(picture, None, options, folder, f"{label}: controls")
    return _submit(context, request, portrait, None, label, kind, first, replaces)


def render_performance(
    context: Any,
    motion: Path,
    *,
    source: inputs.Chosen | None = None,
    options: Mapping[str, Any] | None = None,
    name: str = "",
    kind: str = "",
    start: int | None = None,
    replaces: Any = None,
    folder: Path | None = None,
) -> JobRecord:
    """Submit `render` of a motion file, at once. Raises UserError.

    folder: a new one for the frames [made here]. options [the scene's, without the expression controls: an
    edited performance has them in it].
    """
    scene = context.scene
    portrait = source or inputs.source(context)
    if not motion.is_file():
        raise UserError(f"There is no motion file {motion}.", "Capture the performance again.")
    if options is None:
        options = requests.capture_options(requests.job_options(scene, None, {}))
    if replaces is not None and start is None:
        start = replaces.liveportrait.start_frame
    label = name or scene.liveportrait.result_name or Path(portrait.label).stem
    folder = folder or results.new_folder(context, label)
    request = requests.RenderRequest(_picture(portrait), motion, options, folder, f"{label}: performance")
    driving = inputs.Chosen(motion, motion.name)
    return _submit(context, request, portrait, driving, label, kind, start, replaces)


def capture(context: Any, *, driving: str = "", options: Mapping[str, Any] | None = None) -> JobRecord:
    """Submit `motion.capture` of the driving; the file is `record.request.file`. Raises UserError."""
    chosen = requests.from_text(driving) if driving else inputs.driving(context)
    asked = requests.capture_options(requests.job_options(context.scene, chosen, dict(options or {})))
    folder = results.new_folder(context, f"{Path(chosen.label).stem} motion")
    return _started(requests.CaptureRequest(chosen.value, asked, folder, f"Capture {chosen.label}"))


def _picture(portrait: inputs.Chosen) -> Path:
    """The file of a source. Raises UserError."""
    if not isinstance(portrait.value, Path):
        raise UserError(f'There is no picture "{portrait.label}".', "Choose a picture or a clip.")
    return portrait.value


def preview_of(name: str) -> Any:
    """The image of a result of that name, or None."""
    return next((image for image in results.all_results() if image.name == name), None)


def _performance(context: Any, driving: str, options: Mapping[str, Any]) -> inputs.Chosen | None:
    """What drives; None where the expression controls alone do."""
    if driving:
        return requests.from_text(driving)
    controls = options.get("controls") or context.scene.liveportrait.controls.as_controls()
    if controls and inputs.driving_missing(context):
        return None
    return inputs.driving(context)


def _submit(
    context: Any,
    request: Any,
    source: inputs.Chosen,
    driving: inputs.Chosen | None,
    name: str,
    kind: str,
    start: int | None,
    replaces: Any,
    faces: Mapping[str, inputs.Chosen] | None = None,
) -> JobRecord:
    landing = requests.landing(
        context,
        source,
        driving,
        request.options,
        folder=request.folder,
        name=name,
        kind=kind,
        start=start,
        replaces=replaces,
        faces=faces,
    )
    return _started(replace(request, landing=landing))


def _started(request: Any) -> JobRecord:
    try:
        record = runtime.session.submit(request)
    except UserError:
        _tidy(request.folder)
        raise
    if note := results.elsewhere(request.folder):
        record.warnings.append(note)
    return record


# --- waiting ------------------------------------------------------------------------------------------------


def wait(record: JobRecord, timeout: float = 0.0) -> JobRecord:
    """Block until a job has ended and landed; for execute(). timeout: seconds, 0 for any.

    Raises UserError where it fails, or the backend falls silent.
    """
    heard = time.monotonic()

    def over() -> bool:
        nonlocal heard
        if runtime.session.state.kind != "silent":
            heard = time.monotonic()
        return record.settled or time.monotonic() - heard > HOPELESS

    try:
        pump.run_until(over, timeout or float("inf"))
    finally:
        if not record.settled:  # also where Ctrl-C ends it
            runtime.session.cancel(record.key)
            pump.run_until(lambda: record.settled, 2.0)
    if record.state == "cancelled":
        silent = time.monotonic() - heard > HOPELESS
        raise UserError(
            "The backend does not answer." if silent else "The job was cancelled.", record.hint
        )
    if record.state == "failed":
        raise UserError(record.error or "The job failed.", record.hint)
    if record.error:  # it is done, and could not land
        raise UserError(record.error, record.hint)
    return record


# --- landing ------------------------------------------------------------------------------------------------


def land(record: JobRecord) -> None:
    """A job has ended: bring its result into the file, or tidy up what it leaves."""
    if record.state != "done":
        again = any(job.folder == record.folder and not job.ended for job in runtime.session.jobs)
        if not again:  # else it was resumed meanwhile
            _tidy(record.folder)
        record.settled = True
    elif record.landing is None:  # it has none, or its file was closed meanwhile
        record.settled = True
    else:
        _land(record)


def _land(record: JobRecord) -> None:
    landing = replace(record.landing, result=record.result or {})
    try:
        with window():
            # True: an undo step of its own, unless an operator that waits makes one.
            bpy.ops.liveportrait.apply_result("EXEC_DEFAULT", True, landing=landing.as_json())
        record.landed = True
    except RuntimeError as error:
        record.error = str(error).removeprefix("Error: ").strip()
        record.hint = f"The frames are kept in {record.folder}."
        log.warning("A result could not land: %s", record.error)
    finally:
        record.settled = True


def window() -> Any:
    """A context with a window: a timer has none."""
    windows = bpy.context.window_manager.windows
    if bpy.context.window is None and len(windows):
        return bpy.context.temp_override(window=windows[0])
    return contextlib.nullcontext()


def _tidy(folder: Path) -> None:
    """Take away a folder in which nothing has come to lie."""
    with contextlib.suppress(OSError):
        for left in folder.glob(".*.part"):
            left.unlink()
        folder.rmdir()


def options_from_json(text: str) -> dict[str, Any]:
    """An operator's options: a JSON object. Raises UserError."""
    return _object("options", text, 'Write {"relative": false}.')


def faces_from_json(text: str) -> dict[str, Any]:
    """An operator's drivings by the numbers of faces: a JSON object. Raises UserError."""
    return _object("faces", text, 'Write {"1": "clip.mp4"}.')


def _object(what: str, text: str, hint: str) -> dict[str, Any]:
    if not text.strip():
        return {}
    try:
        given = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"The {what} are no JSON: {error}.", hint) from error
    if not isinstance(given, dict):
        raise UserError(f"The {what} are no JSON object.", hint)
    return given


def register() -> None:
    runtime.takers.append(land)


def unregister() -> None:
    if land in runtime.takers:
        runtime.takers.remove(land)
