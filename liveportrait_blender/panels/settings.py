# SPDX-License-Identifier: GPL-3.0-or-later
"""The panel about the backend itself: its state, its set-up, the models, the cache; and the preferences."""

from typing import Any

from bpy.types import Panel

from .. import online, preferences, runtime, set_up
from ..operators import cache, models
from .layout import Subpanel, blocked, split, trouble, wrapped


class LIVEPORTRAIT_PT_settings(Subpanel, Panel):
    bl_label = "Settings"
    bl_idname = "LIVEPORTRAIT_PT_settings"
    bl_options = {"DEFAULT_CLOSED"}
    bl_order = 90

    def draw(self, context: Any) -> None:
        draw_backend(self.layout, context)


class LIVEPORTRAIT_PT_models(Subpanel, Panel):
    bl_label = "Models"
    bl_idname = "LIVEPORTRAIT_PT_models"
    bl_parent_id = "LIVEPORTRAIT_PT_settings"
    bl_options = {"DEFAULT_CLOSED"}

    def draw(self, context: Any) -> None:
        draw_models(self.layout, context)


class LIVEPORTRAIT_PT_cache(Subpanel, Panel):
    bl_label = "Cache"
    bl_idname = "LIVEPORTRAIT_PT_cache"
    bl_parent_id = "LIVEPORTRAIT_PT_settings"
    bl_options = {"DEFAULT_CLOSED"}

    def draw(self, context: Any) -> None:
        draw_cache(self.layout, context)


def draw_backend(layout: Any, context: Any, brief: bool = False) -> None:
    """The backend's state, or its set-up while that runs. brief: without what the preferences have anyway."""
    if set_up.is_running():
        draw_set_up(layout, context)
        return
    state = runtime.session.state
    reason, fix = runtime.missing()
    if reason:
        draw_missing(layout, context, reason, fix, brief)
    else:
        wrapped(layout, state.sentence.rstrip("."), context)
        draw_engines(layout, context, state)
        row = layout.row(align=True)
        if state.kind in ("stopped", "failed"):
            start = "Connect" if preferences.is_remote() else "Start"
            row.operator("liveportrait.start_backend", text=start, icon="PLAY")
        else:
            row.operator("liveportrait.stop_backend", text="Stop", icon="SNAP_FACE")
            row.operator("liveportrait.restart_backend", text="Restart", icon="FILE_REFRESH")
            row.operator("liveportrait.free_gpu_memory", text="Free Memory")
    row = layout.row(align=True)
    row.operator("liveportrait.show_log", text="Log", icon="TEXT")
    row.operator("liveportrait.copy_error", text="Copy Error", icon="COPYDOWN")
    if not brief:
        row.operator("liveportrait.open_preferences", text="", icon="PREFERENCES")


def draw_missing(layout: Any, context: Any, reason: str, fix: str, brief: bool = False) -> None:
    """Why there is no backend, and every way to one."""
    if set_up.shown.state in ("failed", "cancelled"):
        trouble(layout, context, set_up.shown.sentence, set_up.shown.hint, "liveportrait.show_log")
    blocked(layout, context, reason, "" if brief and fix == preferences.OPEN else fix)
    if fix != preferences.SET_UP:
        return
    offline, helps = online.missing()
    if offline:
        blocked(layout, context, offline, helps)
    if brief:
        return
    layout.operator("liveportrait.set_up_offline", icon="FILE_ARCHIVE")
    layout.operator("liveportrait.open_preferences", text="Use Another Backend", icon="PREFERENCES")


def draw_set_up(layout: Any, context: Any) -> None:
    """How far the set-up is."""
    shown = set_up.shown
    layout.label(text="Setting up the backend", icon="IMPORT")
    layout.progress(factor=shown.factor, text=shown.label, type="BAR")
    if shown.text:
        layout.label(text=shown.text, translate=False)
    row = layout.row(align=True)
    row.operator("liveportrait.cancel_set_up", text="Cancel", icon="CANCEL")
    row.operator("liveportrait.show_log", text="Log", icon="TEXT").which = "SET_UP"


def draw_engines(layout: Any, context: Any, state: Any) -> None:
    """What the backend can do, as it told."""
    if not state.engines:
        return
    names = {"mesh": "Embedded engine", "neural": "Neural engine"}
    column = layout.column(align=True)
    for name, label in names.items():
        told = state.engines.get(name)
        if not isinstance(told, dict):
            continue
        there = bool(told.get("available"))
        why = "" if there else f": {told.get('why') or 'not available'}"
        wrapped(column, f"{label}{why}", context, "CHECKMARK" if there else "X")


def draw_models(layout: Any, context: Any) -> None:
    """LivePortrait's weights."""
    job = models.downloading()
    listing = models.listing
    if job is not None:
        layout.progress(factor=job.factor, text=job.text, type="BAR")
        layout.operator("liveportrait.cancel_job", icon="CANCEL").job = job.key
        return
    if models.problem:
        trouble(layout, context, models.problem)
    if not listing.known:
        wrapped(
            layout, "The neural engine needs LivePortrait's weights; the embedded one needs none", context
        )
    else:
        column = layout.column(align=True)
        for file in listing.files:
            icon = "CHECKMARK" if file.usable else ("ERROR" if file.state == "damaged" else "RADIOBUT_OFF")
            row = column.row()
            row.label(text=file.name.replace("_", " "), icon=icon, translate=False)
            row.label(text=f"{file.size / 1e6:.0f} MB")
        if listing.verified:
            layout.label(text="Checksums were compared", icon="CHECKMARK")
    if not listing.complete:
        layout.operator("liveportrait.download_models", icon="IMPORT")
        offline, helps = online.missing()
        if offline and not runtime.missing()[0] and preferences.get().backend != "REMOTE":
            blocked(layout, context, offline, helps)
    row = layout.row(align=True)
    row.operator("liveportrait.list_models", text="List", icon="FILE_REFRESH")
    row.operator("liveportrait.verify_models", text="Verify")
    layout.operator("liveportrait.choose_models", icon="FILE_FOLDER")


def draw_cache(layout: Any, context: Any) -> None:
    """What the backend keeps of its work."""
    settings = preferences.get()
    if settings is None:
        return
    split(layout)
    if settings.backend != "REMOTE":
        size = cache.shown_size()
        layout.label(text="Not measured yet" if size is None else f"{size / 1e6:,.0f} MB are in use")
        layout.prop(settings, "cache_limit")
    row = layout.row(align=True)
    row.operator("liveportrait.measure_cache", text="Measure", icon="FILE_REFRESH")
    row.operator("liveportrait.clear_cache", icon="TRASH")


def draw_preferences(settings: Any, layout: Any, context: Any) -> None:
    """The add-on's preferences."""
    split(layout)
    column = layout.column()
    column.row().prop(settings, "backend", expand=True)
    if settings.backend == "PYTHON":
        column.prop(settings, "python_path")
    elif settings.backend == "REMOTE":
        column.prop(settings, "remote_url")
        column.prop(settings, "remote_token")
        column.prop(settings, "remember_token")
        column.prop(settings, "remote_certificate")
    box = layout.box().column()
    draw_backend(box, context, brief=True)
    if settings.backend == "LOCAL" and not set_up.is_running():
        row = box.row(align=True)
        if runtime.missing()[1] != preferences.SET_UP:
            row.operator("liveportrait.set_up_backend", text="Set Up", icon="IMPORT")
        row.operator("liveportrait.set_up_offline", text="From File", icon="FILE_ARCHIVE")
        row.operator("liveportrait.repair_backend", text="Repair", icon="TOOL_SETTINGS")
        row.operator("liveportrait.remove_backend", text="Remove", icon="TRASH")
    if settings.backend != "REMOTE":
        _draw_local(settings, layout.column())
    draw_models(layout.box().column(), context)
    layout.prop(settings, "log_level")
    layout.prop(settings, "auto_start")


def _draw_local(settings: Any, column: Any) -> None:
    column.prop(settings, "device")
    column.prop(settings, "port")
    column.prop(settings, "unload_after")
    for name in ("models_folder", "cache_folder"):
        column.prop(settings, name, placeholder="The extension's own folder")
    column.prop(settings, "cache_limit")
    if runtime.session.state.kind not in ("stopped", "failed"):
        column.label(text="Changes take effect when the backend is restarted", icon="INFO")


CLASSES = (LIVEPORTRAIT_PT_settings, LIVEPORTRAIT_PT_models, LIVEPORTRAIT_PT_cache)
