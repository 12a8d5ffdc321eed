# SPDX-License-Identifier: GPL-3.0-or-later
"""A very large portrait: what it costs is said before the work begins, and kept in result.json."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from backend import large_pictures, pipeline
from backend.large_pictures import cost_of
from backend.options import Options


class Told:
    """Progress that notes what is said, and when."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def update(self, stage: str, done: int, total: int | None) -> None:
        self.said.append(stage)

    def warn(self, message: str) -> None:
        self.said.append(message)


def test_from_seventeen_megapixels_on_it_is_said(tmp_path: Path) -> None:
    for name, side in (("usual", 4096), ("large", 4200)):
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.zeros((side, side), np.uint8))
    assert cost_of(tmp_path / "usual.png", Options(), True) == ""
    told = cost_of(tmp_path / "large.png", Options(), True)
    assert "large.png has 4200 x 4200 pixels" in told and "18 MB each" in told and "0.5 GB of memory" in told
    assert "on the disk" not in cost_of(tmp_path / "large.png", Options(), False)
    assert cost_of(tmp_path / "large.png", Options(paste_back=False), True) == ""


@pytest.mark.parametrize("output", ["frames", "clip.mp4"])
def test_a_result_says_so_before_it_begins_and_after(
    astronaut: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str
) -> None:
    monkeypatch.setattr(large_pictures, "LARGE", 512 * 512 - 1)
    told = Told()
    options = Options(engine="mesh", frames=(0, 1))
    summary = pipeline.animate(astronaut, "nod", tmp_path / output, options, progress=told)
    assert "512 x 512" in told.said[0]
    assert [note for note in summary.warnings if "512 x 512" in note] == [told.said[0]]
    if output == "frames":
        assert told.said[0] in json.loads((tmp_path / output / "result.json").read_text())["warnings"]
