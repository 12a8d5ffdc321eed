# SPDX-License-Identifier: GPL-3.0-or-later
"""The big button, what stands in its way, and how far the work is."""

from typing import Any

from bpy.types import Panel

from .. import inputs, requests, results, runtime
from .layout import Subpanel, blocked, look_label, split, trouble, wrapped

RUNNING_STATES = ("waiting", "preparing", "queued", "running")
AGAIN = {"failed": "Try Again", "cancelled": "Continue"}  # how it is called to go on with a job


class LIVEPORTRAIT_PT_animate(Subpanel, Panel):
    bl_label = "Animate"
    bl_order = 30

    def draw(self, context: Any) -> None:
        layout, settings = self.layout, context.scene.liveportrait
        big = layout.column()
        big.scale_y = 1.5
        big.operator("liveportrait.animate", icon="RENDER_ANIMATION")
        running = [job for job in context.window_manager.liveportrait.jobs if job.state in RUNNING_STATES]
        why = runtime.missing()[0]  # the first row of the tab says it, with its fix
        if not why and not running:
            why = requests.missing(context, needs_driving=not requests.has_controls(context.scene))
            if why:
                blocked(layout, context, why)
        for job in running[:1]:
            progress(layout, context, job)
        if not why and not running:
            layout.operator("liveportrait.preview_clip", icon="PLAY")
            if requests.has_controls(context.scene) and not inputs.driving_missing(context):
                row = layout.row(align=True)
                row.label(text="With expression controls", icon="SHAPEKEY_DATA")
                row.operator("liveportrait.reset_controls", text="", icon="X")
        last_job(layout, context, context.window_manager.liveportrait.jobs)
        if not running and results.active(context) is not None:
            # A new plane may stand edge-on, or inside something else; the panel below is mostly out of sight.
            layout.operator("liveportrait.look_at_result", text=look_label(context), icon="VIEWZOOM")
        column = layout.column()
        split(column)
        column.prop(settings, "result_kind")
        column.prop(settings, "result_name", text="Name")


def progress(layout: Any, context: Any, job: Any) -> None:
    """How far a job is, and its end."""
    column = layout.column(align=True)
    column.label(text=job.label, icon="RENDER_ANIMATION")
    row = column.row(align=True)
    row.progress(factor=job.factor, text=job.text)
    row.operator("liveportrait.cancel_job", text="", icon="CANCEL").job = job.name
    if job.warnings:
        notes(layout.box().column(align=True), context, job)


def notes(layout: Any, context: Any, job: Any) -> None:
    """What a job warns of."""
    for warning in job.warnings.splitlines():
        wrapped(layout, warning, context, "INFO")


def last_job(layout: Any, context: Any, jobs: Any) -> None:
    """What went wrong with the job that ended last, or what a cancelled one has left."""
    ended = [job for job in jobs if job.state not in RUNNING_STATES]
    if not ended:
        return
    job = ended[-1]
    if job.error:
        trouble(layout, context, job.error, job.hint)
    elif job.state == "cancelled" and len(ended) == len(jobs):  # none has begun since
        blocked(layout, context, f"Cancelled. {job.hint}".strip())
    elif job.state == "done" and job.warnings and len(ended) == len(jobs):
        notes(layout.box().column(align=True), context, job)
    else:
        return
    row = layout.row(align=True)
    if job.state in AGAIN:
        row.operator("liveportrait.resume_job", text=AGAIN[job.state], icon="FILE_REFRESH").job = job.name
    row.operator("liveportrait.remove_job", text="Dismiss", icon="X").job = job.name


CLASSES = (LIVEPORTRAIT_PT_animate,)
