# SPDX-License-Identifier: GPL-3.0-or-later
"""Set up, repair and remove the backend; start, stop and restart it. None of them changes the file, so none
has an undo step.
"""

from pathlib import Path
from typing import Any

import bpy
from bpy.types import Operator

from .. import backend_deaths, environments, online, paths, preferences, pump, runtime, set_up
from ..dialogs import WIDTH, paragraph
from ..names import UserError
from ..setup_plan import PROFILES, has_nvidia

HIDDEN = {"SKIP_SAVE", "HIDDEN"}
NO_REPAIR = "There is nothing to repair: the backend is not set up yet"


def _refuse(operator: Any, reason: str) -> bool:
    operator.poll_message_set(reason.rstrip("."))
    return False


class _SettingUp:
    """What the operators share that begin a set-up. In background mode and from scripts they wait for it."""

    _from_button = False

    def begin(self, profile: str, offline: Path | None = None, again: bool = False) -> set[str]:
        try:
            if environments.look(paths.user_folder()).kind != "absent":
                runtime.session.stop()  # Windows cannot replace what runs
            set_up.begin(profile, offline, again)
        except UserError as error:
            return runtime.report(self, error)
        if self._from_button and not bpy.app.background:
            return {"FINISHED"}
        told = set_up.wait()
        if told.state != "done":
            self.report({"ERROR"}, f"{told.sentence} {told.hint}".strip())
            return {"CANCELLED"}
        self.report({"INFO"}, told.sentence)
        return {"FINISHED"}


class LIVEPORTRAIT_OT_set_up_backend(_SettingUp, Operator):
    bl_idname = "liveportrait.set_up_backend"
    bl_label = "Set Up Backend"
    bl_description = "Download and install what animates portraits, in a folder of the extension's own"

    profile: bpy.props.EnumProperty(
        name="Engine", description="What to install", items=preferences.PROFILE_ITEMS, options={"SKIP_SAVE"}
    )

    @classmethod
    def poll(cls, context: Any) -> bool:
        if set_up.is_running():
            return _refuse(cls, "The backend is being set up")
        reason, _ = online.missing()
        return _refuse(cls, reason) if reason else True

    def invoke(self, context: Any, event: Any) -> set[str]:
        self._from_button = True
        settings = preferences.get()
        if settings is not None and not self.properties.is_property_set("profile"):
            self.profile = settings.profile
        self._graphics = has_nvidia()
        return context.window_manager.invoke_props_dialog(self, width=WIDTH)

    def draw(self, context: Any) -> None:
        profile = PROFILES[self.profile]
        layout = self.layout
        layout.prop(self, "profile")
        box = layout.box().column(align=True)
        paragraph(box, f"{profile.description}.")
        box.label(text=f"Size: {profile.sizes}", icon="IMPORT")
        box.label(text=f"Place: {paths.user_folder()}", icon="FILE_FOLDER")
        if not profile.measured:
            box.label(text="The size is an estimate: it depends on the graphics card's driver", icon="INFO")
        if self.profile == "neural-cuda" and not self._graphics:
            box.label(text="No NVIDIA driver was found on this machine", icon="ERROR")
        paragraph(
            layout,
            "Packages come from Python's package index, under their own licences; those of PyTorch from "
            "PyTorch's. Nothing else on this machine is changed, and Remove Backend takes all of it away.",
        )

    def execute(self, context: Any) -> set[str]:
        settings = preferences.get()
        if settings is not None:
            settings.profile, settings.backend = self.profile, "LOCAL"
        return self.begin(self.profile)


class LIVEPORTRAIT_OT_set_up_offline(_SettingUp, Operator):
    bl_idname = "liveportrait.set_up_offline"
    bl_label = "Set Up from File"
    bl_description = "Install the backend from the offline file of this version, without the internet"

    filepath: bpy.props.StringProperty(
        name="Offline File",
        description="liveportrait-offline-...zip",
        subtype="FILE_PATH",
        options={"SKIP_SAVE"},
    )
    filter_glob: bpy.props.StringProperty(default="*.zip", options=HIDDEN)

    @classmethod
    def poll(cls, context: Any) -> bool:
        return _refuse(cls, "The backend is being set up") if set_up.is_running() else True

    def invoke(self, context: Any, event: Any) -> set[str]:
        self._from_button = True
        context.window_manager.fileselect_add(self)
        return {"RUNNING_MODAL"}

    def execute(self, context: Any) -> set[str]:
        settings = preferences.get()
        if settings is not None:
            settings.backend = "LOCAL"
        return self.begin("mesh", Path(bpy.path.abspath(self.filepath)))


class LIVEPORTRAIT_OT_cancel_set_up(Operator):
    bl_idname = "liveportrait.cancel_set_up"
    bl_label = "Cancel Set-Up"
    bl_description = "End the set-up; what has been downloaded is kept for the next time"

    @classmethod
    def poll(cls, context: Any) -> bool:
        return True if set_up.is_running() else _refuse(cls, "No set-up is running")

    def execute(self, context: Any) -> set[str]:
        set_up.cancel()
        return {"FINISHED"}


class LIVEPORTRAIT_OT_repair_backend(_SettingUp, Operator):
    bl_idname = "liveportrait.repair_backend"
    bl_label = "Repair Backend"
    bl_description = "Install the backend anew; the one that is there stays until the new one works"

    @classmethod
    def poll(cls, context: Any) -> bool:
        if set_up.is_running():
            return _refuse(cls, "The backend is being set up")
        if runtime.missing()[1] == backend_deaths.SET_UP:  # drawing calls this, so it looks at no file
            return _refuse(cls, NO_REPAIR)
        reason, _ = online.missing()
        return _refuse(cls, reason) if reason else True

    def invoke(self, context: Any, event: Any) -> set[str]:
        self._from_button = True
        return context.window_manager.invoke_confirm(self, event)

    def execute(self, context: Any) -> set[str]:
        found = environments.look(paths.user_folder())
        if found.kind == "absent":
            self.report({"ERROR"}, NO_REPAIR)
            return {"CANCELLED"}
        settings = preferences.get()
        profile = found.made.profile if found.made is not None else (settings.profile if settings else "mesh")
        return self.begin(profile if profile in PROFILES else "mesh", again=True)


class LIVEPORTRAIT_OT_remove_backend(Operator):
    bl_idname = "liveportrait.remove_backend"
    bl_label = "Remove Backend"
    bl_description = "Delete what Set Up Backend and Download Models have brought; results are kept"

    environment: bpy.props.BoolProperty(
        name="Programs", description="The environment, and all that was fetched to make it", default=True
    )
    models: bpy.props.BoolProperty(name="Models", description="The downloaded weights", default=True)
    cache: bpy.props.BoolProperty(
        name="Cache", description="Rendered frames that the backend keeps", default=True
    )

    @classmethod
    def poll(cls, context: Any) -> bool:
        if set_up.is_running():
            return _refuse(cls, "The backend is being set up; cancel that first")
        return True

    def invoke(self, context: Any, event: Any) -> set[str]:
        self._found = _takes()
        if not self._found:
            self.report({"INFO"}, "There is nothing to remove")
            return {"CANCELLED"}
        return context.window_manager.invoke_props_dialog(self, width=WIDTH)

    def draw(self, context: Any) -> None:
        layout = self.layout
        layout.label(text="This deletes, for good:")
        for name in ("environment", "models", "cache"):
            size = sum(size for what, _, size in self._found if _group(what) == name)
            row = layout.row()
            row.enabled = size > 0
            row.prop(self, name)
            row.label(text=f"{size / 1e6:,.0f} MB" if size else "nothing")
        layout.label(text=f"All of it lies in {paths.user_folder()}")
        paragraph(layout, "Results, and folders of your own, stay.")

    def execute(self, context: Any) -> set[str]:
        runtime.session.stop()
        chosen = [path for what, path, _ in _takes() if getattr(self, _group(what))]
        kept = environments.remove(paths.user_folder(), chosen)
        runtime.forget_settings()
        if kept:
            self.report(
                {"ERROR"}, f"Some could not be removed: {', '.join(kept)}. Close other Blenders, try again"
            )
            return {"CANCELLED"}
        self.report({"INFO"}, "Removed" if chosen else "There was nothing to remove")
        return {"FINISHED"}


def _takes() -> list[tuple[str, Path, int]]:
    folder = paths.user_folder()
    return environments.takes(folder, preferences.models_folder(), preferences.cache_folder())


def _group(what: str) -> str:
    return "environment" if what == "backend" else what


# --- running ------------------------------------------------------------------------------------------------


class LIVEPORTRAIT_OT_start_backend(Operator):
    bl_idname = "liveportrait.start_backend"
    bl_label = "Start Backend"
    bl_description = "Start the backend, or connect to it; it also starts by itself when it is needed"

    wait: bpy.props.FloatProperty(
        name="Wait", description="Seconds to wait until it is ready", min=0.0, options=HIDDEN
    )

    @classmethod
    def poll(cls, context: Any) -> bool:
        if runtime.session.state.kind in ("starting", "ready", "busy"):
            return _refuse(cls, "The backend is running")
        reason, _ = runtime.missing()
        return _refuse(cls, reason) if reason else True

    def execute(self, context: Any) -> set[str]:
        session = runtime.session
        try:
            session.ensure()
        except UserError as error:
            return runtime.report(self, error)
        wait = self.wait or (120.0 if bpy.app.background else 0.0)
        if wait:
            pump.run_until(lambda: session.state.kind not in ("starting", "stopped"), wait)
            if session.state.kind not in ("ready", "busy"):
                state = session.state
                self.report({"ERROR"}, f"{state.sentence} {state.hint}".strip())
                return {"CANCELLED"}
        return {"FINISHED"}

    def invoke(self, context: Any, event: Any) -> set[str]:
        if not bpy.app.background:
            self.wait = 0.0
        return self.execute(context)


class LIVEPORTRAIT_OT_stop_backend(Operator):
    bl_idname = "liveportrait.stop_backend"
    bl_label = "Stop Backend"
    bl_description = "End the backend and its jobs; finished frames are kept"

    @classmethod
    def poll(cls, context: Any) -> bool:
        return True if runtime.session.state.kind != "stopped" else _refuse(cls, "The backend is not running")

    def invoke(self, context: Any, event: Any) -> set[str]:
        if runtime.session.state.kind == "busy":
            return context.window_manager.invoke_confirm(self, event)
        return self.execute(context)

    def execute(self, context: Any) -> set[str]:
        runtime.session.stop()
        pump.drain()
        return {"FINISHED"}


class LIVEPORTRAIT_OT_restart_backend(Operator):
    bl_idname = "liveportrait.restart_backend"
    bl_label = "Restart Backend"
    bl_description = (
        "End the backend at once, even if it hangs, and start it again; jobs go on where they were"
    )

    @classmethod
    def poll(cls, context: Any) -> bool:
        if runtime.session.state.kind == "stopped":
            return _refuse(cls, "The backend is not running")
        return True

    def execute(self, context: Any) -> set[str]:
        try:
            runtime.session.restart()
        except UserError as error:
            return runtime.report(self, error)
        return {"FINISHED"}


CLASSES = (
    LIVEPORTRAIT_OT_set_up_backend,
    LIVEPORTRAIT_OT_set_up_offline,
    LIVEPORTRAIT_OT_cancel_set_up,
    LIVEPORTRAIT_OT_repair_backend,
    LIVEPORTRAIT_OT_remove_backend,
    LIVEPORTRAIT_OT_start_backend,
    LIVEPORTRAIT_OT_stop_backend,
    LIVEPORTRAIT_OT_restart_backend,
)


def _start_with_blender() -> None:
    settings = preferences.get()
    if settings is None or not settings.auto_start or runtime.missing()[0]:
        return
    try:
        runtime.session.ensure()
    except UserError as error:
        runtime.log.info("The backend is not started with Blender: %s", error)


def register() -> None:
    if not bpy.app.background:
        bpy.app.timers.register(_start_with_blender, first_interval=1.0, persistent=True)


def unregister() -> None:
    if bpy.app.timers.is_registered(_start_with_blender):
        bpy.app.timers.unregister(_start_with_blender)
