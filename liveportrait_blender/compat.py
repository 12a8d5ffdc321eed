# SPDX-License-Identifier: GPL-3.0-or-later
"""Every branch on Blender's version, 4.2 to 5.2, and nothing else."""

from __future__ import annotations

import atexit
from collections.abc import Callable
from typing import Any

import bpy


def eevee_engine_id() -> str:
    """The id of EEVEE as a render engine: it has had its short name back since 5.0."""
    return "BLENDER_EEVEE" if bpy.app.version >= (5, 0, 0) else "BLENDER_EEVEE_NEXT"


def path_property_options() -> set[str]:
    """Options of a file path property: it may begin with // from 4.5 on only if it says so."""
    return {"PATH_SUPPORTS_BLEND_RELATIVE"} if bpy.app.version >= (4, 5, 0) else set()


def enable_nodes(material: Any) -> None:
    """Give a material its node tree; from 5.0 on every material has one."""
    if bpy.app.version < (5, 0, 0):
        material.use_nodes = True


def strips(sequence_editor: Any) -> Any:
    """The strips of a sequence editor."""
    return sequence_editor.strips if bpy.app.version >= (4, 4, 0) else sequence_editor.sequences


def install_exit_hook(function: Callable[[], None]) -> Callable[[], None]:
    """Have `function` called when Blender quits; gives what takes that back."""
    handlers = getattr(bpy.app.handlers, "exit_pre", None)  # from 5.2 on
    if handlers is None:
        atexit.register(function)
        return lambda: atexit.unregister(function)

    def before_exit(*_: Any) -> None:
        function()

    handlers.append(before_exit)
    return lambda: handlers.remove(before_exit) if before_exit in handlers else None
