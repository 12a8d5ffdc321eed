# SPDX-License-Identifier: GPL-3.0-or-later
"""What the mesh engine keeps of a source: its region of the picture, a 2.5-D mesh over it, and how much
each vertex follows the head.

Lengths called "eye units" are multiples of the distance between the outer eye corners.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np

from ..rotations import euler_from_rotation
from .mesh_eyes import Eye, make_eye
from .mesh_maps import MeshMaps
from .mesh_mouth import MouthInterior, make_mouth
from .mesh_topology import EYES, FACE_POINTS, OUTER_EYE_CORNERS, TRAGUS, topology
from .plate import make_plate

GRID = 22  # cells across the region; finer changed no measured figure
RINGS = (1.08, 1.18)  # the oval again, a little larger: the seam between face and hair
DEPTH_DECAY = 0.45  # eye units over which hair and neck fall back to the depth of the ears
SPILL = 0.20  # eye units over which the skin's own movement reaches beyond the oval
NECK = (0.45, 1.35)  # eye units below the pivot: the head's full motion, and none
SHOULDERS = (0.5, 0.95, -0.1, 1.0)  # eye units: from and to sideways, from and to downwards
HEAD_REACH = ((1.75, 2.6), (2.0, 2.6))  # (sideways, upwards): full motion up to, none beyond; eye units
FAR_YAW = (6.0, 16.0)  # degrees that a face must be turned for its far side to be hidden: a little, quite
FAR_SIDE = (0.42, 0.76)  # eye units from the middle outwards, from and to, that are moved in on the far side
FAR_CHEEK = (-0.06, 0.14)  # eye units below the pivot: not at the eyes, fully at the cheek
FAR_INSET = 0.10  # by so many eye units
REGION_FADE = 0.30  # eye units from the region's border over which motion fades to none


@dataclass
class MeshAppearance:
    """One source, ready to render.

    region: (h,w,3) uint8; placement: (2,3) crop coordinates [-1,1] -> continuous region pixels.
    shape: (478,3) the landmarks without pose, LivePortrait's canonical units; scale, rotation (3,3),
    translation (3,) put them into crop coordinates, where they are `landmarks` (478,3). steady: (478,), 0
    where a landmark takes part in expressions. rest: (v,3) all vertices in crop coordinates; the first 468
    are the face. quarters: how often the region was turned by np.rot90 for the head to stand upright. far,
    far_side: see _far_side.
    """

    region: np.ndarray
    placement: np.ndarray
    scale: float
    rotation: np.ndarray
    translation: np.ndarray
    shape: np.ndarray
    eye_unit: float
    eye_ratio: np.ndarray
    lip_ratio: float
    landmarks: np.ndarray
    steady: np.ndarray
    rest: np.ndarray
    rest_px: np.ndarray
    outer_triangles: np.ndarray
    hole_triangles: np.ndarray
    face_triangles: np.ndarray
    still: np.ndarray
    distance: np.ndarray
    spill_index: np.ndarray
    spill_weight: np.ndarray
    map_size: tuple[int, int]
    plate: np.ndarray | None
    cover: np.ndarray | None
    eyes: tuple[Eye, Eye]
    mouth: MouthInterior
    buffers: dict[str, np.ndarray] = field(default_factory=dict)
    quarters: int = 0
    far: np.ndarray | None = None
    far_side: float = 0.0


def smoothstep(x: np.ndarray) -> np.ndarray:
    x = np.clip(x, 0.0, 1.0)
    return x * x * (3.0 - 2.0 * x)


def to_pixels(points: np.ndarray, placement: np.ndarray) -> np.ndarray:
    """(...,2+) crop coordinates -> (...,2) region pixels."""
    return points[..., :2] @ placement[:, :2].T + placement[:, 2]


def to_crop(pixels: np.ndarray, placement: np.ndarray) -> np.ndarray:
    """(n,3) region pixels with MediaPipe's depth -> (n,3) crop coordinates."""
    linear = placement[:, :2]
    unit = np.sqrt(abs(np.linalg.det(linear)))
    xy = (pixels[:, :2] - placement[:, 2]) @ np.linalg.inv(linear).T
    return np.concatenate([xy, pixels[:, 2:] / unit], axis=1)


def quarters_of(landmarks: np.ndarray) -> int:
    """Quarter turns (of np.rot90) after which a face with landmarks (478,2+) stands upright, 0 to 3."""
    along = landmarks[OUTER_EYE_CORNERS[1], :2] - landmarks[OUTER_EYE_CORNERS[0], :2]
    return round(float(np.arctan2(along[1], along[0])) / (np.pi / 2)) % 4


def upright(
    region: np.ndarray, landmarks: np.ndarray, placement: np.ndarray, quarters: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A region (h,w,3) turned so often by np.rot90, its landmarks (478,3) and placement (2,3) with it."""
    landmarks, placement = landmarks.copy(), placement.copy()
    for _ in range(quarters):
        width = region.shape[1]
        region = np.rot90(region)
        landmarks[:, :2] = np.stack([landmarks[:, 1], width - landmarks[:, 0]], axis=1)
        placement = np.stack([placement[1], [0.0, 0.0, width] - placement[0]])
    return np.ascontiguousarray(region), landmarks, placement


def make_appearance(
    region: np.ndarray,
    landmarks: np.ndarray,
    placement: np.ndarray,
    maps: MeshMaps,
    person: np.ndarray | None,
    map_longest: int = 288,
) -> MeshAppearance:
    """Prepare a source.

    region (h,w,3) uint8; landmarks (478,3) in region pixels; placement as in MeshAppearance; person (h,w)
    float 0..1, where the picture shows a person, or None where that is not known.
    """
    height, width = region.shape[:2]
    unit_crop = (to_crop(landmarks.astype(np.float64), placement) + (1.0, 1.0, 0.0)) * 0.5
    scales, rotations, translations, points = maps.pose(unit_crop[None], size=1.0)
    scale, rotation, origin, crop_landmarks = float(scales[0]), rotations[0], translations[0], points[0]
    shape = ((crop_landmarks - origin) / scale) @ rotation.T
    measured = maps.measure(unit_crop[None], size=1.0)
    eye_unit = float(np.linalg.norm(shape[OUTER_EYE_CORNERS[0]] - shape[OUTER_EYE_CORNERS[1]]))
    unit_px = eye_unit * scale * float(np.sqrt(abs(np.linalg.det(placement[:, :2]))))

    outer_px, outer_triangles = outer_mesh(landmarks, width, height)
    pivot_depth = float(crop_landmarks[list(TRAGUS), 2].mean())
    oval = topology().oval
    oval_px = landmarks[oval, :2].astype(np.float64)
    gaps = np.linalg.norm(outer_px[:, None] - oval_px[None], axis=2) / unit_px
    nearest = np.argsort(gaps, axis=1)[:, :4]
    near = np.take_along_axis(gaps, nearest, axis=1)
    inverse = 1.0 / np.maximum(near, 1e-3)
    inverse /= inverse.sum(axis=1, keepdims=True)
    oval_depth = np.clip(crop_landmarks[oval, 2], None, pivot_depth)
    depth = (oval_depth[nearest] * inverse).sum(axis=1)
    depth = pivot_depth + (depth - pivot_depth) * np.exp(-near[:, 0] / DEPTH_DECAY)
    outer_crop = to_crop(np.column_stack([outer_px, np.zeros(len(outer_px))]), placement)
    outer_crop[:, 2] = depth

    head = (origin, scale, rotation, eye_unit)
    still = follows(outer_px, placement, head, unit_px, (height, width))
    distance = _outside(outer_px, person, landmarks, unit_px, (height, width))
    rest = np.concatenate([crop_landmarks[:FACE_POINTS], outer_crop])
    longest = max(height, width)
    factor = min(1.0, map_longest / longest)
    map_size = (max(2, round(width * factor)), max(2, round(height * factor)))
    plate, cover = None, None
    if person is not None:
        columns, rows = map_size
        grid = np.stack(np.meshgrid(np.arange(columns) + 0.5, np.arange(rows) + 0.5), axis=-1).reshape(-1, 2)
        follow = follows(grid * (width / columns, height / rows), placement, head, unit_px, (height, width))
        plate, cover = make_plate(region, person, oval_px, follow.reshape(rows, columns), unit_px)
    far, far_side = _far_side(shape / eye_unit, rotation, placement, unit_px)
    return MeshAppearance(
        far=far,
        far_side=far_side,
        region=np.ascontiguousarray(region),
        placement=placement.astype(np.float64),
        scale=float(scale),
        rotation=rotation,
        translation=origin,
        shape=shape,
        eye_unit=eye_unit,
        eye_ratio=measured.eye_ratio[0].astype(np.float64),
        lip_ratio=float(measured.lip_ratio[0]),
        landmarks=crop_landmarks,
        steady=maps.rigid_weights,
        rest=rest,
        rest_px=np.concatenate([landmarks[:FACE_POINTS, :2], outer_px]).astype(np.float64),
        outer_triangles=outer_triangles,
        hole_triangles=_oriented(topology().holes, landmarks),
        face_triangles=_oriented(topology().triangles, landmarks),
        still=still,
        distance=distance,
        spill_index=nearest,
        spill_weight=inverse * np.exp(-((near[:, :1] / SPILL) ** 2)),
        map_size=map_size,
        plate=plate,
        cover=cover,
        eyes=(
            make_eye(region, landmarks, EYES[0], topology().eye_loops[0]),
            make_eye(region, landmarks, EYES[1], topology().eye_loops[1]),
        ),
        mouth=make_mouth(region, landmarks, shape, eye_unit),
    )


def _oriented(triangles: np.ndarray, points: np.ndarray) -> np.ndarray:
    """All triangles with positive area where they face the camera."""
    a, b, c = (points[triangles[:, i], :2] for i in range(3))
    area = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])
    flipped = triangles.copy()
    flipped[area < 0] = flipped[area < 0][:, ::-1]
    return flipped


def outer_mesh(landmarks: np.ndarray, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """Vertices outside the face (rings round the oval, a grid, the border) and triangles over oval +
    vertices.
    """
    oval = topology().oval
    oval_px = landmarks[oval, :2].astype(np.float64)
    centre = oval_px.mean(axis=0)
    points: list[np.ndarray] = []
    for ring in RINGS:
        moved = centre + (oval_px - centre) * ring
        within = (moved > 1).all(axis=1) & (moved < (width - 1, height - 1)).all(axis=1)
        points.append(moved[within])
    xs, ys = np.linspace(0, width, GRID + 1), np.linspace(0, height, GRID + 1)
    grid = np.stack(np.meshgrid(xs, ys), axis=-1).reshape(-1, 2)
    free = ~_inside(grid, centre + (oval_px - centre) * (RINGS[-1] + 0.05))
    border = (grid[:, 0] <= 0) | (grid[:, 1] <= 0) | (grid[:, 0] >= width) | (grid[:, 1] >= height)
    points.append(grid[free | border])
    outer = np.concatenate(points)
    vertex = np.concatenate([oval, FACE_POINTS + np.arange(len(outer))])
    triangles = vertex[_delaunay(np.concatenate([oval_px, outer]).astype(np.float32))]
    points_px = np.zeros((FACE_POINTS + len(outer), 2))
    points_px[:FACE_POINTS] = landmarks[:FACE_POINTS, :2]
    points_px[FACE_POINTS:] = outer
    found = triangles.astype(np.int32)
    # Those across the face lie below all others: what is seen of them is only what nothing else covers.
    across = (found < FACE_POINTS).all(axis=1)
    return outer, _oriented(np.concatenate([found[across], found[~across]]), points_px)


def _far_side(
    shape: np.ndarray, rotation: np.ndarray, placement: np.ndarray, unit_px: float
) -> tuple[np.ndarray | None, float]:
    """Of a face that is turned away: how its far side's landmarks move in (468,2) px when it turns back, and
    +1 or -1, the sign of its yaw; None and 0 for a face from the front.

    The outline's landmarks lie on the edge of the cheek, hardly any pixels wide; turned back they would show
    what is behind it.
    """
    yaw = float(euler_from_rotation(rotation)[1])
    share = float(smoothstep(np.array((abs(yaw) - FAR_YAW[0]) / (FAR_YAW[1] - FAR_YAW[0]))))
    if share <= 0.0:
        return None, 0.0
    side = float(np.sign(yaw))  # nose to image-left: the far side is image-left, negative x
    outwards = -side * shape[:FACE_POINTS, 0]
    weight = smoothstep((outwards - FAR_SIDE[0]) / (FAR_SIDE[1] - FAR_SIDE[0]))
    weight *= smoothstep((shape[:FACE_POINTS, 1] - FAR_CHEEK[0]) / (FAR_CHEEK[1] - FAR_CHEEK[0]))
    across = placement[:, :2] @ rotation[0, :2]
    across = across / (np.linalg.norm(across) or 1.0)
    return share * FAR_INSET * unit_px * weight[:, None] * (side * across), side


def _inside(points: np.ndarray, outline: np.ndarray) -> np.ndarray:
    """Which points (n,2) lie inside a closed outline (k,2): those that an odd number of its edges pass on one
    side.
    """
    x, y = points[:, :1], points[:, 1:]
    x0, y0 = outline.T
    x1, y1 = np.roll(outline, -1, axis=0).T
    steep = np.where(y1 == y0, 1.0, y1 - y0)
    crosses = ((y0 <= y) != (y1 <= y)) & (x < x0 + (y - y0) * (x1 - x0) / steep)
    return np.asarray(crosses.sum(axis=1) % 2 == 1)


def _delaunay(points: np.ndarray) -> np.ndarray:
    """Triangles (t,3) over points (n,2) float32, as their indices."""
    low = np.floor(points.min(axis=0)).astype(int) - 4
    width, height = np.ceil(points.max(axis=0)).astype(int) - low + 4
    division = cv2.Subdiv2D((int(low[0]), int(low[1]), int(width), int(height)))
    division.insert(points.tolist())
    corners = np.asarray(division.getTriangleList(), np.float32).reshape(-1, 2)
    # Where two points are one, the first counts; Subdiv2D's enclosing triangle has corners elsewhere.
    known, first = np.unique(_whole(points), return_index=True)
    wanted = _whole(corners)
    at = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
    index = np.where(known[at] == wanted, first[at], -1).reshape(-1, 3)
    return index[(index >= 0).all(axis=1)]


def _whole(points: np.ndarray) -> np.ndarray:
    """Points (n,2) float32 as one number each, equal where they are."""
    return np.ascontiguousarray(points + np.float32(0.0)).view(np.int64).ravel()


def follows(
    points: np.ndarray,
    placement: np.ndarray,
    pose: tuple[np.ndarray, float, np.ndarray, float],
    unit_px: float,
    size: tuple[int, int],
) -> np.ndarray:
    """How far each point (n,2) in region pixels may follow the head, 0..1, by where it lies round the
    head.
    """
    height, width = size
    origin, scale, rotation, eye_unit = pose
    flat = to_crop(np.column_stack([points, np.zeros(len(points))]), placement)
    head = ((flat - origin) / scale) @ rotation.T / eye_unit  # head frame, eye units; y down
    follow = 1.0 - smoothstep((head[:, 1] - NECK[0]) / (NECK[1] - NECK[0]))
    # The neck turns with the head; the shoulders beside it stay; long hair hangs from the one to the other.
    beside = (np.abs(head[:, 0]) - SHOULDERS[0]) / (SHOULDERS[1] - SHOULDERS[0])
    below = (head[:, 1] - SHOULDERS[2]) / (SHOULDERS[3] - SHOULDERS[2])
    follow *= 1.0 - smoothstep(beside) * smoothstep(below)
    (side0, side1), (up0, up1) = HEAD_REACH
    side = (np.abs(head[:, 0]) - side0) / (side1 - side0)
    above = (-head[:, 1] - up0) / (up1 - up0)
    follow *= (1.0 - smoothstep(side)) * (1.0 - smoothstep(above))
    x, y = points[:, 0], points[:, 1]
    border = np.minimum.reduce([x, y, width - x, height - y])
    return follow * smoothstep(border / unit_px / REGION_FADE)


def _outside(
    points: np.ndarray,
    person: np.ndarray | None,
    landmarks: np.ndarray,
    unit_px: float,
    size: tuple[int, int],
) -> np.ndarray:
    """How far each point (n,2) in region pixels lies outside the person, eye units; an ellipse where no
    mask is known.
    """
    height, width = size
    factor = min(1.0, 256.0 / max(height, width))
    small = (max(2, round(width * factor)), max(2, round(height * factor)))
    oval = (landmarks[topology().oval, :2] * factor).astype(np.float32)
    if person is None:
        mask = np.zeros((small[1], small[0]), np.uint8)
        x, y = oval.mean(axis=0)
        unit = unit_px * factor
        cv2.ellipse(
            mask, (int(x), int(y - 0.25 * unit)), (int(1.2 * unit), int(1.5 * unit)), 0, 0, 360, (1,), -1
        )
    else:
        mask = (cv2.resize(person, small, interpolation=cv2.INTER_AREA) > 0.5).astype(np.uint8)
    cv2.fillConvexPoly(mask, cv2.convexHull(oval.astype(np.int32)), (1,))
    _, labels = cv2.connectedComponents(mask)
    nose = np.clip((landmarks[1, :2] * factor).astype(int), 0, (small[0] - 1, small[1] - 1))
    mine = labels[nose[1], nose[0]]
    away = cv2.distanceTransform((labels != mine).astype(np.uint8), cv2.DIST_L2, 5) / factor / unit_px
    at = np.clip((points * factor).astype(int), 0, (small[0] - 1, small[1] - 1))
    return away[at[:, 1], at[:, 0]].astype(np.float64)
