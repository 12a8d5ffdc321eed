# SPDX-License-Identifier: GPL-3.0-or-later
"""Shape keys that follow a performance: matching, the list of entries, drivers, presets and files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import bpy
from bpy.types import Operator
from bpy_extras.io_utils import ExportHelper, ImportHelper

from .. import runtime, shape_key_drivers, shape_key_mapping, shape_key_presets
from ..names import UserError
from ..properties.shape_keys import channel_names
from ..shape_key_report import listed


class OnMesh:
    """Works on the mesh whose mapping the panel shows."""

    @classmethod
    def poll(cls, context: Any) -> bool:
        if shape_key_mapping.active(context) is None:
            cls.poll_message_set(shape_key_mapping.why_no_target(context) or "Make one of the meshes active")
            return False
        return True

    def execute(self, context: Any) -> set[str]:
        try:
            said = self.act(context, shape_key_mapping.active(context))
        except UserError as error:
            return runtime.report(self, error)
        if said:
            self.report({"INFO"}, said)
        return {"FINISHED"}


class OnMeshes:
    """Works on all selected meshes with shape keys."""

    @classmethod
    def poll(cls, context: Any) -> bool:
        reason = shape_key_mapping.why_no_target(context)
        if reason:
            cls.poll_message_set(reason)
        return not reason

    def for_each(self, context: Any, act: Callable[[Any], list[str]]) -> set[str]:
        """Run `act` on each; what one mesh cannot do is a warning, an error if none can."""
        errors, done = [], 0
        for item in shape_key_mapping.targets(context):
            try:
                for sentence in act(item):
                    self.report({"INFO"}, sentence)
                done += 1
            except UserError as error:
                errors.append(error)
        if errors and not done:
            return runtime.report(self, errors[0])
        for error in errors:
            self.report({"WARNING"}, str(error))
        return {"FINISHED"}


class LIVEPORTRAIT_OT_match_shape_keys(OnMeshes, Operator):
    bl_idname = "liveportrait.match_shape_keys"
    bl_label = "Match by Name"
    bl_description = "List which channel moves each shape key, as far as its name tells"
    bl_options = {"REGISTER", "UNDO"}

    start_over: bpy.props.BoolProperty(
        name="Start Over", description="Forget the entries that are there instead of keeping them"
    )

    def execute(self, context: Any) -> set[str]:
        rig = shape_key_mapping.default_rig(context)

        def act(item: Any) -> list[str]:
            report = shape_key_mapping.match(item, self.start_over)
            shape_key_mapping.use_rig(item, rig)
            if not report.matched:
                raise UserError(
                    f'No name of the shape keys of "{item.name}" is known.', "Add entries, or load a preset."
                )
            first, *rest = report.sentences()
            return [f'"{item.name}": {first}', *rest]

        return self.for_each(context, act)


class LIVEPORTRAIT_OT_drive_shape_keys(OnMeshes, Operator):
    bl_idname = "liveportrait.drive_shape_keys"
    bl_label = "Drive Shape Keys"
    bl_description = "Let the shape keys of the selected meshes follow the performance"
    bl_options = {"REGISTER", "UNDO"}

    replace: bpy.props.BoolProperty(
        name="Replace", description="Take away other drivers of these shape keys, which are kept otherwise"
    )

    def execute(self, context: Any) -> set[str]:
        items = shape_key_mapping.targets(context)
        rig = shape_key_mapping.default_rig(context)
        for item in items:
            if item.library is None:
                shape_key_mapping.use_rig(item, rig)
        try:
            reports = shape_key_drivers.drive_all(items, self.replace)
        except UserError as error:
            return runtime.report(self, error)
        for report in reports:
            kind = {"WARNING"} if report.is_warning else {"INFO"}
            for sentence in report.sentences():
                self.report(kind, sentence)
        return {"FINISHED"}


class LIVEPORTRAIT_OT_undrive_shape_keys(OnMeshes, Operator):
    bl_idname = "liveportrait.undrive_shape_keys"
    bl_label = "Remove Drivers"
    bl_description = "Set the shape keys of the selected meshes free; other drivers stay"
    bl_options = {"REGISTER", "UNDO"}

    keep_values: bpy.props.BoolProperty(
        name="Keep Face", description="Leave the face as it is at this frame instead of at rest", default=True
    )

    def execute(self, context: Any) -> set[str]:
        def act(item: Any) -> list[str]:
            count = len(shape_key_drivers.undrive(item, self.keep_values))
            return [f'"{item.name}": {count} shape keys are free']

        return self.for_each(context, act)


class LIVEPORTRAIT_OT_mirror_shape_keys(OnMeshes, Operator):
    bl_idname = "liveportrait.mirror_shape_keys"
    bl_label = "Swap Left and Right"
    bl_description = (
        "Let every entry take the other side's channel, for mirrored footage; again takes it back"
    )
    bl_options = {"REGISTER", "UNDO"}

    def execute(self, context: Any) -> set[str]:
        def act(item: Any) -> list[str]:
            shape_key_mapping.mirror(item)
            return []

        return self.for_each(context, act)


class LIVEPORTRAIT_OT_add_shape_key_entry(OnMesh, Operator):
    bl_idname = "liveportrait.add_shape_key_entry"
    bl_label = "Add Entry"
    bl_description = "Add an entry for the active shape key, or the next one that has none"
    bl_options = {"REGISTER", "UNDO"}

    def act(self, context: Any, item: Any) -> str:
        shape_key_mapping.add_empty(item)
        shape_key_mapping.use_rig(item, shape_key_mapping.default_rig(context))
        return ""


class WithEntry(OnMesh):
    """Works on the active entry of the list."""

    @classmethod
    def poll(cls, context: Any) -> bool:
        if not super().poll(context):
            return False
        settings = shape_key_mapping.active(context).liveportrait.shape_keys
        if not 0 <= settings.active < len(settings.entries):
            cls.poll_message_set("The list is empty")
            return False
        return True


class LIVEPORTRAIT_OT_remove_shape_key_entry(WithEntry, Operator):
    bl_idname = "liveportrait.remove_shape_key_entry"
    bl_label = "Remove Entry"
    bl_description = "Take the active entry out of the list, with its driver"
    bl_options = {"REGISTER", "UNDO"}

    def act(self, context: Any, item: Any) -> str:
        gone = shape_key_mapping.remove(item, item.liveportrait.shape_keys.active)
        return "" if gone else "The entry comes from a library, so it was switched off instead"


class LIVEPORTRAIT_OT_move_shape_key_entry(WithEntry, Operator):
    bl_idname = "liveportrait.move_shape_key_entry"
    bl_label = "Move Entry"
    bl_description = "Move the active entry in the list; of one shape key's entries the first gives the range"
    bl_options = {"REGISTER", "UNDO"}

    direction: bpy.props.EnumProperty(
        name="Direction",
        description="Which way",
        items=(("UP", "Up", "Towards the top"), ("DOWN", "Down", "Towards the bottom")),
    )

    def act(self, context: Any, item: Any) -> str:
        way = -1 if self.direction == "UP" else 1
        shape_key_mapping.move(item, item.liveportrait.shape_keys.active, way)
        return ""


class LIVEPORTRAIT_OT_clear_shape_key_entries(WithEntry, Operator):
    bl_idname = "liveportrait.clear_shape_key_entries"
    bl_label = "Clear List"
    bl_description = "Take all entries out of the list, with their drivers"
    bl_options = {"REGISTER", "UNDO"}

    def act(self, context: Any, item: Any) -> str:
        left = shape_key_mapping.clear(item)
        return f"{left} entries come from a library, so they were switched off instead" if left else ""


def load(context: Any, item: Any, path: Path) -> str:
    """Give a mesh the mapping of a file; what to tell."""
    taken, missing = shape_key_mapping.load(item, shape_key_presets.read(path, channel_names()))
    shape_key_mapping.use_rig(item, shape_key_mapping.default_rig(context))
    left = f"; not on the mesh: {listed(missing)}" if missing else ""
    return f'"{item.name}": {taken} entries of {path.stem}{left}'


class LIVEPORTRAIT_OT_load_shape_key_preset(OnMesh, Operator):
    bl_idname = "liveportrait.load_shape_key_preset"
    bl_label = "Load Shape Key Preset"
    bl_description = "Take the entries of a preset instead of those in the list"
    bl_options = {"REGISTER", "UNDO"}

    preset: bpy.props.StringProperty(name="Preset", description="Its name")

    def act(self, context: Any, item: Any) -> str:
        return load(context, item, shape_key_presets.find(self.preset))


class LIVEPORTRAIT_OT_save_shape_key_preset(WithEntry, Operator):
    bl_idname = "liveportrait.save_shape_key_preset"
    bl_label = "Save Shape Key Preset"
    bl_description = "Keep this list under a name, for other meshes and files"
    bl_options = {"REGISTER"}

    preset: bpy.props.StringProperty(name="Name", description="What the preset is called", default="My Head")

    def invoke(self, context: Any, _event: Any) -> set[str]:
        return context.window_manager.invoke_props_dialog(self)

    def act(self, context: Any, item: Any) -> str:
        path = shape_key_presets.path_of(self.preset)
        shape_key_presets.write(path, item.liveportrait.shape_keys.entries, path.stem)
        return f'"{path.stem}" saved'


class LIVEPORTRAIT_OT_remove_shape_key_preset(Operator):
    bl_idname = "liveportrait.remove_shape_key_preset"
    bl_label = "Remove Shape Key Preset"
    bl_description = "Delete one of your presets"
    bl_options = {"REGISTER"}

    preset: bpy.props.StringProperty(name="Preset", description="Its name")

    def invoke(self, context: Any, event: Any) -> set[str]:
        return context.window_manager.invoke_confirm(self, event)

    def execute(self, context: Any) -> set[str]:
        path = shape_key_presets.own().get(self.preset)
        if path is None:
            error = UserError(f'You have no preset "{self.preset}".', "Those that come along stay.")
            return runtime.report(self, error)
        path.unlink(missing_ok=True)
        self.report({"INFO"}, f'"{self.preset}" removed')
        return {"FINISHED"}


class LIVEPORTRAIT_OT_export_shape_key_mapping(WithEntry, ExportHelper, Operator):
    bl_idname = "liveportrait.export_shape_key_mapping"
    bl_label = "Export Shape Key Mapping"
    bl_description = "Write this list as a JSON file"
    bl_options = set()

    filename_ext = ".json"
    filter_glob: bpy.props.StringProperty(default="*.json", options={"HIDDEN"})

    def act(self, context: Any, item: Any) -> str:
        path = Path(bpy.path.abspath(self.filepath))
        path = path if path.suffix.lower() == ".json" else path.with_name(path.name + ".json")
        shape_key_presets.write(path, item.liveportrait.shape_keys.entries, item.name)
        return f"{path.name} written"


class LIVEPORTRAIT_OT_import_shape_key_mapping(OnMesh, ImportHelper, Operator):
    bl_idname = "liveportrait.import_shape_key_mapping"
    bl_label = "Import Shape Key Mapping"
    bl_description = "Take the entries of a JSON file instead of those in the list"
    bl_options = {"REGISTER", "UNDO"}

    filename_ext = ".json"
    filter_glob: bpy.props.StringProperty(default="*.json", options={"HIDDEN"})

    def act(self, context: Any, item: Any) -> str:
        return load(context, item, Path(bpy.path.abspath(self.filepath)))


CLASSES = (
    LIVEPORTRAIT_OT_match_shape_keys,
    LIVEPORTRAIT_OT_drive_shape_keys,
    LIVEPORTRAIT_OT_undrive_shape_keys,
    LIVEPORTRAIT_OT_mirror_shape_keys,
    LIVEPORTRAIT_OT_add_shape_key_entry,
    LIVEPORTRAIT_OT_remove_shape_key_entry,
    LIVEPORTRAIT_OT_move_shape_key_entry,
    LIVEPORTRAIT_OT_clear_shape_key_entries,
    LIVEPORTRAIT_OT_load_shape_key_preset,
    LIVEPORTRAIT_OT_save_shape_key_preset,
    LIVEPORTRAIT_OT_remove_shape_key_preset,
    LIVEPORTRAIT_OT_export_shape_key_mapping,
    LIVEPORTRAIT_OT_import_shape_key_mapping,
)
