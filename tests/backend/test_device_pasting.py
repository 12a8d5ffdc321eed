# SPDX-License-Identifier: GPL-3.0-or-later
"""Paste-back where the frames are drawn gives what the CPU's gives, and the pipeline lets it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from backend.options import Options
from backend.paste import PastePlan, Paster
from backend.pipeline import render
from backend.source import Canvas, open_source
from tests.backend import generated_weights as weights
from tests.backend.fakes import FakeEngine
from tests.backend.synthetic_motion import make_motion

torch = pytest.importorskip("torch", reason="the networks need torch, which is not in this environment")

from backend.engines.neural import NeuralAppearance, NeuralEngine  # noqa: E402
from backend.networks.pasting import DevicePaster  # noqa: E402

PLACES = {
    "enlarged": (2.3, 20.0, 260.0, 40.0),
    "reduced": (0.31, -35.0, 300.0, 220.0),
    "partly outside": (1.4, 8.0, -150.0, 420.0),
}


def place(name: str) -> np.ndarray:
    """Crop to picture: scale, degrees, shift."""
    scale, angle, x, y = PLACES[name]
    turned = cv2.getRotationMatrix2D((256, 256), angle, scale)
    return turned + np.array([[0, 0, x], [0, 0, y]])


def textured(height: int, width: int, seed: int, depth: type = np.uint8) -> np.ndarray:
    """Noise as soft as a photograph's details."""
    noise = np.random.default_rng(seed).random((height, width, 3)).astype(np.float32)
    soft = np.asarray(cv2.GaussianBlur(noise, (0, 0), 1.5))
    return ((soft - soft.min()) * (np.iinfo(depth).max / np.ptp(soft))).astype(depth)


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
@pytest.mark.parametrize("compatibility", ["product", "upstream"])
@pytest.mark.parametrize("name", PLACES)
def test_the_region_is_the_same_as_on_the_cpu(name: str, compatibility: str, depth: type) -> None:
    picture = textured(800, 1100, 1, depth)
    crops = np.stack([textured(512, 512, 2), textured(512, 512, 3)])
    paster = Paster((1100, 800), place(name), 512, compatibility=compatibility)
    regions = DevicePaster(paster.plan(picture), 512, "cpu")(torch.from_numpy(crops)).numpy()
    x0, y0, x1, y1 = paster.region
    assert regions.shape == (2, y1 - y0, x1 - x0, 3)
    outside = paster.plan(picture).weight == 0
    for region, crop in zip(regions, crops, strict=True):
        want = paster.paste(picture, crop)[y0:y1, x0:x1]
        assert (region[outside] == want[outside]).all()
        level = 1 if depth == np.uint8 else 257
        apart = np.abs(region.astype(int) - want) / level
        assert apart.max() <= 1, f"{(apart > 1).mean():.2%} of the pixels are off, by {apart.max():.1f}"


class Pasting(FakeEngine):
    """Pastes as a GPU would, each frame of one level."""

    device = "cuda"  # for the pipeline only, which then lets it run ahead
    pastes_back = True

    def __init__(self) -> None:
        super().__init__(native=False)
        self.plans: list[PastePlan] = []

    def render_pasted(
        self, appearance: Any, source: np.ndarray, driving: np.ndarray, plan: PastePlan
    ) -> np.ndarray:
        self.plans.append(plan)
        crops = torch.from_numpy(self.render(appearance, source, driving))
        return DevicePaster(plan, crops.shape[1], "cpu")(crops).numpy()


def test_the_pipeline_lets_an_engine_paste(astronaut: Path) -> None:
    """Frames are those of an engine that does not, whatever lies outside the region included."""
    motion = make_motion(21, valid=np.ones(21, bool))
    plain, pasting = FakeEngine(native=False), Pasting()
    frames = {}
    for engine in (plain, pasting):
        source = open_source(astronaut, Options(), engine)
        frames[engine] = [frame.copy() for frame in render(source, motion, Options(), engine)]
    assert len(frames[pasting]) == 21
    assert all(plan is pasting.plans[0] for plan in pasting.plans), "made ready once"
    plan, (x0, y0, x1, y1) = pasting.plans[0], Canvas(source, Options())._paster.region  # type: ignore[union-attr]
    own = np.ones(source.picture.rgb.shape[:2], bool)
    own[y0:y1, x0:x1] = plan.weight == 0
    for got, want in zip(frames[pasting], frames[plain], strict=True):
        assert np.abs(got.astype(int) - want).max() <= 1
        assert (got[own] == source.picture.rgb[own]).all()


def test_pictures_of_any_size_are_drawn_in_whole_batches(astronaut: Path, tmp_path: Path) -> None:
    """What counts is what the engine draws, 512 px across, not the picture it is pasted into."""
    large = tmp_path / "large.png"
    picture = cv2.imread(str(astronaut))
    cv2.imwrite(str(large), cv2.resize(picture, (4000, 4000)))
    engine = FakeEngine(native=False)
    source = open_source(large, Options(), engine)
    list(render(source, make_motion(32, valid=np.ones(32, bool)), Options(), engine))
    assert engine.batches == [16, 16]


def test_without_paste_back_or_for_a_huge_region_nothing_is_planned(
    astronaut: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Pasting()
    alone = Options(paste_back=False)
    source = open_source(astronaut, alone, engine)
    assert Canvas(source, alone).plan() is None
    source = open_source(astronaut, Options(), engine)
    assert Canvas(source, Options()).plan() is not None
    monkeypatch.setattr("backend.source.PASTED_ELSEWHERE", 1000)
    assert Canvas(source, Options()).plan() is None


def test_the_neural_engine_pastes_what_it_draws(tmp_path: Path) -> None:
    class Grey:
        def prepare(self, volume: Any, source: Any) -> Any:
            return None

        def draw(self, state: Any, driving: Any) -> Any:
            return driving[:, :1, :1, None].expand(-1, 3, 512, 512)

    name = "stitching_retargeting_module"
    weights.write(tmp_path, (name,))
    engine: Any = NeuralEngine({name: weights.weights_path(tmp_path, name)})
    assert not engine.pastes_back, "the CPU has OpenCV for that"
    engine._renderer = Grey()
    picture = textured(800, 1100, 4)
    paster = Paster((1100, 800), place("enlarged"), 512)
    driving = np.zeros((3, 21, 3), np.float32)
    driving[:, 0, 0] = np.array([10.5, 100.5, 200.5]) / 255
    regions = engine.render_pasted(
        NeuralAppearance(torch.zeros(1)), driving[:1] * 0, driving, paster.plan(picture)
    )
    x0, y0, x1, y1 = paster.region
    for region, level in zip(regions, (10, 100, 200), strict=True):
        crop = np.full((512, 512, 3), level, np.uint8)
        want = paster.paste(picture, crop)[y0:y1, x0:x1]
        assert region.dtype == np.uint8 and np.abs(region.astype(int) - want).max() <= 1
