# SPDX-License-Identifier: GPL-3.0-or-later
"""The faces in one picture: detected, their meshes refined until they stand still, and checked."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

import cv2
import numpy as np

from backend.face_region import (
    Region,
    face_box,
    face_size,
    mesh_in_region,
    region_of_detection,
    region_of_landmarks,
)
from backend.landmarker import Detection, Landmarker

Order = Literal[
    "large-small",
    "small-large",
    "left-right",
    "right-left",
    "top-bottom",
    "bottom-top",
    "distance-from-center",
]
ORDERS: tuple[str, ...] = get_args(Order)

PRESENCE = 0.5  # of the mesh network; real faces give 0.99 and more, its own default threshold is 0.5
_PASSES = 8
_SETTLED = 0.0005  # mean change of a landmark between two passes, in face sizes
# A mesh that is right hardly depends on the region it was found in. Mean displacement of its landmarks, in
# face sizes, over six shifted and scaled regions: photographs, paintings and a statue 0.004-0.009, a dog
# 0.025, a cat 0.020, a head in full profile 0.022.
_UNSTEADY = 0.015
_SHIFTS = ((0.06, 0, 1), (-0.06, 0, 1), (0, 0.06, 1), (0, -0.06, 1), (0, 0, 1.12), (0, 0, 0.88))
_SAME_FACE = 0.3  # overlap of two boxes (intersection over union) above which they are one face
_SAME_REGION = 0.7  # above which what was no face in one is none in the other
_SEARCH_SIDE = 1280  # px; a larger picture is searched in a smaller copy (the detectors see 128 and 192 px)
_SMALLEST_TILE, _TILE_SEEN = 320, 512
_LARGE = 1 / 6  # of the longer side; beside such a face small ones do not matter


@dataclass(frozen=True, eq=False)
class Face:
    """One face.

    landmarks: (478, 3) f4, MediaPipe's mesh in continuous px of the picture (pixel i covers [i, i + 1)); z in
    the same px, into the picture. score: 0..1, how sure the model is. box: (x0, y0, x1, y1) px around them.
    """

    landmarks: np.ndarray
    score: float
    box: tuple[float, float, float, float]

    @property
    def size(self) -> float:
        """Longer side of the landmarks' roll-aligned box in px."""
        return face_size(self.landmarks)

    @property
    def center(self) -> tuple[float, float]:
        """Middle of the box in px."""
        x0, y0, x1, y1 = self.box
        return (x0 + x1) / 2, (y0 + y1) / 2


def sort_faces(faces: Sequence[Face], order: str, picture_size: tuple[int, int]) -> list[Face]:
    """Faces in one of ORDERS; picture_size is (width, height) px."""
    middle_x, middle_y = picture_size[0] / 2, picture_size[1] / 2
    keys = {
        "large-small": lambda f: -f.size,
        "small-large": lambda f: f.size,
        "left-right": lambda f: f.center[0],
        "right-left": lambda f: -f.center[0],
        "top-bottom": lambda f: f.center[1],
        "bottom-top": lambda f: -f.center[1],
        "distance-from-center": lambda f: math.hypot(f.center[0] - middle_x, f.center[1] - middle_y),
    }
    return sorted(faces, key=keys[order])


def search(
    rgb: np.ndarray, landmarker: Landmarker, thorough: bool, average: bool = False, turned: bool = False
) -> list[Face]:
    """Faces of a picture in no order; `thorough` leaves nothing out. Stills are `average`d, see refine.

    The detectors see a face well from about a tenth of the picture on, and of several small ones only some.
    So where no face is large a thorough search goes over parts of the picture, too; and where there is none
    at all, over the picture with a border of repeated edges, for a face that fills it, and where `turned`
    heads are wanted, on their side or upside down, at last over the picture turned.
    """
    found = _Found(rgb, landmarker, average)
    longer = max(rgb.shape[:2])
    scale = min(1.0, _SEARCH_SIDE / longer)
    small = rgb
    if scale < 1.0:
        small = cv2.resize(rgb, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    found.add(_detect(small, landmarker, scale))
    if not thorough:
        return found.faces
    if not found.faces:
        border = max(small.shape[:2]) // 2
        padded = cv2.copyMakeBorder(small, border, border, border, border, cv2.BORDER_REPLICATE)
        found.add(_detect(padded, landmarker, scale, (-border, -border)))
    if max((face.size for face in found.faces), default=0.0) < longer * _LARGE:
        for side in (longer // 2, longer // 4):
            if side >= _SMALLEST_TILE:
                found.add(_detect_tiles(rgb, side, landmarker))
    for quarters in (2, 1, 3) if turned else ():
        if not found.faces:
            found.rejected.clear()  # what was no face from one side may be one from another
            view = np.ascontiguousarray(np.rot90(small, quarters))
            size = (view.shape[0], view.shape[1])
            regions = _detect(view, landmarker)
            found.add(_scaled(_turned_back(r, quarters, size), scale) for r in regions)
    return found.faces


def _turned_back(region: Region, quarters: int, size: tuple[int, int]) -> Region:
    """A region of a picture of size (height, width) that was turned by np.rot90, in the one before."""
    height, width = size
    x, y = region.x, region.y
    for _ in range(quarters):
        x, y = height - y, x
        height, width = width, height
    return Region(x, y, region.size, region.angle + quarters * math.pi / 2)


def _scaled(region: Region, scale: float) -> Region:
    """A region of a picture that is `scale` times as large as the one it is wanted for."""
    return replace(region, x=region.x / scale, y=region.y / scale, size=region.size / scale)


def _detect(
    rgb: np.ndarray, landmarker: Landmarker, scale: float = 1.0, origin: tuple[float, float] = (0, 0)
) -> list[Region]:
    """Regions of the detected faces, surest first, in px of a picture of which `rgb` is a part, from `origin`
    on, `scale` times as large (origin in px of `rgb`)."""
    found: list[Detection] = []
    for full_range in (False, True):
        found += sorted(landmarker.detect(rgb, full_range), key=lambda d: -d.score)
    regions = [region_of_detection(d) for d in found]
    return [_scaled(replace(r, x=r.x + origin[0], y=r.y + origin[1]), scale) for r in regions]


def _detect_tiles(rgb: np.ndarray, side: int, landmarker: Landmarker) -> list[Region]:
    """Regions of the faces in overlapping square parts of a picture, each seen at no more than 512 px."""
    height, width = rgb.shape[:2]
    scale = min(1.0, _TILE_SEEN / side)
    regions = []
    for y in _tile_starts(height, side):
        for x in _tile_starts(width, side):
            tile = np.ascontiguousarray(rgb[y : y + side, x : x + side])
            if scale < 1.0:
                tile = cv2.resize(tile, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            regions += _detect(tile, landmarker, scale, (x * scale, y * scale))
    return regions


def _tile_starts(length: int, side: int) -> list[int]:
    last = max(length - side, 0)
    return [round(i) for i in np.linspace(0, last, 1 + math.ceil(2 * last / side))]


@dataclass
class _Found:
    """The faces of one picture so far, and the boxes of what turned out to be none."""

    rgb: np.ndarray
    landmarker: Landmarker
    average: bool
    faces: list[Face] = field(default_factory=list)
    rejected: list[tuple[float, float, float, float]] = field(default_factory=list)

    def add(self, regions: Iterable[Region]) -> None:
        """Adds the faces found in `regions` that are new."""
        for region in regions:
            box = _box_of(region)
            if any(_overlap(box, face.box) > _SAME_FACE for face in self.faces):
                continue
            if any(_overlap(box, other) > _SAME_REGION for other in self.rejected):
                continue
            face = refine(self.rgb, region, self.landmarker, self.average)
            if face is None:
                self.rejected.append(box)
            elif all(_overlap(face.box, other.box) <= _SAME_FACE for other in self.faces):
                self.faces.append(face)


def refine(rgb: np.ndarray, region: Region, landmarker: Landmarker, average: bool = False) -> Face | None:
    """The face in and around a region, its mesh repeated until it stands still; None for what is no face.

    One pass alone is off by about 1 % of the face. `average` takes the mean over the slightly different
    regions of the steadiness test, which is a little better still; frames of a clip, which get one pass each,
    do without, so that the first of them is measured like all others.
    """
    landmarks, presence = mesh_in_region(rgb, region, landmarker)
    for _ in range(_PASSES - 1):
        if landmarks is None or presence < PRESENCE:
            return None
        region = region_of_landmarks(landmarks)
        before = landmarks
        landmarks, presence = mesh_in_region(rgb, region, landmarker)
        if landmarks is not None and displacement(landmarks, before) < _SETTLED * region.size:
            break
    if landmarks is None or presence < PRESENCE:
        return None
    size = face_size(landmarks)
    seen, moved = [landmarks], 0.0
    for x, y, scale in _SHIFTS:
        near = replace(region, x=region.x + x * size, y=region.y + y * size, size=region.size * scale)
        again, _ = mesh_in_region(rgb, near, landmarker)
        if again is None:
            return None
        seen.append(again)
        moved += displacement(again, landmarks) / len(_SHIFTS)
    if moved > _UNSTEADY * size:
        return None
    if average:
        landmarks = np.mean(seen, axis=0, dtype=np.float64).astype(np.float32)
    return Face(landmarks, presence, face_box(landmarks))


def displacement(landmarks: np.ndarray, others: np.ndarray) -> float:
    return float(np.linalg.norm(landmarks[:, :2] - others[:, :2], axis=1).mean())


def _box_of(region: Region) -> tuple[float, float, float, float]:
    """About the box of the landmarks that a detector's region will give."""
    half = region.size / 3
    return region.x - half, region.y - half, region.x + half, region.y + half


def _overlap(a: Sequence[float], b: Sequence[float]) -> float:
    """Intersection over union of two boxes (x0, y0, x1, y1)."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    common = width * height
    return common / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common)
