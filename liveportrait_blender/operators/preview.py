# SPDX-License-Identifier: GPL-3.0-or-later
"""The expression controls' preview, and the pictures of keyed controls."""

from typing import Any

import bpy
from bpy.types import Operator

from .. import control_curves, inputs, live_preview, pump, requests, results, runtime, scene_jobs
from ..names import UserError
from ..properties.scene import RESULT_KINDS
from .animate import HIDDEN, Waiting, can_ask


class LIVEPORTRAIT_OT_start_live_preview(Operator):
    bl_idname = "liveportrait.start_live_preview"
    bl_label = "Start Live Preview"
    bl_description = "Show the portrait as the expression controls make it, while they are moved"

    @classmethod
    def poll(cls, context: Any) -> bool:
        if live_preview.is_on():
            cls.poll_message_set("The preview is on")
            return False
        return can_ask(cls, context, needs_driving=False)

    def execute(self, context: Any) -> set[str]:
        try:
            live_preview.start(context)
        except UserError as error:
            return runtime.report(self, error)
        return {"FINISHED"}


class LIVEPORTRAIT_OT_stop_live_preview(Operator):
    bl_idname = "liveportrait.stop_live_preview"
    bl_label = "Stop Live Preview"
    bl_description = "Follow the expression controls no more; the last picture stays"

    @classmethod
    def poll(cls, _context: Any) -> bool:
        if not live_preview.is_on():
            cls.poll_message_set("The preview is off")
        return live_preview.is_on()

    def execute(self, context: Any) -> set[str]:
        live_preview.stop()
        pump.drain(0.0)
        return {"FINISHED"}


class LIVEPORTRAIT_OT_render_controls(Waiting, Operator):
    bl_idname = "liveportrait.render_controls"
    bl_label = "Render Frames"
    bl_description = "Let the portrait perform the keyed expression controls over the scene's frame range"
    bl_options = {"UNDO"}

    first: bpy.props.IntProperty(name="First", description="Frame [the scene's start]", options=HIDDEN)
    last: bpy.props.IntProperty(name="Last", description="Frame [the scene's end]", options=HIDDEN)
    result_kind: bpy.props.EnumProperty(
        name="Result", description="What becomes of the pictures", items=RESULT_KINDS, options=HIDDEN
    )
    name: bpy.props.StringProperty(name="Name", description="Of the result", options=HIDDEN)
    replace: bpy.props.BoolProperty(
        name="Replace", description="Take the place of the active object's result", options=HIDDEN
    )

    @classmethod
    def poll(cls, context: Any) -> bool:
        reason = runtime.missing()[0] or inputs.source_missing(context)
        if not reason and not requests.has_controls(context.scene):
            reason = "Move or key a slider to have frames to render"
        if reason:
            cls.poll_message_set(reason)
        return not reason

    def submit(self, context: Any) -> Any:
        scene, is_set = context.scene, self.properties.is_property_set
        first = self.first if is_set("first") else scene.frame_start
        last = self.last if is_set("last") else scene.frame_end
        if not control_curves.are_animated(scene) and not is_set("last"):
            last = first  # a still face is one picture
        before = results.active(context) if self.replace else None
        return scene_jobs.render_controls(
            context,
            kind=self.result_kind if is_set("result_kind") else "",
            name=self.name or (before.name if before else ""),
            first=first,
            last=last,
            replaces=before,
        )


CLASSES = (
    LIVEPORTRAIT_OT_start_live_preview,
    LIVEPORTRAIT_OT_stop_live_preview,
    LIVEPORTRAIT_OT_render_controls,
)


def register() -> None:
    live_preview.register()


def unregister() -> None:
    live_preview.unregister()
