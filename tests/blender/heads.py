# SPDX-License-Identifier: GPL-3.0-or-later
"""Heads with shape keys, for tests: ICT's, where the material lies beside the project, and a tiny one.

Both look along -Y with z up, so that the subject's left is +x and the front view shows it on the right.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import bpy
import numpy as np
import pytest

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
ICT = DATA / "heads" / "ict_head.npz"
ICT_SCALE = 0.1  # its centimetres, to decimetres

# Key -> where it moves the tiny head, and how; sides are the subject's.
SMALL_KEYS: dict[str, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    "eyeBlinkLeft": ((0.35, -0.9, 0.3), (0.0, 0.0, -0.15)),
    "eyeBlinkRight": ((-0.35, -0.9, 0.3), (0.0, 0.0, -0.15)),
    "jawOpen": ((0.0, -0.8, -0.6), (0.0, 0.1, -0.4)),
    "mouthSmileLeft": ((0.3, -0.9, -0.35), (0.15, 0.05, 0.15)),
    "mouthSmileRight": ((-0.3, -0.9, -0.35), (-0.15, 0.05, 0.15)),
    "browInnerUp": ((0.0, -0.9, 0.55), (0.0, 0.0, 0.15)),
}


def ict_head(name: str = "ICT") -> Any:
    """ICT-FaceKit's head with its 57 expression shapes, as an object in the scene; skips where it is absent.

    24,591 points, one unit = 10 cm. Key names are ICT's (eyeBlink_L), values 0..1, all at 0.
    """
    if not ICT.is_file():
        pytest.skip(f"the ICT head is absent: {ICT}")
    with np.load(ICT) as data:
        points = _upright(data["vertices"])
        faces = [[int(i) for i in face if i >= 0] for face in data["faces"]]
        moved = []
        for shape, key in enumerate(data["shape_names"]):
            part = slice(data["shape_ptr"][shape], data["shape_ptr"][shape + 1])
            place = points.copy()
            place[data["shape_index"][part]] += _upright(data["shape_delta"][part])
            moved.append((str(key), place))
    item = _mesh(name, points, faces, moved)
    item.data.shade_smooth()
    return item


def small_head(name: str = "Small", keys: Sequence[str] = tuple(SMALL_KEYS)) -> Any:
    """A ball of 90 points, 2 units high; each key moves the points near its place in SMALL_KEYS (names that
    are not there move the top)."""
    rings, around = 9, 10
    theta = np.linspace(0.1, np.pi - 0.1, rings)[:, None]
    phi = np.linspace(0, 2 * np.pi, around, endpoint=False)[None]
    points = np.stack(
        [
            np.sin(theta) * np.sin(phi),
            -np.sin(theta) * np.cos(phi),
            np.broadcast_to(np.cos(theta), (rings, around)),
        ],
        2,
    ).reshape(-1, 3)
    first = np.arange((rings - 1) * around)
    after = np.where(first % around == around - 1, first + 1 - around, first + 1)
    faces = np.stack([first, after, after + around, first + around], 1).tolist()
    moved = []
    for key in keys:
        place, way = SMALL_KEYS.get(key, ((0.0, 0.0, 1.0), (0.0, 0.0, 0.2)))
        share = np.exp(-np.square((points - place) / 0.35).sum(1))
        moved.append((key, points + share[:, None] * way))
    return _mesh(name, points, faces, moved)


def _upright(points: np.ndarray) -> np.ndarray:
    """ICT's axes (y up, z to the front) as Blender's."""
    x, y, z = np.asarray(points, np.float64).T * ICT_SCALE
    return np.stack([x, -z, y], 1)


def _mesh(name: str, points: np.ndarray, faces: list[list[int]], keys: list[tuple[str, np.ndarray]]) -> Any:
    mesh = bpy.data.meshes.new(name)
    mesh.from_pydata(points.tolist(), [], faces)
    item = bpy.data.objects.new(name, mesh)
    bpy.context.scene.collection.objects.link(item)
    item.shape_key_add(name="Basis", from_mix=False)
    for key, place in keys:
        block = item.shape_key_add(name=key, from_mix=False)
        block.data.foreach_set("co", np.ascontiguousarray(place, np.float32).ravel())
        block.value = 0.0
    return item
