# SPDX-License-Identifier: GPL-3.0-or-later
"""Width and height of a picture file from its first bytes, and what a large one costs. Imports no bpy."""

from __future__ import annotations

import struct
from pathlib import Path

HEAD = 1 << 16  # bytes; a JPEG's size may stand behind its thumbnail
LARGE = 4096 * 4096  # pixels, from which on it is said what they cost; the backend's own bound
MEMORY, DISK = 27, 1  # bytes a pixel, measured: of the work, and of every frame


def size_of(path: Path) -> tuple[int, int]:
    """(width, height) as stored; (0, 0) for what is none of PNG, JPEG, WebP and BMP. Raises OSError."""
    with path.open("rb") as stream:
        head = stream.read(HEAD)
    try:
        if head.startswith(b"\x89PNG\r\n\x1a\n"):
            return _pair(">II", head, 16)
        if head.startswith(b"BM"):
            width, height = _pair("<ii", head, 18)
            return abs(width), abs(height)
        if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
            return _of_webp(head)
        if head.startswith(b"\xff\xd8"):
            return _of_jpeg(head)
    except (struct.error, IndexError):  # cut off
        pass
    return 0, 0


def cost_of(width: int, height: int) -> str:
    """What a picture of that size costs and what to do, "" where it is not large."""
    pixels = width * height
    if pixels <= LARGE:
        return ""
    return (
        f"{width} x {height} pixels: every frame is as large, about {pixels * DISK / 1e6:.0f} MB on disk, "
        f"and the work takes {pixels * MEMORY / 1e9:.1f} GB of memory. Scale the picture down first if you "
        "need less, or turn Paste Back off"
    )


def _pair(form: str, head: bytes, at: int) -> tuple[int, int]:
    first, second = struct.unpack_from(form, head, at)
    return int(first), int(second)


def _of_jpeg(head: bytes) -> tuple[int, int]:
    """From the frame header (SOF), whichever of its kinds."""
    at = 2
    while head[at] == 0xFF:
        kind = head[at + 1]
        if kind == 0xFF:  # filling
            at += 1
            continue
        if 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):
            height, width = _pair(">HH", head, at + 5)
            return width, height
        at += 2 + struct.unpack_from(">H", head, at + 2)[0]
    return 0, 0


def _of_webp(head: bytes) -> tuple[int, int]:
    kind = head[12:16]
    if kind == b"VP8X":
        return int.from_bytes(head[24:27], "little") + 1, int.from_bytes(head[27:30], "little") + 1
    if kind == b"VP8L":
        bits = struct.unpack_from("<I", head, 21)[0]
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width, height = _pair("<HH", head, 26)
    return width & 0x3FFF, height & 0x3FFF
