# SPDX-License-Identifier: GPL-3.0-or-later
"""The networks as ONNX files: written, proven, run in PyTorch's place, and never those of other weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backend.cli import main
from backend.engines import choose
from backend.errors import EngineError, WeightsError
from backend.models import catalogue
from backend.networks import loading, onnx_files, onnx_sessions
from backend.options import Options
from tests.backend import generated_weights as weights

torch = pytest.importorskip("torch", reason="the networks need torch, which is not in this environment")
pytest.importorskip("onnxruntime", reason="onnxruntime is not in this environment")

from backend.networks.onnx_export import export  # noqa: E402

ORACLE = np.load(Path(__file__).parents[1] / "data" / "networks_oracle.npz", allow_pickle=False)
QUICK = (
    "appearance_feature_extractor",
    "motion_extractor",
    "stitching",
    "retargeting_eye",
    "retargeting_lip",
)


def files_of(models: Path) -> dict[str, Path]:
    return {file.name: weights.weights_path(models, file.name) for file in catalogue.FILES if file.layout}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Generated weights, and the networks that take little time as ONNX files."""
    folder = tmp_path_factory.mktemp("models")
    weights.write(folder)
    words = [word for name in QUICK for word in ("--only", name)]
    assert main(["models", "export", "--onnx", "--models", str(folder), *words]) == 0
    return folder


def neural(models: Path, runtime: Any) -> Any:
    return choose(Options(engine="neural", models=models, device="cpu", runtime=runtime)).engine


def test_what_is_written_gives_the_released_numbers(models: Path) -> None:
    network = onnx_sessions.OnnxNetwork(models / "onnx" / "motion_extractor.onnx")
    pictures = ORACLE["img"].astype(np.float32).transpose(0, 3, 1, 2) / 255
    heads = dict(zip(network.outputs, network(pictures), strict=True))  # a batch of three
    for name in ("kp", "exp", "t", "scale", "yaw"):
        wanted = ORACLE[f"M.{name}"]
        assert np.abs(heads[name] - wanted).max() <= 5e-4 * wanted.std(), name
    assert network.provider == "CPUExecutionProvider" and network.note == ""


def test_auto_takes_a_file_only_where_onnxruntime_is_faster(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "measured_choice", lambda device: frozenset({"motion_extractor"}))
    mixed, plain = neural(models, "auto"), neural(models, "torch")
    assert mixed._networks.by_onnxruntime == {"motion_extractor"}
    assert plain._networks.by_onnxruntime == frozenset()
    crops = ORACLE["img"][:2]
    one, two = mixed.measure(crops), plain.measure(crops)
    np.testing.assert_allclose(one.expression, two.expression, atol=1e-5)
    np.testing.assert_allclose(one.rotation, two.rotation, atol=1e-5)


def test_a_missing_file_is_named_with_the_command_that_writes_it(models: Path) -> None:
    with pytest.raises(EngineError, match="warping_module.onnx is not in") as caught:
        neural(models, "onnx")
    assert "models export --onnx" in caught.value.hint


def test_files_of_other_weights_are_not_run(models: Path, tmp_path: Path) -> None:
    folder, other = models / "onnx", dict(files_of(models))
    names = onnx_files.FILES["motion_extractor"].weights
    assert set(onnx_files.find(folder, ["motion_extractor"], other)) == {"motion_extractor"}
    changed = tmp_path / "motion_extractor.pth"
    changed.write_bytes(other[names[0]].read_bytes() + b"\0")
    other[names[0]] = changed
    assert onnx_files.find(folder, ["motion_extractor"], other) == {}
    with pytest.raises(EngineError, match="was made from other weights"):
        onnx_files.require(folder, ["motion_extractor"], other)


def test_a_cut_file_is_not_run(models: Path, tmp_path: Path) -> None:
    for path in (models / "onnx").iterdir():
        if path.name in ("stitching.onnx", onnx_files.RECORD):
            (tmp_path / path.name).write_bytes(path.read_bytes())
    cut = tmp_path / "stitching.onnx"
    cut.write_bytes(cut.read_bytes()[:-100])
    with pytest.raises(EngineError, match="not whole"):
        onnx_files.require(tmp_path, ["stitching"], files_of(models))
    with pytest.raises(WeightsError, match="stitching.onnx cannot be used") as caught:
        onnx_sessions.OnnxNetwork(cut)
    assert "\n" not in str(caught.value)


def test_a_file_with_other_numbers_is_not_kept(models: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(
        "backend.networks.onnx_export.OnnxNetwork",
        lambda path: lambda *arrays: [np.zeros((1, 65), np.float32)],
    )
    with pytest.raises(EngineError, match="other numbers than PyTorch"):
        export(files_of(models), tmp_path / "onnx", only=("stitching",))
    assert not list((tmp_path / "onnx").glob("*.onnx")) and not list((tmp_path / "onnx").glob(".*.part"))


def test_nothing_to_export_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "export", "--onnx", "--models", str(tmp_path)]) == 1
    told = capsys.readouterr().err.strip()
    assert "There is nothing to export: there are no weights in" in told and "\n" not in told


class BrokenCuda:
    """onnxruntime with a CUDA provider that this machine's driver does not suit."""

    def __init__(self, falls_back: bool) -> None:
        import onnxruntime

        self._real, self._falls_back = onnxruntime, falls_back
        self.SessionOptions = onnxruntime.SessionOptions

    def get_available_providers(self) -> list[str]:
        return ["CUDAExecutionProvider", "CPUExecutionProvider"]

    def InferenceSession(self, path: str, settings: Any, providers: list[str]) -> Any:
        if "CUDAExecutionProvider" in providers and not self._falls_back:
            raise RuntimeError("CUDA failure 35: CUDA driver version is insufficient")
        return self._real.InferenceSession(path, settings, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("falls_back", [True, False])
def test_a_cuda_provider_that_does_not_start_leaves_the_cpu_and_says_so(
    models: Path, monkeypatch: pytest.MonkeyPatch, falls_back: bool
) -> None:
    monkeypatch.setattr(onnx_sessions, "runtime", lambda: BrokenCuda(falls_back))
    network = onnx_sessions.OnnxNetwork(models / "onnx" / "stitching.onnx", "cuda")
    assert network.provider == "CPUExecutionProvider"
    assert network.note == "onnxruntime runs on the CPU: its CUDA provider could not start"
    assert network(np.zeros((3, 126), np.float32))[0].shape == (3, 65)


def test_the_choice_names_networks_that_there_are() -> None:
    table = json.loads(loading.CHOICE.read_text(encoding="utf-8"))
    assert set(table["faster_in_onnxruntime"]) <= {"cpu", "cuda", "mps"}
    for names in table["faster_in_onnxruntime"].values():
        assert set(names) <= set(onnx_files.FILES)


@pytest.mark.slow
def test_frames_by_onnxruntime_are_those_of_pytorch(models: Path, tmp_path: Path) -> None:
    export(files_of(models), models / "onnx", only=("warping_module", "spade_generator"))
    engine = neural(models, "onnx")
    assert engine._networks.by_onnxruntime == set(onnx_files.FILES)
    appearance = engine.encode(ORACLE["img"][0])
    pictures = engine.render(appearance, ORACLE["M.x_s"][:1], ORACLE["chain.x_d"])
    wanted = ORACLE["chain.out_uint8"][0].transpose(1, 2, 0).astype(int)
    assert np.abs(pictures[0, ::5, ::5].astype(int) - wanted).max() <= 1
    x = ORACLE["M.x_s"]
    np.testing.assert_allclose(
        engine.stitch(x[:1], x[1:2]), neural(models, "torch").stitch(x[:1], x[1:2]), atol=1e-6
    )
