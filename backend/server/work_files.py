# SPDX-License-Identifier: GPL-3.0-or-later
"""Tasks of the worker that need no engine: the faces of a picture, a motion as another kind of file."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from backend import media
from backend.capture import Cancel
from backend.cropping import Rect, crop, crop_matrix
from backend.driving import open_driving
from backend.errors import InputError
from backend.faces import Face, find_faces
from backend.media.png import encode_png
from backend.motion import Motion
from backend.motion_files import save_motion
from backend.progress import Progress
from backend.server.params import options_of
from backend.source import check_source

MARGIN = 1.6  # width of a thumbnail in face sizes


@dataclass(frozen=True)
class Answer:
    """The result of a task and its bulk data."""

    result: Mapping[str, Any]
    payload: bytes = b""


def first_picture(path: Path) -> media.Picture:
    """A picture, or the first one of a clip. Raises InputError, MediaError."""
    check_source(path)
    if media.probe(path).kind == "picture":
        return media.read_picture(path)
    with closing(cast(Any, media.Clip(path).frames(stop_frame=1))) as frames:
        first = next(frames, None)
    if first is None:
        raise InputError(f"{path.name} has no pictures.", "Use another clip.")
    return media.Picture(first.copy(), None, None)


def faces(task: Mapping[str, Any], progress: Progress, cancel: Cancel) -> Answer:
    """source, options, thumbnail (pixels across, 0: none) -> where the faces are, and PNG files of them."""
    options = options_of(task["options"])
    rgb = first_picture(Path(task["source"])).rgb
    height, width = rgb.shape[:2]
    found = find_faces(rgb, options.face_order)
    pictures = [_thumbnail(rgb, face, task["thumbnail"]) for face in found if task["thumbnail"]]
    told = {
        "width": width,
        "height": height,
        "faces": [_told(number, face) for number, face in enumerate(found)],
        "sizes": [len(picture) for picture in pictures],
    }
    return Answer(told, b"".join(pictures))


def convert(task: Mapping[str, Any], progress: Progress, cancel: Cancel) -> Answer:
    """motion, target -> the same motion in a file of the kind that the target's name says."""
    motion, target = task["motion"], Path(task["target"])
    opened = open_driving(Path(motion["path"]) if "path" in motion else motion["library"])
    if opened.motion is None:
        raise InputError(f"{opened.name} is a {opened.kind}, not a motion.", "Capture it first.")
    save_motion(opened.motion, target)
    return Answer(facts_of(opened.motion, target))


def facts_of(motion: Motion, file: Path) -> dict[str, Any]:
    """What a job that made a motion file tells of it."""
    return {
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "frames": len(motion),
        "fps": float(motion.fps),
        "fps_numerator": motion.fps_numerator,
        "fps_denominator": motion.fps_denominator,
        "valid_frames": int(motion.valid.sum()),
        "engine": motion.engine,
    }


def _told(number: int, face: Face) -> dict[str, Any]:
    x0, y0, x1, y1 = (round(float(edge), 2) for edge in face.box)
    box = {"x": x0, "y": y0, "width": round(x1 - x0, 2), "height": round(y1 - y0, 2)}
    return {"number": number, **box, "size": round(face.size, 2)}


def _thumbnail(rgb: np.ndarray, face: Face, across: int) -> bytes:
    """The face and a little around it; black outside the picture."""
    place = Rect(face.center[0], face.center[1], MARGIN * face.size)
    return encode_png(crop(rgb, crop_matrix(place, across), across))
