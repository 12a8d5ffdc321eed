# SPDX-License-Identifier: GPL-3.0-or-later
"""The one place where what the backend tells meets Blender: `drain`, called on the main thread.

A timer calls it while there is something to look after; in background mode nothing does, and whoever waits
calls `run_until`. What takes longer than a drain may, such as a result's landing with its undo, is a step of
its own (`in_turn`, `work`): one at a time, and never in the same call as a drain.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

import bpy

from . import runtime
from .names import CATEGORY

BUDGET = 0.010  # seconds of the main thread that a call takes
BUSY_INTERVAL, QUIET_INTERVAL = 0.05, 0.5
LOOK = 0.005  # seconds between two looks of run_until

log = logging.getLogger(__name__)
drawn_from: list[Callable[[], Any]] = []  # more that the panels show: when it changes they are drawn again
watchers: list[Callable[[], None]] = []  # called at every drain; cheap
# The most seconds that one call has taken since `forget_measures`: all of a drain with what it delivers, the
# same without its deliveries, and a step of `work`, which no drain contains.
longest = longest_own = longest_step = 0.0

_draining = _working = False
_steps: list[tuple[Callable[[], None], bool]] = []
_last_shown: Any = None


def drain(budget: float = BUDGET) -> None:
    """Deal with what has come, for about so many seconds. One thing's fault never drops the rest."""
    global _draining, longest, longest_own
    if _draining:  # a delivery that waits for another
        return
    _draining = True
    began, delivering = time.perf_counter(), 0.0
    try:
        for deliver in runtime.session.take(budget):
            at = time.perf_counter()
            _guarded(deliver)
            delivering += time.perf_counter() - at
        for watcher in list(watchers):
            _guarded(watcher)
        _guarded(_show)
    finally:
        _draining = False
        took = time.perf_counter() - began
        longest, longest_own = max(longest, took), max(longest_own, took - delivering)


def in_turn(step: Callable[[], None], changes_file: bool = False) -> None:
    """Call it soon, between two drains. changes_file: not while Blender renders in a job."""
    _steps.append((step, changes_file))


def work() -> bool:
    """Do the next step that may be done now: whether there was one."""
    global _working, longest_step
    rendering = bool(_steps) and _rendering()
    ready = (entry for entry in _steps if not (entry[1] and rendering))
    entry = None if _working or _draining else next(ready, None)
    if entry is None:
        return False
    _steps.remove(entry)
    _working, began = True, time.perf_counter()
    try:
        _guarded(entry[0])
    finally:
        _working = False
        longest_step = max(longest_step, time.perf_counter() - began)
    return True


def _rendering() -> bool:
    return bool(bpy.app.is_job_running("RENDER"))


def run_until(condition: Callable[[], bool], timeout: float) -> bool:
    """Drain and work until a condition holds or so many seconds have passed: whether it holds.

    For execute(), which has to block: no timer runs meanwhile. Ctrl-C ends it.
    """
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            return False
        drain()
        if not work():
            time.sleep(LOOK)
    return True


def start() -> None:
    """See to it that a timer drains, as long as there is something to look after."""
    if not bpy.app.background and not bpy.app.timers.is_registered(_tick):
        bpy.app.timers.register(_tick, first_interval=0.0, persistent=True)


def forget_measures() -> None:
    """Measure anew."""
    global longest, longest_own, longest_step
    longest = longest_own = longest_step = 0.0


def _guarded(function: Callable[[], None]) -> None:
    try:
        function()
    except Exception:  # whatever it is: the next one still gets its turn, and the timer goes on
        log.exception("Something that the backend told could not be dealt with")


def _tick() -> float | None:
    """What the timer calls: seconds until the next call, None for no more."""
    try:
        return _turn()
    except Exception:  # Blender drops a timer that fails, and with it everything that comes after
        log.exception("The backend could not be looked after")
        return QUIET_INTERVAL


def _turn() -> float | None:
    if work():
        return 0.0
    drain()
    if _steps:
        return BUSY_INTERVAL
    if not runtime.session.active and not watchers:
        return None
    busy = runtime.session.state.kind in ("busy", "starting") or bool(watchers)
    return BUSY_INTERVAL if busy else QUIET_INTERVAL


def _show() -> None:
    """Draw the sidebar again if anything that it shows has changed, and nothing else."""
    global _last_shown
    session = runtime.session
    shown = (
        session.state,
        tuple(
            (job.key, job.state, job.stage, round(job.factor, 3), job.text, len(job.warnings))
            for job in session.jobs
        ),
        tuple(function() for function in drawn_from),
    )
    if shown == _last_shown:
        return
    _last_shown = shown
    _mirror()
    for window in getattr(bpy.context.window_manager, "windows", ()):
        for area in window.screen.areas:
            if area.type != "VIEW_3D":
                continue
            for region in area.regions:
                if region.type == "UI" and getattr(region, "active_panel_category", CATEGORY) == CATEGORY:
                    region.tag_redraw()


def _mirror() -> None:
    """Bring the jobs to where lists of the interface find them."""
    settings = getattr(bpy.context.window_manager, "liveportrait", None)
    if settings is not None:
        settings.mirror(runtime.session.jobs)


def unregister() -> None:
    """No timer outlives the add-on."""
    global _last_shown
    if bpy.app.timers.is_registered(_tick):
        bpy.app.timers.unregister(_tick)
    watchers.clear()
    drawn_from.clear()
    _steps.clear()
    _last_shown = None
