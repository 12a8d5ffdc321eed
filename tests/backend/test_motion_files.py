# SPDX-License-Identifier: GPL-3.0-or-later
"""Motion files: what is saved comes back, and no file can do harm."""

from __future__ import annotations

import struct
import tracemalloc
import zipfile
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from backend import motion_files
from backend.errors import MotionFileError, OutputError
from backend.motion import Motion
from backend.motion_files import load_motion, load_template, save_motion
from tests.backend.synthetic_motion import assert_same, make_motion


def arrays_of(motion: Motion, tmp_path: Path) -> dict[str, np.ndarray]:
    """The arrays of a motion's file, to be spoiled and written again."""
    path = save_motion(motion, tmp_path / "whole.npz", keep_mouth=True)
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def test_a_motion_file_holds_the_documented_arrays_and_nothing_that_needs_pickle(tmp_path: Path) -> None:
    arrays = arrays_of(make_motion(4), tmp_path)
    assert {
        name: (a.shape, a.dtype.kind + str(a.dtype.itemsize)) for name, a in arrays.items() if a.ndim
    } == {
        "rotation": ((4, 3, 3), "f4"),
        "expression": ((4, 21, 3), "f4"),
        "scale": ((4,), "f4"),
        "translation": ((4, 3), "f4"),
        "canonical": ((4, 21, 3), "f4"),
        "eye_ratio": ((4, 2), "f4"),
        "lip_ratio": ((4,), "f4"),
        "gaze": ((4, 2, 2), "f4"),
        "mouth": ((4, 48, 64, 3), "u1"),
        "valid": ((4,), "b1"),
    }
    assert {name: a.item() for name, a in arrays.items() if not a.ndim} == {
        "fps_numerator": 30000,
        "fps_denominator": 1001,
        "start": 1.25,
        "engine": "mesh",
        "format": "liveportrait-motion/1",
    }


def test_a_saved_motion_comes_back_bit_for_bit(tmp_path: Path) -> None:
    motion = make_motion()
    assert_same(load_motion(save_motion(motion, tmp_path / "motion.npz", keep_mouth=True)), motion)


@given(
    n=st.integers(1, 6),
    fps=st.fractions(Fraction(1, 100), Fraction(240), max_denominator=1001),
    start=st.floats(-1e6, 1e6),
    gaze=st.none() | st.just(float("nan")) | st.floats(-1, 1, width=32),
    estimated=st.booleans(),
    data=st.data(),
)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_valid_motion_comes_back(
    tmp_path: Path,
    n: int,
    fps: Fraction,
    start: float,
    gaze: float | None,
    estimated: bool,
    data: st.DataObject,
) -> None:
    motion = make_motion(
        n,
        expression=data.draw(hnp.arrays(np.float32, (n, 21, 3), elements=st.floats(-1e6, 1e6, width=32))),
        valid=data.draw(hnp.arrays(np.bool_, n)),
        gaze=None if gaze is None else np.full((n, 2, 2), gaze),
        mouth=None,
        fps_numerator=fps.numerator,
        fps_denominator=fps.denominator,
        start=start,
        ratios_estimated=estimated,
    )
    assert_same(load_motion(save_motion(motion, tmp_path / "motion.npz")), motion)


def test_the_drivers_mouth_is_kept_only_when_asked(tmp_path: Path) -> None:
    assert load_motion(save_motion(make_motion(), tmp_path / "a.npz")).mouth is None
    assert load_motion(save_motion(make_motion(), tmp_path / "b.npz", keep_mouth=True)).mouth is not None


def test_other_writers_files_are_read(tmp_path: Path) -> None:
    """Plain numpy.savez, the other byte order, Fortran order, arrays that we do not know."""
    arrays = arrays_of(make_motion(), tmp_path)
    arrays["rotation"] = arrays["rotation"].astype(">f4")
    arrays["expression"] = np.asfortranarray(arrays["expression"])
    arrays["fps_numerator"] = np.int32(30000)  # type: ignore[assignment]
    path = tmp_path / "other.npz"
    np.savez(path, comment=np.array("hello"), things=np.array([{}], dtype=object), **arrays)
    assert_same(load_motion(path), make_motion())


def test_the_content_decides_what_a_file_is(tmp_path: Path) -> None:
    odd = tmp_path / "performance.dat"
    save_motion(make_motion(mouth=None), tmp_path / "m.npz").rename(odd)
    assert len(load_motion(odd)) == 5
    save_motion(make_motion(mouth=None), tmp_path / "m.pkl").rename(odd)
    assert load_motion(odd).engine == "liveportrait"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("rotation", np.zeros((5, 3, 3), np.float32)),
        ("rotation", np.zeros((0, 3, 3), np.float32)),
        ("rotation", np.float32(1)),
        ("expression", np.full((5, 21, 3), np.nan, np.float32)),
        ("expression", np.zeros((5, 21, 3), np.float64)),
        ("expression", np.zeros((5, 21, 3), np.complex64)),
        ("expression", np.zeros((5, 63), np.float32)),
        ("scale", np.full(5, -1, np.float32)),
        ("scale", np.ones(4, np.float32)),
        ("translation", np.full((5, 3), np.inf, np.float32)),
        ("canonical", np.array([{}], dtype=object)),
        ("gaze", np.full((5, 2, 2), np.inf, np.float32)),
        ("mouth", np.zeros((5, 48, 64, 3), np.float32)),
        ("valid", np.ones(5, np.float32)),
        ("valid", np.ones((5, 1), bool)),
        ("fps_numerator", np.int64(0)),
        ("fps_numerator", np.float64(25)),
        ("fps_denominator", np.int64(-1)),
        ("fps_denominator", np.uint64(2**63)),
        ("start", np.float64(np.nan)),
        ("start", np.array("soon")),
        ("engine", np.int64(3)),
        ("engine", np.array("x" * 1000)),
        ("engine", np.array("two\nlines")),
        ("format", np.array("liveportrait-motion/2")),
        ("format", np.array("")),
        ("ratios_estimated", np.zeros(5, bool)),
    ],
)
def test_a_spoiled_field_is_one_error_that_names_it(tmp_path: Path, field: str, value: Any) -> None:
    arrays: dict[str, Any] = {**arrays_of(make_motion(), tmp_path), field: value}
    path = tmp_path / "spoiled.npz"
    np.savez(path, **arrays)
    with pytest.raises(MotionFileError, match=f"^spoiled.npz: Motion field {field} ") as caught:
        load_motion(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("field", ["rotation", "valid", "format", "fps_denominator", "lip_ratio"])
def test_a_missing_field_is_named(tmp_path: Path, field: str) -> None:
    arrays: dict[str, Any] = arrays_of(make_motion(), tmp_path)
    del arrays[field]
    np.savez(tmp_path / "short.npz", **arrays)
    with pytest.raises(MotionFileError, match=f"Motion field {field} is missing"):
        load_motion(tmp_path / "short.npz")


def npy_header(shape: str, descr: str = "'<f4'") -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def spoil_member(tmp_path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    """A motion file in which some members are replaced by raw bytes."""
    source = save_motion(make_motion(mouth=None), tmp_path / "whole.npz")
    path = tmp_path / "hostile.npz"
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w", compression) as new:
        for name in old.namelist():
            new.writestr(name, members.pop(name, old.read(name)))
        for name, content in members.items():
            new.writestr(name, content)
    return path


@pytest.mark.parametrize(
    "shape",
    [
        "(1000000000000, 3, 3)",
        "(-1, 3, 3)",
        "(5, 3, 3, " + "1, " * 500 + ")",
        "(999999, 3, 3)",
        "'text'",
        "5",
    ],
)
def test_a_header_that_promises_terabytes_is_refused_before_anything_is_reserved(
    tmp_path: Path, shape: str
) -> None:
    path = spoil_member(tmp_path, {"rotation.npy": npy_header(shape)})
    tracemalloc.start()
    with pytest.raises(MotionFileError, match="rotation|scale"):
        load_motion(path)
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()


def test_a_zip_bomb_is_refused_unopened(tmp_path: Path) -> None:
    bomb = npy_header("(5, 3, 3)") + bytes(200_000_000)
    path = spoil_member(tmp_path, {"rotation.npy": bomb})
    assert path.stat().st_size < 1e6
    del bomb
    tracemalloc.start()
    with pytest.raises(MotionFileError, match="rotation is shorter or longer"):
        load_motion(path)
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()


def test_a_consistent_bomb_beyond_the_limit_is_refused(tmp_path: Path, monkeypatch: Any) -> None:
    path = save_motion(make_motion(5), tmp_path / "motion.npz", keep_mouth=True)
    monkeypatch.setattr(motion_files, "MAXIMUM_BYTES", 40_000)
    with pytest.raises(MotionFileError, match="too large"):
        load_motion(path)


def test_a_directory_of_millions_of_names_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "names.npz"
    with zipfile.ZipFile(path, "w") as file:
        for i in range(300):
            file.writestr(f"{'x' * 4000}{i}.npy", b"")
    with pytest.raises(MotionFileError, match="list of contents"):
        load_motion(path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not numpy",
        b"\x93NUMPY\x01\x00",
        b"\x93NUMPY\x02\x00\xff\xff\xff\xff{",
        b"\x93NUMPY\x09\x00\x10\x00{}",
        npy_header("(5, 3, 3)", "'O'"),
        npy_header("(5, 3, 3)", "[('a', '<f4')]"),
        npy_header("(5, 3, 3)", "__import__('os').system('false')"),
        npy_header("(" * 3000 + ")" * 3000),
    ],
)
def test_members_that_are_no_plain_arrays_are_named(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(MotionFileError, match="Motion field rotation"):
        load_motion(spoil_member(tmp_path, {"rotation.npy": content}))


def test_a_field_that_is_there_twice_or_packed_oddly_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MotionFileError, match="unknown way"):
        load_motion(spoil_member(tmp_path, {}, zipfile.ZIP_LZMA))
    path = save_motion(make_motion(), tmp_path / "twice.npz")
    with zipfile.ZipFile(path, "a") as file, pytest.warns(UserWarning, match="Duplicate"):
        file.writestr("scale.npy", b"")
    with pytest.raises(MotionFileError, match="scale is there twice"):
        load_motion(path)


def test_a_single_wrong_bit_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "plain.npz"
    np.savez(path, **arrays_of(make_motion(), tmp_path))
    content = bytearray(path.read_bytes())
    content[content.index(make_motion().expression.tobytes()) + 100] ^= 1
    path.write_bytes(content)
    with pytest.raises(MotionFileError, match="damaged"):
        load_motion(path)


@given(data=st.data())
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damage_anywhere_is_one_clear_error_or_harmless(tmp_path: Path, data: st.DataObject) -> None:
    whole = tmp_path / "whole.npz"
    if not whole.exists():
        save_motion(make_motion(2, mouth=None), whole)
    content = bytearray(whole.read_bytes())
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    for _ in range(data.draw(st.integers(1, 4))):
        if content:
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "damaged.npz"
    path.write_bytes(content)
    try:
        load_motion(path).validate()
    except MotionFileError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize("content", [b"", b"hello", b"\x89PNG\r\n", b"PK", b"PK\x05\x06" + bytes(18)])
def test_foreign_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "foreign.npz"
    path.write_bytes(content)
    with pytest.raises(MotionFileError):
        load_motion(path)


def test_absent_files_and_folders_are_one_line(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere.npz", tmp_path):
        with pytest.raises(MotionFileError, match="cannot be read"):
            load_motion(path)
    with pytest.raises(MotionFileError, match="cannot be read"):
        load_template(tmp_path / "nowhere.pkl")


def test_a_failed_save_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: Any) -> None:
    path = save_motion(make_motion(), tmp_path / "motion.npz")
    before = path.read_bytes()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OutputError, match="No space left on device"):
        save_motion(make_motion(9), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_saving_where_nothing_can_be_written_or_what_is_no_motion_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written"):
        save_motion(make_motion(), tmp_path / "file" / "motion.npz")
    broken = make_motion()
    broken.scale[0] = np.nan
    for name in ("motion.npz", "motion.pkl"):
        with pytest.raises(MotionFileError, match="scale"):
            save_motion(broken, tmp_path / name)
        assert not (tmp_path / name).exists()
