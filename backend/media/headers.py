# SPDX-License-Identifier: GPL-3.0-or-later
"""What the first bytes of a picture file say: kind, size, orientation; read before any pixel is decoded.

Every loop is bounded by the data, nothing is allocated by a length that the file claims, and bytes that make
no sense mean "unknown" (None), never an exception.

Sources: PNG 1.2 and its eXIf extension, JPEG ITU T.81 B.1, Exif 2.3 4.6 (orientation is tag 0x0112), TIFF 6.0
section 2, WebP's RIFF container (RFC 9649), BMP's BITMAPINFOHEADER.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
TIFF_MAGICS = (b"II*\0", b"MM\0*")
HEIF_BRANDS = {b"heic", b"heix", b"hevc", b"mif1", b"msf1", b"avif", b"avis"}
ORIENTATION = 0x0112
HEAD = 1 << 20  # bytes that hold every header read here (an EXIF block has at most 64 kB)
STANDALONE = {0x01, *range(0xD0, 0xD8)}  # JPEG markers without a length: TEM, RST0-7
FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # JPEG start-of-frame markers


@dataclass(frozen=True)
class PictureHeader:
    """format: "PNG", "JPEG", "WebP", "BMP" or "TIFF". width, height: px as stored. orientation: Exif's 1-8.

    A TIFF's own orientation is left at 1: its decoder applies it.
    """

    format: str
    width: int
    height: int
    orientation: int = 1
    animated: bool = False


def read_header(data: bytes) -> PictureHeader | None:
    """The header of a picture from its first bytes (HEAD of them are enough), None when it is no picture
    that can be read.
    """
    try:
        if data.startswith(PNG_MAGIC):
            return _png(data)
        if data.startswith(b"\xff\xd8\xff"):
            return _jpeg(data)
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            return _webp(data)
        if data.startswith(b"BM"):
            return _bmp(data)
        if data.startswith(TIFF_MAGICS):
            return _tiff(data)
    except (struct.error, IndexError):  # it ends too soon
        return None
    return None


def is_picture(data: bytes) -> bool:
    """True when a file begins as a picture does, whether or not the rest of it can be read."""
    webp = data[:4] == b"RIFF" and data[8:12] == b"WEBP"
    return webp or data.startswith((PNG_MAGIC, b"\xff\xd8\xff", b"BM", *TIFF_MAGICS)) or is_heif(data)


def is_heif(data: bytes) -> bool:
    """True for HEIC and AVIF stills, which need a decoder that is not here."""
    return data[4:8] == b"ftyp" and data[8:12] in HEIF_BRANDS


def damaged_png(data: bytes) -> bool:
    """True when a chunk of a PNG is cut off or its checksum wrong, or the end is missing."""
    at = len(PNG_MAGIC)
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        kind = data[at + 4 : at + 8]
        end = at + 12 + length
        if end > len(data) or zlib.crc32(memoryview(data)[at + 4 : end - 4]) != int.from_bytes(
            data[end - 4 : end], "big"
        ):
            return True
        if kind == b"IEND":
            return False
        at = end
    return True


def _png(data: bytes) -> PictureHeader | None:
    width, height = struct.unpack_from(">II", data, 16)
    if data[12:16] != b"IHDR":
        return None
    orientation, animated = 1, False
    at = len(PNG_MAGIC)
    while at + 8 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        kind = data[at + 4 : at + 8]
        if kind == b"eXIf":
            orientation = exif_orientation(data[at + 8 : at + 8 + length])
        animated = animated or kind == b"acTL"
        at += 12 + length
    return PictureHeader("PNG", width, height, orientation, animated)


def _jpeg(data: bytes) -> PictureHeader | None:
    at, orientation = 2, 1
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            return None
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        if marker in STANDALONE:
            at += 2
            continue
        (length,) = struct.unpack_from(">H", data, at + 2)
        body = data[at + 4 : at + 2 + length]
        if marker == 0xE1 and body.startswith(b"Exif\0\0"):
            orientation = exif_orientation(body[6:])
        elif marker in FRAMES:
            height, width = struct.unpack_from(">HH", data, at + 5)
            return PictureHeader("JPEG", width, height, orientation)
        elif marker in (0xD9, 0xDA):  # the end, or pixels before any size
            return None
        at += 2 + max(length, 2)
    return None


def _webp(data: bytes) -> PictureHeader | None:
    kind = data[12:16]
    if kind == b"VP8 ":
        if data[23:26] != b"\x9d\x01\x2a":
            return None
        width, height = struct.unpack_from("<HH", data, 26)
        return PictureHeader("WebP", width & 0x3FFF, height & 0x3FFF)
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return PictureHeader("WebP", (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
    if kind != b"VP8X":
        return None
    width = int.from_bytes(data[24:27], "little") + 1
    height = int.from_bytes(data[27:30], "little") + 1
    orientation, at = 1, 12
    while at + 8 <= len(data):
        (length,) = struct.unpack_from("<I", data, at + 4)
        if data[at : at + 4] == b"EXIF":
            orientation = exif_orientation(data[at + 8 : at + 8 + length].removeprefix(b"Exif\0\0"))
        at += 8 + length + length % 2
    return PictureHeader("WebP", width, height, orientation, bool(data[20] & 0x02))


def _bmp(data: bytes) -> PictureHeader | None:
    (size,) = struct.unpack_from("<I", data, 14)
    if size == 12:
        width, height = struct.unpack_from("<HH", data, 18)
    else:
        width, height = struct.unpack_from("<ii", data, 18)
    return PictureHeader("BMP", width, abs(height)) if width > 0 and height else None


def _tiff(data: bytes) -> PictureHeader | None:
    tags = _first_directory(data)
    width, height = tags.get(256), tags.get(257)
    if not width or not height:
        return None
    if tags.get(ORIENTATION, 1) in (5, 6, 7, 8):
        width, height = height, width
    return PictureHeader("TIFF", width, height)


def exif_orientation(data: bytes) -> int:
    """Exif's orientation, 1 to 8, of a block that begins with its TIFF header; 1 (upright) without one."""
    value = _first_directory(data).get(ORIENTATION, 1)
    return value if 1 <= value <= 8 else 1


def _first_directory(data: bytes) -> dict[int, int]:
    """The single SHORT and LONG values of a TIFF structure's first directory, by tag."""
    if data[:4] not in TIFF_MAGICS:
        return {}
    order = "<" if data[:2] == b"II" else ">"
    values: dict[int, int] = {}
    try:
        (at,) = struct.unpack_from(order + "I", data, 4)
        (count,) = struct.unpack_from(order + "H", data, at)
        for entry in range(at + 2, at + 2 + 12 * count, 12):
            tag, kind, amount = struct.unpack_from(order + "HHI", data, entry)
            if amount == 1 and kind in (3, 4):
                (values[tag],) = struct.unpack_from(order + ("H" if kind == 3 else "I"), data, entry + 8)
    except struct.error:  # it points beyond the data; what was read before counts
        pass
    return values
