# SPDX-License-Identifier: GPL-3.0-or-later
"""The set-up that runs in this Blender, if one does: begins it, shows how far it is, tells when it ends."""

from __future__ import annotations

from pathlib import Path

import bpy

from . import paths, preferences, pump, runtime
from .names import UserError
from .setup_runner import Job, Progress, Runner

_runner: Runner | None = None
shown = Progress()  # what the panels show; as of the last look


def is_running() -> bool:
    return _runner is not None and not _runner.progress.ended


def lines() -> list[str]:
    """The last lines that the set-up wrote."""
    return list(_runner.lines) if _runner is not None else []


def log_file() -> Path:
    return paths.user_folder("logs") / "set-up.log"


def begin(profile: str, offline: Path | None = None, again: bool = False) -> None:
    """Begin a set-up; returns at once. Raises UserError."""
    global _runner
    if is_running():
        raise UserError("The backend is being set up.", "Wait for its end, or cancel it.")
    try:
        code = paths.backend_code()
    except FileNotFoundError as error:
        raise UserError("The backend's code is missing.", "Reinstall the extension.") from error
    _runner = Runner(Job(profile, paths.user_folder(), code / "requirements", code, offline, again=again))
    _runner.start()
    look()
    runtime.forget_settings()
    if look not in pump.watchers:
        pump.watchers.append(look)
    if _told not in pump.drawn_from:
        pump.drawn_from.append(_told)
    pump.start()


def cancel() -> None:
    """End it soon."""
    if _runner is not None:
        _runner.cancel()


def wait(timeout: float | None = None) -> Progress:
    """Wait for its end: how it went."""
    if _runner is not None:
        _runner.wait(timeout)
    look()
    return shown


def look() -> None:
    """See how far it is; every so often, while it runs."""
    global shown
    if _runner is None:
        return
    ended, before = shown.ended, _told()
    shown = _runner.progress
    if _told() != before:
        _redraw_preferences()
    if shown.ended and not ended:
        runtime.forget_settings()
        if look in pump.watchers:
            pump.watchers.remove(look)
        if shown.state == "done":
            _change_over()


def _change_over() -> None:
    """A backend that runs out of the environment that was replaced would lack its files; its jobs go on."""
    settings = preferences.get()
    local = settings is not None and settings.backend == "LOCAL"
    if not local or runtime.session.state.kind in ("stopped", "failed"):
        return
    try:
        runtime.session.restart()
    except UserError as error:
        runtime.log.warning("The backend was not started again: %s", error)


def _redraw_preferences() -> None:
    """The pump draws the sidebar anew, and only that."""
    for window in getattr(bpy.context.window_manager, "windows", ()):
        for area in window.screen.areas:
            if area.type == "PREFERENCES":
                area.tag_redraw()


def _told() -> tuple[str, str, str, int]:
    return shown.state, shown.label, shown.text, int(shown.factor * 200)


def unregister() -> None:
    """Blender quits or the add-on is disabled: a set-up ends, and goes on at the next try."""
    global _runner, shown
    if _runner is not None:
        _runner.cancel()
        _runner.wait(5.0)
    _runner, shown = None, Progress()
