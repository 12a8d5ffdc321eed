# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads what tensors a .pth file holds, without PyTorch and without running anything in it.

A .pth is a zip of one pickle, `data.pkl`, that describes the tensors, and one raw file for each storage. The
pickle is taken apart instruction by instruction (`pickletools.genops`, which only decodes); the few names
that PyTorch writes are recognised as text and stand for plain descriptions, any other name or instruction is
a WeightsError. The format: torch/serialization.py and torch/_utils.py, `_rebuild_tensor_v2`.
"""

from __future__ import annotations

import pickletools
import re
import struct
import zipfile
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, NoReturn

from backend.errors import WeightsError

# What zipfile raises for damage. None of the parts that are read is compressed, so no decompressor has a say.
_UNREADABLE = (
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    EOFError,
    NotImplementedError,
    OverflowError,
    RuntimeError,
    ValueError,
    struct.error,
)

MAXIMUM_PICKLE = 4 << 20  # bytes; the released ones are under 100 kB
MAXIMUM_ENTRIES = 20_000

_NOTHING_RUN = "Nothing in it was run. Fetch the file again: python -m backend models download"
STORAGES = {
    "FloatStorage": ("float32", 4),
    "HalfStorage": ("float16", 2),
    "BFloat16Storage": ("bfloat16", 2),
    "DoubleStorage": ("float64", 8),
    "LongStorage": ("int64", 8),
    "IntStorage": ("int32", 4),
    "ShortStorage": ("int16", 2),
    "CharStorage": ("int8", 1),
    "ByteStorage": ("uint8", 1),
    "BoolStorage": ("bool", 1),
}
_NAMES = {
    "collections OrderedDict": "dict",
    "torch._utils _rebuild_tensor_v2": "tensor",
    "torch._utils _rebuild_parameter": "parameter",
    **{f"torch {name}": name for name in STORAGES},
}
_MARK = object()


@dataclass(frozen=True)
class Tensor:
    """A tensor's description."""

    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class _Name:
    kind: str


@dataclass(frozen=True)
class _Storage:
    """`count` numbers of one type, in the zip's entry data/<key>."""

    key: str
    dtype: str
    count: int


def read_torch(path: Path) -> Any:
    """What a .pth of PyTorch 1.6 or later holds: plain containers, numbers, texts, and `Tensor` for tensors.

    Every tensor is checked to lie inside its storage and every storage to be there whole. Raises WeightsError
    for a file that is no such zip, is cut short, or holds anything else than tensors and plain containers.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _read(archive, path.name)
    except _UNREADABLE as error:
        raise WeightsError(
            f"{path.name} is cut short, damaged or no PyTorch file.",
            "Fetch it again: python -m backend models download",
            f"{type(error).__name__}: {error}",
        ) from error


def _read(archive: zipfile.ZipFile, name: str) -> Any:
    entries = {entry.filename: entry for entry in archive.infolist()}
    if len(entries) != len(archive.infolist()) or len(entries) > MAXIMUM_ENTRIES:
        _refuse(name, "has the same part twice or far too many parts")
    descriptions = [entry for entry in entries if re.fullmatch(r"[^/]+/data\.pkl", entry)]
    if len(descriptions) != 1:
        _refuse(name, "is a zip, but not one that PyTorch wrote")
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries.values()):
        _refuse(name, "is compressed, as PyTorch's own files never are")
    folder = descriptions[0].removesuffix("data.pkl")
    if f"{folder}byteorder" in entries:
        with archive.open(f"{folder}byteorder") as file:
            if file.read(16) != b"little":
                _refuse(name, "was written on a big-endian machine")
    with archive.open(descriptions[0]) as file:
        description = file.read(MAXIMUM_PICKLE + 1)
    if len(description) > MAXIMUM_PICKLE:
        _refuse(name, "describes far more than LivePortrait's networks")
    machine = _Machine(name)
    try:
        content = machine.run(description)
    except (ValueError, IndexError, KeyError, OverflowError, struct.error) as error:
        raise WeightsError(
            f"{name} is damaged: its description of the tensors cannot be read.",
            "Fetch it again: python -m backend models download",
            f"{type(error).__name__}: {error}",
        ) from error
    for key, (dtype, count) in machine.storages.items():
        entry = entries.get(f"{folder}data/{key}")
        size = dict(STORAGES.values())[dtype] * count
        if entry is None or entry.file_size != size:
            _refuse(name, f"lacks the numbers of part {key[:20]}, or has too few or too many")
    return content


def _refuse(name: str, what: str) -> NoReturn:
    raise WeightsError(f"{name} {what}.", _NOTHING_RUN)


class _Machine:
    """The pickle instructions that PyTorch writes, without imports and calls."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.storages: dict[str, tuple[str, int]] = {}

    def run(self, data: bytes) -> Any:
        argument: Any
        for operation, argument, _ in pickletools.genops(data):
            code = operation.name
            if code == "STOP":
                return self.stack.pop()
            if code in _LITERALS:
                self.stack.append(argument)
            elif code in _CONSTANTS:
                self.stack.append(_CONSTANTS[code]())
            elif code in ("BINPUT", "LONG_BINPUT"):
                self.memo[argument] = self.stack[-1]
            elif code == "MEMOIZE":
                self.memo[len(self.memo)] = self.stack[-1]
            elif code in ("BINGET", "LONG_BINGET"):
                self.stack.append(self.memo[argument])
            elif code in _TUPLES:
                items = [self.stack.pop() for _ in range(_TUPLES[code])]
                self.stack.append(tuple(reversed(items)))
            elif code not in ("PROTO", "FRAME"):
                self.step(code, argument)
        raise ValueError("no end")

    def step(self, code: str, argument: Any) -> None:
        stack = self.stack
        if code == "GLOBAL":
            self.recognise(argument)
        elif code == "STACK_GLOBAL":
            attribute, module = stack.pop(), stack.pop()
            self.recognise(f"{module} {attribute}")
        elif code == "TUPLE":
            stack.append(tuple(self.since_mark()))
        elif code == "SETITEM":
            value, key = stack.pop(), stack.pop()
            self.store([key, value])
        elif code == "SETITEMS":
            self.store(self.since_mark())
        elif code in ("APPEND", "APPENDS"):
            items = [stack.pop()] if code == "APPEND" else self.since_mark()
            if type(stack[-1]) is not list:
                _refuse(self.name, "holds items for something that is no list")
            stack[-1].extend(items)
        elif code == "BINPERSID":
            stack.append(self.storage(stack.pop()))
        elif code == "REDUCE":
            arguments, function = stack.pop(), stack.pop()
            stack.append(self.call(function, arguments))
        elif code == "BUILD":
            # A state dict carries its version numbers as an attribute; nobody needs them.
            if type(stack.pop()) is not dict or type(stack[-1]) is not dict:
                _refuse(self.name, "holds an object that is neither a tensor nor a plain container")
        else:
            _refuse(self.name, f"holds a pickle instruction that weights never use ({code})")

    def recognise(self, name: str) -> None:
        kind = _NAMES.get(name)
        if kind is None:
            _refuse(self.name, f"refers to {name[:80].replace(' ', '.')}, which weights never do")
        self.stack.append(_Name(kind))

    def since_mark(self) -> list[Any]:
        for k in range(len(self.stack) - 1, -1, -1):
            if self.stack[k] is _MARK:
                items = self.stack[k + 1 :]
                del self.stack[k:]
                return items
        raise IndexError("no mark")

    def store(self, pairs: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not dict or len(pairs) % 2:
            _refuse(self.name, "holds entries for something that is no dictionary")
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            if type(key) not in (str, int):  # hashing deeply nested tuples can stall the interpreter
                _refuse(self.name, "holds a dictionary whose keys are not names")
            target[key] = value

    def storage(self, reference: Any) -> _Storage:
        if type(reference) is not tuple or len(reference) != 5 or reference[0] != "storage":
            _refuse(self.name, "refers to something outside the file")
        _, kind, key, _, count = reference
        if type(kind) is not _Name or kind.kind not in STORAGES or type(key) is not str:
            _refuse(self.name, "holds numbers of an unknown type")
        if type(count) is not int or count < 0:
            _refuse(self.name, "holds a storage of impossible size")
        dtype = STORAGES[kind.kind][0]
        if self.storages.setdefault(key, (dtype, count)) != (dtype, count):
            _refuse(self.name, "describes one part in two ways")
        return _Storage(key, dtype, count)

    def call(self, function: Any, arguments: Any) -> Any:
        if type(function) is not _Name or type(arguments) is not tuple:
            _refuse(self.name, "holds a call")
        if function.kind == "dict" and arguments == ():
            return {}
        if function.kind == "parameter" and len(arguments) == 3 and type(arguments[0]) is Tensor:
            return arguments[0]
        if function.kind == "tensor" and len(arguments) in (6, 7):
            return self.tensor(*arguments[:4])
        _refuse(self.name, "holds a call")

    def tensor(self, storage: Any, offset: Any, shape: Any, stride: Any) -> Tensor:
        sizes = (shape, stride)
        if (
            type(storage) is not _Storage
            or type(offset) is not int
            or any(type(part) is not tuple or len(part) > 8 for part in sizes)
            or len(shape) != len(stride)
            or any(type(number) is not int or number < 0 for part in (*sizes, (offset,)) for number in part)
        ):
            _refuse(self.name, "holds a tensor of impossible shape")
        reach = offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True)) + 1
        if prod(shape) and reach > storage.count:
            _refuse(self.name, "holds a tensor that reaches beyond its numbers")
        return Tensor(shape, storage.dtype)


_LITERALS = {"BINUNICODE", "SHORT_BINUNICODE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"}
_CONSTANTS: dict[str, Any] = {
    "MARK": lambda: _MARK,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
