# SPDX-License-Identifier: GPL-3.0-or-later
"""Where in a picture the face mesh looks, and landmarks from there: geometry between picture and patch."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from backend.landmarker import PATCH_SIZE, Detection, Landmarker

# Landmark indices of MediaPipe's face mesh. "Left" is image-left, the subject's right.
OUTER_EYES = (33, 263)
# ((upper, lower lid), (corner, corner)) of the left and the right eye
EYE_PAIRS = (((159, 145), (33, 133)), ((386, 374), (362, 263)))
LIP_PAIRS = ((13, 14), (78, 308))  # (upper, lower inner lip), (inner corners)
IRISES = (468, 473)

# MediaPipe's face_landmark graphs look in a region 1.5 times the landmarks' box, and start from a detector's
# box widened by the same factor.
REGION_SCALE = 1.5


@dataclass(frozen=True)
class Region:
    """A square in a picture: centre and side in px, and its x axis' angle in radians (clockwise as seen)."""

    x: float
    y: float
    size: float
    angle: float

    def to_patch(self, size: int = PATCH_SIZE) -> np.ndarray:
        """The 2x3 f8 map from continuous picture px to continuous px of a patch `size` across."""
        scale = size / self.size
        cos, sin = math.cos(self.angle) * scale, math.sin(self.angle) * scale
        half = size / 2
        return np.array(
            [
                [cos, sin, half - cos * self.x - sin * self.y],
                [-sin, cos, half + sin * self.x - cos * self.y],
            ]
        )


def region_of_detection(face: Detection) -> Region:
    """The region in which to look for the mesh of a detected face: upright by the line through its eyes."""
    x0, y0, x1, y1 = face.box
    along = face.eyes[1] - face.eyes[0]
    return Region(
        x=(x0 + x1) / 2,
        y=(y0 + y1) / 2,
        size=max(x1 - x0, y1 - y0, 1.0) * REGION_SCALE,
        angle=math.atan2(float(along[1]), float(along[0])),
    )


def region_of_landmarks(landmarks: np.ndarray, scale: float = REGION_SCALE) -> Region:
    """The region in which to look again: `scale` times the roll-aligned box of landmarks (478, 2+)."""
    points = np.asarray(landmarks[:, :2], np.float64)
    along = points[OUTER_EYES[1]] - points[OUTER_EYES[0]]
    angle = math.atan2(along[1], along[0])
    cos, sin = math.cos(angle), math.sin(angle)
    upright = points @ np.array([[cos, -sin], [sin, cos]])
    low, high = upright.min(0), upright.max(0)
    x, y = (low + high) / 2
    return Region(cos * x - sin * y, sin * x + cos * y, max(*(high - low), 1.0) * scale, angle)


def cut_patch(rgb: np.ndarray, region: Region) -> np.ndarray:
    """The upright patch (192, 192, 3 uint8) of a region. What lies outside the picture repeats its border.

    Large regions are averaged down first, so that neither aliasing nor the picture's size costs anything.
    """
    matrix = region.to_patch()
    reduce = 2 ** max(0, math.floor(math.log2(max(region.size, 1.0) / PATCH_SIZE)))
    if reduce > 1:
        height, width = rgb.shape[:2]
        reach = region.size * (abs(math.cos(region.angle)) + abs(math.sin(region.angle))) / 2 + 2 * reduce
        x0 = min(max(int((region.x - reach) // reduce) * reduce, 0), max(width - reduce, 0))
        y0 = min(max(int((region.y - reach) // reduce) * reduce, 0), max(height - reduce, 0))
        columns = max(min(math.ceil((region.x + reach - x0) / reduce), (width - x0) // reduce), 1)
        rows = max(min(math.ceil((region.y + reach - y0) / reduce), (height - y0) // reduce), 1)
        window = rgb[y0 : y0 + rows * reduce, x0 : x0 + columns * reduce]
        rgb = shrink(window, reduce)
        matrix = matrix.copy()
        matrix[:, 2] += matrix[:, :2] @ (x0, y0)
        matrix[:, :2] *= reduce
    matrix = between_pixel_centres(matrix)
    return cv2.warpAffine(
        rgb, matrix, (PATCH_SIZE, PATCH_SIZE), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )


def shrink(image: np.ndarray, factor: int) -> np.ndarray:
    """`image` averaged down by a power of two that its sides are multiples of; by halves, the fast way."""
    while factor > 1:
        size = (image.shape[1] // 2, image.shape[0] // 2)
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        factor //= 2
    return image


def between_pixel_centres(matrix: np.ndarray) -> np.ndarray:
    """A 2x3 map of continuous px (pixel i centred at i + 0.5) as OpenCV needs it (pixel i centred at i)."""
    matrix = np.array(matrix, np.float64)
    matrix[:, 2] += matrix[:, :2] @ (0.5, 0.5) - 0.5
    return matrix


def mesh_in_region(
    rgb: np.ndarray, region: Region, landmarker: Landmarker
) -> tuple[np.ndarray | None, float]:
    """Landmarks (478, 3) f4 of the face in a region, in continuous px of the picture (z in the same px), or
    None; and the model's presence score."""
    points, presence = landmarker.mesh(cut_patch(rgb, region))
    if points is None:
        return None, presence
    scale = region.size / PATCH_SIZE
    cos, sin = math.cos(region.angle) * scale, math.sin(region.angle) * scale
    local = points.astype(np.float64)
    x, y = local[:, 0] - PATCH_SIZE / 2, local[:, 1] - PATCH_SIZE / 2
    result = np.stack([region.x + cos * x - sin * y, region.y + sin * x + cos * y, local[:, 2] * scale], 1)
    return result.astype(np.float32), presence


def face_box(landmarks: np.ndarray) -> tuple[float, float, float, float]:
    """(x0, y0, x1, y1) px around landmarks (k, 2+)."""
    low, high = landmarks[:, :2].min(0), landmarks[:, :2].max(0)
    return float(low[0]), float(low[1]), float(high[0]), float(high[1])


def face_size(landmarks: np.ndarray) -> float:
    """How large a face is in px: the longer side of its landmarks' upright box."""
    return region_of_landmarks(landmarks, 1.0).size
