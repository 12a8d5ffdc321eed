# SPDX-License-Identifier: GPL-3.0-or-later
"""What lists of the interface show of the session: `window_manager.liveportrait`. It is never saved.

The truth is in `runtime.session`; `pump` copies it here when it has changed.
"""

from typing import Any

import bpy
from bpy.types import PropertyGroup

HIDDEN = {"SKIP_SAVE"}


class LIVEPORTRAIT_PG_job(PropertyGroup):
    """A job, as a list shows it. `name` is its key."""

    label: bpy.props.StringProperty(name="Job", options=HIDDEN)
    state: bpy.props.StringProperty(name="State", options=HIDDEN)
    stage: bpy.props.StringProperty(name="Stage", options=HIDDEN)
    factor: bpy.props.FloatProperty(name="Progress", subtype="FACTOR", min=0.0, max=1.0, options=HIDDEN)
    text: bpy.props.StringProperty(name="Progress", options=HIDDEN)
    error: bpy.props.StringProperty(name="Error", options=HIDDEN)
    hint: bpy.props.StringProperty(name="Hint", options=HIDDEN)
    warnings: bpy.props.StringProperty(name="Warnings", description="One a line", options=HIDDEN)
    folder: bpy.props.StringProperty(name="Folder", options=HIDDEN)


class LIVEPORTRAIT_PG_session(PropertyGroup):
    """The jobs, and which of them is chosen in the list."""

    jobs: bpy.props.CollectionProperty(type=LIVEPORTRAIT_PG_job, options=HIDDEN)
    active_job: bpy.props.IntProperty(name="Active Job", description="The job that is chosen", options=HIDDEN)

    def mirror(self, records: list[Any]) -> None:
        """Show these jobs, in this order."""
        while len(self.jobs) > len(records):
            self.jobs.remove(len(self.jobs) - 1)
        while len(self.jobs) < len(records):
            self.jobs.add()
        for item, record in zip(self.jobs, records):
            item.name, item.label, item.folder = record.key, record.label, str(record.folder)
            item.state, item.stage, item.factor = record.state, record.stage, record.factor
            item.text, item.error, item.hint = record.text, record.error, record.hint
            item.warnings = "\n".join(record.warnings)


CLASSES = (LIVEPORTRAIT_PG_job, LIVEPORTRAIT_PG_session)


def register() -> None:
    bpy.types.WindowManager.liveportrait = bpy.props.PointerProperty(type=LIVEPORTRAIT_PG_session)


def unregister() -> None:
    del bpy.types.WindowManager.liveportrait
