# SPDX-License-Identifier: GPL-3.0-or-later
"""Motion, the performance in LivePortrait's implicit-keypoint space, and its .npz files. Imports no bpy.

x = s (x_c R + delta) + t with row vectors, 21 keypoints, coordinates -1 to 1 across the crop. The format is
the backend's ("liveportrait-motion/1"), written down once more here because the two share no code.
Nothing in a file is run, and nothing larger than it may be is read.
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
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .names import UserError

if TYPE_CHECKING:
    import numpy as np

FORMAT = "liveportrait-motion/1"
KEYPOINTS = 21
MAXIMUM_BYTES = 1 << 30
MAXIMUM_FRAMES = 1_000_000
MAXIMUM_MEMBERS = 256
MAXIMUM_DIRECTORY = 1 << 20
MAXIMUM_TEXT = 200

# Per-frame arrays: the shape of one frame and the type on disk.
FRAME_ARRAYS: dict[str, tuple[tuple[int, ...], str]] = {
    "rotation": ((3, 3), "f4"),
    "expression": ((KEYPOINTS, 3), "f4"),
    "scale": ((), "f4"),
    "translation": ((3,), "f4"),
    "canonical": ((KEYPOINTS, 3), "f4"),
    "eye_ratio": ((2,), "f4"),
    "lip_ratio": ((), "f4"),
    "gaze": ((2, 2), "f4"),
    "mouth": ((48, 64, 3), "u1"),
    "valid": ((), "?"),
    "cuts": ((), "?"),
}
_OPTIONAL = {"gaze", "mouth", "cuts", "ratios_estimated"}
_SINGLE = {
    "fps_numerator": "iu",
    "fps_denominator": "iu",
    "start": "f",
    "engine": "U",
    "format": "U",
    "ratios_estimated": "b",
}
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


@dataclass(kw_only=True, eq=False)
class Motion:
    """n frames at fps_numerator / fps_denominator a second, the first at `start` seconds of its clip.

    rotation (n,3,3), expression (n,21,3), scale (n,), translation (n,3), canonical (n,21,3), eye_ratio (n,2;
    image-left first, that is the subject's right), lip_ratio (n,), gaze (n,2,2) or None (iris offset in eye
    widths, image-left first; NaN: not measured), all float32; mouth (n,48,64,3) uint8 or None; valid and cuts
    (n,) bool, cuts or None (a new shot begins with this frame); ratios_estimated: derived from delta.
    """

    rotation: np.ndarray
    expression: np.ndarray
    scale: np.ndarray
    translation: np.ndarray
    canonical: np.ndarray
    eye_ratio: np.ndarray
    lip_ratio: np.ndarray
    valid: np.ndarray
    fps_numerator: int = 25
    fps_denominator: int = 1
    start: float = 0.0
    gaze: np.ndarray | None = None
    mouth: np.ndarray | None = None
    cuts: np.ndarray | None = None
    engine: str = "unknown"
    ratios_estimated: bool = False

    def __len__(self) -> int:
        return len(self.rotation)

    @property
    def fps(self) -> Fraction:
        """Frames a second, exact."""
        return Fraction(self.fps_numerator, self.fps_denominator)

    def arrays(self) -> dict[str, np.ndarray]:
        """The per-frame arrays that are there, by name."""
        return {name: getattr(self, name) for name in FRAME_ARRAYS if getattr(self, name) is not None}

    def keypoints(self) -> np.ndarray:
        """x (n,21,3) by the formula above; the third translation counts as 0."""
        import numpy as np

        shift = self.translation * np.array([1, 1, 0], np.float32)
        x = self.canonical @ self.rotation + self.expression
        return np.asarray(self.scale[:, None, None] * x + shift[:, None, :])

    def take(self, frames: Any) -> Motion:
        """The frames that a slice or an array of indices selects; rate and start stay as they are."""
        return replace(self, **{name: array[frames] for name, array in self.arrays().items()})


def read(path: str | os.PathLike[str]) -> Motion:
    """The motion in an .npz file.

    Raises:
        UserError: the file is missing, damaged, of another kind, or holds something impossible.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            if file.read(2) != b"PK":
                raise _problem(path, "is no motion file (.npz)")
            _check_directory(path, file)
            with zipfile.ZipFile(file) as archive:
                fields = _fields(path, archive)
    except FileNotFoundError as error:
        raise UserError(f"{path.name} does not exist.", "Choose another motion file.") from error
    except (PermissionError, IsADirectoryError) as error:
        raise UserError(f"{path.name} cannot be read: {error.strerror}.", "Choose another file.") from error
    except _DAMAGE as error:
        raise _problem(path, "is damaged or no motion file") from error
    fields.pop("format")
    motion = Motion(**fields)
    try:
        check(motion)
    except UserError as error:
        raise UserError(f"{path.name}: {error.sentence}", error.hint) from error
    return motion


def write(path: str | os.PathLike[str], motion: Motion, keep_mouth: bool = False) -> Path:
    """Write `motion` as .npz; the file appears whole or not at all. The driver's mouth, which is a picture of
    a person, only if asked.

    Raises:
        UserError: the motion holds something impossible, or the file cannot be written.
    """
    import numpy as np

    check(motion)
    path = Path(path)
    arrays: dict[str, Any] = {
        name: np.ascontiguousarray(array, FRAME_ARRAYS[name][1]) for name, array in motion.arrays().items()
    }
    if not keep_mouth:
        arrays.pop("mouth", None)
    if not np.any(arrays.get("cuts", False)):
        arrays.pop("cuts", None)
    arrays["fps_numerator"] = np.int64(motion.fps_numerator)
    arrays["fps_denominator"] = np.int64(motion.fps_denominator)
    arrays["start"] = np.float64(motion.start)
    arrays["engine"] = np.str_(motion.engine)
    arrays["format"] = np.str_(FORMAT)
    if motion.ratios_estimated:
        arrays["ratios_estimated"] = np.bool_(True)
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_bytes(content.getbuffer())
            temporary.replace(path)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(
            f"{path} cannot be written: {error.strerror or error}.",
            "Choose another place or free some space.",
        ) from error
    return path


def check(motion: Motion) -> None:
    """Raises UserError naming what is impossible in `motion`: no frames, shapes, NaN, a scale that is not
    positive, a matrix that is no rotation, a rate that is none."""
    import numpy as np

    n = len(motion)
    if n == 0:
        raise UserError("The motion has no frames.", "Capture it again.")
    if motion.fps_numerator <= 0 or motion.fps_denominator <= 0:
        raise UserError(f"The motion's rate is {motion.fps_numerator}/{motion.fps_denominator}.")
    if not np.isfinite(motion.start):
        raise UserError("The motion's start is no number.")
    for name, array in motion.arrays().items():
        if array.shape != (n, *FRAME_ARRAYS[name][0]):
            raise UserError(f"The motion's {name} has the shape {array.shape}.", "Capture it again.")
        if array.dtype.kind == "f" and name != "gaze" and not np.isfinite(array).all():
            frame = int(np.argmax(~np.isfinite(array).reshape(n, -1).all(axis=1)))
            raise UserError(f"The motion's {name} holds no number in frame {frame}.", "Capture it again.")
    if motion.gaze is not None and np.isinf(motion.gaze).any():
        raise UserError("The motion's gaze holds infinity.", "Capture it again.")
    if (motion.scale <= 0).any():
        raise UserError(f"The motion's scale is not positive in frame {int(np.argmax(motion.scale <= 0))}.")
    turn = motion.rotation.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        error = np.abs(turn @ turn.transpose(0, 2, 1) - np.eye(3)).max(axis=(1, 2))
        wrong = ~(error < 0.02) | (np.linalg.det(turn) < 0)
    if wrong.any():
        raise UserError(f"The motion's rotation is none in frame {int(np.argmax(wrong))}.")


def _problem(path: Path, what: str) -> UserError:
    return UserError(f"{path.name} {what}.", "Choose another file, or capture the motion again.")


def _check_directory(path: Path, file: Any) -> None:
    """Refuse a list of contents that would fill the memory: zipfile reads all of it at once."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - (1 << 16) - 22))
    tail = file.read()
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) < at + 22:
        raise _problem(path, "is cut short")
    (length,) = struct.unpack_from("<I", tail, at + 12)
    # The 64-bit form could name another length, and a file of this kind never needs it.
    if length > MAXIMUM_DIRECTORY or b"PK\x06\x07" in tail[max(0, at - 20) : at]:
        raise _problem(path, "is no motion file: its list of contents is too long")
    file.seek(0)


def _fields(path: Path, archive: zipfile.ZipFile) -> dict[str, Any]:
    """The arrays of the format; others are passed over, unread."""
    import numpy as np

    known = {**dict.fromkeys(FRAME_ARRAYS), **dict.fromkeys(_SINGLE)}
    members: dict[str, zipfile.ZipInfo] = {}
    infos = archive.infolist()
    if len(infos) > MAXIMUM_MEMBERS:
        raise _problem(path, "is no motion file: it holds too many arrays")
    for info in infos:
        name = info.filename.removesuffix(".npy")
        if name == info.filename or name not in known:
            continue
        if name in members:
            raise _problem(path, f"holds {name} twice")
        if info.flag_bits & 1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise _problem(path, f"has {name} packed in an unknown way")
        members[name] = info
    missing = [name for name in known if name not in members and name not in _OPTIONAL]
    if missing:
        raise _problem(path, f"lacks {missing[0]}")
    if sum(info.file_size for info in members.values()) > MAXIMUM_BYTES:
        raise _problem(path, "is too large")
    fields: dict[str, Any] = {}
    for name, info in members.items():
        with archive.open(info) as packed:
            version = np.lib.format.read_magic(packed)
            if version not in ((1, 0), (2, 0)):
                raise _problem(path, f"has {name} in an unknown form")
            header = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }[version]
            shape, fortran, dtype = header(packed)
            _check_header(path, name, shape, dtype)
            fields[name] = _content(path, name, packed, shape, fortran, dtype)
    lengths = {len(value) for name, value in fields.items() if name in FRAME_ARRAYS}
    if len(lengths) != 1:
        raise _problem(path, f"has arrays of {min(lengths)} and of {max(lengths)} frames")
    return fields


def _check_header(path: Path, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    import numpy as np

    if name in FRAME_ARRAYS:
        rest, kind = FRAME_ARRAYS[name]
        known = dtype.newbyteorder("=") == np.dtype(kind)
        right = len(shape) == 1 + len(rest) and shape[1:] == rest and known
        if right and not 1 <= shape[0] <= MAXIMUM_FRAMES:
            raise _problem(path, f"has {shape[0]} frames")
    else:
        right = shape == () and dtype.kind in _SINGLE[name] and dtype.itemsize <= 4 * MAXIMUM_TEXT
    if not right:
        raise _problem(path, f"holds {name} of shape {shape} and type {str(dtype)[:40]}, which is wrong")


def _content(
    path: Path, name: str, packed: Any, shape: tuple[int, ...], fortran: bool, dtype: np.dtype[Any]
) -> Any:
    import numpy as np

    size = dtype.itemsize
    for length in shape:
        size *= length
    if size > MAXIMUM_BYTES:
        raise _problem(path, "is too large")
    content = bytearray(packed.read(size))
    if len(content) != size or packed.read(1):
        raise _problem(path, f"has {name} shorter or longer than it says")
    array = np.frombuffer(content, dtype) if size else np.zeros(1, dtype)
    if name in FRAME_ARRAYS:
        shaped = array.reshape(shape, order="F" if fortran else "C")
        return np.ascontiguousarray(shaped, FRAME_ARRAYS[name][1])
    value = array[0].item()
    if name in ("engine", "format") and (not value.isprintable() or (name == "format" and value != FORMAT)):
        raise _problem(path, f"says that its {name} is {value[:40]!r}; was it written by a newer version?")
    if name in ("fps_numerator", "fps_denominator") and not 0 < value < 1 << 31:
        raise _problem(path, f"says that its {name} is {value}")
    return value
