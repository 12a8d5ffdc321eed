# SPDX-License-Identifier: GPL-3.0-or-later
"""What the backend says of options is told in the panel's words."""

from __future__ import annotations

from pathlib import Path

import pytest

from liveportrait_blender.client import BackendError, Event
from liveportrait_blender.job_records import JobRecord
from liveportrait_blender.option_words import spoken


@pytest.mark.parametrize(
    ("told", "shown"),
    [
        ("58 are made (--length-policy cut)", "58 are made (Length Policy: Cut)"),
        ("Use --no-crop for it.", "Use Crop off for it."),
        ("Choose --device cpu or --engine mesh.", "Choose Device: CPU or Engine: Mesh."),
        ("Turn --paste-back off.", "Turn Paste Back off."),
        ("start again without --resume", "start again without --resume"),
        ("/tmp/a--crop b/c.png is not there", "/tmp/a--crop b/c.png is not there"),
    ],
)
def test_options_are_named_as_the_panel_names_them(told: str, shown: str) -> None:
    assert spoken(told) == shown


def test_a_job_speaks_the_panels_words() -> None:
    record = JobRecord(None, "1", "one", Path("/frames"), None)  # type: ignore[arg-type]
    record.take(Event("warning", facts={"message": "7 are made (--length-policy cut)"}))
    assert record.warnings == ["7 are made (Length Policy: Cut)"]
    record.end("failed", BackendError("device", "The card failed.", "Choose --device cpu."))
    assert (record.error, record.hint) == ("The card failed.", "Choose Device: CPU.")
