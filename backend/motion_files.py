# SPDX-License-Identifier: GPL-3.0-or-later
"""Motion on disk: .npz of plain arrays (the format's own), LivePortrait's .pkl templates, and curves.

Whatever a file claims, nothing larger than MAXIMUM_BYTES is read or allocated, nothing in it is run, and what
is wrong with it is one MotionFileError that names the field.
"""

from __future__ import annotations

import io
import os
import struct
import tokenize
import uuid
import zipfile
import zlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy

from backend import curve_files, templates
from backend.blendshapes import Neutral
from backend.curves import Curves
from backend.errors import MotionFileError, OutputError
from backend.motion import FORMAT, FRAME_SHAPES, Motion

MAXIMUM_BYTES = 1 << 30  # an hour at 30 frames a second with mouths
MAXIMUM_FRAMES = 1_000_000
_MAXIMUM_DIRECTORY = 1 << 20
_HEADER = 10_000  # bytes; numpy's own limit for the text of an array's header
_TEXT = 200

_OPTIONAL = {"gaze", "mouth", "cuts", "ratios_estimated"}
_FRAME_DTYPES = {
    name: np.dtype({"mouth": "u1", "valid": "?", "cuts": "?"}.get(name, "f4")) for name in FRAME_SHAPES
}
_TEXTS = ("engine", "format")
_INTEGERS = ("fps_numerator", "fps_denominator")
_FIELDS = (*FRAME_SHAPES, *_INTEGERS, "start", *_TEXTS, "ratios_estimated")

# What zipfile, zlib and numpy raise on damaged input.
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    tokenize.TokenError,  # numpy takes old headers apart word by word
    struct.error,
    EOFError,
    OSError,
    ValueError,
    TypeError,
    LookupError,
    RuntimeError,
    OverflowError,
    MemoryError,
)


def load_motion(path: str | os.PathLike[str]) -> Motion:
    """The motion in a .npz file, a LivePortrait template or a file of ARKit curves, told apart by content.

    Raises MotionFileError (missing, damaged, wrong field) and UnsafePickleError (a template with
    anything in it but arrays and plain containers).
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            magic = file.read(2)
    except OSError as error:
        raise _unreadable(path, error) from error
    if magic == b"PK":
        return _load_npz(path)
    if magic[:1] == b"\x80" or path.suffix.lower() in (".pkl", ".pickle"):
        return load_template(path)
    if curve_files.is_curve_file(path):
        return curve_files.load_curves(path).motion()
    raise MotionFileError(
        f"{path.name} is neither a motion file (.npz) nor a LivePortrait template (.pkl), and no curves"
        " (.csv, .json).",
        "Choose another file.",
    )


def save_motion(motion: Motion, path: str | os.PathLike[str], keep_mouth: bool = False) -> Path:
    """Write `motion` as .npz, as a template for a name in .pkl, as curves for .csv and .json; the file
    appears whole or not at all.

    The driver's mouth is a picture of a person, so it is written only when asked. Returns the path; raises
    MotionFileError for a motion that is not valid, OutputError if the file cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() == ".pkl":
        return save_template(motion, path)
    if path.suffix.lower() in (".csv", ".json"):
        return save_curves(motion, path)
    motion.validate()
    arrays: dict[str, Any] = {
        name: getattr(motion, name) for name in FRAME_SHAPES if getattr(motion, name) is not None
    }
    if not keep_mouth:
        arrays.pop("mouth", None)
    if not np.any(arrays.get("cuts", False)):
        arrays.pop("cuts", None)
    arrays["fps_numerator"] = np.int64(motion.fps_numerator)
    arrays["fps_denominator"] = np.int64(motion.fps_denominator)
    arrays["start"] = np.float64(motion.start)
    arrays["engine"] = np.str_(motion.engine)
    arrays["format"] = np.str_(motion.format)
    if motion.ratios_estimated:
        arrays["ratios_estimated"] = np.bool_(True)
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)
    return _write(path, content.getbuffer())


def load_template(path: str | os.PathLike[str]) -> Motion:
    """The motion in a LivePortrait template of either generation; errors as `load_motion`."""
    path = Path(path)
    try:
        with path.open("rb") as file:
            data = file.read(templates.MAXIMUM_BYTES + 1)
    except OSError as error:
        raise _unreadable(path, error) from error
    if len(data) > templates.MAXIMUM_BYTES:
        raise MotionFileError(f"{path.name} is too large for a template.", "Save long performances as .npz.")
    return templates.motion_from_template(data, path.name)


def save_template(motion: Motion, path: str | os.PathLike[str]) -> Path:
    """Write `motion` as a template that the released program reads; errors as `save_motion`."""
    return _write(Path(path), templates.template_from_motion(motion))


def save_curves(motion: Motion, path: str | os.PathLike[str], neutral: Neutral = "auto") -> Path:
    """Write a motion's ARKit curves: JSON for a name in .json, else CSV as Live Link Face writes it. neutral
    as in blendshapes.channels; errors as `save_motion`."""
    path = Path(path)
    curves = Curves.of(motion.validate(), neutral)
    text = curve_files.to_json(curves) if path.suffix.lower() == ".json" else curve_files.to_csv(curves)
    return _write(path, text.encode("utf-8"))


def _unreadable(path: Path, error: OSError) -> MotionFileError:
    return MotionFileError(f"{path} cannot be read: {error.strerror or error}.", "Check the path.")


def _write(path: Path, content: bytes | memoryview) -> Path:
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("xb") as file:
                file.write(content)
            temporary.replace(path)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written: {error.strerror or error}.",
            "Choose another place or free some space.",
        ) from error
    return path


@dataclass(frozen=True)
class _Member:
    """An array in the file, its header read and its content not."""

    info: zipfile.ZipInfo
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool
    offset: int

    @property
    def size(self) -> int:
        return int(np.prod(self.shape, dtype=object)) * self.dtype.itemsize


def _load_npz(path: Path) -> Motion:
    try:
        with path.open("rb") as file:
            _check_directory(file)
            with zipfile.ZipFile(file) as archive:
                members = _headers(archive)
                _check_headers(members)
                fields = {name: _content(archive, name, member) for name, member in members.items()}
    except MotionFileError as error:
        raise MotionFileError(f"{path.name}: {error.message}", error.hint, error.details) from error
    except _DAMAGE as error:
        raise MotionFileError(
            f"{path.name} is damaged or no motion file.",
            "Capture it again.",
            f"{type(error).__name__}: {error}",
        ) from error
    try:
        return Motion(**fields).validate()
    except MotionFileError as error:
        raise MotionFileError(f"{path.name}: {error.message}", error.hint, error.details) from error


def _check_directory(file: BinaryIO) -> None:
    """Refuse a list of contents so long that reading it would fill the memory (zipfile reads all of it)."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - (1 << 16) - 22 - 20))
    tail = file.read()
    at = (
        len(tail) - 22
        if tail[-22:-18] == b"PK\x05\x06" and tail[-2:] == b"\0\0"
        else tail.rfind(b"PK\x05\x06")
    )
    if at < 0 or len(tail) < at + 22:
        raise MotionFileError("The file is cut short.", "Copy or capture it again.")
    (length,) = struct.unpack_from("<I", tail, at + 12)
    # Motion files are far from needing the 64-bit form of the list, which could name another length.
    if length > _MAXIMUM_DIRECTORY or tail[max(0, at - 20) : max(0, at - 16)] == b"PK\x06\x07":
        raise MotionFileError("The file's list of contents is too long.", "It is not a motion file.")
    file.seek(0)


def _headers(archive: zipfile.ZipFile) -> dict[str, _Member]:
    members: dict[str, _Member] = {}
    for info in archive.infolist():
        name = info.filename.removesuffix(".npy")
        if name == info.filename or name not in _FIELDS:
            continue
        if name in members:
            raise MotionFileError(f"Motion field {name} is there twice.", "Capture it again.")
        if info.flag_bits & 1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise MotionFileError(f"Motion field {name} is packed in an unknown way.", "Capture it again.")
        with archive.open(info) as packed:
            head = io.BytesIO(packed.read(_HEADER))
        try:
            version = npy.read_magic(head)
            read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[version]
            shape, fortran, dtype = read(head)
        except _DAMAGE as error:
            raise MotionFileError(
                f"Motion field {name} is no plain array.",
                "Capture it again.",
                f"{type(error).__name__}: {error}",
            ) from error
        members[name] = _Member(info, shape, dtype, fortran, head.tell())
    return members


def _check_headers(members: dict[str, _Member]) -> None:
    """Everything that can be said before the content is read: presence, types, shapes, sizes."""
    if missing := [name for name in _FIELDS if name not in members and name not in _OPTIONAL]:
        raise MotionFileError(f"Motion field {missing[0]} is missing.", "Is it a motion file?")
    shape = members["rotation"].shape
    n = shape[0] if shape else 0
    if not 1 <= n <= MAXIMUM_FRAMES:
        raise MotionFileError(f"Motion field rotation has {n} frames, expected 1 to {MAXIMUM_FRAMES}.")
    for name, member in members.items():
        expected = (n, *FRAME_SHAPES[name]) if name in FRAME_SHAPES else ()
        if member.shape != expected:
            raise MotionFileError(f"Motion field {name} has shape {member.shape}, expected {expected}.")
        if not _fits(name, member.dtype):
            raise MotionFileError(f"Motion field {name} has the wrong type {str(member.dtype)[:40]}.")
        if member.info.file_size != member.offset + member.size:
            raise MotionFileError(
                f"Motion field {name} is shorter or longer than it says.", "Capture it again."
            )
    if sum(member.size for member in members.values()) > MAXIMUM_BYTES:
        raise MotionFileError("The motion is too large.", "Save it in parts.")


def _fits(name: str, dtype: np.dtype[Any]) -> bool:
    if name in _FRAME_DTYPES:
        return dtype.newbyteorder("=") == _FRAME_DTYPES[name]
    if name in _INTEGERS:
        return dtype.kind in "iu"
    if name in _TEXTS:
        return dtype.kind == "U" and dtype.itemsize <= 4 * _TEXT
    return dtype.newbyteorder("=") == np.dtype("f8" if name == "start" else "?")


def _content(archive: zipfile.ZipFile, name: str, member: _Member) -> Any:
    with archive.open(member.info) as packed:
        packed.read(member.offset)
        content = bytearray(packed.read(member.size))
        # zipfile compares the checksum when the last byte is read, which _check_headers made this one.
        if len(content) != member.size:
            raise MotionFileError(f"Motion field {name} is cut short.", "Copy or capture it again.")
    if name in _TEXTS:
        text = str(np.frombuffer(content, member.dtype)[0]) if content else ""
        if not text.isprintable() or (name == "format" and text != FORMAT):
            raise MotionFileError(
                f"Motion field {name} is {text[:40]!r}{f', expected {FORMAT!r}' * (name == 'format')}.",
                "Was it written by a newer version?",
            )
        return text
    array = np.frombuffer(content, member.dtype).reshape(member.shape, order="F" if member.fortran else "C")
    if member.shape:
        return array
    value = array.item()
    if name in _INTEGERS and not 0 < value < 1 << 31:
        raise MotionFileError(f"Motion field {name} is {value}, expected a positive number.")
    return value
