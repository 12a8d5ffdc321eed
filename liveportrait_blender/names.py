# SPDX-License-Identifier: GPL-3.0-or-later
"""What the add-on is called, and the error that it shows to people. Imports no bpy."""

from __future__ import annotations

# bl_ext.<repository>.liveportrait_blender where it is installed.
ROOT_PACKAGE = __package__ or "liveportrait_blender"
VERSION = "0.1.0"
CATEGORY = "LivePortrait"  # the tab in the sidebar


class UserError(Exception):
    """Something that the user can put right.

    sentence: what happened. hint: what to do. fix: the id of an operator that does it, or "".
    """

    def __init__(self, sentence: str, hint: str = "", fix: str = "") -> None:
        super().__init__(f"{sentence} {hint}".strip())
        self.sentence, self.hint, self.fix = sentence, hint, fix
