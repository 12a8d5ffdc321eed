# SPDX-License-Identifier: GPL-3.0-or-later
"""The clips and templates from which the mesh engine's maps are fitted, as landmarks and measured motions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import numpy as np

from backend.faces import FaceTracker, choose_face, find_faces
from backend.motion import Motion
from backend.motion_files import load_template

#: Clips that have a template, frame by frame.
PAIRED = ("d0", "d1", "d2", "d5", "d7")
#: Pictures that have one (a template of one frame, named image_...).
PICTURES = ("d9", "d12")
SIZE = 256.0  # px; the released program hands the network the whole square frame in this size


@dataclass(frozen=True)
class Clip:
    """landmarks (n,478,3) f8 in px of the frame scaled to 256 x 256; motion: what the released model
    measured."""

    name: str
    landmarks: np.ndarray
    motion: Motion | None

    def __len__(self) -> int:
        return len(self.landmarks)


@dataclass(frozen=True)
class Material:
    """paired: clips with templates; pictures: single frames with one; free: clips without; expressions:
    delta of every template of more than one frame, by name (n,21,3)."""

    paired: list[Clip]
    pictures: list[Clip]
    free: list[Clip]
    expressions: dict[str, np.ndarray]


def _frames(path: Path) -> Iterator[np.ndarray]:
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            yield frame.to_ndarray(format="rgb24")


def track(path: Path) -> np.ndarray:
    """Landmarks (n,478,3) of every frame of a square clip, px of 256. Raises ValueError when a frame has no
    face."""
    found: list[np.ndarray] = []
    with FaceTracker() as tracker:
        for rgb in _frames(path):
            face = tracker.update(rgb)
            if face is None:
                raise ValueError(f"{path.name}: no face in frame {len(found)}")
            found.append(face.landmarks * (SIZE / rgb.shape[1]))
    return np.asarray(found, dtype=np.float64)


def _still(path: Path) -> np.ndarray:
    rgb = cv2.cvtColor(cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    return choose_face(find_faces(rgb)).landmarks[None].astype(np.float64) * (SIZE / rgb.shape[1])


def _is_square(path: Path) -> bool:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return stream.width == stream.height


def read(data: Path, cache: Path | None = None) -> Material:
    """Everything in a folder with driving/ and templates/; `cache` (.npz) keeps the landmarks between
    runs."""
    kept: dict[str, np.ndarray] = {}
    if cache is not None and cache.exists():
        with np.load(cache, allow_pickle=False) as file:
            kept = {name: file[name] for name in file.files}
    driving, templates = data / "driving", data / "templates"

    def landmarks(path: Path) -> np.ndarray:
        if path.name not in kept:
            kept[path.name] = _still(path) if path.suffix == ".jpg" else track(path)
        return kept[path.name]

    def template(name: str) -> Motion:
        return load_template(templates / f"{name}.pkl")

    paired = [Clip(name, landmarks(driving / f"{name}.mp4"), template(name)) for name in PAIRED]
    pictures = [
        Clip(name, landmarks(driving / f"{name}.jpg"), template(f"image_{name}")) for name in PICTURES
    ]
    free = [
        Clip(path.stem, landmarks(path), None)
        for path in sorted(driving.glob("*.mp4"))
        if path.stem not in PAIRED and _is_square(path)
    ]
    expressions = {
        path.stem: load_template(path).expression.astype(np.float64)
        for path in sorted(templates.glob("*.pkl"))
        if not path.stem.startswith("image_")
    }
    if cache is not None:
        np.savez(cache, **kept)
    return Material(paired, pictures, free, expressions)
