# SPDX-License-Identifier: GPL-3.0-or-later
"""Hostile pickles: one clear error each, and nothing runs; honest ones are read as Python reads them."""

from __future__ import annotations

import collections
import os
import pickle
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_array_equal

from backend import pickles, templates
from backend.errors import MotionFileError, UnsafePickleError
from backend.motion_files import load_motion, load_template
from backend.pickles import read_pickle
from tests.backend.synthetic_motion import dump, template


class Call:
    """Pickles as a call of `function` with `arguments`."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


class Stateful:
    def __setstate__(self, state: Any) -> None:
        raise AssertionError("code of the pickle ran")

    def __getstate__(self) -> Any:
        return {"a": 1}


def hostile_contents(marker: Path) -> dict[str, Any]:
    command = f"touch '{marker}'"
    objects = np.array([None], dtype=object)
    objects[0] = Call(os.system, command)
    return {
        "os.system": Call(os.system, command),
        "in a frame": template(2, extra=Call(os.system, command)),
        "eval": Call(eval, f"open({str(marker)!r}, 'w')"),
        "exec": Call(exec, f"open({str(marker)!r}, 'w')"),
        "getattr": Call(getattr, "a", "upper"),
        "open": Call(open, str(marker), "w"),
        "import": Call(__import__, "os"),
        "numpy loader": Call(np.load, str(marker), None, True),
        "numpy objects": template(1, motion=[{"exp": objects}]),
        "numpy strings": {"motion": [{"exp": np.array(["a"])}]},
        "numpy records": {"motion": [{"exp": np.zeros(2, [("a", "f4"), ("b", "O")])}]},
        "instance": Stateful(),
        "class": Stateful,
        "set": {1, 2},
        "frozen set": frozenset([1]),
        "ordered dict": collections.OrderedDict(motion=[]),
        "complex": 1j,
        "tuple keys": {(1, 2): 3},
        "huge number": 1 << 10_000,
    }


@pytest.mark.parametrize("protocol", [0, 1, 2, 4, 5])
@pytest.mark.parametrize("name", list(hostile_contents(Path("x"))))
def test_a_crafted_pickle_is_one_clear_error_and_runs_nothing(
    tmp_path: Path, name: str, protocol: int
) -> None:
    marker = tmp_path / "ran"
    path = dump(tmp_path, hostile_contents(marker)[name], protocol)
    with pytest.raises(UnsafePickleError, match="nothing in the file was run") as caught:
        load_motion(path)
    assert "\n" not in str(caught.value)
    assert not marker.exists()


NDARRAY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85C\x01bt"


@pytest.mark.parametrize(
    "code",
    [
        b"\x82\x01",  # an extension
        b"Pid\n",  # a persistent object
        b"NQ",
        b"(ios\nsystem\n",  # instances of protocol 0
        b"(cos\nsystem\no",
        b"cnumpy\nndarray\n)\x81",  # NEWOBJ
        b"cnumpy\nndarray\n)}\x92",
        b"cnumpy\nndarray\n}b",  # state for a class
        b"cnumpy\nndarray\nK\x05\x85R",  # numpy.ndarray((5,)), which would reserve memory
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n\x8a\x06\x00\x00\x00\x00\x00\x10\x85C\x01btR",
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\ndtype\nK\x00\x85C\x01btR",
        NDARRAY + b"RN" + b"b",
        NDARRAY + b"R}b",
        b"c_codecs\nencode\nX\x01\x00\x00\x00aX\x04\x00\x00\x00zlib\x86R",
        b"cnumpy\ndtype\nX\x01\x00\x00\x00O\x89\x88\x87R",
        b"cnumpy\ndtype\nX\x0c\x00\x00\x00f4,(9999,99)\x89\x88\x87R",
        b"X\x02\x00\x00\x00osX\x06\x00\x00\x00system\x93",
        b"NN\x93",
        b"]K\x01\x93",
        b"X\x01\x00\x00\x00aN\x85R",  # a call of a text
        b"]cnumpy\nndarray\na",  # a name as data
        b"}X\x01\x00\x00\x00acnumpy\nndarray\ns",
        b"}]Ns",  # a key that cannot be hashed
        b"NNa",
        b"](NNu",
        b"\x97",
        b"\x98",
    ],
)
def test_instructions_that_data_never_need_are_refused(code: bytes) -> None:
    with pytest.raises(UnsafePickleError):
        read_pickle(b"\x80\x04" + code + b".")


def test_deep_nesting_neither_crashes_nor_stalls() -> None:
    depth = 200_000
    with pytest.raises(MotionFileError):
        templates.motion_from_template(b"\x80\x02" + b"]" * depth + b"a" * (depth - 1) + b".")
    # As a key such a tuple would be hashed, which overflows the interpreter's own stack.
    with pytest.raises(UnsafePickleError, match="keys"):
        read_pickle(b"\x80\x02}N" + b"\x85" * depth + b"Ns.")
    with pytest.raises(UnsafePickleError):
        read_pickle(b"\x80\x02X\x01\x00\x00\x00aN" + b"\x85" * depth + b"\x93.")


def test_a_billion_laughs_are_a_few_hundred_lists() -> None:
    laughs = b"\x80\x02]q\x00" + b"".join(b"](h%ch%ceq%c" % (i, i, i + 1) for i in range(200))
    assert read_pickle(laughs + b"0" * 200 + b".") == []
    as_keys = b"\x80\x02)q\x00" + b"".join(b"h%ch%c\x86q%c" % (i, i, i + 1) for i in range(200))
    with pytest.raises(UnsafePickleError, match="keys"):
        read_pickle(as_keys + b"q\xff0}h\xffNs.")
    repeated = template(1)
    repeated["motion"] = repeated["motion"] * 300_000
    repeated["n_frames"] = 300_000
    with pytest.raises(MotionFileError, match="more than"):
        templates.motion_from_template(pickle.dumps(repeated))


@pytest.mark.parametrize(
    "code",
    [
        b"\x8e" + struct.pack("<Q", 1 << 40),  # a terabyte of bytes
        b"\x96" + struct.pack("<Q", 1 << 62),
        b"\x8d" + struct.pack("<Q", (1 << 64) - 1),
        b"B\xff\xff\xff\xff",
        b"\x95" + struct.pack("<Q", 1 << 62),
        b"Nr\xff\xff\xff\x7f",  # a memo of two thousand million entries
        b"X\x01\x00\x00\x00\xff.",  # no UTF-8
        b"a",
        b"0",
        b"h\x05.",
        b"(.",
        b"NN.",
        b"c" + b"x" * 1000,
        NDARRAY + b"R.",
    ],
)
def test_lengths_are_not_believed_and_cut_files_are_one_error(code: bytes) -> None:
    tracemalloc.start()
    with pytest.raises(MotionFileError):
        read_pickle(b"\x80\x04" + code)
    assert tracemalloc.get_traced_memory()[1] < 5e6
    tracemalloc.stop()


def test_arrays_are_as_long_as_they_say() -> None:
    data = pickle.dumps(np.zeros((3, 7), np.float32), 2)
    assert b"K\x03K\x07\x86" in data
    with pytest.raises(MotionFileError, match="shorter or longer"):
        read_pickle(data.replace(b"K\x03K\x07\x86", b"K\x03K\x08\x86"))
    with pytest.raises(UnsafePickleError, match="shape"):
        read_pickle(data.replace(b"K\x03K\x07\x86", b"K\x00\x8a\x08" + b"\xff" * 7 + b"\x7f\x86"))


def test_the_number_of_instructions_and_the_size_are_bounded(tmp_path: Path, monkeypatch: Any) -> None:
    path = dump(tmp_path, template(3))
    monkeypatch.setattr(templates, "MAXIMUM_BYTES", 500)
    with pytest.raises(MotionFileError, match="too large"):
        load_template(path)
    monkeypatch.setattr(pickles, "MAXIMUM_INSTRUCTIONS", 100)
    with pytest.raises(MotionFileError, match="too long"):
        read_pickle(path.read_bytes())


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_a_template_cut_anywhere_is_one_error(protocol: int) -> None:
    data = pickle.dumps(template(1), protocol)
    for end in range(len(data)):
        with pytest.raises(MotionFileError):
            templates.motion_from_template(data[:end])


@given(
    position=st.floats(0, 1, exclude_max=True),
    value=st.integers(0, 255),
    second=st.floats(0, 1, exclude_max=True),
)
@example(position=0.0625, value=10, second=0.5)  # a line's end in the name of a module
@settings(max_examples=400)
def test_a_damaged_template_is_one_error_or_harmless(position: float, value: int, second: float) -> None:
    data = bytearray(pickle.dumps(template(2), 4))
    data[int(position * len(data))] = value
    data[int(second * len(data))] ^= value
    try:
        templates.motion_from_template(bytes(data)).validate()
    except MotionFileError as error:
        assert "\n" not in str(error)


@given(st.binary(max_size=60))
@settings(max_examples=400)
def test_no_sequence_of_instructions_escapes(code: bytes) -> None:
    with pytest.raises(MotionFileError):
        templates.motion_from_template(b"\x80\x04" + code)


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**100), 2**100)
    | st.floats(allow_nan=False)
    | st.text(max_size=300)
    | st.binary(max_size=300),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=5) | st.integers(-99, 99), inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
    ),
    max_leaves=12,
)


@given(PLAIN, st.integers(3, 5))
def test_plain_data_are_read_as_python_reads_them(value: Any, protocol: int) -> None:
    assert read_pickle(pickle.dumps(value, protocol)) == value


@given(
    hnp.arrays(
        st.sampled_from(
            [np.dtype(t) for t in ("f2", "<f4", ">f4", "f8", "i1", "<i4", ">i8", "u1", "u2", "?")]
        ),
        hnp.array_shapes(min_dims=0, max_dims=4, max_side=5),
    ),
    st.integers(2, 5),
    st.booleans(),
)
def test_arrays_are_read_as_python_reads_them(array: np.ndarray, protocol: int, fortran: bool) -> None:
    original = np.asfortranarray(array) if fortran else array
    data = pickle.dumps([original, original], protocol)
    first, second = read_pickle(data)
    assert first is second
    assert first.dtype == original.dtype
    assert_array_equal(first, original)


def test_words_of_a_file_stay_on_their_line() -> None:
    content = {**template(2), "output_fps": "24\nand \x1b[31mmore"}
    with pytest.raises(MotionFileError, match="output_fps is 24.and") as caught:
        templates.motion_from_template(pickle.dumps(content, 4))
    assert str(caught.value).isprintable()
