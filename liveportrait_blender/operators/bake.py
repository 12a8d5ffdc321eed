# SPDX-License-Identifier: GPL-3.0-or-later
"""Bake what follows a performance to curves, and have the drivers back."""

from typing import Any

import bpy
from bpy.types import Operator

from .. import (
    baking,
    channel_samples,
    head_binding,
    keypoint_rig,
    performance,
    performance_bake,
    runtime,
    shape_key_bake,
    shape_key_mapping,
)
from ..names import UserError
from .shape_keys import OnMeshes


class LIVEPORTRAIT_OT_bake_shape_keys(OnMeshes, Operator):
    bl_idname = "liveportrait.bake_shape_keys"
    bl_label = "Bake to Curves"
    bl_description = "Give the shape keys keyframes of what the performance makes of them"
    bl_options = {"REGISTER", "UNDO"}

    name: bpy.props.StringProperty(
        name="Name", description="Of the new Action; empty for the performance's and the mesh's"
    )
    into: bpy.props.EnumProperty(
        name="Into",
        items=[
            (baking.TO_ACTION, "Action", "A new Action that takes the place of the present one"),
            (baking.TO_STRIP, "NLA Strip", "A strip on a new track of the nonlinear animation"),
        ],
    )
    drivers: bpy.props.EnumProperty(
        name="Drivers",
        items=[
            (shape_key_bake.MUTE, "Mute", "Keep the drivers, muted"),
            (shape_key_bake.REMOVE, "Remove", "Take the drivers away; Restore Drivers makes them anew"),
        ],
    )
    tolerance: bpy.props.FloatProperty(
        name="Tolerance",
        description="Leave keys out as long as no value is further off than this; 0 keys every frame",
        default=0.0,
        min=0.0,
        soft_max=0.1,
        precision=4,
    )
    use_performance_range: bpy.props.BoolProperty(
        name="Performance Range",
        description="Bake the frames of the performance instead of the scene's frame range",
    )
    include_head: bpy.props.BoolProperty(
        name="Head", description="Bake the bone or object that turns with the head, too", default=True
    )
    include_rig: bpy.props.BoolProperty(
        name="Performance", description="Bake the rig's own layers and controls into one Action, too"
    )

    def execute(self, context: Any) -> set[str]:
        items = shape_key_mapping.targets(context)
        window = context.window_manager
        window.progress_begin(0, 1)
        try:
            frames = self._frames(context, items)
            how = shape_key_bake.How(self.into, self.drivers, self.tolerance, self.name)
            reports = shape_key_bake.bake(
                items, frames, how, scene=context.scene, progress=window.progress_update
            )
            for report in reports:
                self.report({"WARNING" if report.is_warning else "INFO"}, report.sentence())
            if self.include_head:
                self._bake_heads(context, items, frames)
            if self.include_rig:
                for rig in {item.liveportrait.shape_keys.rig for item in items} - {None}:
                    performance_bake.bake(rig, frames, scene=context.scene)
        except UserError as error:
            return runtime.report(self, error)
        finally:
            window.progress_end()
        return {"FINISHED"}

    def invoke(self, context: Any, event: Any) -> set[str]:
        return context.window_manager.invoke_props_dialog(self)

    def _frames(self, context: Any, items: list[Any]) -> range:
        rigs = [item.liveportrait.shape_keys.rig for item in items]
        rig = next((rig for rig in rigs if keypoint_rig.is_rig(rig)), None)
        if rig is None:
            raise UserError("Nothing that is selected follows a performance.", "Choose its armature first.")
        return performance.frames(rig, context.scene, scene_range=not self.use_performance_range)

    def _bake_heads(self, context: Any, items: list[Any], frames: range) -> None:
        done = set()
        for item in items:
            head, rig = item.liveportrait.head, item.liveportrait.shape_keys.rig
            place = (head.target, head.bone)
            if rig is None or place in done or head_binding.find(*place) is None:
                continue
            done.add(place)
            samples = channel_samples.sample(rig, frames, scene=context.scene)
            name = f"{self.name or rig.name} Head"
            head_binding.bake(*place, samples, name, into=self.into, tolerance=self.tolerance)


class LIVEPORTRAIT_OT_restore_drivers(OnMeshes, Operator):
    bl_idname = "liveportrait.restore_drivers"
    bl_label = "Restore Drivers"
    bl_description = "Let baked shape keys and the head follow the performance again; what was baked is kept"
    bl_options = {"REGISTER", "UNDO"}

    @classmethod
    def poll(cls, context: Any) -> bool:
        if not any(shape_key_bake.is_baked(item) for item in shape_key_mapping.targets(context)):
            cls.poll_message_set("Nothing that is selected was baked")
            return False
        return True

    def execute(self, context: Any) -> set[str]:
        def act(item: Any) -> list[str]:
            count = shape_key_bake.restore(item)
            target, rig = item.liveportrait.head.target, item.liveportrait.shape_keys.rig
            if head_binding.is_baked(target):
                head_binding.restore(target)
            if performance_bake.is_baked(rig):
                performance_bake.restore(rig)
            return [f'"{item.name}": {count} shape keys follow the performance']

        return self.for_each(context, act)


CLASSES = (LIVEPORTRAIT_OT_bake_shape_keys, LIVEPORTRAIT_OT_restore_drivers)
