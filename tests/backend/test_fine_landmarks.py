# SPDX-License-Identifier: GPL-3.0-or-later
"""LivePortrait's 203 points: through a stand-in of landmark.onnx that has its inputs and outputs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backend import cropping
from backend.engines import choose
from backend.errors import WeightsError
from backend.faces import find_faces
from backend.fine_landmarks import BOTH, FINE, MESH, FineLandmarks
from backend.media import read_picture
from backend.options import Options
from backend.ratios import eye_ratio, lip_ratio
from backend.source import open_source
from tests.backend import generated_weights as weights

pytest.importorskip("onnxruntime", reason="onnxruntime is not in this environment")
onnx = pytest.importorskip("onnx", reason="onnx is not in this environment")

REDNESS = 0.1  # how far the stand-in moves its points for a picture that is red all over


def layout() -> np.ndarray:
    """(203, 2) in 0..1 of the patch: eyes and lips where the released indices say, the others on a ring."""
    turn = np.linspace(0, 2 * np.pi, FINE, endpoint=False)
    points = 0.5 + 0.35 * np.stack([np.sin(turn), -np.cos(turn)], axis=1)
    for first, x in ((0, 0.35), (24, 0.65)):
        around = np.linspace(0, 2 * np.pi, 24, endpoint=False)
        points[first : first + 24] = np.stack([x - 0.08 * np.cos(around), 0.4 - 0.02 * np.sin(around)], 1)
    around = np.linspace(0, 2 * np.pi, 36, endpoint=False)
    points[48:84] = np.stack([0.5 - 0.15 * np.cos(around), 0.7 - 0.05 * np.sin(around)], 1)
    around = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    points[84:108] = np.stack([0.5 - 0.1 * np.cos(around), 0.7 - 0.03 * np.sin(around)], 1)
    return points


@pytest.fixture(scope="module")
def landmark_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that gives the same points for every patch, further right the redder it is."""
    from onnx import TensorProto, helper, numpy_helper

    constants = {
        "points": layout().reshape(1, 406).astype(np.float32),
        "weight": np.array([REDNESS, 0, 0], np.float32).reshape(1, 3, 1, 1),
        "right": np.tile([1, 0], FINE).reshape(1, 406).astype(np.float32),
        "flat": np.array([1, 1], np.int64),
    }
    nodes = [
        helper.make_node("Mul", ["input", "weight"], ["weighted"]),
        helper.make_node("GlobalAveragePool", ["weighted"], ["means"]),
        helper.make_node("ReduceSum", ["means"], ["all"], keepdims=1),
        helper.make_node("Reshape", ["all", "flat"], ["redness"]),
        helper.make_node("Mul", ["redness", "right"], ["shift"]),
        helper.make_node("Add", ["points", "shift"], ["853"]),
        helper.make_node("Identity", ["redness"], ["850"]),
        helper.make_node("Identity", ["shift"], ["852"]),
    ]
    number = TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "landmark",
        [helper.make_tensor_value_info("input", number, [1, 3, 224, 224])],
        [helper.make_tensor_value_info(name, number, None) for name in ("850", "852", "853")],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path = tmp_path_factory.mktemp("landmark") / "landmark.onnx"
    onnx.save(model, str(path))
    return path


def mesh(angle: float = 0.0) -> np.ndarray:
    """Something like MediaPipe's landmarks, about 100 px across, turned clockwise round (200, 150)."""
    rng = np.random.default_rng(3)
    points = rng.uniform(-50, 50, (MESH, 3)).astype(np.float32)
    for indices, middle in (((33, 133, 159, 145), (-20, -15)), ((362, 263, 386, 374), (20, -15))):
        points[list(indices), :2] = middle
    points[[61, 291], :2] = [(-15, 30), (15, 30)]
    cos, sin = math.cos(angle), math.sin(angle)
    points[:, :2] = points[:, :2] @ np.array([[cos, sin], [-sin, cos]], np.float32) + (200, 150)
    return points


def test_points_come_back_into_the_picture(landmark_file: Path) -> None:
    grey = np.zeros((300, 400, 3), np.uint8)
    found = FineLandmarks(landmark_file).find(grey, mesh())
    assert found.shape == (BOTH, 3) and found.dtype == np.float32
    np.testing.assert_array_equal(found[:MESH], mesh())
    square = cropping.crop_rectangle(mesh(), 1.5, 0.0, -0.1)
    corner = np.array([square.cx, square.cy]) - square.size / 2  # a mesh that stands upright
    np.testing.assert_allclose(found[MESH:, :2], corner + layout() * square.size, atol=0.01)
    assert (found[MESH:, 2] == 0).all()


def test_a_turned_face_gives_turned_points(landmark_file: Path) -> None:
    fine = FineLandmarks(landmark_file)
    grey = np.zeros((300, 400, 3), np.uint8)
    upright, turned = fine.find(grey, mesh())[MESH:, :2], fine.find(grey, mesh(0.5))[MESH:, :2]
    cos, sin = math.cos(0.5), math.sin(0.5)
    expected = (upright - (200, 150)) @ np.array([[cos, sin], [-sin, cos]]) + (200, 150)
    np.testing.assert_allclose(turned, expected, atol=0.02)


def test_the_network_sees_rgb_in_0_to_1(landmark_file: Path) -> None:
    fine = FineLandmarks(landmark_file)
    red = np.zeros((600, 600, 3), np.uint8)
    red[..., 0] = 255
    square = cropping.crop_rectangle(mesh(), 1.5, 0.0, -0.1)
    moved = fine.find(red, mesh())[MESH:, 0] - fine.find(red[..., ::-1].copy(), mesh())[MESH:, 0]
    np.testing.assert_allclose(moved, REDNESS * square.size, rtol=0.01)


def test_a_file_that_is_no_network_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "landmark.onnx"
    path.write_bytes(b"<html>404</html>")
    with pytest.raises(WeightsError, match="landmark.onnx cannot be used") as caught:
        FineLandmarks(path)
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    weights.write(folder)
    return folder


def neural(models: Path) -> Any:
    return choose(Options(engine="neural", models=models, device="cpu", runtime="torch")).engine


def test_crops_and_ratios_go_by_it_where_it_is_there(
    models: Path, landmark_file: Path, astronaut: Path
) -> None:
    pytest.importorskip("torch", reason="the networks need torch, which is not in this environment")
    options = Options()
    without = open_source(astronaut, options, neural(models))
    target = models / "liveportrait" / "landmark.onnx"
    target.write_bytes(landmark_file.read_bytes())
    engine = neural(models)
    source = open_source(astronaut, options, engine)
    assert (engine.landmark_count, engine.note) == (BOTH, "")

    picture = read_picture(astronaut).rgb
    points = FineLandmarks(landmark_file).find(picture, find_faces(picture)[0].landmarks)
    assert source.crop.rect == cropping.crop_rectangle(points[MESH:])
    assert source.crop.rect != without.crop.rect
    fine = points[None, MESH:, :2].astype(np.float64)
    np.testing.assert_allclose(source.motion.eye_ratio, eye_ratio(fine), atol=1e-4)
    np.testing.assert_allclose(source.motion.lip_ratio, lip_ratio(fine), atol=1e-4)
    assert source.motion.gaze is not None  # which the mesh alone tells
    assert not np.allclose(without.motion.eye_ratio, source.motion.eye_ratio, atol=1e-3)


def test_a_broken_one_leaves_the_mesh_and_says_so(models: Path, astronaut: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="the networks need torch, which is not in this environment")
    from backend.engines.neural import NeuralEngine

    broken = tmp_path / "landmark.onnx"
    broken.write_bytes(b"no network")
    name = "stitching_retargeting_module"
    engine = NeuralEngine({name: weights.weights_path(models, name), "landmark": broken})
    assert engine.landmark_count == MESH
    assert engine.note.startswith("MediaPipe's landmarks serve for the crops: landmark.onnx cannot be used")
