# SPDX-License-Identifier: GPL-3.0-or-later
"""Show a result in the viewport, as a new plane in a full scene is easily lost."""

from typing import Any

import bpy
from bpy.types import Operator

from .. import image_plane, keypoint_rig, results


def shown_by(context: Any) -> Any:
    """The object that shows the active result, None where there is none."""
    image = results.active(context)
    if image is None:
        return None
    here = context.view_layer.objects
    if here.active is not None and results.of_object(here.active) == image:
        return here.active
    return next((owner for owner in image_plane.objects_with(image) if owner.name in here), None)


class LIVEPORTRAIT_OT_look_at_result(Operator):
    bl_idname = "liveportrait.look_at_result"
    bl_label = "Look at Result"
    bl_description = "Show the result alone, from its front, with its material; again to show all as before"

    @classmethod
    def poll(cls, context: Any) -> bool:
        if context.space_data is None or context.space_data.type != "VIEW_3D":
            cls.poll_message_set("Only in a 3D viewport")
            return False
        if shown_by(context) is None:
            cls.poll_message_set("Select the object that shows the result")
            return False
        if context.mode != "OBJECT":
            cls.poll_message_set("Only in object mode")
            return False
        return True

    def execute(self, context: Any) -> set[str]:
        space, owner, active = context.space_data, shown_by(context), context.view_layer.objects.active
        if space.local_view is not None:
            bpy.ops.view3d.localview()  # back to the view from which it was entered
            return {"FINISHED"}
        rigs = [child for child in owner.children if keypoint_rig.is_rig(child) and child.visible_get()]
        for other in context.selected_objects:
            other.select_set(False)
        for shown in (owner, *rigs):  # who poses a rig looks at it on the face
            shown.select_set(True)
        context.view_layer.objects.active = owner
        if space.shading.type not in ("MATERIAL", "RENDERED"):
            space.shading.type = "MATERIAL"
        bpy.ops.view3d.localview()  # with framing, as the view is remembered only then
        for rig in rigs:
            rig.select_set(False)
        bpy.ops.view3d.view_axis(type="FRONT", align_active=True)
        bpy.ops.view3d.view_selected()
        if active in rigs:
            owner.select_set(False)
            active.select_set(True)
            context.view_layer.objects.active = active
        return {"FINISHED"}


CLASSES = (LIVEPORTRAIT_OT_look_at_result,)
