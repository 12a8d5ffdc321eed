# SPDX-License-Identifier: GPL-3.0-or-later
"""Text in dialogs, whose width no region tells. Imports no bpy."""

from __future__ import annotations

import textwrap
from typing import Any

WIDTH, LETTERS = 480, 72  # pixels before the interface's scale, and characters that surely fit


def paragraph(layout: Any, text: str) -> None:
    """A text over several lines."""
    column = layout.column(align=True)
    for line in textwrap.wrap(text, LETTERS):
        column.label(text=line)
