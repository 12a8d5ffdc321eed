# SPDX-License-Identifier: GPL-3.0-or-later
"""What the blendshape map is fitted on: real clips and their mirror images, with MediaPipe's scores.

Each has the mesh engine's motion, and the released model's where a template belongs to the clip.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import mediapipe
import numpy as np
from mediapipe.tasks.python import BaseOptions, vision

from backend.blendshape_names import CHANNELS, INDEX
from backend.engines.mesh_maps import MeshMaps
from backend.faces import FaceTracker, choose_face, find_faces
from backend.motion import Motion
from backend.motion_files import load_template

#: Clips that have a template, frame by frame.
PAIRED = ("d0", "d1", "d2", "d5", "d7")
MODEL = "face_landmarker_v2_with_blendshapes.task"
SIZE = 256.0
_AROUND = 1.1  # half the side of the square cut from a clip that is none, in heights of the face


@dataclass(frozen=True)
class Recording:
    """A clip or its mirror image: scores (n,52) of MediaPipe in CHANNELS' order, NaN where it has none, and
    a motion of the same frames. `engine` is "mesh" or "liveportrait"."""

    clip: str
    engine: str
    mirrored: bool
    scores: np.ndarray
    motion: Motion


def _frames(path: Path, mirrored: bool) -> Iterator[np.ndarray]:
    """RGB frames; of a clip that is not square, the square around the first frame's face."""
    square: tuple[slice, slice] | None = None
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            rgb = frame.to_ndarray(format="rgb24")
            if square is None:
                square = _square(rgb)
            rgb = rgb[square]
            yield np.ascontiguousarray(rgb[:, ::-1] if mirrored else rgb)


def _square(rgb: np.ndarray) -> tuple[slice, slice]:
    height, width = rgb.shape[:2]
    if height == width:
        return slice(None), slice(None)
    points = choose_face(find_faces(rgb)).landmarks[:, :2]
    (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
    half = int(min(_AROUND * (bottom - top), height / 2, width / 2))
    x = int(np.clip((left + right) / 2, half, width - half))
    y = int(np.clip((top + bottom) / 2, half, height - half))
    return slice(y - half, y + half), slice(x - half, x + half)


def measure(path: Path, model: Path, mirrored: bool) -> dict[str, np.ndarray]:
    """landmarks (n,478,3) in px of 256 and scores (n,52). Each frame is scored by itself: MediaPipe's way
    for clips smooths the landmarks, and so lags."""
    options = vision.FaceLandmarkerOptions(
        base_options=BaseOptions(model_asset_path=str(model)), output_face_blendshapes=True, num_faces=1
    )
    landmarks: list[np.ndarray] = []
    scores: list[np.ndarray] = []
    with vision.FaceLandmarker.create_from_options(options) as landmarker, FaceTracker() as tracker:
        for rgb in _frames(path, mirrored):
            face = tracker.update(rgb)
            if face is None:
                raise ValueError(f"{path.name}: no face in frame {len(landmarks)}")
            landmarks.append(face.landmarks * (SIZE / rgb.shape[1]))
            picture = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=rgb)
            row = np.full(len(CHANNELS), np.nan)
            for found in landmarker.detect(picture).face_blendshapes[:1]:
                for category in found:
                    if category.category_name in INDEX:
                        row[INDEX[category.category_name]] = category.score
            scores.append(row)
    return {"landmarks": np.asarray(landmarks, np.float32), "scores": np.asarray(scores)}


def mesh_motion(landmarks: np.ndarray, maps: MeshMaps | None = None) -> Motion:
    """What the mesh engine makes of landmarks (n,478,3) in px of 256."""
    found = (maps or MeshMaps.load()).measure(landmarks.astype(np.float64), SIZE)
    return Motion(**{name: getattr(found, name) for name in found.__dataclass_fields__}, engine="mesh")


def read(data: Path, cache: Path) -> list[Recording]:
    """Every clip in DIR/driving and DIR/portraits; `cache`, a folder, keeps what MediaPipe measured."""
    cache.mkdir(parents=True, exist_ok=True)
    paths = sorted((data / "driving").glob("*.mp4")) + sorted((data / "portraits").glob("*.mp4"))
    recordings = []
    for path in paths:
        for mirrored in (False, True):
            kept = cache / f"{path.stem}{'-mirrored' if mirrored else ''}.npz"
            if not kept.exists():
                temporary = kept.with_name(f"{kept.stem}.part.npz")
                np.savez_compressed(temporary, **measure(path, data / "models" / MODEL, mirrored))
                temporary.replace(kept)
            with np.load(kept, allow_pickle=False) as file:
                landmarks, scores = file["landmarks"], file["scores"]
            recordings.append(Recording(path.stem, "mesh", mirrored, scores, mesh_motion(landmarks)))
            if path.stem in PAIRED and not mirrored:
                template = load_template(data / "templates" / f"{path.stem}.pkl")
                recordings.append(Recording(path.stem, "liveportrait", False, scores, template))
    return recordings
