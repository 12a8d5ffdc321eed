# SPDX-License-Identifier: GPL-3.0-or-later
"""Where an error says more: the log, the clipboard, the preferences. None of them changes the file."""

import platform
from pathlib import Path
from typing import Any

import bpy
from bpy.types import Operator

from .. import backend_deaths, live_preview, online, preferences, runtime, set_up
from ..names import ROOT_PACKAGE, VERSION

SHOWN = 30  # lines of a log
WIDTH = 900
LOGS = (
    ("BACKEND", "Backend", "What the backend wrote"),
    ("SET_UP", "Set-Up", "What the last set-up wrote"),
)


def log_of(which: str) -> Path:
    """The file of a log; it may not be there."""
    if which == "SET_UP":
        return set_up.log_file()
    return runtime.session.state.log or preferences.log_file()


def is_any() -> bool:
    """Whether there is a log. Looks at files, so it is not for poll, which drawing calls."""
    return any(log_of(which).is_file() for which, _, _ in LOGS)


def newest() -> str:
    """The log that was written to last."""
    files = [(which, log_of(which)) for which, _, _ in LOGS]
    there = [(path.stat().st_mtime, which) for which, path in files if path.is_file()]
    return max(there)[1] if there else "BACKEND"


def trouble() -> str:
    """The present error, as it is shown; "" for none."""
    state = runtime.session.state
    if state.kind in ("failed", "silent"):
        return f"{state.sentence} {state.hint}".strip()
    if set_up.shown.state == "failed":
        return f"{set_up.shown.sentence} {set_up.shown.hint}".strip()
    return next(
        (f"{job.error} {job.hint}".strip() for job in reversed(runtime.session.jobs) if job.error),
        live_preview.error(),
    )


def report_text() -> str:
    """What helps whoever is asked for help. No names of the user's files are added to those in the log."""
    system = f"{platform.system()} {platform.release()} {platform.machine()}"
    programs = f"LivePortrait {VERSION}, Blender {bpy.app.version_string}, Python {platform.python_version()}"
    lines = [
        trouble() or "No error.",
        f"{programs}, {system}",
        f"Backend: {runtime.session.state.kind}, {runtime.session.state.device or 'no device told'}",
    ]
    for which, label, _ in LOGS:
        said = backend_deaths.tail(log_of(which), limit=6000).strip()
        if said:
            lines += ["", f"--- {label}: {log_of(which)}", said]
    return "\n".join(lines)


class LIVEPORTRAIT_OT_show_log(Operator):
    bl_idname = "liveportrait.show_log"
    bl_label = "Show Log"
    bl_description = "Show the end of what the backend or its set-up wrote down"

    which: bpy.props.EnumProperty(name="Log", description="Which log", items=LOGS, options={"SKIP_SAVE"})

    def invoke(self, context: Any, event: Any) -> set[str]:
        if bpy.app.background or context.window is None or not is_any():
            return self.execute(context)
        if not self.properties.is_property_set("which"):
            self.which = newest()
        self._lines = backend_deaths.tail(log_of(self.which)).splitlines()[-SHOWN:]
        return context.window_manager.invoke_popup(self, width=WIDTH)

    def draw(self, context: Any) -> None:
        layout, path = self.layout, log_of(self.which)
        row = layout.row()
        row.label(text=str(path), icon="TEXT")
        row.operator("wm.path_open", text="Open File", icon="FILE_TEXT").filepath = str(path)
        row.operator("liveportrait.copy_error", icon="COPYDOWN")
        column = layout.box().column(align=True)
        column.scale_y = 0.7
        for line in self._lines or ["(empty)"]:
            column.label(text=line[:160], translate=False)

    def execute(self, context: Any) -> set[str]:
        if not is_any():
            self.report({"ERROR"}, "Nothing has been written down yet")
            return {"CANCELLED"}
        which = self.which if self.properties.is_property_set("which") else newest()
        self.report({"INFO"}, f"The log is {log_of(which)}")
        return {"FINISHED"}


class LIVEPORTRAIT_OT_copy_error(Operator):
    bl_idname = "liveportrait.copy_error"
    bl_label = "Copy Error"
    bl_description = "Copy the error, the versions and the end of the logs to the clipboard"

    @classmethod
    def poll(cls, _context: Any) -> bool:
        if not trouble():
            cls.poll_message_set("There is no error")
            return False
        return True

    def execute(self, context: Any) -> set[str]:
        context.window_manager.clipboard = report_text()
        self.report({"INFO"}, "Copied")
        return {"FINISHED"}


class LIVEPORTRAIT_OT_open_preferences(Operator):
    bl_idname = "liveportrait.open_preferences"
    bl_label = "Open Preferences"
    bl_description = "Show the add-on's preferences"

    @classmethod
    def poll(cls, context: Any) -> bool:
        if bpy.app.background:
            cls.poll_message_set("There is no window in background mode")
            return False
        return True

    def execute(self, context: Any) -> set[str]:
        bpy.ops.screen.userpref_show("INVOKE_DEFAULT", section="ADDONS")
        bpy.ops.preferences.addon_show(module=ROOT_PACKAGE)
        return {"FINISHED"}


class LIVEPORTRAIT_OT_enable_online_access(Operator):
    bl_idname = online.FIX
    bl_label = "Enable Online Access"
    bl_description = "Allow Blender and its extensions to use the internet, as in System preferences"

    @classmethod
    def poll(cls, context: Any) -> bool:
        if bpy.app.online_access_override:
            cls.poll_message_set("Launch Blender without --offline-mode")
            return False
        if bpy.app.online_access:
            cls.poll_message_set("Online access is enabled")
            return False
        return True

    def invoke(self, context: Any, event: Any) -> set[str]:
        return context.window_manager.invoke_confirm(self, event)

    def execute(self, context: Any) -> set[str]:
        context.preferences.system.use_online_access = True
        return {"FINISHED"}


CLASSES = (
    LIVEPORTRAIT_OT_show_log,
    LIVEPORTRAIT_OT_copy_error,
    LIVEPORTRAIT_OT_open_preferences,
    LIVEPORTRAIT_OT_enable_online_access,
)
