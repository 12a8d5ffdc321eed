# SPDX-License-Identifier: GPL-3.0-or-later
"""Every kind of picture comes in upright, with its colours, alpha and depth; all else is one clear line."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.errors import MediaError
from backend.media import Picture, probe, read_picture
from backend.media.headers import HEAD, exif_orientation, read_header
from backend.media.pictures import upright
from backend.media.png import encode_png

# What Exif's eight orientations do to a picture as stored (Exif 2.3, 4.6.4 A, tag 0x0112).
TURNS = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}


def sample(height: int = 24, width: int = 40, channels: int = 3, dtype: type = np.uint8) -> np.ndarray:
    """Smooth, and different in every direction."""
    y, x = np.mgrid[0:height, 0:width]
    planes = [x * 200 / width + 20, y * 200 / height + 20, 230 - (x + y) * 100 / (width + height), 40 + y * 3]
    levels = np.stack(planes[:channels], -1)
    return (levels * (257 if dtype is np.uint16 else 1)).astype(dtype)


def shallow(deep: np.ndarray) -> np.ndarray:
    """16-bit levels as the nearest 8-bit ones."""
    return np.rint(deep / 257).astype(np.uint8)


def exif(orientation: int, order: str = "<") -> bytes:
    """A TIFF structure with one tag, after one that is to be passed over."""
    mark = b"II*\0" if order == "<" else b"MM\0*"
    entries = struct.pack(order + "HHIHH", 0x0100, 3, 1, 7, 0) + struct.pack(
        order + "HHIHH", 0x0112, 3, 1, orientation, 0
    )
    return mark + struct.pack(order + "IH", 8, 2) + entries + b"\0\0\0\0"


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def with_png_chunk(png: bytes, kind: bytes, data: bytes) -> bytes:
    return png[:33] + png_chunk(kind, data) + png[33:]


def raw_png(width: int, height: int, bits: int, colour_type: int, rows: list[bytes], *chunks: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    parts = [png_chunk(b"IHDR", header), *chunks, png_chunk(b"IDAT", data), png_chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def jpeg(rgb: np.ndarray, orientation: int | None = None, order: str = "<") -> bytes:
    ok, data = cv2.imencode(".jpg", rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 98])
    assert ok
    content = data.tobytes()
    if orientation is None:
        return content
    body = b"Exif\0\0" + exif(orientation, order)
    return content[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + content[2:]


def webp(rgb: np.ndarray, orientation: int) -> bytes:
    """Lossless, in the extended layout with an EXIF chunk."""
    ok, data = cv2.imencode(".webp", rgb[..., ::-1], [cv2.IMWRITE_WEBP_QUALITY, 101])
    assert ok
    height, width = rgb.shape[:2]
    pixels = data.tobytes()[12:]
    body = exif(orientation)
    body += b"\0" * (len(body) % 2)
    size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    extended = b"VP8X" + struct.pack("<I", 10) + b"\x08\0\0\0" + size
    payload = b"WEBP" + extended + pixels + b"EXIF" + struct.pack("<I", len(body)) + body
    return b"RIFF" + struct.pack("<I", len(payload)) + payload


def tiff(rgb: np.ndarray, orientation: int) -> bytes:
    height, width, channels = rgb.shape
    bits = 8 * rgb.dtype.itemsize
    entries = [(256, 3, width), (257, 3, height), (258, 3, None), (259, 3, 1), (262, 3, 2), (273, 4, None)]
    entries += [(274, 3, orientation), (277, 3, channels), (278, 3, height), (279, 4, rgb.nbytes)]
    after = 8 + 2 + 12 * len(entries) + 4
    content = b"II*\0" + struct.pack("<IH", 8, len(entries))
    for tag, kind, value in entries:
        count = channels if tag == 258 else 1
        content += struct.pack("<HHII", tag, kind, count, {258: after, 273: after + 8}.get(tag, value or 0))
    return content + b"\0\0\0\0" + struct.pack("<4H", *[bits] * 3, 0) + rgb.astype(f"<u{bits // 8}").tobytes()


def saved(folder: Path, content: bytes, name: str = "picture") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def read(folder: Path, content: bytes) -> Picture:
    """Read; and what a probe says agrees."""
    path = saved(folder, content)
    picture = read_picture(path)
    info = probe(path)
    assert (info.kind, info.height, info.width) == ("picture", *picture.rgb.shape[:2])
    assert picture.rgb.dtype == np.uint8 and picture.rgb.flags.c_contiguous
    return picture


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".webp", ".tiff", ".jpg"])
def test_each_format_keeps_its_colours(tmp_path: Path, suffix: str) -> None:
    rgb = sample()
    quality = [cv2.IMWRITE_JPEG_QUALITY, 98, cv2.IMWRITE_WEBP_QUALITY, 101]
    ok, data = cv2.imencode(suffix, rgb[..., ::-1], quality if suffix in (".jpg", ".webp") else [])
    assert ok
    picture = read(tmp_path, data.tobytes())
    assert np.abs(picture.rgb.astype(int) - rgb).max() <= (6 if suffix == ".jpg" else 0)
    assert picture.alpha is None and picture.deep is None


def test_names_in_any_script_and_none_of_the_suffixes(tmp_path: Path) -> None:
    folder = tmp_path / "портрет 肖像 ñ"
    folder.mkdir()
    path = saved(folder, encode_png(sample()), "œuvre №1 😀")
    assert np.array_equal(read_picture(path).rgb, sample())
    assert np.array_equal(read_picture(str(path)).rgb, sample())


@pytest.mark.parametrize("orientation", TURNS)
def test_every_format_is_turned_upright(tmp_path: Path, orientation: int) -> None:
    rgb = sample()
    stored = TURNS[{6: 8, 8: 6}.get(orientation, orientation)](rgb)  # turning undoes this
    for order in "<>":
        turned = read(tmp_path, jpeg(stored, orientation, order)).rgb
        assert turned.shape == rgb.shape and np.abs(turned.astype(int) - rgb).max() <= 6
    png = with_png_chunk(encode_png(stored), b"eXIf", exif(orientation))
    assert np.array_equal(read(tmp_path, png).rgb, rgb)
    assert np.array_equal(read(tmp_path, webp(stored, orientation)).rgb, rgb)
    assert np.array_equal(read(tmp_path, tiff(stored, orientation)).rgb, rgb)


@pytest.mark.parametrize("orientation", TURNS)
def test_alpha_and_depth_turn_along(tmp_path: Path, orientation: int) -> None:
    pixels = sample(channels=4, dtype=np.uint16)
    picture = read(tmp_path, with_png_chunk(encode_png(pixels), b"eXIf", exif(orientation)))
    expected = TURNS[orientation](pixels)
    assert picture.deep is not None and picture.alpha is not None
    assert np.array_equal(picture.deep, expected[..., :3])
    assert np.array_equal(picture.rgb, shallow(expected[..., :3]))
    assert np.array_equal(picture.alpha, shallow(expected[..., 3]))


@pytest.mark.parametrize("orientation", TURNS)
def test_upright_is_exifs_table(orientation: int) -> None:
    assert np.array_equal(upright(sample(), orientation), TURNS[orientation](sample()))


def test_grey_and_grey_with_alpha(tmp_path: Path) -> None:
    for dtype in (np.uint8, np.uint16):
        grey = sample(channels=2, dtype=dtype)
        small = grey if dtype is np.uint8 else shallow(grey)
        alone = read(tmp_path, encode_png(grey[..., :1]))
        assert alone.alpha is None
        assert np.array_equal(alone.rgb, np.repeat(small[..., :1], 3, axis=2))
        both = read(tmp_path, encode_png(grey))
        assert both.alpha is not None and np.array_equal(both.alpha, small[..., 1])
        assert np.array_equal(both.rgb, alone.rgb)
        assert (both.deep is not None) == (dtype is np.uint16)


def test_palettes_and_single_bits(tmp_path: Path) -> None:
    palette = png_chunk(b"PLTE", bytes([1, 2, 3, 4, 5, 6]))
    rgb = [[[1, 2, 3], [4, 5, 6]]]
    assert read(tmp_path, raw_png(2, 1, 8, 3, [b"\0\1"], palette)).rgb.tolist() == rgb
    clear = read(tmp_path, raw_png(2, 1, 8, 3, [b"\0\1"], palette, png_chunk(b"tRNS", b"\x80")))
    assert clear.rgb.tolist() == rgb
    assert clear.alpha is not None and clear.alpha.tolist() == [[128, 255]]
    assert read(tmp_path, raw_png(8, 1, 1, 0, [b"\xaa"])).rgb[0, :, 0].tolist() == [255, 0] * 4


def test_sixteen_bits_become_the_nearest_eight(tmp_path: Path) -> None:
    deep = np.array([[[0, 128, 129], [65535, 65406, 65407]]], np.uint16)
    picture = read(tmp_path, encode_png(deep))
    assert picture.rgb.tolist() == [[[0, 0, 1], [255, 254, 255]]]
    assert picture.deep is not None and np.array_equal(picture.deep, deep)


def test_a_real_portrait(shared_data: Path) -> None:
    path = shared_data / "portraits" / "s0.jpg"
    picture, info = read_picture(path), probe(path)
    assert picture.rgb.shape == (info.height, info.width, 3) == (704, 600, 3)


def refused(path: Path, *words: str) -> None:
    """Reading and probing raise MediaError, in one line that has these words and a hint."""
    for ask in (read_picture, probe):
        with pytest.raises(MediaError) as caught:
            ask(path)
        assert "\n" not in str(caught.value) and caught.value.hint
        assert all(word in str(caught.value) for word in words), str(caught.value)


def damaged(path: Path, *words: str) -> None:
    """Reading raises MediaError; probing, which decodes nothing, may not notice."""
    with pytest.raises(MediaError) as caught:
        read_picture(path)
    assert "\n" not in str(caught.value) and caught.value.hint
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_what_is_no_picture(tmp_path: Path) -> None:
    refused(tmp_path / "absent.png", "There is no file")
    refused(saved(tmp_path, b"", "empty.png"), "empty.png", "empty")
    refused(saved(tmp_path, b"just some text\n" * 50, "text.png"), "text.png")
    refused(saved(tmp_path, os.urandom(5000), "noise.jpg"), "noise.jpg")
    damaged(tmp_path, "folder")
    refused(saved(tmp_path, b"\0\0\0\x1cftypheic" + bytes(40), "phone.heic"), "HEIC")
    refused(saved(tmp_path, with_png_chunk(encode_png(sample()), b"acTL", bytes(8)), "a.png"), "animated")
    damaged(saved(tmp_path, b"GIF89a" + bytes(100), "a.gif"), "a.gif")


def test_a_name_that_cannot_be_one() -> None:
    refused(Path("a\0b.png"))


@pytest.mark.parametrize(
    "content", [encode_png(sample()), jpeg(sample()), webp(sample(), 1), tiff(sample(), 1)]
)
def test_a_picture_that_is_cut_off(tmp_path: Path, content: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    for length in (12, 30, len(content) // 2, len(content) - 3):
        damaged(saved(tmp_path, content[:length], "cut"), "cut")
    assert capfd.readouterr() == ("", "")  # the error is the one line that is said


def test_a_png_with_a_wrong_checksum(tmp_path: Path) -> None:
    content = bytearray(encode_png(sample()))
    content[len(content) // 2] ^= 0xFF
    damaged(saved(tmp_path, bytes(content), "wrong.png"), "wrong.png", "damaged")


def test_sizes_that_no_memory_holds_are_refused_before_they_are_decoded(tmp_path: Path) -> None:
    for width, height in ((16385, 10), (10, 16385), (16000, 16000), (2**31 - 1, 2**31 - 1)):
        refused(saved(tmp_path, raw_png(width, height, 8, 2, [b""]), "bomb.png"), "too large", "16384")
    refused(saved(tmp_path, raw_png(0, 5, 8, 2, [b""]), "none.png"))


def test_floating_point_pixels_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "float.tiff"
    assert cv2.imwrite(str(path), sample().astype(np.float32))
    damaged(path, "floating-point")


STARTS = {
    "png": with_png_chunk(encode_png(sample(6, 8)), b"eXIf", exif(6)),
    "jpeg": jpeg(sample(16, 16), 8),
    "webp": webp(sample(6, 8), 3),
    "tiff": tiff(sample(6, 8), 5),
    "bmp": cv2.imencode(".bmp", sample(6, 8))[1].tobytes(),
}


@given(
    st.sampled_from(sorted(STARTS)),
    st.lists(st.tuples(st.integers(0, 200), st.binary(min_size=1, max_size=8)), max_size=6),
    st.integers(0, 400),
)
def test_changed_bytes_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, kind: str, changes: list[tuple[int, bytes]], cut: int
) -> None:
    content = bytearray(STARTS[kind])
    for at, new in changes:
        content[at : at + len(new)] = new
    path = saved(tmp_path_factory.getbasetemp(), bytes(content[: len(content) - cut]), "changed")
    for ask in (read_picture, probe):
        try:
            ask(path)
        except MediaError as error:
            assert "\n" not in str(error)


@given(st.binary(max_size=300), st.sampled_from([b"", *(content[:12] for content in STARTS.values())]))
def test_any_bytes_have_a_header_or_none(data: bytes, start: bytes) -> None:
    header = read_header((start + data)[:HEAD])
    assert header is None or 1 <= header.orientation <= 8
    assert 1 <= exif_orientation(start[:4] + data) <= 8
    assert 1 <= exif_orientation(b"II*\0" + data) <= 8
