# SPDX-License-Identifier: GPL-3.0-or-later
"""Pictures of Blender as files: the file itself where there is one, else a PNG in the cache.

A PNG is named by the SHA-256 of what it holds, so that the same picture is the same file: the backend finds
what it has rendered of it, and a picture that changed is another file.
"""

from __future__ import annotations

import contextlib
import hashlib
import struct
import uuid
import zlib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import bpy

from . import compat, preferences
from .names import UserError

LONGEST_PATH = 4096
LIMIT = 1 << 30  # bytes that they may take
# Under X11 Blender 4.3 and 5.2 take no pictures from the clipboard, whatever is on it.
CLIPBOARD_HINT = "Copy a picture (under X11 copy its file's path), or choose a file."
READABLE = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}  # what the backend reads
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
MAGICS = {PNG_MAGIC: ".png", b"\xff\xd8\xff": ".jpg"}


def folder() -> Path:
    """Where they lie."""
    place = preferences.cache_folder() / "pictures"
    place.mkdir(parents=True, exist_ok=True)
    return place


def file_of(image: Any, scene: Any = None) -> Path:
    """A file with the pixels of an image as Blender shows them: sRGB, its alpha kept. Raises UserError.

    The image's own file where that says it all: not packed, not painted on since, in a format that the
    backend reads. scene: whose output settings the Render Result is written with.
    """
    if image.type in ("RENDER_RESULT", "COMPOSITING"):
        return _rendered(image, scene or bpy.context.scene)
    if not image.is_dirty:
        if image.packed_file is None and image.source == "FILE":
            path = Path(bpy.path.abspath(image.filepath, library=image.library))
            if not path.is_file():
                raise UserError(
                    f'The file of the image "{image.name}" is not there: {path}.',
                    "Find it with File > External Data > Find Missing Files.",
                )
            if path.suffix.lower() in READABLE:
                return path.resolve()
        elif image.packed_file is not None:
            data = bytes(image.packed_file.data)
            for magic, suffix in MAGICS.items():
                if data.startswith(magic):
                    return kept(data, suffix)
    return kept(_encoded(image), ".png")


def clipboard_file(context: Any) -> Path:
    """A file with the picture on the clipboard, or the picture file whose path is there. Raises UserError.

    Blender pastes a picture in an image editor alone, so an area of the window is one for a moment.
    """
    path = path_in(context.window_manager.clipboard)
    if path is not None and path.suffix.lower() in READABLE and path.is_file():
        return path.resolve()
    if bpy.app.background or context.window is None:
        raise UserError("There is no clipboard in background mode.", "Choose a file.")
    before = {image.session_uid for image in bpy.data.images}
    area = max(context.window.screen.areas, key=lambda one: one.width * one.height)
    kind, ui = area.type, area.ui_type
    try:
        area.type = "IMAGE_EDITOR"
        shown = area.spaces.active.image
        with context.temp_override(area=area, region=area.regions[-1]):
            bpy.ops.image.clipboard_paste()
        area.spaces.active.image = shown
    except RuntimeError as error:  # no picture there, or this Blender cannot paste one
        raise UserError("Blender sees no picture on the clipboard.", CLIPBOARD_HINT) from error
    finally:
        area.type = kind
        area.ui_type = ui
    pasted = [image for image in bpy.data.images if image.session_uid not in before]
    if not pasted:
        raise UserError("Blender sees no picture on the clipboard.", CLIPBOARD_HINT)
    try:
        return kept(_encoded(pasted[0]), ".png")
    finally:
        for image in pasted:
            bpy.data.images.remove(image)


def path_in(text: str) -> Path | None:
    """The path that a file manager has put on the clipboard, as it is or as a file: address."""
    text = text.strip().strip('"')
    if not text or "\n" in text or "\0" in text or len(text) > LONGEST_PATH:
        return None
    if text.startswith("file://"):
        try:
            text = url2pathname(urlsplit(text).path)
        except (OSError, ValueError):
            return None
    return Path(text)


def kept(data: bytes, suffix: str) -> Path:
    """The file of the cache that holds `data`. Raises UserError where it cannot be written."""
    try:
        path = folder() / f"{hashlib.sha256(data).hexdigest()}{suffix}"
        if not path.is_file() or path.stat().st_size != len(data):
            temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
            try:
                temporary.write_bytes(data)
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)
            _forget(path.parent)
        else:
            path.touch()  # the cache forgets what was not used for long
    except OSError as error:
        raise UserError(f"The cache cannot be written: {error.strerror}.", "Free some space.") from error
    return path


def _forget(place: Path) -> None:
    """Remove the pictures that were not used the longest until the rest is within the limit."""
    found = []
    for entry in place.iterdir():
        with contextlib.suppress(OSError):
            facts = entry.stat()
            found.append((facts.st_mtime_ns, facts.st_size, entry))
    used = sum(size for _, size, _ in found)
    for _, size, entry in sorted(found)[:-1]:
        if used <= LIMIT:
            return
        with contextlib.suppress(OSError):
            entry.unlink()
            used -= size


def encode_png(rows: Any) -> bytes:
    """A PNG file of (h,w,3) or (h,w,4) uint8 numpy pixels, sRGB, top row first."""
    import numpy as np

    height, width, channels = rows.shape
    filtered = np.zeros((height, 1 + width * channels), np.uint8)
    filtered[:, 1:] = rows.reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, 8, {3: 2, 4: 6}[channels], 0, 0, 0)
    body = zlib.compress(filtered.tobytes(), 1)
    return b"".join([PNG_MAGIC, _chunk(b"IHDR", header), _chunk(b"IDAT", body), _chunk(b"IEND", b"")])


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(data, zlib.crc32(kind)))


def _encoded(image: Any) -> bytes:
    """The pixels of an image as a PNG. Byte images keep their levels; float ones are scene-linear in memory,
    whatever their file's colour space, and multiplied by their alpha.
    """
    try:
        import numpy as np
    except ImportError as error:
        raise UserError(
            f'The image "{image.name}" is no file on disk, and this Blender has no numpy to write it.',
            "Save the image as a PNG and choose that file.",
        ) from error

    width, height = image.size
    if not width or not height or not image.has_data and not image.pixels:
        raise UserError(f'The image "{image.name}" has no pixels.', "Choose another image.")
    flat = np.empty(len(image.pixels), np.float32)
    image.pixels.foreach_get(flat)
    pixels = flat.reshape(height, width, -1)[::-1]
    channels = pixels.shape[2]
    if channels < 3:  # grey, or grey with alpha
        pixels = np.concatenate([pixels[:, :, :1].repeat(3, 2), pixels[:, :, 1:]], 2)
    pixels = np.nan_to_num(pixels)
    linear = image.is_float or image.colorspace_settings.name.startswith("Linear")
    if image.alpha_mode == "NONE":
        pixels = pixels[:, :, :3]
    elif image.is_float and pixels.shape[2] == 4 and image.alpha_mode != "CHANNEL_PACKED":
        alpha = pixels[:, :, 3:]
        shown = np.divide(pixels[:, :, :3], alpha, out=np.zeros_like(pixels[:, :, :3]), where=alpha > 0)
        pixels = np.concatenate([shown, alpha], 2)
    if pixels.shape[2] == 4 and (pixels[:, :, 3] >= 1).all():
        pixels = pixels[:, :, :3]
    pixels = np.clip(pixels, 0, 1)
    if linear:  # IEC 61966-2-1
        colour = pixels[:, :, :3]
        encoded = np.where(colour <= 0.0031308, 12.92 * colour, 1.055 * colour ** (1 / 2.4) - 0.055)
        pixels = np.concatenate([encoded, pixels[:, :, 3:]], 2)
    return encode_png(np.rint(pixels * 255).astype(np.uint8))


def _rendered(image: Any, scene: Any) -> Path:
    """The Render Result, which has no pixels for Python: Blender writes it as it is shown."""
    settings = scene.render.image_settings
    path = folder() / f"render-{uuid.uuid4().hex}.png"
    try:
        with compat.written_as_png(settings):
            image.save_render(str(path), scene=scene)
        return kept(path.read_bytes(), ".png")
    except (RuntimeError, OSError) as error:
        raise UserError(
            "The Render Result has no picture yet.", "Render one, or choose another image."
        ) from error
    finally:
        path.unlink(missing_ok=True)
