# SPDX-License-Identifier: GPL-3.0-or-later
"""Performances as files and jobs: a rig from a result's motion, templates through the backend, rendering."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import bpy

from . import (
    fcurves,
    head_binding,
    inputs,
    keypoint_rig,
    motion_file,
    recipes,
    requests,
    results,
    rig_channels,
    rig_controls,
    rig_placement,
    rig_render,
    rig_sampling,
    runtime,
    scene_jobs,
)
from .job_records import JobRecord
from .motion_file import Motion
from .names import UserError
from .rig_control_table import controls
from .rig_layout import property_path

TEMPLATE = ".pkl"
RENDERED = "performance.npz"  # what a job is given, in the result's folder
MOUTH = "The driver's own mouth is a picture, which curves do not hold: the mouth's inside is drawn instead."

log = logging.getLogger(__name__)
# Folder of a job -> how many of its pictures belong to the result, and the rig's session_uid.
_counts: dict[Path, tuple[int, int]] = {}


@dataclass(frozen=True)
class ConvertRequest:
    """`motion.convert`: a motion file or a template as the other, in a folder. then: called with the file, on
    the main thread; without it whoever waits for the job sees to it."""

    motion: Path
    form: str  # "npz" or "pkl"
    folder: Path
    label: str
    landing: Any = None
    then: Callable[[Path], None] | None = field(default=None, compare=False)
    method: str = field(default="motion.convert", init=False)

    def params(self) -> dict[str, Any]:
        return {"motion": self.motion, "format": self.form}

    @property
    def file(self) -> Path:
        return self.folder / f"motion.{self.form}"


def convert(motion: Path, form: str, then: Callable[[Path], None] | None = None) -> JobRecord:
    """Submit the conversion of a file to "npz" or "pkl", into a folder of its own. Raises UserError."""
    folder = Path(tempfile.mkdtemp(prefix="liveportrait-"))
    request = ConvertRequest(motion, form, folder, f"Read {motion.name}", then=then)
    try:
        return runtime.session.submit(request)
    except UserError:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def convert_motion(motion: Motion, form: str, then: Callable[[Path], None] | None = None) -> JobRecord:
    """Submit the conversion of a motion. Raises UserError."""
    folder = Path(tempfile.mkdtemp(prefix="liveportrait-"))
    try:
        given = motion_file.write(folder / "given.npz", motion)
        return runtime.session.submit(ConvertRequest(given, form, folder, "Export performance", then=then))
    except UserError:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def keep(path: Path, target: Path) -> None:
    """Copy a finished file to where it was asked for, whole or not at all. Raises UserError."""
    temporary = target.with_name(f".{target.name}.part")
    try:
        try:
            shutil.copyfile(path, temporary)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(
            f"{target} cannot be written: {error.strerror or error}.", "Choose another place."
        ) from error


def converted(record: JobRecord) -> Path:
    """The file that a conversion has made. Raises UserError if there is none."""
    file: Path = record.request.file  # type: ignore[attr-defined]
    if not file.is_file():
        raise UserError("The backend gave no motion file.", "Update the backend.")
    return file


def tidy(record: JobRecord) -> None:
    """Take away what a conversion has written."""
    shutil.rmtree(record.folder, ignore_errors=True)


def active(context: Any) -> Any:
    """The rig that is meant: the active object, the one that its shape keys follow, the one of its result, or
    the only one of the scene; None if it is none of them. Cheap: for draw and poll."""
    candidate = context.active_object
    if keypoint_rig.is_rig(candidate):
        return candidate
    followed = candidate.liveportrait.shape_keys.rig if candidate is not None else None
    if keypoint_rig.is_rig(followed):
        return followed
    found = keypoint_rig.rigs(context.scene)
    image = results.of_object(candidate) if candidate is not None else None
    tied = [rig for rig in found if image is not None and rig.liveportrait.rig.result == image]
    return (tied or found)[0] if tied or len(found) == 1 else None


def deleted(context: Any) -> Any:
    """The rig that the active object's shape keys follow though it was deleted from the scene, or None: what
    refers to it keeps it in the file. Cheap."""
    item = context.active_object
    rig: Any = item.liveportrait.shape_keys.rig if item is not None else None
    if not keypoint_rig.is_rig(rig) or rig.library is not None:  # a linked head brings its rig along unseen
        return None
    return None if context.scene in rig.users_scene else rig


def missing(context: Any, rig: Any) -> str:
    """Why a rig's performance cannot be rendered, for poll; "" if it can. Cheap."""
    reason = runtime.missing()[0]
    if not reason and rig.liveportrait.rig.result is None:
        reason = inputs.source_missing(context)
    return reason


def frames(rig: Any, scene: Any, scene_range: bool = False) -> range:
    """The scene frames of a rig's performance, or of the scene. Raises UserError for an empty range."""
    first, last = keypoint_rig.frame_range(rig, scene)
    if scene_range:
        first, last = scene.frame_start, scene.frame_end
    if last < first:
        raise UserError("The frame range has no frames.", "Let the end come after the start.")
    return range(first, last + 1)


def set_neutral(rig: Any, scene: Any, reset: bool = False) -> None:
    """Let the face at the scene's current frame be the neutral one, for rendering, openings and channels; or
    the performance's own again. Raises UserError."""
    if reset:
        keypoint_rig.set_neutral(rig, None)
        channels = rig_channels.own_neutral(rig)
    else:
        at = scene.frame_current + scene.frame_subframe
        motion, shots = rig_sampling.sample_shots(rig, [at], scene=scene)
        keypoint_rig.set_neutral(rig, motion, 0, int(shots[0]))
        channels = rig_channels.neutral_inputs(motion)
    rig_controls.rest_from_neutral(rig)
    if rig_channels.has_channels(rig):
        rig_channels.set_neutral(rig, channels)
    head_binding.follow_neutral(rig)


def perform_motion(
    context: Any, motion: Motion, name: str, first: float, *, resample: bool = False, rig: Any = None
) -> Any:
    """The motion as a new keypoint rig, or as a new Action of `rig`. Raises UserError."""
    if rig is None:
        return keypoint_rig.build(context, motion, name, first_frame=first, resample=resample)
    scene = context.scene
    keypoint_rig.perform(rig, motion, scene=scene, first_frame=first, resample=resample, name=name)
    head_binding.follow_neutral(rig)
    return rig


def rig_of_result(context: Any, image: Any) -> Any:
    """A keypoint rig that performs what drove a result, with the expression controls that it was made with,
    on the face of its plane. Raises UserError."""
    path = recipes.motion_of(image)
    if path is None:
        raise UserError(
            f'The result "{image.name}" has no motion file.', "Animate it again, or import a performance."
        )
    motion = motion_file.read(path)
    options = recipes.options_of(image)
    first = image.liveportrait.start_frame
    wanted = options.get("reference_frame", 0)
    rig = keypoint_rig.build(
        context,
        motion,
        f"{image.name} Performance",
        first_frame=first,
        reference=wanted if isinstance(wanted, int) else None,
    )
    _set_controls(rig, options.get("controls") or {}, first)
    rig.liveportrait.rig.result = image
    rendered = path.with_name(RENDERED)
    if rendered.is_file():  # it is a rig's performance itself: its neutral frame lies behind the last
        given = motion_file.read(rendered)
        if len(given) == len(motion) + 1:
            keypoint_rig.set_neutral(rig, given, len(motion))
            rig_controls.rest_from_neutral(rig)
    rig_placement.put_on_face(rig, image, options.get("relative", True))
    return rig


def rendered_from(scene: Any, image: Any) -> Any:
    """The rig whose performance a result shows; None of a clip's. Raises UserError if it is gone."""
    if Path(image.liveportrait.driving).name != RENDERED:
        return None
    for rig in keypoint_rig.rigs(scene):
        if rig.liveportrait.rig.result == image:
            return rig
    raise UserError(
        f'The rig that performed "{image.name}" is gone.',
        "Create Performance Rig makes one of it, and Render Performance renders that.",
    )


def _set_controls(rig: Any, values: Any, first: int) -> None:
    """Set the rig's controls from the protocol's: a number each, or one a frame."""
    curves = {}
    for control in controls():
        value = values.get(control.name)
        if isinstance(value, int | float):
            rig[control.name] = float(value)
        elif isinstance(value, list) and value:
            curves[property_path(control.name), 0] = ([first + k for k in range(len(value))], value)
    if curves:
        fcurves.write(rig, rig.animation_data.action, curves, "Controls")
    rig.update_tag()


def render(context: Any, rig: Any, frames: range, progress: Any = None) -> JobRecord:
    """Submit the rendering of what the rig performs at scene frames, at once. Its result takes the place of
    the one that the rig belongs to; without one it is a new one of the portrait that is chosen. Raises
    UserError.
    """
    scene = context.scene
    image = rig.liveportrait.rig.result
    source, options = None, scene.liveportrait.options.as_options()
    if image is not None:
        options = dict(recipes.options_of(image))
        path = recipes.source_of(image)
        if path is None:
            raise UserError(
                f'The portrait of "{image.name}" is gone: {image.liveportrait.source or "unknown"}.',
                "Put it back, or clear the rig's result to use the portrait that is chosen.",
            )
        source = inputs.Chosen(path, path.name)
    motion = rig_render.motion_to_render(
        rig, frames, scene=scene, relative=options.get("relative", True), progress=progress
    )
    count = len(frames)
    name = image.name if image is not None else rig.name
    folder = results.new_folder(context, name)
    try:
        # motion.npz is the performance as it is; what the backend is given may end with a frame more.
        motion_file.write(folder / "motion.npz", motion.take(slice(0, count)))
        record = scene_jobs.render_performance(
            context,
            motion_file.write(folder / RENDERED, motion),
            source=source,
            options=rig_render.render_options(options, count, requests.scene_rate(scene)),
            name=name,
            start=frames[0],
            replaces=image,
            folder=folder,
        )
    except UserError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    if image is not None and _shows_drivers_mouth(image):
        record.warnings.append(MOUTH)
    _counts[record.folder] = (count, rig.session_uid)
    return record


def _shows_drivers_mouth(image: Any) -> bool:
    """Whether the mesh engine has put pictures of the driver's mouth into a result."""
    driving = image.liveportrait.driving
    curves = {*inputs.MOTION_SUFFIXES, ".csv", ".json"}
    shown = driving and not driving.startswith(recipes.LIBRARY) and Path(driving).suffix.lower() not in curves
    return bool(shown) and recipes.summary_of(image).get("engine") == "mesh"


def before_landing(record: JobRecord) -> None:
    """Take away the picture of the neutral frame before the result lands."""
    count, _ = _counts.get(record.folder, (0, 0))
    if count and record.state == "done":
        (record.folder / f"{count:06d}.png").unlink(missing_ok=True)


def after_landing(record: JobRecord) -> None:
    """Tie the rig to the result that its performance has become."""
    if not record.landed or record.folder not in _counts:
        return  # one that failed may be resumed
    _, uid = _counts.pop(record.folder)
    rig = results.by_uid(bpy.data.objects, uid)
    for image in results.all_results():
        if rig is not None and results.folder_of(image) == record.folder:
            rig.liveportrait.rig.result = image


def after_conversion(record: JobRecord) -> None:
    """Do what was to be done with a converted file."""
    request = record.request
    if not isinstance(request, ConvertRequest) or request.then is None:
        return
    try:
        if record.state == "done":
            with scene_jobs.window():
                request.then(converted(record))
    except (UserError, RuntimeError) as error:  # what an operator reports comes as the latter
        record.error = str(error).removeprefix("Error: ").strip()
        log.warning("%s: %s", record.label, record.error)
    finally:
        tidy(record)


TAKERS = (before_landing, after_landing, after_conversion)
