# SPDX-License-Identifier: GPL-3.0-or-later
"""A reader of pickles that can build numpy arrays and plain containers and can do nothing else.

A pickle is a program for a stack machine, and Python's own reader lets it import and call what it likes. This
is another machine for the same code, without imports or calls. The few names that numpy's arrays need
are recognised as text (numpy 1 and 2 spell them differently) and rebuilt here by hand, from bytes that are
there; any other name or instruction is an UnsafePickleError. Nothing is allocated on a file's word alone.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any, NoReturn

import numpy as np

from backend.errors import MotionFileError, UnsafePickleError

# Some 100,000 frames of a template; bounds the memory and the time that a hostile file can take.
MAXIMUM_INSTRUCTIONS = 20_000_000
_MAXIMUM_INTEGER_BYTES = 16
_MAXIMUM_DIMENSIONS = 6
_MAXIMUM_SIZE = 1_000_000_000

_REBUILD, _NDARRAY, _DTYPE = "rebuild", "ndarray", "dtype"
_SCALAR, _BUFFER, _ENCODE = "scalar", "buffer", "encode"
_NAMES = {
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): _DTYPE,
    # Protocol 2 has no bytes and writes them as text that is to be encoded.
    ("_codecs", "encode"): _ENCODE,
}
for _core in ("numpy.core", "numpy._core"):
    _NAMES[f"{_core}.multiarray", "_reconstruct"] = _REBUILD
    _NAMES[f"{_core}.multiarray", "scalar"] = _SCALAR
    _NAMES[f"{_core}.numeric", "_frombuffer"] = _BUFFER

_HINT = "Only LivePortrait templates of arrays, lists and numbers are read; nothing in the file was run."


@dataclass(frozen=True, slots=True)
class _Name:
    """An admitted name on the stack; it cannot be called, only recognised."""

    kind: str


class _Type:
    """A numpy dtype being built."""

    __slots__ = ("code", "order")

    def __init__(self, code: str) -> None:
        self.code = code
        self.order = "="

    def finish(self) -> np.dtype[Any]:
        return np.dtype(self.order + self.code)


class _Array:
    """A numpy array announced; its content comes with BUILD and takes this one's place, in the memo too."""

    __slots__ = ("key",)

    def __init__(self) -> None:
        self.key: int | None = None


class _Mark:
    __slots__ = ()


_MARK = _Mark()
_TOKENS = {_Name, _Type, _Array, _Mark}
_NO_DATA = "something that is neither a number, a text, an array nor a plain container"


def read_pickle(data: bytes) -> Any:
    """The object in a pickle of protocol 2 to 5: dict, list, tuple, str, bytes, numbers, bool, None, arrays.

    Arrays come as read-only `numpy.ndarray` of numbers or bools, numpy scalars as Python numbers. Raises
    UnsafePickleError for any other content (objects, calls, arrays of objects, sets, keys that are not text
    or numbers) and MotionFileError for a file that is cut short, damaged or too large.
    """
    if len(data) < 2 or data[0] != 0x80:
        raise UnsafePickleError("The file is no pickle of protocol 2 to 5.", _HINT)
    try:
        return _Machine(data).run()
    except (struct.error, IndexError, KeyError, UnicodeDecodeError) as error:
        raise MotionFileError(
            "The template file is cut short or damaged.", "Get it again.", f"{type(error).__name__}: {error}"
        ) from error


def printable(text: str, most: int) -> str:
    """The beginning of a file's own words, fit for a line of a message."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text[:most])


def _unsafe(what: str) -> NoReturn:
    raise UnsafePickleError(f"The template file holds {what}.", _HINT)


class _Machine:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        data, steps = self.data, _STEPS
        for _ in range(MAXIMUM_INSTRUCTIONS):
            code = data[self.at]
            self.at += 1
            if code == 0x2E:  # STOP
                result = self.pop()
                if self.stack or type(result) in _TOKENS:
                    raise MotionFileError("The template file is damaged.", "Get it again.")
                return result
            step = steps[code]
            if step is None:
                _unsafe(f"a pickle instruction that templates never use ({bytes([code])!r})")
            step(self)
        raise MotionFileError("The template file is too long.", "Save long performances as motion .npz.")

    def number(self, layout: struct.Struct) -> Any:
        (value,) = layout.unpack_from(self.data, self.at)
        self.at += layout.size
        return value

    def bytes(self, size: int) -> bytes:
        end = self.at + size
        if end > len(self.data):
            raise IndexError("past the end")
        chunk = self.data[self.at : end]
        self.at = end
        return chunk

    def line(self) -> str:
        end = self.data.find(b"\n", self.at, self.at + 300)
        if end < 0:
            raise IndexError("no end of line")
        text = self.data[self.at : end].decode("ascii", "replace")
        self.at = end + 1
        return text

    def since_mark(self) -> list[Any]:
        stack = self.stack
        for k in range(len(stack) - 1, -1, -1):
            if stack[k] is _MARK:
                items = stack[k + 1 :]
                del stack[k:]
                return items
        raise IndexError("no mark")

    def pop(self) -> Any:
        value = self.stack.pop()
        if value is _MARK:
            raise IndexError("mark where a value belongs")
        return value

    def name(self, module: Any, attribute: Any) -> None:
        if type(module) is not str or type(attribute) is not str:
            _unsafe("a reference without a name")
        kind = _NAMES.get((module, attribute))
        if kind is None:
            _unsafe(f"a reference to {printable(module, 60)}.{printable(attribute, 60)}")
        self.stack.append(_Name(kind))

    def store(self, pairs: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not dict or len(pairs) % 2:
            _unsafe("entries for something that is no dictionary")
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            # Hashing a tuple that nests deeply enough kills or stalls the interpreter.
            if type(key) not in (str, int, float, bool, bytes):
                _unsafe("a dictionary whose keys are not text or numbers")
            if type(value) in _TOKENS:
                _unsafe(_NO_DATA)
            target[key] = value

    def extend(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not list:
            _unsafe("items for something that is no list")
        if not _TOKENS.isdisjoint(map(type, items)):
            _unsafe(_NO_DATA)
        target.extend(items)

    def reduce(self) -> None:
        arguments, function = self.pop(), self.pop()
        if type(function) is not _Name or type(arguments) is not tuple:
            _unsafe("a call")
        rebuild, arity = _REBUILDERS.get(function.kind, (_rebuild, -1))
        if len(arguments) != arity:
            _unsafe("a call")
        self.stack.append(rebuild(*arguments))

    def build(self) -> None:
        state = self.pop()
        target = self.stack[-1]
        if type(target) is _Type:
            _set_order(target, state)
        elif type(target) is _Array:
            self.stack[-1] = array = _array_from_state(state)
            if target.key is not None:
                self.memo[target.key] = array
        else:
            _unsafe("state for something that is no array")


def _rebuild(subtype: Any, shape: Any, _typecode: Any) -> _Array:
    if type(subtype) is not _Name or subtype.kind != _NDARRAY or shape != (0,):
        _unsafe("an array of an unknown class")
    return _Array()


def _dtype(code: Any, _align: Any, _copy: Any) -> _Type:
    if type(code) is not str or code not in _NUMBER_TYPES:
        _unsafe("an array of something other than numbers")
    return _Type(code)


_NUMBER_TYPES = {"b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"}


def _set_order(target: _Type, state: Any) -> None:
    # (version, byte order, subarray, names, fields, size, alignment, flags); numbers have only the order.
    if type(state) is not tuple or len(state) < 5 or any(part is not None for part in state[2:5]):
        _unsafe("an array of something other than numbers")
    if state[1] not in ("<", ">", "|", "="):
        _unsafe("an array of something other than numbers")
    target.order = state[1]


def _array_from_state(state: Any) -> np.ndarray[Any, Any]:
    if type(state) is not tuple or len(state) != 5:
        _unsafe("an array of an unknown kind")
    _, shape, dtype, fortran, content = state
    return _make_array(content, dtype, shape, "F" if fortran is True else "C")


def _make_array(content: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray[Any, Any]:
    if type(dtype) is not _Type or type(content) is not bytes:
        _unsafe("an array of something other than numbers")
    if (
        type(shape) is not tuple
        or len(shape) > _MAXIMUM_DIMENSIONS
        or any(type(size) is not int or not 0 <= size <= _MAXIMUM_SIZE for size in shape)
        or order not in ("C", "F")
    ):
        _unsafe("an array of impossible shape")
    number = dtype.finish()
    if prod(shape) * number.itemsize != len(content):
        raise MotionFileError(
            "An array of the template file is shorter or longer than it says.", "Get it again."
        )
    if not content:
        raise MotionFileError("An array of the template file is empty.", "Get it again.")
    return np.frombuffer(content, number).reshape(shape, order=order)


def _scalar(dtype: Any, content: Any) -> Any:
    return _make_array(content, dtype, (), "C").item()


def _encode(text: Any, encoding: Any) -> bytes:
    if type(text) is not str or encoding != "latin1":
        _unsafe("a call")
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        _unsafe("a call")


# What stands in for each name that a pickle "calls", and with how many arguments.
_REBUILDERS: dict[str, tuple[Callable[..., Any], int]] = {
    _REBUILD: (_rebuild, 3),
    _DTYPE: (_dtype, 3),
    _SCALAR: (_scalar, 2),
    _BUFFER: (_make_array, 4),
    _ENCODE: (_encode, 2),
}

_U1, _U2, _U4, _U8 = struct.Struct("<B"), struct.Struct("<H"), struct.Struct("<I"), struct.Struct("<Q")
_I4, _F8 = struct.Struct("<i"), struct.Struct(">d")


def _protocol(m: _Machine) -> None:
    if m.number(_U1) > 5:
        raise MotionFileError("The template file is of a newer pickle protocol.", "Save it with protocol 4.")


def _memoize(m: _Machine, key: int) -> None:
    value = m.memo[key] = m.stack[-1]
    if type(value) is _Array:
        value.key = key


def _long(m: _Machine, size: int) -> None:
    if size > _MAXIMUM_INTEGER_BYTES:
        _unsafe("an absurdly large number")
    m.stack.append(int.from_bytes(m.bytes(size), "little", signed=True))


def _tuple(m: _Machine, count: int) -> None:
    items = [m.pop() for _ in range(count)]
    m.stack.append(tuple(reversed(items)))


def _text(layout: struct.Struct) -> Callable[[_Machine], None]:
    return lambda m: m.stack.append(m.bytes(m.number(layout)).decode("utf-8", "surrogatepass"))


def _blob(layout: struct.Struct) -> Callable[[_Machine], None]:
    return lambda m: m.stack.append(m.bytes(m.number(layout)))


def _value(layout: struct.Struct) -> Callable[[_Machine], None]:
    return lambda m: m.stack.append(m.number(layout))


def _constant(value: Any) -> Callable[[_Machine], None]:
    return lambda m: m.stack.append(value)


def _stack_name(m: _Machine) -> None:
    attribute, module = m.pop(), m.pop()
    m.name(module, attribute)


def _store_one(m: _Machine) -> None:
    value, key = m.pop(), m.pop()
    m.store([key, value])


# The instructions of protocols 2 to 5 that data need (Python's pickletools describes each). Those that make
# instances, load extensions or ask the outside for objects are not here.
_ADMITTED: dict[bytes, Callable[[_Machine], Any]] = {
    b"\x80": _protocol,
    b"\x95": lambda m: m.number(_U8),  # FRAME: a hint for reading ahead
    b"(": _constant(_MARK),
    b"0": lambda m: m.stack.pop(),
    b"1": lambda m: m.since_mark(),
    b"2": lambda m: m.stack.append(m.stack[-1]),
    b"N": _constant(None),
    b"\x88": _constant(True),
    b"\x89": _constant(False),
    b"J": _value(_I4),
    b"K": _value(_U1),
    b"M": _value(_U2),
    b"\x8a": lambda m: _long(m, m.number(_U1)),
    b"\x8b": lambda m: _long(m, m.number(_U4)),
    b"G": _value(_F8),
    b"\x8c": _text(_U1),
    b"X": _text(_U4),
    b"\x8d": _text(_U8),
    b"C": _blob(_U1),
    b"B": _blob(_U4),
    b"\x8e": _blob(_U8),
    b"\x96": _blob(_U8),  # BYTEARRAY8: only ever the content of an array, so bytes will do
    b"]": lambda m: m.stack.append([]),
    b"a": lambda m: m.extend([m.pop()]),
    b"e": lambda m: m.extend(m.since_mark()),
    b")": _constant(()),
    b"\x85": lambda m: _tuple(m, 1),
    b"\x86": lambda m: _tuple(m, 2),
    b"\x87": lambda m: _tuple(m, 3),
    b"t": lambda m: m.stack.append(tuple(m.since_mark())),
    b"}": lambda m: m.stack.append({}),
    b"s": _store_one,
    b"u": lambda m: m.store(m.since_mark()),
    b"q": lambda m: _memoize(m, m.number(_U1)),
    b"r": lambda m: _memoize(m, m.number(_U4)),
    b"\x94": lambda m: _memoize(m, len(m.memo)),
    b"h": lambda m: m.stack.append(m.memo[m.number(_U1)]),
    b"j": lambda m: m.stack.append(m.memo[m.number(_U4)]),
    b"c": lambda m: m.name(m.line(), m.line()),
    b"\x93": _stack_name,
    b"R": lambda m: m.reduce(),
    b"b": lambda m: m.build(),
}
_STEPS: list[Callable[[_Machine], Any] | None] = [_ADMITTED.get(bytes([code])) for code in range(256)]
