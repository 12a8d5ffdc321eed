# SPDX-License-Identifier: GPL-3.0-or-later
"""The panel that holds all others: the backend's state in one row."""

from typing import Any

from bpy.types import Panel

from .layout import ROOT, Sidebar, trouble

ICONS = {
    "stopped": "RADIOBUT_OFF",
    "starting": "SORTTIME",
    "ready": "CHECKMARK",
    "busy": "RENDER_ANIMATION",
    "silent": "QUESTION",
    "failed": "ERROR",
}


class LIVEPORTRAIT_PT_main(Sidebar, Panel):
    bl_label = "LivePortrait"
    bl_idname = ROOT

    def draw(self, context: Any) -> None:
        from .. import runtime

        state = runtime.session.state
        if state.kind in ("failed", "silent"):
            trouble(self.layout, context, state.sentence, state.hint, getattr(state, "fix", ""))
            return
        row = self.layout.row()
        row.label(text=state.sentence.rstrip("."), icon=ICONS.get(state.kind, "BLANK1"))


CLASSES = (LIVEPORTRAIT_PT_main,)
