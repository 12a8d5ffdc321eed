# SPDX-License-Identifier: GPL-3.0-or-later
"""Operators on results: bring one into the file, make it again, compare it, delete it."""

import json
from typing import Any

import bpy
from bpy.props import BoolProperty, StringProperty
from bpy.types import Operator

from .. import (
    compare,
    face_drivings,
    image_plane,
    performance,
    preferences,
    recipes,
    result_files,
    results,
    runtime,
)
from ..names import UserError


def has_result(cls: Any, context: Any) -> bool:
    """A poll: whether it is clear which result is meant."""
    if results.active(context) is not None:
        return True
    every = results.all_results()
    cls.poll_message_set("Select the plane that shows the result" if every else "There is no result yet")
    return False


class LIVEPORTRAIT_OT_apply_result(Operator):
    bl_idname = "liveportrait.apply_result"
    bl_label = "Apply Result"
    bl_description = "Bring a finished result into the file"
    bl_options = {"UNDO", "INTERNAL"}

    landing: StringProperty(options={"HIDDEN", "SKIP_SAVE"})

    def execute(self, context: Any) -> set[str]:
        try:
            landed = results.land(context, results.Landing.from_json(self.landing))
        except UserError as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        if landed.warning:
            self.report({"WARNING"}, landed.warning)
        frames = landed.image.liveportrait.frames
        self.report({"INFO"}, f'"{landed.image.name}": {frames} frame{"" if frames == 1 else "s"}')
        return {"FINISHED"}


class LIVEPORTRAIT_OT_animate_again(Operator):
    bl_idname = "liveportrait.animate_again"
    bl_label = "Animate Again"
    bl_description = "Make this result again from its source and driving, with the options as they are now"

    @classmethod
    def poll(cls, context: Any) -> bool:
        if not has_result(cls, context):
            return False
        reason = runtime.missing()[0]
        if reason:
            cls.poll_message_set(reason)
        return not reason

    def given(self, context: Any) -> dict[str, Any]:
        image = results.active(context)
        source, driving = recipes.wanted(image)
        given = {"source": str(source), "replace": True, "start_frame": image.liveportrait.start_frame}
        made_with = recipes.options_of(image)
        frames, controls = made_with.get("frames"), made_with.get("controls")
        if driving:
            given["driving"] = driving
        if faces := recipes.faces_of(image):
            given["faces"] = json.dumps(faces)
        if controls and not driving and not faces:  # it was made from them alone: they are its driving
            return {**given, "controls_only": True, "options": json.dumps({"controls": controls})}
        if frames and not context.scene.liveportrait.options.as_options().get("frames"):
            given["options"] = json.dumps({"frames": frames})
        return given

    def execute(self, context: Any) -> set[str]:
        return self._run(context, "EXEC_DEFAULT")

    def invoke(self, context: Any, event: Any) -> set[str]:
        return self._run(context, "INVOKE_DEFAULT")

    def _run(self, context: Any, way: str) -> set[str]:
        image, ops = results.active(context), bpy.ops.liveportrait
        try:
            rig = performance.rendered_from(context.scene, image)
            given = self.given(context) if rig is None else {}
        except UserError as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        try:
            if rig is None:
                done = ops.animate(way, **given)
            else:
                with context.temp_override(active_object=rig):
                    done = ops.render_performance(way)
        except RuntimeError as error:  # what animate has reported
            self.report({"ERROR"}, str(error).removeprefix("Error: ").strip())
            return {"CANCELLED"}
        return {"FINISHED"} if done == {"RUNNING_MODAL"} else done


class LIVEPORTRAIT_OT_load_recipe(Operator):
    bl_idname = "liveportrait.load_recipe"
    bl_label = "Load Its Settings"
    bl_description = "Choose the source, driving and options that this result was made with"
    bl_options = {"REGISTER", "UNDO"}

    @classmethod
    def poll(cls, context: Any) -> bool:
        return has_result(cls, context)

    def execute(self, context: Any) -> set[str]:
        image, settings = results.active(context), context.scene.liveportrait
        try:
            source, driving = recipes.wanted(image)
        except UserError as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        settings.source_kind, settings.source_path = "FILE", str(source)
        if driving.startswith(recipes.LIBRARY):
            try:
                settings.driving_library = driving.removeprefix(recipes.LIBRARY)
                settings.driving_kind = "LIBRARY"
            except TypeError:  # a motion that another version had
                self.report({"WARNING"}, f"There is no {driving} any more.")
        elif driving:
            settings.driving_kind, settings.driving_path = "FILE", driving
        options = dict(recipes.options_of(image))
        options.pop("fps", None)  # always the scene's
        controls = options.pop("controls", {})
        for name in settings.options.as_options():
            settings.options.property_unset(name)
        settings.options.set_options(options)
        still = {name: value for name, value in controls.items() if isinstance(value, (int, float))}
        settings.controls.set_controls(still)
        for motion in face_drivings.load(
            context, recipes.faces_of(image), options.get("face", 0) if driving else None
        ):
            self.report({"WARNING"}, f"There is no {motion} any more.")
        return {"FINISHED"}


class LIVEPORTRAIT_OT_compare(Operator):
    bl_idname = "liveportrait.compare"
    bl_label = "Compare Side by Side"
    bl_description = "Show source and driving beside the result, in step with it, or take them away again"
    bl_options = {"REGISTER", "UNDO"}

    @classmethod
    def poll(cls, context: Any) -> bool:
        return has_result(cls, context)

    def execute(self, context: Any) -> set[str]:
        image = results.active(context)
        there = compare.shown(image)
        if there is not None:
            compare.remove(there)
            return {"FINISHED"}
        try:
            compare.build(context.scene, image)
        except UserError as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        return {"FINISHED"}


class LIVEPORTRAIT_OT_select_result(Operator):
    bl_idname = "liveportrait.select_result"
    bl_label = "Select Result"
    bl_description = "Make the object that shows this result the active one"
    bl_options = {"REGISTER", "UNDO"}

    image: StringProperty(name="Image", description="Name of the result's image")

    @classmethod
    def poll(cls, context: Any) -> bool:
        if context.mode != "OBJECT":
            cls.poll_message_set("Only in object mode")
        return context.mode == "OBJECT"

    def execute(self, context: Any) -> set[str]:
        image = bpy.data.images.get(self.image)
        here = context.view_layer.objects
        owners = image_plane.objects_with(image) if image else []
        owner = next((one for one in owners if one.name in here), None)
        if owner is None:
            self.report({"WARNING"}, f'No object of this scene shows "{self.image}".')
            return {"CANCELLED"}
        for other in context.selected_objects:
            other.select_set(False)
        owner.select_set(True)
        here.active = owner
        return {"FINISHED"}


class LIVEPORTRAIT_OT_set_scene_range(Operator):
    bl_idname = "liveportrait.set_scene_range"
    bl_label = "Set Scene Range"
    bl_description = "Let the scene begin and end with this result, as Set Scene Frames does for a movie clip"
    bl_options = {"REGISTER", "UNDO"}

    @classmethod
    def poll(cls, context: Any) -> bool:
        return has_result(cls, context)

    def execute(self, context: Any) -> set[str]:
        scene, (first, last) = context.scene, results.span(results.active(context))
        scene.frame_start, scene.frame_end = max(first, 0), max(last, 0)  # no scene begins before 0
        return {"FINISHED"}


class LIVEPORTRAIT_OT_delete_result(Operator):
    bl_idname = "liveportrait.delete_result"
    bl_label = "Delete Result"
    bl_description = "Take the result out of the file, with its plane, material and sound strip"
    bl_options = {"UNDO"}

    files: BoolProperty(
        name="Pictures on Disk Too",
        description="Also remove its folder of pictures, which undo cannot bring back",
        options={"SKIP_SAVE"},
    )

    @classmethod
    def poll(cls, context: Any) -> bool:
        return has_result(cls, context)

    def invoke(self, context: Any, event: Any) -> set[str]:
        return context.window_manager.invoke_props_dialog(self, width=360, confirm_text="Delete")

    def draw(self, context: Any) -> None:
        image = results.active(context)
        self.layout.label(text=f'Delete "{image.name}"?', icon="TRASH")
        self.layout.prop(self, "files")

    def execute(self, context: Any) -> set[str]:
        name = result_files.delete(results.active(context), self.files)
        self.report({"INFO"}, f'"{name}" is deleted')
        return {"FINISHED"}


class LIVEPORTRAIT_OT_use_standard_view(Operator):
    bl_idname = "liveportrait.use_standard_view"
    bl_label = "Use Standard View Transform"
    bl_description = (
        "Show and render the colours of pictures as they are; this changes the look of the whole scene"
    )
    bl_options = {"REGISTER", "UNDO"}

    @classmethod
    def poll(cls, context: Any) -> bool:
        if context.scene.view_settings.view_transform == "Standard":
            cls.poll_message_set("The scene has it already")
            return False
        return True

    def execute(self, context: Any) -> set[str]:
        view = context.scene.view_settings
        view.view_transform = "Standard"
        view.look = "None"
        return {"FINISHED"}


class LIVEPORTRAIT_OT_note_consent(Operator):
    bl_idname = "liveportrait.note_consent"
    bl_label = "I Understand"
    bl_description = "Do not show this note again"
    bl_options = {"INTERNAL"}

    def execute(self, context: Any) -> set[str]:
        settings = preferences.get()
        if settings is not None:
            settings.consent_seen = True
            context.preferences.is_dirty = True  # written when Blender saves its preferences
        return {"FINISHED"}


CLASSES = (
    LIVEPORTRAIT_OT_apply_result,
    LIVEPORTRAIT_OT_animate_again,
    LIVEPORTRAIT_OT_load_recipe,
    LIVEPORTRAIT_OT_compare,
    LIVEPORTRAIT_OT_select_result,
    LIVEPORTRAIT_OT_set_scene_range,
    LIVEPORTRAIT_OT_delete_result,
    LIVEPORTRAIT_OT_use_standard_view,
    LIVEPORTRAIT_OT_note_consent,
)
