# SPDX-License-Identifier: GPL-3.0-or-later
"""The backend's work folder: how big it is, and emptying it. Results beside the .blend file are not in it."""

import threading
from typing import Any

from bpy.types import Operator

from .. import own_files, preferences, pump, runtime

OURS = ("work", "uploads", "parts", "pictures", "faces")  # what is made there; nothing else is touched

_size: int | None = None
_measuring: threading.Thread | None = None


def shown_size() -> int | None:
    """Bytes as of the last look, None before the first."""
    return _size


def is_measuring() -> bool:
    return _measuring is not None and _measuring.is_alive()


def measure() -> int:
    """Look through the folder now."""
    global _size
    folder = preferences.cache_folder()
    _size = sum(own_files.size_of(folder / name) for name in OURS)
    return _size


def _remote(operator: Any) -> bool:
    settings = preferences.get()
    if settings is not None and settings.backend == "REMOTE":
        operator.poll_message_set("A remote backend looks after its own cache")
        return True
    return False


class LIVEPORTRAIT_OT_measure_cache(Operator):
    bl_idname = "liveportrait.measure_cache"
    bl_label = "Measure Cache"
    bl_description = "Look how much the backend's cache takes"

    @classmethod
    def poll(cls, context: Any) -> bool:
        return not _remote(cls)

    def invoke(self, context: Any, event: Any) -> set[str]:
        global _measuring
        if not is_measuring():
            _measuring = threading.Thread(target=measure, name="liveportrait-measure", daemon=True)
            _measuring.start()
            pump.watchers.append(_look)
            pump.start()
        return {"FINISHED"}

    def execute(self, context: Any) -> set[str]:
        self.report({"INFO"}, f"The cache takes {measure() / 1e6:,.0f} MB")
        return {"FINISHED"}


def _look() -> None:
    if not is_measuring() and _look in pump.watchers:
        pump.watchers.remove(_look)


class LIVEPORTRAIT_OT_clear_cache(Operator):
    bl_idname = "liveportrait.clear_cache"
    bl_label = "Clear Cache"
    bl_description = (
        "Delete what the backend keeps of its work; results are kept, the next job starts from nothing"
    )

    @classmethod
    def poll(cls, context: Any) -> bool:
        if _remote(cls):
            return False
        if runtime.session.state.kind == "busy":
            cls.poll_message_set("A job is running")
            return False
        return True

    def invoke(self, context: Any, event: Any) -> set[str]:
        return context.window_manager.invoke_confirm(self, event)

    def execute(self, context: Any) -> set[str]:
        folder = preferences.cache_folder()
        before = measure()
        runtime.session.stop()  # it starts again with the next job
        kept = []
        for name in OURS:
            try:
                own_files.remove_inside(folder, folder / name)
            except (OSError, own_files.NotOurs):
                kept.append(name)
        after = measure()
        if kept:
            self.report({"ERROR"}, "Some of the cache is in use; close other Blenders and try again")
            return {"CANCELLED"}
        self.report({"INFO"}, f"{(before - after) / 1e6:,.0f} MB are free")
        return {"FINISHED"}


CLASSES = (LIVEPORTRAIT_OT_measure_cache, LIVEPORTRAIT_OT_clear_cache)


def _told() -> int | None:
    return _size


def register() -> None:
    pump.drawn_from.append(_told)


def unregister() -> None:
    global _size
    _size = None
    for listed, function in ((pump.drawn_from, _told), (pump.watchers, _look)):
        if function in listed:
            listed.remove(function)
