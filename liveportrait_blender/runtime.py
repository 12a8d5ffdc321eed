# SPDX-License-Identifier: GPL-3.0-or-later
"""The one session of this Blender, and when it begins and ends. Use `runtime.session`; never keep it.

Nothing starts when the add-on is enabled: the backend starts with the first thing that needs it.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable
from typing import Any

import bpy
from bpy.app.handlers import persistent

from . import compat, names, thumbnails
from .job_records import JobRecord
from .session import Session
from .supervisor import BackendSettings

LOOK_AGAIN = 2.0  # seconds for which the settings of the backend are taken as they were

log = logging.getLogger(__name__)
takers: list[Callable[[JobRecord], None]] = []  # called with each job that has ended, on the main thread

_forget_exit: Callable[[], None] | None = None
_known: BackendSettings | None = None
_seen = float("-inf")


def read_settings() -> BackendSettings:
    """The backend that the preferences name. Never raises."""
    from . import preferences

    return preferences.backend_settings()


def missing() -> tuple[str, str]:
    """(why no backend can be started, the id of an operator that helps); ("", "") if one can. For draw and
    poll: what the preferences say is looked at every two seconds, by a timer where there are timers.
    """
    if session.state.kind not in ("stopped", "failed"):
        return "", ""
    if time.monotonic() - _seen > LOOK_AGAIN:
        if bpy.app.background:
            _look()
        elif not bpy.app.timers.is_registered(_look):
            bpy.app.timers.register(_look, first_interval=0.0)
    if _known is None:
        return "", ""
    if _known.why_not:
        return _known.why_not.rstrip("."), _known.fix
    if _known.local is None and not _known.remote_url:
        return "There is no backend", _known.fix
    return "", ""


def _look() -> None:
    """Look at the preferences and at what is installed, and show what has changed."""
    global _known, _seen
    before, _known, _seen = _known, read_settings(), time.monotonic()
    if _known != before and not bpy.app.background:
        thumbnails.redraw()


def forget_settings() -> None:
    """The preferences or what is installed has changed: look again at once."""
    global _seen
    _seen = float("-inf")


def _tell_end(record: JobRecord) -> None:
    """The takers have their turn after the drain: what they do in the file takes its time."""
    from . import pump

    pump.in_turn(functools.partial(_take_end, record), changes_file=record.state == "done")


def _take_end(record: JobRecord) -> None:
    for taker in list(takers):
        try:
            taker(record)
        except Exception:  # one taker's fault is not the others'
            log.exception("A job's end could not be dealt with")


def _wake() -> None:
    from . import pump

    pump.start()


def _new_session() -> Session:
    return Session(lambda: read_settings(), on_end=_tell_end, wake=_wake)


session = _new_session()


def report(operator: Any, error: Exception) -> set[str]:
    """Show an error as an operator does: a sentence and what to do. The rest is in the log."""
    if isinstance(error, names.UserError):
        said = f"{error.sentence} {error.hint}"
    else:
        said = f"{getattr(error, 'message', error)} {getattr(error, 'hint', '')}"
    log.info("%s: %s", operator.bl_idname, error, exc_info=error)
    operator.report({"ERROR"}, said.strip())
    return {"CANCELLED"}


@persistent
def _before_load(*_: Any) -> None:
    session.detach()


def _close() -> None:
    session.close()


def register() -> None:
    global session, _forget_exit
    session = _new_session()
    forget_settings()
    bpy.app.handlers.load_pre.append(_before_load)
    _forget_exit = compat.install_exit_hook(_close)


def unregister() -> None:
    global _forget_exit, _known
    if bpy.app.timers.is_registered(_look):
        bpy.app.timers.unregister(_look)
    _known = None
    if _forget_exit is not None:
        _forget_exit()
        _forget_exit = None
    if _before_load in bpy.app.handlers.load_pre:
        bpy.app.handlers.load_pre.remove(_before_load)
    session.close()
