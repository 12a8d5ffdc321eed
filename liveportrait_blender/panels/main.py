# SPDX-License-Identifier: GPL-3.0-or-later
"""The panel that holds all others: the backend's state in one row."""

from typing import Any

from bpy.types import Panel

from .. import preferences, runtime, set_up
from . import settings
from .layout import ROOT, Sidebar, trouble, wrapped

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
        state = runtime.session.state
        why, fix = runtime.missing()
        if set_up.is_running():
            settings.draw_set_up(self.layout, context)
        elif why:
            settings.draw_missing(self.layout, context, why, fix)
        elif state.kind in ("failed", "silent"):
            trouble(self.layout, context, state.sentence, state.hint, state.fix)
        elif state.kind == "stopped":
            what = "is connected" if preferences.is_remote() else "starts"
            wrapped(self.layout, f"The backend {what} when it is needed", context, ICONS["stopped"])
        elif state.kind == "busy":
            wrapped(self.layout, f"Working: {state.sentence}", context, ICONS["busy"])
        else:
            wrapped(self.layout, state.sentence.rstrip("."), context, ICONS.get(state.kind, "BLANK1"))


CLASSES = (LIVEPORTRAIT_PT_main,)
