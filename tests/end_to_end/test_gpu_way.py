# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole way as a GPU goes it, on the CPU: its forms of W and G, paste-back where they draw, transfers."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from backend.models import FoundModels, find
from backend.options import Options
from backend.pipeline import animate
from tests.backend import generated_weights as weights
from tests.end_to_end.test_released_frames import ORACLE, template_to

pytest.importorskip("torch", reason="the networks need torch, which is not in this environment")

from backend.engines.neural import NeuralEngine
from backend.networks.loading import Networks
from backend.networks.renderers import DeviceRenderer


def frames_of(folder: Path) -> list[np.ndarray]:
    return [cv2.imread(str(path)).astype(int) for path in sorted(folder.glob("*.png"))]


@pytest.mark.slow
def test_frames_are_the_released_ones_and_pasted_as_on_the_cpu(
    tmp_path: Path, astronaut: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights.write(tmp_path)
    found = find(Options(engine="neural", models=tmp_path, device="cpu"))
    assert isinstance(found, FoundModels)
    crop, template = tmp_path / "crop.png", tmp_path / "template.pkl"
    cv2.imwrite(str(crop), ORACLE["img"][0][..., ::-1])
    leads = template_to(ORACLE["M.x_s"][0], ORACLE["chain.x_d"][0], float(ORACLE["M.scale"][0, 0]))
    template.write_bytes(pickle.dumps(leads))
    pasted = Options(stitch=False)
    animate(astronaut, template, tmp_path / "cpu", pasted, engine=NeuralEngine(found.files))

    monkeypatch.setattr(Networks, "draws_on_device", True)
    engine = NeuralEngine(found.files)
    plain = replace(pasted, crop=False, compatibility="upstream")
    animate(crop, template, tmp_path / "released", plain, engine=engine)
    wanted = ORACLE["chain.out_uint8"][0].transpose(1, 2, 0).astype(int)
    assert np.abs(frames_of(tmp_path / "released")[1][::5, ::5, ::-1] - wanted).max() <= 1
    assert engine.note == "" and engine.precision == "float32"
    assert isinstance(engine._renderer, DeviceRenderer) and engine._paster is None

    animate(astronaut, template, tmp_path / "gpu", pasted, engine=engine)
    assert engine._paster is not None, "it pasted itself"
    for got, want in zip(frames_of(tmp_path / "gpu"), frames_of(tmp_path / "cpu"), strict=True):
        assert got.shape == want.shape == (512, 512, 3)
        assert np.abs(got - want).max() <= 2  # a level of drawing, and one of pasting
