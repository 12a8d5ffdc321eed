# SPDX-License-Identifier: GPL-3.0-or-later
"""Files of weights are recognised as whole and right, or refused in one line, without running them."""

from __future__ import annotations

import os
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backend.errors import WeightsError
from backend.models.catalogue import FILES
from backend.models.torch_files import Tensor, read_torch
from backend.models.weight_files import check_structure, read_outline
from tests.backend.weight_writers import (
    Pickle,
    arrays_of,
    onnx,
    write_pth,
    write_safetensors,
    write_weights,
)

BY_NAME = {file.name: file for file in FILES}
LOOK = BY_NAME["appearance_feature_extractor"]
PARTS = BY_NAME["stitching_retargeting_module"]
LANDMARK = BY_NAME["landmark"]


def refusal(file, path: Path) -> str:
    """The one line with which a file is refused."""
    with pytest.raises(WeightsError) as caught:
        check_structure(file, path)
    assert "\n" not in str(caught.value)
    assert path.name in caught.value.message
    assert caught.value.hint
    return caught.value.message


@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
@pytest.mark.parametrize("file", [LOOK, PARTS], ids=lambda file: file.name)
def test_whole_files_of_both_formats_are_accepted(file, ending: str, tmp_path: Path) -> None:
    path = write_weights(file, tmp_path / f"{file.name}{ending}")
    check_structure(file, path)
    outline = read_outline(file, path)
    assert {part: {key: t.shape for key, t in keys.items()} for part, keys in outline.items()} == file.layout


def test_what_pytorch_itself_writes_is_accepted(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    flat = {key: torch.from_numpy(array) for key, array in arrays_of(LOOK).items()}
    torch.save(flat, tmp_path / "flat.pth")
    check_structure(LOOK, tmp_path / "flat.pth")
    parts = {
        part: torch.nn.ParameterDict({}).state_dict()
        | {f"module.{key}": torch.from_numpy(array) for key, array in arrays_of(PARTS, part).items()}
        for part in PARTS.layout or {}
    }
    torch.save({**parts, "epoch": 3, "notes": ["a", None, 1.5]}, tmp_path / "parts.pth")
    check_structure(PARTS, tmp_path / "parts.pth")
    network = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3)).half()
    torch.save(network.state_dict(), tmp_path / "other.pth")
    assert read_torch(tmp_path / "other.pth")["0.weight"] == Tensor((3, 2), "float16")


def test_hand_written_files_load_in_pytorch(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    loaded = torch.load(write_weights(LOOK, tmp_path / "a.pth"), weights_only=True)
    for key, array in arrays_of(LOOK).items():
        assert np.array_equal(loaded[key].numpy(), array)


def test_counters_of_batch_norm_may_be_missing(tmp_path: Path) -> None:
    arrays = {key: a for key, a in arrays_of(LOOK).items() if not key.endswith("num_batches_tracked")}
    check_structure(LOOK, write_pth(tmp_path / "a.pth", Pickle().state_dict(arrays)))


def test_files_cut_anywhere_are_refused(tmp_path: Path) -> None:
    for file, ending in ((PARTS, ".pth"), (PARTS, ".safetensors"), (LANDMARK, ".onnx")):
        path = write_weights(file, tmp_path / f"a{ending}")
        whole = path.read_bytes()
        for part in (0, 1, 7, 8, 9, len(whole) // 3, len(whole) // 2, len(whole) - 2):
            path.write_bytes(whole[:part])
            refusal(file, path)


def test_files_of_another_network_name_the_first_difference(tmp_path: Path) -> None:
    arrays = arrays_of(LOOK)
    first = next(iter(arrays))
    lacking = {key: array for key, array in arrays.items() if key != first}
    assert f"lacks {first}" in refusal(LOOK, write_pth(tmp_path / "a.pth", Pickle().state_dict(lacking)))
    more = {**arrays, "strange.weight": np.ones(3, np.float32)}
    assert "holds strange.weight" in refusal(LOOK, write_safetensors(tmp_path / "b.safetensors", more))
    bent = {**arrays, first: np.ones((64, 3, 3, 1), np.float32)}
    said = refusal(LOOK, write_pth(tmp_path / "c.pth", Pickle().state_dict(bent)))
    assert "64 x 3 x 3 x 1, not 64 x 3 x 3 x 3" in said
    whole_numbers = {**arrays, first: np.ones((64, 3, 3, 3), np.uint8)}
    assert "uint8" in refusal(LOOK, write_pth(tmp_path / "d.pth", Pickle().state_dict(whole_numbers)))
    assert "retarget_shoulder" in refusal(
        PARTS, write_pth(tmp_path / "e.pth", Pickle().state_dict({"a": np.ones(1, np.float32)}))
    )


def test_pickles_that_would_run_something_are_refused_and_do_nothing(tmp_path: Path) -> None:
    trace = tmp_path / "trace"

    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(trace),)

    for number, hostile in enumerate((Evil(), {"a": Evil()}, {"a": [Evil()]})):
        path = tmp_path / f"{number}.pth"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", pickle.dumps(hostile, 2))
        assert "mkdir" in refusal(LOOK, path)
    path = tmp_path / "torch.pth"
    write_pth(path, Pickle().name("torch.hub", "load"))
    assert "torch.hub.load" in refusal(LOOK, path)
    assert not trace.exists()


@pytest.mark.parametrize(
    "code",
    [
        b"(lp0\n0",  # an instruction of protocol 0
        b"ccollections\nOrderedDict\n(K\x01tR",  # a call with arguments
        b"ccollections\nOrderedDict\n)R}b0",  # fine so far, and nothing left to return
        b"}N)K\x01s",  # an entry for None
        b"}))s",  # a key that is no name
        b"X\x07\x00\x00\x00storageQ",  # a reference to the outside
        b"h\x09",  # an object that was never remembered
        b"K\x01K\x02u",  # entries without a beginning
        b"",
    ],
)
def test_damaged_descriptions_are_refused(code: bytes, tmp_path: Path) -> None:
    pickled = Pickle()
    pickled.code = code
    refusal(LOOK, write_pth(tmp_path / "a.pth", pickled))


def test_tensors_have_to_lie_inside_their_numbers(tmp_path: Path) -> None:
    reaching = Pickle().tensor(np.ones(4, np.float32), shape=(5,))
    assert "reaches beyond" in refusal(LOOK, write_pth(tmp_path / "a.pth", reaching))
    lying = Pickle().tensor(np.ones(4, np.float32))
    lying.storages = [np.ones(3, np.float32)]
    assert "lacks the numbers" in refusal(LOOK, write_pth(tmp_path / "b.pth", lying))
    lying.storages = []
    assert "lacks the numbers" in refusal(LOOK, write_pth(tmp_path / "c.pth", lying))
    packed = write_pth(tmp_path / "d.pth", Pickle().tensor(np.ones(4, np.float32)), zipfile.ZIP_DEFLATED)
    assert "compressed" in refusal(LOOK, packed)


def test_zips_that_pytorch_did_not_write_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("holiday.jpg", b"x")
    assert "not one that PyTorch wrote" in refusal(LOOK, path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02N.")
        archive.writestr("archive/byteorder", b"big")
    assert "big-endian" in refusal(LOOK, path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", bytes(5 << 20))
    assert "far more" in refusal(LOOK, path)


@pytest.mark.parametrize(
    "header",
    [
        b"[]",
        b'{"a": 3}',
        b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 8]}}',
        b'{"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, -4]}}',
        b'{"a": {"dtype": "Q7", "shape": [2], "data_offsets": [0, 8]}}',
        b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}}',
        b'{"a": {"dtype": "F32", "shape": [1e400], "data_offsets": [0, 8]}}',
        b"[" * 100_000,
        b"\xff\xfe",
    ],
)
def test_damaged_safetensors_are_refused(header: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))
    refusal(LOOK, path)


def test_onnx_needs_a_graph_and_an_end(tmp_path: Path) -> None:
    path = tmp_path / "landmark.onnx"
    for content in (b"", b"\x08\x07", onnx(b"graph") + b"\x0a", b"<html>login</html>", onnx(b"g")[:-1]):
        path.write_bytes(content)
        refusal(LANDMARK, path)
    path.write_bytes(onnx(b"graph"))
    check_structure(LANDMARK, path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(data=st.data(), ending=st.sampled_from([".pth", ".safetensors", ".onnx"]))
def test_damage_never_ends_in_anything_but_a_refusal(data, ending: str, tmp_path: Path) -> None:
    content = {"w": np.ones((2, 2), np.float32)}
    path = tmp_path / f"a{ending}"
    if ending == ".pth":
        write_pth(path, Pickle().state_dict(content))
    elif ending == ".safetensors":
        write_safetensors(path, content)
    else:
        path.write_bytes(onnx(b"graph"))
    damaged = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(damaged)
    try:
        check_structure(LANDMARK if ending == ".onnx" else LOOK, path)
    except WeightsError:
        return
    assert ending == ".onnx"
