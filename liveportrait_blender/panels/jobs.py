# SPDX-License-Identifier: GPL-3.0-or-later
"""The list of jobs of this Blender."""

from typing import Any

from bpy.types import Panel, UIList

from .animate import RUNNING_STATES, notes
from .layout import Subpanel, trouble

ICONS = {
    "waiting": "SORTTIME",
    "preparing": "SORTTIME",
    "queued": "SORTTIME",
    "running": "RENDER_ANIMATION",
    "done": "CHECKMARK",
    "failed": "ERROR",
    "cancelled": "CANCEL",
}


class LIVEPORTRAIT_UL_jobs(UIList):
    """A job a line: its state, its name, how far it is."""

    def draw_item(self, context, layout, data, item, icon, active_data, active_property) -> None:
        row = layout.row(align=True)
        row.label(text=item.label, icon=ICONS.get(item.state, "BLANK1"))
        if item.state == "running":
            row.progress(factor=item.factor, text=f"{item.factor:.0%}")
        elif item.state in RUNNING_STATES:
            row.label(text="Waiting")


class LIVEPORTRAIT_PT_jobs(Subpanel, Panel):
    bl_label = "Jobs"
    bl_options = {"DEFAULT_CLOSED"}
    bl_order = 60

    @classmethod
    def poll(cls, context: Any) -> bool:
        return bool(context.window_manager.liveportrait.jobs)

    def draw(self, context: Any) -> None:
        layout, state = self.layout, context.window_manager.liveportrait
        row = layout.row()
        row.template_list(
            "LIVEPORTRAIT_UL_jobs", "", state, "jobs", state, "active_job", rows=3, maxrows=8
        )
        if not 0 <= state.active_job < len(state.jobs):
            return
        job = state.jobs[state.active_job]
        buttons = row.column(align=True)
        if job.state in RUNNING_STATES:
            buttons.operator("liveportrait.cancel_job", text="", icon="CANCEL").job = job.name
        elif job.state in ("failed", "cancelled"):
            buttons.operator("liveportrait.resume_job", text="", icon="FILE_REFRESH").job = job.name
        buttons.operator("liveportrait.remove_job", text="", icon="REMOVE").job = job.name
        buttons.operator("wm.path_open", text="", icon="FILE_FOLDER").filepath = job.folder
        if job.error:
            trouble(layout, context, job.error, job.hint)
        else:
            layout.label(text=job.text)
        notes(layout, context, job)


CLASSES = (LIVEPORTRAIT_UL_jobs, LIVEPORTRAIT_PT_jobs)
