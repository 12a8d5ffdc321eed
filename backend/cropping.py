# SPDX-License-Identifier: GPL-3.0-or-later
"""The square around a face in which LivePortrait works: its rectangle, its affine maps, and cutting it out.

The formulas are the released program's (src/utils/crop.py, KwaiVGI/LivePortrait, MIT). The product differs
from it by the flags of `CropRules`; `compatibility="upstream"` turns all of them off.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from backend.face_region import EYE_PAIRS, between_pixel_centres, shrink

CROP_SIZE = 256  # px across; what the motion space's [-1, 1] spans
SOURCE_SCALE, SOURCE_SHIFT_Y = 2.3, -0.125
DRIVING_SCALE, DRIVING_SHIFT_Y = 2.2, -0.1

MESH_AND_FINE = 478 + 203  # see fine_landmarks.py

Indices = tuple[int, ...]

# Per layout (number of landmarks) the points whose means are the image-left eye, the other one, the mouth.
_LAYOUTS: dict[int, tuple[Indices, Indices, Indices]] = {
    203: ((0, 6, 12, 18), (24, 30, 36, 42), (48, 66)),
    106: ((33, 35, 40, 39), (87, 89, 94, 93), (52, 61)),
    101: ((39, 42, 45, 48), (51, 54, 57, 60), (75, 81)),
    68: ((36, 39), (42, 45), (48, 54)),
    5: ((0,), (1,), (3, 4)),
    9: ((2, 3), (0, 1), (5, 6)),
}

# MediaPipe's mesh, read so that the rectangle is the one the 203 points would give: lids and corners of the
# eyes, corners of the mouth, and for the box only what the 203 points cover (brows, nose, the contour from
# temple to temple round the chin), not the forehead.
_MESH_EYES_AND_MOUTH = (*((*lids, *corners) for lids, corners in EYE_PAIRS), (61, 291))
_MESH_CONTOUR = (
    *(127, 234, 93, 132, 58, 172, 136, 150, 149, 176, 148),
    *(152, 377, 400, 378, 379, 365, 397, 288, 361, 323, 454, 356),
    *(70, 63, 105, 66, 107, 336, 296, 334, 293, 300, 4),
)


@dataclass(frozen=True)
class CropRules:
    """What the product does differently from the released program, each by a flag of its own.

    horizontal_shift: vx is heeded (the released crop_image never passes it on).
    read_mesh: 478 points are read as MediaPipe's mesh (released: as "the first 101 points", a tilted crop).
    exact: the angle in double precision (released: arc cosine of a single, steps of 0.02 degrees near 0).
    pixel_centres: px are continuous, pixel i centred at i + 0.5, and a crop much smaller than the picture is
        averaged, not sampled (released: OpenCV's indices, a shift of half a pixel at most).
    rounding: pasted pixels are rounded (released: truncated, half a level darker).
    closed_mask: the soft mask is 0 at all four sides (released: 15 of 255 at the right and the bottom, which
        lets a dark line of what lies beyond the crop in).
    """

    horizontal_shift: bool = True
    read_mesh: bool = True
    exact: bool = True
    pixel_centres: bool = True
    rounding: bool = True
    closed_mask: bool = True

    @classmethod
    def of(cls, compatibility: str) -> CropRules:
        """The rules of "product" or "upstream"."""
        if compatibility not in ("product", "upstream"):
            raise ValueError(f"compatibility is 'product' or 'upstream', not {compatibility!r}")
        on = compatibility == "product"
        return cls(on, on, on, on, on, on)


@dataclass(frozen=True)
class Rect:
    """A square: centre and side in px, angle of its x axis in radians, clockwise as seen."""

    cx: float
    cy: float
    size: float
    angle: float = 0.0


def crop_rectangle(
    landmarks: np.ndarray,
    scale: float = SOURCE_SCALE,
    vx: float = 0.0,
    vy: float = SOURCE_SHIFT_Y,
    rotate: bool = True,
    compatibility: str = "product",
    use_lips: bool = True,
) -> Rect:
    """The crop's rectangle round a face.

    landmarks: (k, 2+) px, k = 203, 106, 101, 68, 5, 9, 478 or 681 (478, and 203 which alone are read). The
    box is aligned with the line from the eyes to the mouth (`use_lips`) or with that through the eyes, made
    square, enlarged `scale` times and shifted by (vx, vy) of its side along its own axes. Without `rotate` it
    is the same square standing upright.
    Raises ValueError for another number of landmarks.
    """
    rules = CropRules.of(compatibility)
    points = np.asarray(landmarks, np.float64)[:, :2]
    if len(points) == MESH_AND_FINE:
        points = points[-203:]
    top, bottom = _axis(points, use_lips, rules)
    uy = bottom - top
    length = float(np.linalg.norm(uy))
    uy = uy / length if length > 1e-3 else np.array([0.0, 1.0])
    ux = np.array([uy[1], -uy[0]])
    if rules.exact:
        angle = math.atan2(ux[1], ux[0])
    else:
        ux = ux.astype(np.float32)
        angle = math.copysign(math.acos(ux[0]), -1.0 if ux[1] < 0 else 1.0)
    if rules.read_mesh and len(points) == 478:
        points = points[list(_MESH_CONTOUR)]
    axes = np.array([ux, uy], np.float64)
    middle = points.mean(0)
    local = (points - middle) @ axes.T
    low, high = local.min(0), local.max(0)
    size = float((high - low).max()) * scale
    shift = (vx if rules.horizontal_shift else 0.0, vy)
    cx, cy = middle + ((low + high) / 2 + np.multiply(shift, size)) @ axes
    return Rect(float(cx), float(cy), size, angle if rotate else 0.0)


def _axis(points: np.ndarray, use_lips: bool, rules: CropRules) -> tuple[np.ndarray, np.ndarray]:
    """Two points, one below the other on an upright face."""
    count = len(points)
    if count in _LAYOUTS:
        left, right, mouth = _LAYOUTS[count]
    elif count == 478 and rules.read_mesh:
        left, right, mouth = _MESH_EYES_AND_MOUTH
    elif count == 478:
        left, right, mouth = _LAYOUTS[101]
    else:
        raise ValueError(f"there is no landmark layout of {count} points")
    left_eye, right_eye = points[list(left)].mean(0), points[list(right)].mean(0)
    if use_lips:
        return (left_eye + right_eye) / 2, points[list(mouth)].mean(0)
    x, y = right_eye - left_eye
    return left_eye, left_eye + (-y, x)


def crop_matrix(rect: Rect, size: int = CROP_SIZE) -> np.ndarray:
    """M_o2c, 2x3 f8: picture px -> px of a crop `size` across."""
    scale = size / rect.size
    cos, sin = math.cos(rect.angle) * scale, math.sin(rect.angle) * scale
    half = size / 2
    return np.array(
        [
            [cos, sin, half - (cos * rect.cx + sin * rect.cy)],
            [-sin, cos, half - (-sin * rect.cx + cos * rect.cy)],
        ]
    )


def invert(matrix: np.ndarray) -> np.ndarray:
    """The inverse, 2x3 f8, of an affine map 2x3 or 3x3. Raises ValueError for one that flattens."""
    linear, offset = np.asarray(matrix, np.float64)[:2, :2], np.asarray(matrix, np.float64)[:2, 2]
    if abs(np.linalg.det(linear)) < 1e-12:
        raise ValueError("the affine map has no inverse")
    inverse = np.linalg.inv(linear)
    return np.column_stack([inverse, -inverse @ offset])


def transform_points(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Points (..., 2 or 3) through an affine map 2x3; a third coordinate grows with the map's scale."""
    points = np.asarray(points)
    matrix = np.asarray(matrix, np.float64)
    moved = points[..., :2] @ matrix[:2, :2].T + matrix[:2, 2]
    if points.shape[-1] > 2:
        depth = points[..., 2:] * math.sqrt(abs(np.linalg.det(matrix[:2, :2])))
        moved = np.concatenate([moved, depth], -1)
    return moved.astype(points.dtype) if points.dtype == np.float32 else moved


def average_rectangle(
    landmarks: Iterable[np.ndarray],
    scale: float = DRIVING_SCALE,
    vx: float = 0.0,
    vy: float = DRIVING_SHIFT_Y,
    compatibility: str = "product",
) -> Rect:
    """One upright square for a whole driving clip: the mean of its frames' squares.

    landmarks: of every frame with a face, (k, 2+) px each. Raises ValueError when there is none.
    """
    return average_boxes(crop_rectangle(p, scale, vx, vy, True, compatibility) for p in landmarks)


def average_boxes(rects: Iterable[Rect]) -> Rect:
    """The upright square with the mean corners of squares, whatever their angles. ValueError when none."""
    rows = np.array([(r.cx, r.cy, r.size) for r in rects])
    if not len(rows):
        raise ValueError("no rectangles to average")
    cx, cy, size = rows.mean(0)
    return Rect(float(cx), float(cy), float(size))


def crop(
    image: np.ndarray,
    matrix: np.ndarray,
    size: int | tuple[int, int] = CROP_SIZE,
    interpolation: int = cv2.INTER_LINEAR,
    compatibility: str = "product",
) -> np.ndarray:
    """Cuts `image` (h, w[, c]; uint8, uint16, f4) through M_o2c into `size` px square or (width, height) px.

    What lies outside the picture is black, as the released networks have learned it.
    """
    dsize = (size, size) if isinstance(size, int) else tuple(size)
    matrix = np.asarray(matrix, np.float64)[:2]
    if CropRules.of(compatibility).pixel_centres:
        image, matrix = _reduced(image, matrix)
        matrix = between_pixel_centres(matrix)
    return cv2.warpAffine(image, matrix, dsize, flags=interpolation)


def _reduced(image: np.ndarray, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A copy averaged down by a power of two, as far as the map shrinks, and the map for it."""
    smaller = 1 / math.sqrt(max(abs(np.linalg.det(matrix[:, :2])), 1e-12))
    factor = 2 ** max(0, math.floor(math.log2(smaller)))
    height, width = image.shape[:2]
    if factor == 1 or min(height, width) < factor:
        return image, matrix
    small = shrink(image[: height // factor * factor, : width // factor * factor], factor)
    return small, matrix * np.array([[factor, factor, 1.0]])


@dataclass(frozen=True, eq=False)
class SourceCrop:
    """Where the motion space lies in a picture.

    M_o2c: 2x3 f8, picture px -> px of the 256 crop. rect: the square, or None when the whole picture is used.
    """

    M_o2c: np.ndarray
    rect: Rect | None = None

    @property
    def M_c2o(self) -> np.ndarray:
        """2x3 f8, px of the 256 crop -> picture px."""
        return invert(self.M_o2c)

    @property
    def placement(self) -> np.ndarray:
        """2x3 f8, crop coordinates [-1, 1] -> picture px."""
        half = CROP_SIZE / 2
        return self.M_c2o @ np.array([[half, 0, half], [0, half, half], [0, 0, 1]])

    def matrix(self, size: int) -> np.ndarray:
        """M_o2c for a crop of another size, 2x3 f8."""
        return self.M_o2c * (size / CROP_SIZE)

    def landmarks_in_crop(self, landmarks: np.ndarray) -> np.ndarray:
        """Landmarks (..., 2 or 3) from picture px to px of the 256 crop."""
        return transform_points(landmarks, self.M_o2c)


def source_crop(
    landmarks: np.ndarray,
    scale: float = SOURCE_SCALE,
    vx: float = 0.0,
    vy: float = SOURCE_SHIFT_Y,
    rotate: bool = True,
    compatibility: str = "product",
) -> SourceCrop:
    """The source's crop round a face; see crop_rectangle."""
    return crop_at(crop_rectangle(landmarks, scale, vx, vy, rotate, compatibility))


def crop_at(rect: Rect) -> SourceCrop:
    """The crop of a given square."""
    return SourceCrop(crop_matrix(rect), rect)


def whole_picture(picture_size: Sequence[int]) -> SourceCrop:
    """The "no crop" crop: the whole picture (width, height), each axis scaled to 256 on its own."""
    width, height = picture_size[:2]
    return SourceCrop(np.array([[CROP_SIZE / width, 0, 0], [0, CROP_SIZE / height, 0]]))
