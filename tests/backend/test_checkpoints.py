# SPDX-License-Identifier: GPL-3.0-or-later
"""Weights come in strictly and safely, and S, R_eye and R_lip compute what the released ones do.

tests/data/released_oracle.npz: what the released modules and helper functions computed, filled with the
weights of generated_weights.py.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backend.errors import EngineError, LivePortraitError, WeightsError
from tests.backend import generated_weights as weights

torch = pytest.importorskip("torch", reason="the networks need torch, which is not in this environment")

from backend.networks.checkpoints import fill, load_state, read_parts  # noqa: E402
from backend.networks.retargeting import SIZES, Perceptron, RetargetingNetworks  # noqa: E402

ORACLE = Path(__file__).parents[1] / "data" / "released_oracle.npz"
STITCHING = "stitching_retargeting_module"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of S, R_lip and R_eye."""
    folder = tmp_path_factory.mktemp("models")
    weights.write(folder, (STITCHING,))
    return weights.weights_path(folder, STITCHING)


@pytest.fixture
def stitching(whole: Path, tmp_path: Path) -> Path:
    """A copy of that file, to be spoiled."""
    path = tmp_path / whole.name
    path.write_bytes(whole.read_bytes())
    return path


def networks_of(path: Path) -> RetargetingNetworks:
    return RetargetingNetworks(read_parts(path))


def test_generated_weights_are_the_ones_the_numbers_were_made_with() -> None:
    wanted = json.loads(weights.KEYS.read_text(encoding="utf-8"))["generated"]
    assert wanted == {name: weights.digest(weights.module_state(name)) for name in weights.released_keys()}


@pytest.mark.parametrize("part", weights.PARTS)
def test_networks_have_the_released_keys(part: str) -> None:
    got = {key: tuple(value.shape) for key, value in Perceptron(SIZES[part]).state_dict().items()}
    assert got == weights.released_keys()[part]


def test_stitching_and_retargeting_compute_the_released_numbers(whole: Path) -> None:
    z = np.load(ORACLE)
    networks = networks_of(whole)
    source, driving = z["S.kp_s"], z["S.kp_d"]
    kept = driving.copy()
    for got, want in (
        (networks.stitch(source, driving), z["S.out"]),
        (networks.retarget_eyes(source, z["R.eye_ratio"]), z["R.eye_delta"]),
        (networks.retarget_lips(source, z["R.lip_ratio"]), z["R.lip_delta"]),
    ):
        assert got.dtype == np.float32
        assert np.abs(got - want).max() <= 1e-4 * want.std()
    np.testing.assert_array_equal(driving, kept)


def test_keys_may_lack_the_prefix(stitching: Path) -> None:
    torch.save(read_parts(stitching), stitching)
    again = read_parts(stitching)
    assert {part: list(state) for part, state in again.items()} == {
        part: list(weights.released_keys()[part]) for part in weights.PARTS
    }


def write_safetensors(path: Path, tensors: dict[str, np.ndarray]) -> None:
    header, body = {"__metadata__": {"format": "pt"}}, b""
    for name, array in tensors.items():
        kind = {"float32": "F32", "float16": "F16"}[array.dtype.name]
        offsets = [len(body), len(body) + array.nbytes]
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": offsets}  # type: ignore[dict-item]
        body += array.tobytes()
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)


@pytest.mark.parametrize("kind", [np.float32, np.float16])
@pytest.mark.parametrize("prefix", ["", "_module", "_module.module"])
def test_safetensors_hold_the_same(whole: Path, tmp_path: Path, kind: type, prefix: str) -> None:
    """Repackaged files have the part's name with "_module" before the network's key."""
    path = tmp_path / f"{STITCHING}.safetensors"
    states = {part: weights.module_state(part) for part in weights.PARTS}
    write_safetensors(
        path,
        {
            f"{part}{prefix}.{key}": value.astype(kind)
            for part, state in states.items()
            for key, value in state.items()
        },
    )
    x = np.linspace(-0.3, 0.3, 126, dtype=np.float32).reshape(2, 21, 3)
    one, two = networks_of(whole), networks_of(path)
    tolerance = 0 if kind is np.float32 else 1e-3
    np.testing.assert_allclose(two.stitch(x[:1], x[1:]), one.stitch(x[:1], x[1:]), atol=tolerance)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(WeightsError, match="damaged"):
        networks_of(path)


def refusal(
    call: Callable[[], Any], kind: type[LivePortraitError] = WeightsError
) -> LivePortraitError:
    with pytest.raises(kind) as caught:
        call()
    assert "\n" not in str(caught.value)
    assert caught.value.hint
    return caught.value


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert "no file" in refusal(lambda: load_state(tmp_path / "nothing.pth"), EngineError).message


@pytest.mark.parametrize("keep", [0, 1, 4, 1000, 100_000, -200, -1])
def test_truncated_files(stitching: Path, keep: int) -> None:
    stitching.write_bytes(stitching.read_bytes()[:keep])
    assert "damaged" in refusal(lambda: read_parts(stitching)).message


@pytest.mark.parametrize(
    "content", [b"<html>404</html>", b"\x80\x02N.", b"PK\x03\x04" + bytes(50), bytes(4096)]
)
def test_what_is_no_file_of_weights(stitching: Path, content: bytes) -> None:
    stitching.write_bytes(content)
    refusal(lambda: read_parts(stitching))


class Trap:
    """Unpickling it would write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("legacy", [False, True])
def test_a_crafted_file_runs_nothing(stitching: Path, tmp_path: Path, legacy: bool) -> None:
    touched = tmp_path / "touched"
    torch.save({"retarget_shoulder": Trap(touched)}, stitching, _use_new_zipfile_serialization=not legacy)
    assert "nothing in it was run" in refusal(lambda: read_parts(stitching)).message
    assert not touched.exists()
    torch.load(stitching, weights_only=False)  # the trap does work
    assert touched.exists()


def test_other_contents_are_named(stitching: Path) -> None:
    whole = torch.load(stitching, weights_only=True)
    key = "module.mlp.2.bias"

    def message(part: Any) -> str:
        torch.save({**whole, "retarget_eye": part}, stitching)
        return refusal(lambda: networks_of(stitching)).message

    eye = whole["retarget_eye"]
    assert message(None) == f"{STITCHING}.pth lacks the part retarget_eye."
    assert message({}) == f"{STITCHING}.pth holds no weights."
    assert message({**eye, key: [1.0]}) == f"{STITCHING}.pth holds something else than weights."
    assert message({**eye, "more": eye[key]}) == "The weights of retarget_eye have the unknown more."
    assert (
        message({**eye, key: eye[key][:5]}) == "The weights of retarget_eye have another shape in mlp.2.bias."
    )
    assert (
        message({**eye, key: eye[key].long()})
        == "The weights of retarget_eye have another type in mlp.2.bias."
    )
    assert (
        message({**eye, key: eye[key] * torch.nan})
        == "The weights of retarget_eye are not finite in mlp.2.bias."
    )
    lacking = {name: value for name, value in eye.items() if name not in (key, "module.mlp.0.bias")}
    assert message(lacking) == "The weights of retarget_eye lack mlp.0.bias and 1 more."
    torch.save([1, 2], stitching)
    assert "lacks the part" in refusal(lambda: read_parts(stitching)).message
    torch.save(3, stitching)
    assert "holds no weights" in refusal(lambda: load_state(stitching)).message


def test_counters_of_training_steps_may_be_absent() -> None:
    layer = torch.nn.BatchNorm1d(3)
    state = {key: value + 1.0 for key, value in layer.state_dict().items() if "num_batches" not in key}
    assert fill(layer, state, "layer").running_mean.tolist() == [1, 1, 1]
    assert not layer.training
