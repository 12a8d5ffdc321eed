# SPDX-License-Identifier: GPL-3.0-or-later
"""What the panels share: where they are, and how they say that something cannot be done, and why."""

from __future__ import annotations

import re
import textwrap
from typing import Any

from ..names import CATEGORY

ROOT = "LIVEPORTRAIT_PT_main"
_AFTER_FOLDER = re.compile(r"(?<=[^\s/\\][/\\])(?=[^/\\])")
LINE_HEIGHT_SCALE = 0.75  # of lines that belong to one sentence


class _Wrapper(textwrap.TextWrapper):
    """Breaks long paths after a folder rather than within its name."""

    def _split(self, text: str) -> list[str]:
        return [part for chunk in super()._split(text) for part in _AFTER_FOLDER.split(chunk)]


class Sidebar:
    """In the add-on's tab of the 3-D view's sidebar."""

    bl_space_type = "VIEW_3D"
    bl_region_type = "UI"
    bl_category = CATEGORY


class Subpanel(Sidebar):
    """A panel inside the root panel."""

    bl_parent_id = ROOT


def split(layout: Any) -> None:
    """Names left, values right, no dots for keys."""
    layout.use_property_split = True
    layout.use_property_decorate = False


def wrapped(layout: Any, text: str, context: Any, icon: str = "NONE", reserved: int = 0) -> None:
    """Text over as many lines as the region's width asks for. reserved: pixels taken by what is beside."""
    lines = _Wrapper(characters(context, reserved)).wrap(text) or [""]
    column = layout.column(align=True)
    column.scale_y = LINE_HEIGHT_SCALE if len(lines) > 1 else 1.0
    for number, line in enumerate(lines):
        first = number == 0
        column.label(text=line, icon=icon if first else ("BLANK1" if icon != "NONE" else "NONE"))


def characters(context: Any, reserved: int = 0) -> int:
    """About how many characters go into a line of the region."""
    region = getattr(context, "region", None)
    width = region.width if region else 300
    scale = context.preferences.system.ui_scale or 1.0  # 0 in background mode
    return max(int((width / scale - 70 - reserved) / 6.2), 12)


def blocked(layout: Any, context: Any, reason: str, fix: str = "", text: str = "") -> None:
    """Say why something cannot be done, and offer the operator that puts it right.

    fix: the operator's id, "" where only the user can help. text: of its button; its own label if empty.
    """
    box = layout.box().column(align=True)
    wrapped(box, reason, context, "INFO")
    if fix:
        if text:
            box.operator(fix, text=text)
        else:
            box.operator(fix)


def look_label(context: Any) -> str:
    """What Look at Result does next."""
    alone = getattr(context.space_data, "local_view", None) is not None
    return "Show All Again" if alone else "Look at Result"


def trouble(layout: Any, context: Any, sentence: str, hint: str = "", fix: str = "") -> None:
    """Show an error: what happened, what to do."""
    box = layout.box().column(align=True)
    box.alert = True
    wrapped(box, sentence, context, "ERROR")
    if hint:
        quiet = box.column(align=True)
        quiet.alert = False
        wrapped(quiet, hint, context, "BLANK1")
    if fix:
        box.operator(fix)
