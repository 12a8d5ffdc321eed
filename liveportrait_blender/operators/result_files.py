# SPDX-License-Identifier: GPL-3.0-or-later
"""Operators on the files of results: bring them along, send them, clean up, show the folder."""

import logging
from pathlib import Path
from typing import Any

import bpy
from bpy.props import BoolProperty, StringProperty
from bpy.types import Operator

from .. import pump, result_files, results, scene_jobs, sending, thumbnails
from ..names import UserError
from .result import has_result

log = logging.getLogger(__name__)


class LIVEPORTRAIT_OT_move_results(Operator):
    # Files do not come back with undo, so this is no step of it; what undo brings back is led to them.
    bl_idname = "liveportrait.move_results"
    bl_label = "Move Results Beside the File"
    bl_description = "Bring the pictures of all results into the folder of the file, so that they go with it"

    save: BoolProperty(
        name="Save",
        description="Save the file afterwards, as the one on the disk knows only the old places",
        options={"HIDDEN", "SKIP_SAVE"},
    )

    @classmethod
    def poll(cls, context: Any) -> bool:
        if result_files.progress() is not None:
            cls.poll_message_set("Results are being moved")
            return False
        if not result_files.outside():
            cls.poll_message_set("All results lie beside the file")
            return False
        if not bpy.data.filepath:
            cls.poll_message_set("Save the file first")
            return False
        return True

    def invoke(self, context: Any, event: Any) -> set[str]:
        self.save = self.save or not bpy.data.is_dirty
        self._asked = not bpy.app.background
        return context.window_manager.invoke_props_dialog(self, width=420, confirm_text="Move")

    def draw(self, context: Any) -> None:
        count = len(result_files.outside())
        what = "1 result lies" if count == 1 else f"{count} results lie"
        self.layout.label(text=f"{what} outside the folder of this file.", icon="INFO")
        place = Path(bpy.data.filepath).parent / results.FOLDER
        self.layout.label(text=f"Move {'it' if count == 1 else 'them'} to {place}?", icon="BLANK1")
        if self.save:
            self.layout.label(text="The file is saved again, to find them there.", icon="BLANK1")

    def execute(self, context: Any) -> set[str]:
        try:
            copying = result_files.begin()
            if getattr(self, "_asked", False):  # Blender goes on meanwhile
                _Watching(copying, self.save).begin()
                return {"FINISHED"}
            copying.wait()
            return _finished(self, copying, self.save)
        except UserError as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}


class LIVEPORTRAIT_OT_finish_move(Operator):
    bl_idname = "liveportrait.finish_move"
    bl_label = "Finish Moving Results"
    bl_description = "Let the file show the results where they were copied to"
    bl_options = {"INTERNAL"}

    save: BoolProperty(options={"HIDDEN", "SKIP_SAVE"})

    def execute(self, context: Any) -> set[str]:
        copying = _Watching.copying
        if copying is None:
            return {"CANCELLED"}
        try:
            return _finished(self, copying, self.save)
        except UserError as error:
            self.report({"WARNING" if copying.cancelled else "ERROR"}, str(error))
            return {"CANCELLED"}


class LIVEPORTRAIT_OT_cancel_move(Operator):
    bl_idname = "liveportrait.cancel_move"
    bl_label = "Cancel Moving Results"
    bl_description = "Leave the results where they are; what was copied is removed"

    @classmethod
    def poll(cls, _context: Any) -> bool:
        if result_files.progress() is None:
            cls.poll_message_set("No results are being moved")
            return False
        return True

    def execute(self, _context: Any) -> set[str]:
        result_files.cancel()
        return {"FINISHED"}


class _Watching:
    """Looks after the copying from the pump, and has it finished between two drains."""

    copying: Any = None

    def __init__(self, copying: Any, save: bool) -> None:
        type(self).copying, self._save = copying, save

    def begin(self) -> None:
        pump.watchers.append(self.look)
        pump.start()

    def look(self) -> None:
        thumbnails.redraw()
        if self.copying.ended:
            pump.watchers.remove(self.look)
            pump.in_turn(self._finish, changes_file=True)

    def _finish(self) -> None:
        try:
            with scene_jobs.window():
                bpy.ops.liveportrait.finish_move("EXEC_DEFAULT", save=self._save)
        except RuntimeError:  # it has reported that, and Blender shows it
            log.info("The results were not moved", exc_info=True)
        finally:
            type(self).copying = None
            thumbnails.redraw()


def _finished(operator: Any, copying: Any, save: bool) -> set[str]:
    """The file shows the copies, and is saved if asked for. Raises UserError."""
    count = result_files.finish(copying)
    moved = f"{count} result{'' if count == 1 else 's'} moved"
    if not save:
        operator.report({"INFO"}, f"{moved}; save the file to keep that")
        return {"FINISHED"}
    try:
        bpy.ops.wm.save_mainfile()
    except RuntimeError as error:  # a full disk, a file that became read-only
        reason = str(error).removeprefix("Error: ").strip()
        operator.report({"ERROR"}, f"{moved}, but the file could not be saved: {reason}")
        return {"FINISHED"}
    operator.report({"INFO"}, f"{moved}, and the file is saved")
    return {"FINISHED"}


class LIVEPORTRAIT_OT_pack_for_sending(Operator):
    bl_idname = "liveportrait.pack_for_sending"
    bl_label = "Pack for Sending"
    bl_description = (
        "Write a zip that holds this file, with all that Blender can pack, and the results beside it; "
        "the open file stays as it is"
    )

    filepath: StringProperty(subtype="FILE_PATH", options={"SKIP_SAVE"})
    filter_glob: StringProperty(default="*.zip", options={"HIDDEN"})
    check_existing: BoolProperty(default=True, options={"HIDDEN"})  # a file that is there is shown in red

    @classmethod
    def poll(cls, context: Any) -> bool:
        if not results.all_results():
            cls.poll_message_set("There is no result yet")
            return False
        return True

    def invoke(self, context: Any, event: Any) -> set[str]:
        name = Path(bpy.data.filepath).stem or "untitled"
        self.filepath = str(Path(bpy.path.abspath("//") or Path.home()) / f"{name}.zip")
        context.window_manager.fileselect_add(self)
        return {"RUNNING_MODAL"}

    def execute(self, context: Any) -> set[str]:
        if not self.filepath:
            self.report({"ERROR"}, "No file is named. Give a filepath.")
            return {"CANCELLED"}
        target = Path(bpy.path.abspath(self.filepath))
        if target.suffix.lower() != ".zip":
            target = target.with_name(f"{target.name}.zip")
        try:
            left_out = sending.pack(target)
        except UserError as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        if left_out:
            names = ", ".join(left_out[:5]) + (f" and {len(left_out) - 5} more" if len(left_out) > 5 else "")
            self.report({"WARNING"}, f"{target.name} is written, without {names}")
        else:
            self.report({"INFO"}, f"{target.name} is written, {target.stat().st_size / 1e6:.1f} MB")
        return {"FINISHED"}


class LIVEPORTRAIT_OT_remove_unused_results(Operator):
    bl_idname = "liveportrait.remove_unused_results"
    bl_label = "Remove Unused Results"
    bl_description = "Remove the pictures of replaced, undone and failed results beside the file"

    @classmethod
    def poll(cls, context: Any) -> bool:
        if not bpy.data.filepath:
            cls.poll_message_set("Save the file first")
        return bool(bpy.data.filepath)

    def invoke(self, context: Any, event: Any) -> set[str]:
        self._folders = [] if result_files.why_not_clean() else result_files.unused()
        if not self._folders:
            return self.execute(context)
        return context.window_manager.invoke_props_dialog(self, width=420, confirm_text="Remove")

    def draw(self, context: Any) -> None:
        folders = self._folders  # drawing looks at no file
        column = self.layout.column(align=True)
        column.label(text="Remove these folders? Undo cannot bring them back.", icon="ERROR")
        for folder in folders[:10]:
            column.label(text=folder.name, icon="FILE_FOLDER", translate=False)
        if len(folders) > 10:
            column.label(text=f"and {len(folders) - 10} more", icon="BLANK1")

    def execute(self, context: Any) -> set[str]:
        why = result_files.why_not_clean()
        if why:
            self.report({"WARNING"}, f"{why}.")
            return {"CANCELLED"}
        folders = result_files.unused()
        freed = sum(result_files.remove(folder) for folder in folders)
        count = f"{len(folders)} unused result{'' if len(folders) == 1 else 's'}"
        self.report({"INFO"}, f"{count} removed, {freed / 1e6:.1f} MB are free")
        return {"FINISHED"}


class LIVEPORTRAIT_OT_show_result_folder(Operator):
    bl_idname = "liveportrait.show_result_folder"
    bl_label = "Show Folder"
    bl_description = "Open the folder with the result's pictures"

    @classmethod
    def poll(cls, context: Any) -> bool:
        return has_result(cls, context)

    def execute(self, context: Any) -> set[str]:
        folder = results.folder_of(results.active(context))
        if not folder.is_dir():
            self.report({"ERROR"}, f"The folder is not there: {folder}. Put it back, or animate again.")
            return {"CANCELLED"}
        return bpy.ops.wm.path_open(filepath=str(folder))


def unregister() -> None:
    _Watching.copying = None


CLASSES = (
    LIVEPORTRAIT_OT_move_results,
    LIVEPORTRAIT_OT_finish_move,
    LIVEPORTRAIT_OT_cancel_move,
    LIVEPORTRAIT_OT_pack_for_sending,
    LIVEPORTRAIT_OT_remove_unused_results,
    LIVEPORTRAIT_OT_show_result_folder,
)
