# SPDX-License-Identifier: GPL-3.0-or-later
"""Registers everything that Blender has to know, in one order, and takes it back in the reverse order.

A module of MODULES may have `CLASSES`, a tuple of classes to register, and `register()` and `unregister()`
for what is not a class: pointers on Blender's types, handlers, menus, timers.
"""

from __future__ import annotations

import importlib
import logging
from types import ModuleType

import bpy

MODULES: tuple[str, ...] = (
    "properties.options",
    "properties.controls",
    "properties.face_drivings",
    "properties.scene",
    "properties.rig",
    "properties.shape_keys",
    "properties.calibration",
    "properties.objects",
    "properties.result",
    "properties.session",
    "runtime",
    "pump",
    "set_up",
    "preferences",
    "operators.backend",
    "operators.models",
    "operators.cache",
    "operators.help",
    "result_files",
    "reloading",
    "operators.result",
    "operators.result_files",
    "operators.animate",
    "operators.preview",
    "operators.performance",
    "operators.shape_keys",
    "operators.calibration",
    "operators.bake",
    "operators.exchange",
    "thumbnails",
    "operators.source",
    "operators.driving",
    "operators.drop",
    "operators.faces",
    "operators.view",
    "operators.presets",
    "panels.main",
    "panels.source",
    "panels.driving",
    "panels.animate",
    "panels.result",
    "panels.options",
    "panels.controls",
    "panels.performance",
    "panels.shape_keys",
    "panels.calibration",
    "panels.bake",
    "panels.jobs",
    "command",
    "panels.settings",
)

log = logging.getLogger(__name__)
_registered: list[ModuleType] = []


def register() -> None:
    """Register all of MODULES; if one fails, those before it are taken back and its error is raised."""
    if _registered:
        return
    for name in MODULES:
        module = importlib.import_module(f".{name}", __package__)
        done: list[type] = []
        try:
            for class_ in getattr(module, "CLASSES", ()):
                bpy.utils.register_class(class_)
                done.append(class_)
            if hasattr(module, "register"):
                module.register()
        except Exception:  # whatever it was: leave nothing behind, then let it be seen
            for class_ in reversed(done):
                bpy.utils.unregister_class(class_)
            unregister()
            raise
        _registered.append(module)


def unregister() -> None:
    """Take back what was registered, last first. One module's fault does not keep the others registered."""
    while _registered:
        module = _registered.pop()
        try:
            if hasattr(module, "unregister"):
                module.unregister()
        except Exception:  # the rest has to go all the same
            log.exception("Could not take back %s", module.__name__)
        for class_ in reversed(getattr(module, "CLASSES", ())):
            try:
                bpy.utils.unregister_class(class_)
            except RuntimeError:
                log.exception("Could not unregister %s", class_.__name__)
