# SPDX-License-Identifier: GPL-3.0-or-later
"""Animate, preview, capture, render again; cancel, resume and remove jobs; free the GPU's memory.

From a button they run beside Blender: Esc or the job list cancels, and the result lands when it is there.
From a script, in background mode and on a farm they wait for the result.
"""

import logging
from pathlib import Path
from typing import Any

import bpy
from bpy.app.handlers import persistent
from bpy.types import Operator

from .. import pump, requests, results, runtime, scene_jobs
from ..client import BackendError
from ..names import UserError
from ..properties import options as option_properties
from ..properties.scene import RESULT_KINDS

HIDDEN = {"SKIP_SAVE", "HIDDEN"}
UNLOAD_WITHIN = 3.0  # seconds that a render waits for the GPU's memory

log = logging.getLogger(__name__)


class Waiting:
    """What the operators that submit a job share: they wait in execute(), and look on in modal()."""

    timeout: bpy.props.FloatProperty(
        name="Timeout", description="Seconds to wait at most, 0 for any", min=0.0, options=HIDDEN
    )

    def submit(self, context: Any) -> Any:
        """Submit the job. Raises UserError."""
        raise NotImplementedError

    def execute(self, context: Any) -> set[str]:
        try:
            record = scene_jobs.wait(self.submit(context), self.timeout)
        except (UserError, BackendError) as error:
            return runtime.report(self, error)
        for warning in record.warnings:
            self.report({"WARNING"}, warning)
        return {"FINISHED"}

    def invoke(self, context: Any, event: Any) -> set[str]:
        if bpy.app.background or context.window is None:
            return self.execute(context)
        try:
            self._record = self.submit(context)
        except (UserError, BackendError) as error:
            return runtime.report(self, error)
        self._shown = ""
        self._timer = context.window_manager.event_timer_add(0.2, window=context.window)
        context.window_manager.modal_handler_add(self)
        return {"RUNNING_MODAL"}

    def modal(self, context: Any, event: Any) -> set[str]:
        record = runtime.session.record(self._record.key)
        if record is None or record.settled:
            self._leave(context)
            for warning in record.warnings if record is not None else ():
                self.report({"WARNING"}, warning)
            if record is not None and record.error:
                self.report({"ERROR"}, f"{record.error} {record.hint}".strip())
            # The undo step is that of the result's landing, so this is none.
            return {"CANCELLED"}
        if event.type == "ESC" and event.value == "PRESS":
            runtime.session.cancel(record.key)
            self._leave(context)
            return {"CANCELLED"}
        if event.type == "TIMER":
            self._show(context, f"{record.label}: {record.text}    Esc: Cancel")
        return {"PASS_THROUGH"}

    def cancel(self, context: Any) -> None:
        """Blender ends the operator, at the loading of a file for example; the job does not need it."""
        self._leave(context)

    def _show(self, context: Any, text: str) -> None:
        if text != self._shown:
            self._shown = text
            context.workspace.status_text_set(text)

    def _leave(self, context: Any) -> None:
        context.window_manager.event_timer_remove(self._timer)
        if context.workspace is not None:
            context.workspace.status_text_set(None)


def can_ask(cls: Any, context: Any, needs_driving: bool = True) -> bool:
    """A poll: whether there is what a job needs."""
    reason = requests.missing(context, needs_driving=needs_driving)
    if reason:
        cls.poll_message_set(reason)
    return not reason


def given_options(operator: Any) -> dict[str, Any]:
    """The options that were given to an operator by name, or as JSON. Raises UserError."""
    found = scene_jobs.options_from_json(operator.options)
    is_set = operator.properties.is_property_set
    for name, row in option_properties.rows().items():
        beside = option_properties.companion(row)
        if is_set(name) or (beside and is_set(beside)):
            found[name] = option_properties.value_of(operator, row)
    return found


def option_annotations() -> dict[str, Any]:
    """A property for every option; those that are not set say nothing."""
    found = {}
    for name, deferred in option_properties.properties().items():
        words = {key: value for key, value in deferred.keywords.items() if key != "override"}
        found[name] = deferred.function(**{**words, "options": HIDDEN})
    for row in option_properties.rows().values():
        # A number that is given counts.
        beside = option_properties.companion(row)
        if beside:
            words = found[beside].keywords
            counts = option_properties.VALUE if row.get("words") else True
            found[beside] = found[beside].function(**{**words, "default": counts})
    return found


class Options:
    """A property for every option of a job, under its own name."""

    __annotations__ = option_annotations()


class LIVEPORTRAIT_OT_animate(Options, Waiting, Operator):
    bl_idname = "liveportrait.animate"
    bl_label = "Animate"
    bl_description = "Let the portrait perform the driving, and bring the moving portrait into the scene"
    bl_options = {"UNDO"}

    source: bpy.props.StringProperty(
        name="Source", description="A picture or clip instead of the one that is chosen", options=HIDDEN
    )
    driving: bpy.props.StringProperty(
        name="Driving",
        description="A clip, picture, motion file or name of the library instead of the one that is chosen",
        options=HIDDEN,
    )
    faces: bpy.props.StringProperty(
        name="Faces",
        description="What drives which face, instead of the driving that is chosen: a JSON object of clips,"
        " motion files or names of the library by the face's number",
        options=HIDDEN,
    )
    options: bpy.props.StringProperty(
        name="Options", description="Options as a JSON object, as the backend takes them", options=HIDDEN
    )
    result_kind: bpy.props.EnumProperty(
        name="Result", description="What becomes of the pictures", items=RESULT_KINDS, options=HIDDEN
    )
    name: bpy.props.StringProperty(name="Name", description="Of the result", options=HIDDEN)
    start_frame: bpy.props.IntProperty(
        name="Start Frame", description="Scene frame of the first picture [current]", options=HIDDEN
    )
    replace: bpy.props.BoolProperty(
        name="Replace", description="Take the place of the active object's result", options=HIDDEN
    )
    controls_only: bpy.props.BoolProperty(
        name="Controls Only", description="Perform the expression controls, without a driving", options=HIDDEN
    )

    @classmethod
    def poll(cls, context: Any) -> bool:
        # A script may give what is not chosen; the button of the panel says it before.
        reason = runtime.missing()[0]
        if not reason and not bpy.app.background:
            reason = requests.missing(context, needs_driving=not requests.has_controls(context.scene))
        if reason:
            cls.poll_message_set(reason)
        return not reason

    def submit(self, context: Any) -> Any:
        before = results.active(context) if self.replace else None
        if self.replace and before is None:
            raise UserError("There is no result to replace.", "Select the plane that shows one.")
        return scene_jobs.animate(
            context,
            source=self.source,
            driving=self.driving,
            faces=scene_jobs.faces_from_json(self.faces),
            options=given_options(self),
            kind=self.result_kind if self.properties.is_property_set("result_kind") else "",
            name=self.name or (before.name if before else ""),
            start=self.start_frame if self.properties.is_property_set("start_frame") else None,
            replaces=before,
            controls_only=self.controls_only,
        )


class LIVEPORTRAIT_OT_preview_clip(Waiting, Operator):
    bl_idname = "liveportrait.preview_clip"
    bl_label = "Preview 2 Seconds"
    bl_description = "Animate only the first two seconds of the chosen range; the next preview replaces it"
    bl_options = {"UNDO"}

    @classmethod
    def poll(cls, context: Any) -> bool:
        return can_ask(cls, context)

    def submit(self, context: Any) -> Any:
        name = "LivePortrait Preview Clip"
        before = scene_jobs.preview_of(name)
        return scene_jobs.animate(
            context, name=name, kind="PLANE", replaces=before, seconds=scene_jobs.PREVIEW_SECONDS,
            start=context.scene.frame_current,
        )  # fmt: skip


class LIVEPORTRAIT_OT_capture(Waiting, Operator):
    bl_idname = "liveportrait.capture"
    bl_label = "Capture Performance"
    bl_description = "Measure the driving and keep its performance as a motion file"

    driving: bpy.props.StringProperty(
        name="Driving", description="Instead of the one that is chosen", options=HIDDEN
    )
    options: bpy.props.StringProperty(name="Options", description="As a JSON object", options=HIDDEN)

    @classmethod
    def poll(cls, context: Any) -> bool:
        reason = runtime.missing()[0]
        if not reason and not bpy.app.background:
            reason = requests.missing(context, needs_source=False)
        if reason:
            cls.poll_message_set(reason)
        return not reason

    def submit(self, context: Any) -> Any:
        given = scene_jobs.options_from_json(self.options)
        return scene_jobs.capture(context, driving=self.driving, options=given)


class LIVEPORTRAIT_OT_render_motion(Waiting, Operator):
    bl_idname = "liveportrait.render_motion"
    bl_label = "Render Motion"
    bl_description = "Let the portrait perform a motion file"
    bl_options = {"UNDO"}

    motion: bpy.props.StringProperty(name="Motion", description="A motion file (.npz)", subtype="FILE_PATH")
    options: bpy.props.StringProperty(name="Options", description="As a JSON object", options=HIDDEN)
    replace: bpy.props.BoolProperty(
        name="Replace", description="Take the place of the active object's result", options=HIDDEN
    )

    @classmethod
    def poll(cls, context: Any) -> bool:
        return can_ask(cls, context, needs_driving=False)

    def submit(self, context: Any) -> Any:
        given = scene_jobs.options_from_json(self.options) if self.options else None
        before = results.active(context) if self.replace else None
        motion = Path(bpy.path.abspath(self.motion))
        return scene_jobs.render_performance(context, motion, options=given, replaces=before)


def chosen_job(key: str) -> Any:
    """A job by its key; without one the one that was begun last of those that run, or else of all."""
    if key:
        return runtime.session.record(key)
    jobs = runtime.session.jobs
    running = [job for job in jobs if not job.ended]
    return next(iter(reversed(running or jobs)), None)


class JobOperator:
    """Acts on a job of the list. Jobs are no part of the file, so there is no undo."""

    job: bpy.props.StringProperty(name="Job", description="Its key; empty is the last one", options=HIDDEN)

    @classmethod
    def poll(cls, context: Any) -> bool:
        if not runtime.session.jobs:
            cls.poll_message_set("There are no jobs")
            return False
        return True

    def execute(self, context: Any) -> set[str]:
        record = chosen_job(self.job)
        if record is None:
            self.report({"WARNING"}, "There is no such job.")
            return {"CANCELLED"}
        try:
            self.act(record)
        except (UserError, BackendError) as error:
            return runtime.report(self, error)
        pump.start()
        pump.drain(0.0)
        return {"FINISHED"}


class LIVEPORTRAIT_OT_cancel_job(JobOperator, Operator):
    bl_idname = "liveportrait.cancel_job"
    bl_label = "Cancel Job"
    bl_description = "End the job; finished frames are kept"

    @classmethod
    def poll(cls, context: Any) -> bool:
        if all(job.ended for job in runtime.session.jobs):
            cls.poll_message_set("No job is running")
            return False
        return True

    def act(self, record: Any) -> None:
        runtime.session.cancel(record.key)


class LIVEPORTRAIT_OT_resume_job(JobOperator, Operator):
    bl_idname = "liveportrait.resume_job"
    bl_label = "Resume Job"
    bl_description = "Go on with a cancelled or failed job where it was"

    @classmethod
    def poll(cls, context: Any) -> bool:
        if not any(job.state in ("failed", "cancelled") for job in runtime.session.jobs):
            cls.poll_message_set("No job was cancelled or has failed")
            return False
        return True

    def act(self, record: Any) -> None:
        runtime.session.resume(record.key)


class LIVEPORTRAIT_OT_remove_job(JobOperator, Operator):
    bl_idname = "liveportrait.remove_job"
    bl_label = "Remove Job"
    bl_description = "Take the job from the list; what it made is kept"

    def act(self, record: Any) -> None:
        runtime.session.remove(record.key)


class LIVEPORTRAIT_OT_free_gpu_memory(Operator):
    bl_idname = "liveportrait.free_gpu_memory"
    bl_label = "Free GPU Memory"
    bl_description = "Let the backend give back its memory; it comes back with the next job"

    @classmethod
    def poll(cls, context: Any) -> bool:
        kind = runtime.session.state.kind
        if kind == "busy":
            cls.poll_message_set("A job is running")
        elif kind != "ready":
            cls.poll_message_set("The backend is not running, so it holds no memory")
        return kind == "ready"

    def execute(self, context: Any) -> set[str]:
        try:
            runtime.session.call("unload", {}, 10.0)
        except (UserError, BackendError) as error:
            return runtime.report(self, error)
        self.report({"INFO"}, "The backend's memory is free")
        return {"FINISHED"}


@persistent
def before_render(scene: Any, *_: Any) -> None:
    """Make room on the GPU for Cycles."""
    if runtime.session.state.kind != "ready" or not renders_on_gpu(scene):
        return
    try:
        runtime.session.call("unload", {}, UNLOAD_WITHIN)
    except (UserError, BackendError) as error:
        log.info("The backend keeps its memory: %s", error)


def renders_on_gpu(scene: Any) -> bool:
    """Whether a render of this scene needs the GPU's memory."""
    if scene.render.engine != "CYCLES" or scene.cycles.device != "GPU":
        return False
    addon = bpy.context.preferences.addons.get("cycles")
    return addon is not None and addon.preferences.compute_device_type != "NONE"


CLASSES = (
    LIVEPORTRAIT_OT_animate,
    LIVEPORTRAIT_OT_preview_clip,
    LIVEPORTRAIT_OT_capture,
    LIVEPORTRAIT_OT_render_motion,
    LIVEPORTRAIT_OT_cancel_job,
    LIVEPORTRAIT_OT_resume_job,
    LIVEPORTRAIT_OT_remove_job,
    LIVEPORTRAIT_OT_free_gpu_memory,
)


def register() -> None:
    scene_jobs.register()
    bpy.app.handlers.render_init.append(before_render)


def unregister() -> None:
    if before_render in bpy.app.handlers.render_init:
        bpy.app.handlers.render_init.remove(before_render)
    scene_jobs.unregister()
