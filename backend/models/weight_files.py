# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a file of weights is whole and of the right network, told from its outline alone (milliseconds, and
nothing in it is run).
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from backend.errors import WeightsError
from backend.models.catalogue import ModelFile
from backend.models.torch_files import STORAGES, Tensor, read_torch

MAXIMUM_HEADER = 4 << 20  # bytes of a .safetensors header; the released networks need under 30 kB

_FETCH = "Fetch it again: python -m backend models download"
_TYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}
_SIZES = dict(STORAGES.values())
_FLOATS = {"float64", "float32", "float16", "bfloat16"}
_COUNTER = ".num_batches_tracked"
_GRAPH = 7  # field number of ModelProto.graph, onnx.proto
_FIXED = {1: 8, 5: 4}  # bytes of protobuf's wire types of fixed size

Outline = Mapping[str, Mapping[str, Tensor]]  # part -> key -> tensor; "" where there is one part


def check_structure(file: ModelFile, path: Path) -> None:
    """Check that `path` is a whole `file`: .pth, .safetensors or .onnx by its ending.

    Raises WeightsError, one line, for a file that is cut short, damaged, hostile, or of another network.
    """
    try:
        if path.suffix == ".onnx":
            check_onnx(path)
            return
        outline = read_outline(file, path)
    except OSError as error:
        raise WeightsError(f"{path.name} cannot be read ({error.strerror}).", "Make it readable.") from error
    for part, wanted in (file.layout or {}).items():
        if part not in outline:
            raise WeightsError(f"{path.name} lacks its part {part}.", _FETCH)
        _compare(path.name, wanted, outline[part])


def read_outline(file: ModelFile, path: Path) -> Outline:
    """The tensors in a .pth or .safetensors, by the parts and keys of the project's networks.

    The stitching file is a dictionary of three state dicts, whose keys may begin with "module.", in a .pth;
    flattened, as in "retarget_eye_module.mlp.0.weight", in the .safetensors that go round.
    """
    parts = list(file.layout or {})
    if path.suffix == ".safetensors":
        content: Any = {key: tensor for key, (tensor, _) in _read_header(path).items()}
        if parts != [""]:
            content = {part: {key: content[key] for key in content if key.startswith(part)} for part in parts}
    else:
        content = read_torch(path)
    if type(content) is not dict:
        raise WeightsError(f"{path.name} is not a set of named tensors.", _FETCH)
    if parts == [""]:
        return {"": _tensors(path.name, content)}
    return {
        part: {key_in_part(part, key): tensor for key, tensor in _tensors(path.name, content[part]).items()}
        for part in parts
        if type(content.get(part)) is dict
    }


def key_in_part(part: str, key: str) -> str:
    """The network's own key for a key of the stitching file: without the part's name and "module."."""
    return key.removeprefix(part).lstrip("_.").replace("module.", "")


def _tensors(name: str, content: Mapping[Any, Any]) -> dict[str, Tensor]:
    if any(type(key) is not str or type(value) is not Tensor for key, value in content.items()):
        raise WeightsError(f"{name} holds something that is not a named tensor.", _FETCH)
    return dict(content)


def _compare(name: str, wanted: Mapping[str, tuple[int, ...]], found: Mapping[str, Tensor]) -> None:
    # Batch norm's counters are of no use once training is over, and repackaged files may leave them out.
    missing = [key for key in wanted if key not in found and not key.endswith(_COUNTER)]
    strange = [key for key in found if key not in wanted]
    if missing or strange:
        what = f"lacks {missing[0]}" if missing else f"holds {strange[0][:80]}"
        more = len(missing) + len(strange) - 1
        others = f", and {more} more keys differ" if more else ""
        raise WeightsError(f"{name} is of another network: it {what}{others}.", _FETCH)
    for key, tensor in found.items():
        if tensor.shape != wanted[key]:
            difference = f"{key} is {_spoken(tensor.shape)}, not {_spoken(wanted[key])}"
            raise WeightsError(f"{name} is of another network: {difference}.", _FETCH)
        if tensor.dtype not in _FLOATS and not key.endswith(_COUNTER):
            raise WeightsError(f"{name} is of another network: {key} holds {tensor.dtype} numbers.", _FETCH)


def _spoken(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "one number"


def _read_header(path: Path) -> dict[str, tuple[Tensor, int]]:
    """Key -> (tensor, place of its first byte after the header).

    The format: 8 bytes size of the header, little-endian; JSON; the numbers, without gaps to the end.
    """
    name, size = path.name, path.stat().st_size
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8).ljust(8, b"\xff"))
        if length > min(MAXIMUM_HEADER, size - 8):
            raise WeightsError(f"{name} is cut short, damaged or no .safetensors file.", _FETCH)
        text = file.read(length)
    try:
        listing = json.loads(text)
        listing.pop("__metadata__", None)
        header = {key: _placed(entry) for key, entry in listing.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise WeightsError(f"{name} is damaged: its header cannot be read.", _FETCH, repr(error)) from error
    end = 0
    for tensor, begin in sorted(header.values(), key=lambda placed: placed[1]):
        if begin != end:
            raise WeightsError(f"{name} is damaged: its tensors overlap or have gaps.", _FETCH)
        end += math.prod(tensor.shape) * _SIZES[tensor.dtype]
    if 8 + length + end != size:
        sizes = f"{size} bytes instead of {8 + length + end}"
        raise WeightsError(f"{name} is cut short or damaged: {sizes}.", _FETCH)
    return header


def _placed(entry: dict[str, Any]) -> tuple[Tensor, int]:
    dtype = _TYPES[entry["dtype"]]
    shape, (begin, end) = tuple(entry["shape"]), entry["data_offsets"]
    if any(type(number) is not int or number < 0 for number in (*shape, begin, end)):
        raise ValueError("impossible shape")
    if end - begin != math.prod(shape) * _SIZES[dtype]:
        raise ValueError("size and shape differ")
    return Tensor(shape, dtype), begin


def check_onnx(path: Path) -> None:
    """Check that an .onnx is whole: a protobuf message whose fields fill the file and one of them is a graph.

    Raises WeightsError.
    """
    size = path.stat().st_size
    fields = set()
    with path.open("rb") as file:
        try:
            while file.tell() < size:
                field, wire = divmod(_varint(file), 8)
                if wire == 0:
                    _varint(file)
                elif wire == 2:
                    file.seek(_varint(file), 1)
                else:
                    file.seek(_FIXED[wire], 1)
                fields.add(field)
            whole = file.tell() == size and _GRAPH in fields and 0 not in fields
        except (ValueError, KeyError, OverflowError, OSError):
            whole = False
    if not whole:
        raise WeightsError(f"{path.name} is cut short, damaged or no ONNX file.", _FETCH)


def _varint(file: BinaryIO) -> int:
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            break
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise ValueError("no number")
