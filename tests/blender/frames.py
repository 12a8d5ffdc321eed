# SPDX-License-Identifier: GPL-3.0-or-later
"""Small results on disk and their pictures as Cycles renders them."""

from __future__ import annotations

import struct
import wave
import zlib
from pathlib import Path
from typing import Any

import bpy
import numpy as np


def write_png(path: Path, pixels: np.ndarray) -> Path:
    """(h,w,3|4) uint8, by an encoder that is not the add-on's."""
    height, width, channels = pixels.shape
    raw = b"".join(b"\0" + row.tobytes() for row in pixels)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2 if channels == 3 else 6, 0, 0, 0)
    data = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + data)
    return path


def read_png(path: Path) -> np.ndarray:
    """(h,w,4) uint8, top row first, as Blender reads it."""
    image = bpy.data.images.load(str(path))
    try:
        image.colorspace_settings.name = "Non-Color"
        width, height = image.size
        flat = np.empty(width * height * 4, np.float32)
        image.pixels.foreach_get(flat)
        return np.rint(flat.reshape(height, width, 4)[::-1] * 255).astype(np.uint8)
    finally:
        bpy.data.images.remove(image)


def picture(seed: int, size: tuple[int, int] = (8, 8), channels: int = 3) -> np.ndarray:
    """(height, width, channels) uint8: colours in blocks, opaque where there is no alpha asked for."""
    width, height = size
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


def write_frames(
    folder: Path, count: int, size: tuple[int, int] = (8, 8), seed: int = 0, channels: int = 3
) -> list[np.ndarray]:
    """000000.png ...: what is in them."""
    made = [picture(seed + index, size, channels) for index in range(count)]
    for index, pixels in enumerate(made):
        write_png(folder / f"{index:06d}.png", pixels)
    return made


def landing_of(
    folder: Path, start: int = 1, name: str = "anna", kind: str = "PLANE", scene: Any = None, **more: Any
) -> Any:
    """The landing of the frames in a folder, in the open scene."""
    from liveportrait_blender import results

    scene = scene or bpy.context.scene
    return results.Landing(str(folder), name, kind, start, scene.name, scene.session_uid, **more)


def landed(folder: Path, *arguments: Any, **more: Any) -> Any:
    """What `results.land` makes of the frames in a folder."""
    from liveportrait_blender import results

    return results.land(bpy.context, landing_of(folder, *arguments, **more))


def look_at(owner: bpy.types.Object, scene: bpy.types.Scene, size: tuple[int, int]) -> None:
    """A camera that sees exactly the plane, a pixel a pixel; Cycles without a filter, view "Standard"."""
    data = bpy.data.cameras.new("camera")
    data.type = "ORTHO"
    data.ortho_scale = max(owner.dimensions.x, owner.dimensions.z) or 1.0
    camera = bpy.data.objects.new("camera", data)
    scene.collection.objects.link(camera)
    camera.location = owner.location
    camera.location.y -= 3
    camera.rotation_euler = (np.pi / 2, 0, 0)
    scene.camera = camera
    scene.render.engine = "CYCLES"
    scene.cycles.samples = 1
    scene.cycles.use_denoising = False
    scene.cycles.pixel_filter_type = "BOX"
    scene.cycles.filter_width = 0.01
    scene.render.resolution_x, scene.render.resolution_y = size
    scene.render.resolution_percentage = 100
    scene.render.film_transparent = True
    scene.view_settings.view_transform = "Standard"
    scene.render.image_settings.file_format = "PNG"
    scene.render.image_settings.color_mode = "RGBA"


def rendered(scene: bpy.types.Scene, frame: int, path: Path) -> np.ndarray:
    """(h,w,4) uint8 of a scene frame."""
    scene.frame_set(frame)
    scene.render.filepath = str(path)
    bpy.ops.render.render(write_still=True)
    return read_png(path)


def write_tone(path: Path, seconds: float, rate: int = 8000) -> Path:
    """A WAV file."""
    times = np.arange(round(seconds * rate)) / rate
    with wave.open(str(path), "wb") as stream:
        stream.setparams((1, 2, rate, 0, "NONE", ""))
        stream.writeframes((np.sin(times * 2765) * 9000).astype("<i2").tobytes())
    return path
