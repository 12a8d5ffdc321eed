# SPDX-License-Identifier: GPL-3.0-or-later
"""The one session of this Blender, and when it begins and ends. Use `runtime.session`; never keep it.

Nothing starts when the add-on is enabled: the backend starts with the first thing that needs it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

import bpy
from bpy.app.handlers import persistent

from . import compat, names
from .job_records import JobRecord
from .session import Session
from .supervisor import BackendSettings

LOOK_AGAIN = 2.0  # seconds for which the settings of the backend are taken as they were

log = logging.getLogger(__name__)
takers: list[Callable[[JobRecord], None]] = []  # called with each job that has ended, on the main thread

_forget_exit: Callable[[], None] | None = None
_known: tuple[float, BackendSettings] = (float("-inf"), BackendSettings())


def read_settings() -> BackendSettings:
    """The backend that the preferences name. Never raises."""
    from . import preferences

    return preferences.backend_settings()


def missing() -> tuple[str, str]:
    """(why no backend can be started, the id of an operator that helps); ("", "") if one can. For draw and
    poll: what the preferences say is looked at every two seconds.
    """
    global _known
    if session.state.kind not in ("stopped", "failed"):
        return "", ""
    when, settings = _known
    if time.monotonic() - when > LOOK_AGAIN:
        settings = read_settings()
        _known = time.monotonic(), settings
    if settings.why_not:
        return settings.why_not.rstrip("."), settings.fix
    if settings.local is None and not settings.remote_url:
        return "There is no backend", settings.fix
    return "", ""


def forget_settings() -> None:
    """The preferences or what is installed has changed: look again at once."""
    global _known
    _known = float("-inf"), BackendSettings()


def _tell_end(record: JobRecord) -> None:
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
    global _forget_exit
    if _forget_exit is not None:
        _forget_exit()
        _forget_exit = None
    if _before_load in bpy.app.handlers.load_pre:
        bpy.app.handlers.load_pre.remove(_before_load)
    session.close()
