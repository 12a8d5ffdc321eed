# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes files of weights in the formats that go round, without PyTorch, whole or wrong on purpose."""

from __future__ import annotations

import json
import math
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from backend.models.catalogue import ModelFile

Arrays = Mapping[str, np.ndarray]


def arrays_of(file: ModelFile, part: str = "") -> dict[str, np.ndarray]:
    """Numbers of the right shapes, the same on every call."""
    assert file.layout is not None
    generator = np.random.default_rng(7)
    return {
        key: np.ones(shape, np.int64)
        if key.endswith("num_batches_tracked")
        else generator.random(shape, np.float32)
        for key, shape in file.layout[part].items()
    }


def write_weights(file: ModelFile, path: Path) -> Path:
    """A whole file of the released kind, .pth, .safetensors or .onnx by the path's ending."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".onnx":
        path.write_bytes(onnx(b"a graph"))
        return path
    assert file.layout is not None
    parts = {part: arrays_of(file, part) for part in file.layout}
    if path.suffix == ".safetensors":
        flat = {
            (f"{part}_module.{key}" if part else key): array
            for part, arrays in parts.items()
            for key, array in arrays.items()
        }
        return write_safetensors(path, flat)
    if list(parts) == [""]:
        return write_pth(path, Pickle().state_dict(parts[""]))
    pickle = Pickle()
    pickle.code += b"}("
    for part, arrays in parts.items():
        pickle.text(part).state_dict({f"module.{key}": array for key, array in arrays.items()})
    pickle.code += b"u"
    return write_pth(path, pickle)


class Pickle:
    """The instructions that torch.save writes (protocol 2), put together by hand."""

    def __init__(self) -> None:
        self.code = b""
        self.storages: list[np.ndarray] = []

    def text(self, text: str) -> Pickle:
        data = text.encode()
        self.code += b"X" + struct.pack("<I", len(data)) + data
        return self

    def name(self, module: str, attribute: str) -> Pickle:
        self.code += f"c{module}\n{attribute}\n".encode()
        return self

    def integers(self, *numbers: int) -> Pickle:
        self.code += b"(" + b"".join(b"J" + struct.pack("<i", number) for number in numbers) + b"t"
        return self

    def tensor(self, array: np.ndarray, shape: tuple[int, ...] | None = None) -> Pickle:
        """A tensor of the array's numbers; with another shape it may reach beyond them."""
        kind = {"float32": "FloatStorage", "int64": "LongStorage", "uint8": "ByteStorage"}[array.dtype.name]
        shape = array.shape if shape is None else shape
        strides = [math.prod(shape[k + 1 :]) for k in range(len(shape))]
        self.name("torch._utils", "_rebuild_tensor_v2")
        self.code += b"(("
        self.text("storage").name("torch", kind).text(str(len(self.storages))).text("cpu")
        self.code += b"J" + struct.pack("<i", array.size) + b"tQK\x00"
        self.integers(*shape).integers(*strides)
        self.code += b"\x89"
        self.name("collections", "OrderedDict")
        self.code += b")RtR"
        self.storages.append(array)
        return self

    def state_dict(self, arrays: Arrays) -> Pickle:
        self.name("collections", "OrderedDict")
        self.code += b")R("
        for key, array in arrays.items():
            self.text(key).tensor(array)
        self.code += b"u}"
        self.text("_metadata").name("collections", "OrderedDict")
        self.code += b")Rsb"
        return self


def write_pth(path: Path, pickle: Pickle, compression: int = zipfile.ZIP_STORED) -> Path:
    """A zip as torch.save makes it."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + pickle.code + b".")
        archive.writestr("archive/byteorder", b"little")
        for number, array in enumerate(pickle.storages):
            archive.writestr(f"archive/data/{number}", array.tobytes())
        archive.writestr("archive/version", b"3\n")
    return path


def write_safetensors(path: Path, arrays: Arrays) -> Path:
    """A .safetensors file."""
    types = {"float32": "F32", "int64": "I64", "float16": "F16"}
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    at = 0
    for key, array in arrays.items():
        header[key] = {
            "dtype": types[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [at, at + array.nbytes],
        }
        at += array.nbytes
    text = json.dumps(header).encode()
    path.write_bytes(
        struct.pack("<Q", len(text)) + text + b"".join(array.tobytes() for array in arrays.values())
    )
    return path


def onnx(graph: bytes) -> bytes:
    """A protobuf message with an IR version, a producer and a graph."""
    assert len(graph) < 128
    return b"\x08\x07" + b"\x12\x04test" + bytes([7 << 3 | 2, len(graph)]) + graph
