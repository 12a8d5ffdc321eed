# SPDX-License-Identifier: GPL-3.0-or-later
"""The neural engine behind the seam: files in the released layout in, the released program's numbers out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backend.engines import choose
from backend.errors import EngineError, WeightsError
from backend.models import find
from backend.options import Options
from tests.backend import generated_weights as weights

torch = pytest.importorskip("torch", reason="the networks need torch, which is not in this environment")

from torch import Tensor  # noqa: E402

from backend.engines.neural import NeuralAppearance, NeuralEngine, fault_on  # noqa: E402
from backend.networks.layers import SpectralConv2d, fold_spectral_norms  # noqa: E402

ORACLE = np.load(Path(__file__).parents[1] / "data" / "networks_oracle.npz", allow_pickle=False)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every released file, with generated weights."""
    folder = tmp_path_factory.mktemp("models")
    weights.write(folder)
    return folder


@pytest.fixture(scope="module")
def engine(models: Path) -> Any:
    return choose(Options(engine="neural", models=models, device="cpu")).engine


class Drawn:
    """Stands in for W and G: a picture's level is the keypoints' first numbers; counts what is asked."""

    def __init__(self, memory: int = 100) -> None:
        self.memory = memory  # frames that fit
        self.batches: list[int] = []
        self.prepared = 0

    def prepare(self, volume: Tensor, source: Tensor) -> Tensor:
        self.prepared += 1
        return source

    def draw(self, state: Tensor, driving: Tensor) -> Tensor:
        if len(driving) > self.memory:
            raise torch.OutOfMemoryError("too much")
        self.batches.append(len(driving))
        return (driving[:, 0, 0] + state[:, 0, 0])[:, None, None, None].expand(-1, 3, 4, 4)


@pytest.fixture
def drawing(tmp_path: Path) -> Iterator[Any]:
    """An engine that draws with `Drawn`, eight frames at a time."""
    weights.write(tmp_path, ("stitching_retargeting_module",))
    name = "stitching_retargeting_module"
    engine: Any = NeuralEngine({name: weights.weights_path(tmp_path, name)})
    engine._batch = 8
    yield engine


def keypoints(levels: list[float]) -> np.ndarray:
    points = np.zeros((len(levels), 21, 3), np.float32)
    points[:, 0, 0] = np.array(levels) / 255
    return points


def drawn_levels(engine: Any, source: np.ndarray, levels: list[float]) -> list[int]:
    pictures = engine.render(NeuralAppearance(torch.zeros(1)), source, keypoints(levels))
    assert pictures.dtype == np.uint8 and pictures.shape == (len(levels), 4, 4, 3)
    return [int(picture[0, 0, 0]) for picture in pictures]


def test_levels_are_truncated_as_in_the_released_program(drawing: Any) -> None:
    drawing._renderer = Drawn()
    assert drawn_levels(drawing, keypoints([0]), [0.0, 0.4, 0.99, 1.01, 254.9, 255, 300, -3]) == [
        *(0, 0, 0, 1, 254, 255, 255, 0),
    ]


def test_a_source_is_prepared_once_and_again_when_it_changes(drawing: Any) -> None:
    drawing._renderer = renderer = Drawn()
    wanted = [k + 0.5 for k in range(20)]
    assert drawn_levels(drawing, keypoints([0]), wanted) == list(range(20))
    assert renderer.prepared == 1 and renderer.batches == [8, 8, 4]
    each = keypoints([0, 0, 0, 100, 100, 0])
    assert drawn_levels(drawing, each, [0.5, 1.5, 2.5, 3.5, 4.5, 5.5]) == [0, 1, 2, 103, 104, 5]
    assert renderer.batches[3:] == [3, 2, 1]


def test_out_of_memory_halves_the_batch_and_loses_no_frame(drawing: Any) -> None:
    drawing._renderer = renderer = Drawn(memory=3)
    assert drawn_levels(drawing, keypoints([0]), [k + 0.5 for k in range(10)]) == list(range(10))
    assert max(renderer.batches) == 2
    drawing._renderer = Drawn(memory=0)
    with pytest.raises(EngineError, match="memory.*too small") as caught:
        drawn_levels(drawing, keypoints([0]), [1.0])
    assert "\n" not in str(caught.value) and "--engine mesh" in caught.value.hint


def test_a_driver_that_fails_is_one_line() -> None:
    with pytest.raises(EngineError) as caught, fault_on("cuda"):
        raise RuntimeError("CUDA error: no kernel image is available\nCompile with ...")
    assert str(caught.value).startswith("The cuda device failed: CUDA error: no kernel image is available")
    assert "\n" not in str(caught.value)
    with pytest.raises(EngineError, match="too small"), fault_on("cuda"):
        raise torch.OutOfMemoryError("CUDA out of memory")
    with pytest.raises(EngineError, match="cpu device is too small"), fault_on("cpu"):
        torch.empty(1 << 60)
    with pytest.raises(EngineError, match="mps device is too small"), fault_on("mps"):
        raise RuntimeError("MPS backend out of memory (MPS allocated: 17.0 GB)")


def test_a_driver_that_fails_while_drawing_is_one_line_too(drawing: Any) -> None:
    def fail(*_: Any) -> Any:
        raise RuntimeError("CUDA error: an illegal memory access was encountered\nCUDA kernel errors might")

    drawing.device = "cuda"
    drawing._on_device = lambda array: torch.from_numpy(array.copy())
    drawing._renderer = Drawn()
    drawing._renderer.draw = fail
    drawing._mlps.stitch = fail
    for call in (
        lambda: drawn_levels(drawing, keypoints([0]), [1.0, 2.0]),
        lambda: drawing.stitch(keypoints([0]), keypoints([0])),
    ):
        with pytest.raises(EngineError, match="^The cuda device failed: CUDA error: an illegal") as caught:
            call()
        assert "\n" not in str(caught.value)


def test_auto_goes_on_with_the_mesh_engine_when_weights_turn_out_bad(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their outline is right, so only reading them shows it."""
    weights.write(tmp_path)
    path = weights.weights_path(tmp_path, "motion_extractor")
    state = torch.load(path, weights_only=True)
    next(value for value in state.values() if value.is_floating_point()).fill_(torch.nan)
    torch.save(state, path)
    found = find(Options(engine="neural", models=tmp_path, device="cpu"))
    monkeypatch.setattr("backend.engines.find", lambda options: found)  # as if there were a GPU
    choice = choose(Options(models=tmp_path))
    assert choice.engine.name == "mesh"
    assert "motion_extractor are not finite" in choice.why and "models download" in choice.why
    with pytest.raises(WeightsError, match="not finite"):
        choose(Options(engine="neural", models=tmp_path)).engine.measure(np.zeros((1, 256, 256, 3), np.uint8))


def test_folding_keeps_the_function() -> None:
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        SpectralConv2d(3, 4, 3), torch.nn.ReLU(), SpectralConv2d(4, 2, 1, bias=False)
    )
    x = torch.randn(1, 3, 8, 8)
    with torch.no_grad():
        want = network(x)
        fold_spectral_norms(network)
        assert not any(isinstance(module, SpectralConv2d) for module in network)
        torch.testing.assert_close(network(x), want)


def test_without_weights_it_says_where_they_should_be_and_how_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="no weights in") as caught:
        choose(Options(engine="neural", models=tmp_path, device="cpu"))
    assert "models download" in caught.value.hint
    choice = choose(Options(models=tmp_path))
    assert choice.engine.name == "mesh" and "neural" in choice.why


@pytest.mark.slow
def test_it_measures_what_the_released_program_measures(engine: Any) -> None:
    motion = engine.measure(ORACLE["img"]).validate()
    assert np.abs(motion.keypoints() - ORACLE["M.x_s"]).max() < 1e-4
    assert motion.engine == "neural" and motion.ratios_estimated and len(motion) == 3
    np.testing.assert_allclose(motion.expression.reshape(3, 63), ORACLE["M.exp"], atol=1e-5)


@pytest.mark.slow
def test_it_renders_what_the_released_program_renders(engine: Any) -> None:
    appearance = engine.encode(ORACLE["img"][0])
    driving = np.concatenate([ORACLE["M.x_s"][:1], ORACLE["chain.x_d"]])
    pictures = engine.render(appearance, ORACLE["M.x_s"][:1], driving)
    assert pictures.shape == (2, 512, 512, 3) and pictures.dtype == np.uint8
    kept = pictures[1, ::5, ::5].transpose(2, 0, 1)[None].astype(int)
    assert np.abs(kept - ORACLE["chain.out_uint8"]).max() <= 1


def test_options_name_the_engine() -> None:
    assert choose(replace(Options(), engine="mesh")).why == "asked for"
