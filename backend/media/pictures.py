# SPDX-License-Identifier: GPL-3.0-or-later
"""Pictures in: PNG, JPEG, WebP, BMP and TIFF; grey, palette, RGB, with or without alpha, 8 or 16 bits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from backend.errors import MediaError
from backend.media.headers import HEAD, PNG_MAGIC, PictureHeader, damaged_png, is_heif, read_header

MAX_SIDE = 16384  # px
MAX_PIXELS = 200_000_000
MAX_BYTES = 2 << 30  # of a picture file
DEEP = 257  # 255 * 257 = 65535: 8-bit levels in 16 bits
SILENT = 0  # cv2.utils.logging.LOG_LEVEL_SILENT
CONVERT = "Save it as PNG or JPEG and use that."


@dataclass(frozen=True)
class Picture:
    """rgb: (h,w,3) uint8. alpha: (h,w) uint8, None when the file has none. deep: (h,w,3) uint16 RGB when the
    file has 16 bits a channel, else None. Upright: the file's orientation is applied.
    """

    rgb: np.ndarray
    alpha: np.ndarray | None = None
    deep: np.ndarray | None = None


def read_picture(path: Path | str) -> Picture:
    """Read a picture, upright.

    Raises MediaError for what is missing, no picture, cut off, animated or larger than MAX_SIDE/MAX_PIXELS.
    """
    path = Path(path)
    data = read_bytes(path)
    header = check_header(path, read_header(data[:HEAD]), data)
    if header.format == "PNG" and damaged_png(data):
        raise MediaError(f"{path.name} is damaged or cut off.", "Use another copy of it.")
    pixels = _decode(path, data)
    if pixels.dtype == np.float32 or pixels.dtype == np.float64:
        raise MediaError(f"{path.name} has floating-point pixels.", "Save it with 8 or 16 bits a channel.")
    if pixels.dtype not in (np.uint8, np.uint16):
        raise MediaError(f"{path.name} has {pixels.dtype} pixels.", "Save it with 8 or 16 bits a channel.")
    # TIFF is turned by its decoder, everything else is left as stored by IMREAD_UNCHANGED.
    pixels = upright(pixels, header.orientation)
    colours, alpha = _split(pixels)
    if colours.dtype == np.uint8:
        return Picture(colours, alpha)
    return Picture(_shallow(colours), None if alpha is None else _shallow(alpha), colours)


def read_bytes(path: Path, limit: int = MAX_BYTES) -> bytes:
    """The content of a file. Raises MediaError when there is none to be had."""
    check_file(path)
    try:
        if path.stat().st_size > limit:
            raise MediaError(
                f"{path.name} is too large for a picture ({path.stat().st_size >> 20} MiB).", CONVERT
            )
        return path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from error


def read_head(path: Path) -> bytes:
    """The first HEAD bytes of a file. Raises MediaError when there are none to be had."""
    check_file(path)
    try:
        with path.open("rb") as file:
            return file.read(HEAD)
    except OSError as error:
        raise unreadable(path, error) from error


def check_file(path: Path) -> None:
    """Raise MediaError unless `path` is a file with something in it."""
    try:
        if path.is_dir():
            raise MediaError(f"{path} is a folder.", "Give a file.")
        if not path.exists():
            raise MediaError(f"There is no file {path}.", "Check the name.")
        if not path.is_file():
            raise MediaError(f"{path} is no ordinary file.", "Give a picture or a clip.")
        if path.stat().st_size == 0:
            raise MediaError(f"{path.name} is empty (0 bytes).", "Copy or export it again.")
    except (OSError, ValueError) as error:  # ValueError: a name with a NUL in it
        raise unreadable(path, error) from error


def unreadable(path: Path, error: OSError | ValueError) -> MediaError:
    """The error for a file that the system does not give out."""
    reason = getattr(error, "strerror", None) or str(error)
    return MediaError(f"Cannot read {path.name}: {reason}.", "Check the name and the file's permissions.")


def check_header(path: Path, header: PictureHeader | None, data: bytes) -> PictureHeader:
    """The header itself when the picture can be read, else raise MediaError."""
    if header is None:
        if is_heif(data):
            raise MediaError(f"{path.name} is a HEIC or AVIF picture, which cannot be read.", CONVERT)
        raise MediaError(f"{path.name} is not a picture that can be read.", "Use a PNG, JPEG, WebP or TIFF.")
    if header.animated:
        raise MediaError(
            f"{path.name} is an animated {header.format}.", "Save one of its pictures, or all as a clip."
        )
    check_size(path, header.width, header.height)
    return header


def check_size(path: Path, width: int, height: int) -> None:
    """Raise MediaError for sizes outside 1 .. MAX_SIDE px a side and MAX_PIXELS."""
    if width < 1 or height < 1:
        raise MediaError(f"{path.name} has no pixels ({width} x {height}).", "Use another file.")
    if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
        raise MediaError(
            f"{path.name} is too large ({width} x {height} px).",
            f"Scale it down to at most {MAX_SIDE} px a side and {MAX_PIXELS // 1_000_000} megapixels.",
        )


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """(h,w[,c]) as stored -> upright, by Exif's orientation 1-8 (Exif 2.3, 4.6.4 A); contiguous."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def _decode(path: Path, data: bytes) -> np.ndarray:
    """Pixels as stored: (h,w), (h,w,3) BGR or (h,w,4) BGRA."""
    level = cv2.getLogLevel()
    cv2.setLogLevel(SILENT)  # the error below says it
    try:
        pixels = cv2.imdecode(np.frombuffer(_without_profile(data), np.uint8), cv2.IMREAD_UNCHANGED)
    except (cv2.error, MemoryError) as error:
        raise MediaError(f"{path.name} cannot be decoded.", CONVERT, details=str(error)) from error
    finally:
        cv2.setLogLevel(level)
    if pixels is None or pixels.size == 0:
        raise MediaError(f"{path.name} is damaged, cut off or of a kind that cannot be read.", CONVERT)
    return pixels


def _without_profile(data: bytes) -> bytes:
    """A PNG without its colour profile: it is not used, and libpng writes to standard error of odd ones."""
    if not data.startswith(PNG_MAGIC):
        return data
    at = len(PNG_MAGIC)
    while at + 12 <= len(data) and data[at + 4 : at + 8] != b"IDAT":
        after = at + 12 + int.from_bytes(data[at : at + 4], "big")
        if data[at + 4 : at + 8] == b"iCCP":
            return data[:at] + data[after:]
        at = after
    return data


def _split(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Colours (h,w,3) RGB and alpha (h,w) or None, of the same dtype."""
    if pixels.ndim == 2 or pixels.shape[2] == 1:
        return cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB), None
    if pixels.shape[2] == 2:
        return cv2.cvtColor(np.ascontiguousarray(pixels[..., 0]), cv2.COLOR_GRAY2RGB), pixels[..., 1].copy()
    if pixels.shape[2] == 3:
        return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), None
    return cv2.cvtColor(pixels, cv2.COLOR_BGRA2RGB), np.ascontiguousarray(pixels[..., 3])


def _shallow(deep: np.ndarray) -> np.ndarray:
    """16-bit levels as the nearest 8-bit ones."""
    return ((deep.astype(np.uint32) + DEEP // 2) // DEEP).astype(np.uint8)
