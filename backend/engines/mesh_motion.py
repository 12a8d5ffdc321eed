# SPDX-License-Identifier: GPL-3.0-or-later
"""From keypoint motion to where every vertex of a source goes: pose limits, lids, lips, and the head's
surroundings.

Everything here is vectorised over frames. Rows `p` are points; a pose acts as `ratio * p @ rotation +
translation`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..rotations import euler_from_rotation, rotation_from_euler
from .mesh_maps import similarity
from .mesh_source import MeshAppearance, smoothstep
from .mesh_topology import EYES, FACE_POINTS, INNER_LIP_CORNERS, LOWER_LIP_ROWS, UPPER_LIP_ROWS, topology

CLOSED_EYE = 0.08  # LivePortrait's eye ratio at and under which an eye is shut
WIDEST_EYE = 1.3  # times the source's opening
LIP_ROW_WEIGHT = (1.0, 0.92, 0.8, 0.55)  # inner edge to outer edge
LIP_COLUMN = np.array([0.25, 0.55, 0.8, 0.95, 1.0, 0.95, 0.8, 0.55, 0.25])
SHUT_LIPS = 0.012  # inner gap / inner width under which the lips are made to touch
# Degrees of relative head turn that the mesh can show; see the acceptable range in docs.
PITCH_LIMIT, ROLL_LIMIT, YAW_LIMIT = 24.0, 38.0, 28.0
SHIFT_LIMIT, ZOOM_LIMIT = 0.45, 0.30  # eye units; share of the size


@dataclass
class Targets:
    """Per frame, in crop coordinates: face (n,478,3), the same under head pose alone, outer vertices
    (n,o,2); openings (n,2).
    """

    face: np.ndarray
    rigid: np.ndarray
    outer: np.ndarray
    opening: np.ndarray
    gaze: np.ndarray
    lip_gap: np.ndarray
    jaw: np.ndarray
    pose: tuple[np.ndarray, np.ndarray, np.ndarray]
    hull: np.ndarray


def soft_limit(values: np.ndarray, limit: np.ndarray | float) -> np.ndarray:
    """Leave small values, bend those over 0.6 of the limit so that none passes it."""
    size = np.abs(values)
    bent = limit * (0.6 + 0.4 * np.tanh((size - 0.6 * limit) / (0.4 * limit)))
    return np.where(size < 0.6 * limit, values, np.sign(values) * bent)


def limit_pose(
    app: MeshAppearance, ratio: np.ndarray, rotation: np.ndarray, translation: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Keep a rigid motion (n,), (n,3,3), (n,3) where the picture has pixels to show it.

    A three-quarter portrait can turn further from the front but hardly back: its far cheek was never seen.
    """
    pitch, yaw, roll = euler_from_rotation(rotation)
    _, source_yaw, _ = euler_from_rotation(app.rotation)
    away = abs(float(source_yaw))
    back, further = np.clip(36.0 - away, 8.0, YAW_LIMIT), np.clip(45.0 - away, 8.0, YAW_LIMIT)
    yaw_limit = np.where(yaw * float(source_yaw) < 0, back, further)
    limited = rotation_from_euler(
        soft_limit(pitch, PITCH_LIMIT), soft_limit(yaw, yaw_limit), soft_limit(roll, ROLL_LIMIT)
    )
    small = 1.0 + soft_limit(ratio - 1.0, ZOOM_LIMIT)
    # What the head's own origin does is the shift; the limit acts on that, not on the crop's origin.
    origin = app.translation
    moved = ratio[:, None] * (origin @ rotation) + translation - origin
    unit = app.eye_unit * app.scale
    length = np.linalg.norm(moved[:, :2], axis=1, keepdims=True) / unit
    factor = np.where(length > 1e-9, soft_limit(length, SHIFT_LIMIT) / np.maximum(length, 1e-9), 1.0)
    moved = np.concatenate([moved[:, :2] * factor, np.zeros((len(moved), 1))], axis=1)
    return small, limited, origin + moved - small[:, None] * (origin @ limited)


def move(app: MeshAppearance, pose: tuple[np.ndarray, np.ndarray, np.ndarray], decoded) -> Targets:
    """All vertices for n frames. pose: ratio (n,), rotation (n,3,3), translation (n,3); decoded:
    MeshMaps.decode's result.
    """
    ratio, rotation, translation = limit_pose(app, *pose)
    residual = np.asarray(decoded.residual, np.float64)
    shape = app.shape + residual
    opening = _openings(app, np.asarray(decoded.eye_ratio, np.float64))
    _move_lids(app, shape, residual, opening)
    gap = _move_lips(app, shape, np.asarray(decoded.lip_ratio, np.float64))
    face = _pose(app, shape, ratio, rotation, translation)
    # The model's own pose leans a little with the expression and its delta makes up for that. Hair, eyeballs
    # and teeth have no delta, so they go by the pose that the moved face itself shows.
    pose = _shown_pose(app, face)
    rigid = _apply(app.landmarks, *pose)
    outer, hull = _surroundings(app, *pose, face, rigid)
    # The lower teeth go with the jaw; the lower lip tells its drop best, less what lips do with clenched
    # teeth.
    jaw = 0.9 * np.clip(shape[:, 14, 1] - app.shape[14, 1] - 0.03 * app.eye_unit, 0.0, None)
    return Targets(
        face,
        rigid,
        outer,
        opening,
        np.asarray(decoded.gaze, np.float64),
        gap,
        jaw,
        pose,
        hull,
    )


def _shown_pose(app: MeshAppearance, face: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The similarity that takes the source's steady landmarks to the moved ones, per frame."""
    used = np.flatnonzero(app.steady)
    return similarity(app.landmarks[used], face[:, used], app.steady[used])


def _apply(
    points: np.ndarray, ratio: np.ndarray, rotation: np.ndarray, translation: np.ndarray
) -> np.ndarray:
    """points (m,3) under n similarities -> (n,m,3)."""
    return ratio[:, None, None] * (points @ rotation) + translation[:, None]


def _pose(
    app: MeshAppearance, shape: np.ndarray, ratio: np.ndarray, rotation: np.ndarray, translation: np.ndarray
) -> np.ndarray:
    own = app.scale * (shape @ app.rotation) + app.translation
    return ratio[:, None, None] * (own @ rotation) + translation[:, None]


def _openings(app: MeshAppearance, change: np.ndarray) -> np.ndarray:
    """How open each eye is, 1 = as in the source, 0 = shut (n,2)."""
    span = np.maximum(app.eye_ratio - CLOSED_EYE, 0.06)
    opening = 1.0 + change / span
    opening = np.where(
        np.abs(opening - 1.0) < 0.08, 1.0 + (opening - 1.0) * np.abs(opening - 1.0) / 0.08, opening
    )
    wide = 1.0 + (WIDEST_EYE - 1.0) * np.tanh((opening - 1.0) / (WIDEST_EYE - 1.0))
    opening = np.where(opening > 1.0, wide, opening)
    # The last fifth closes: lids that nearly touch read as a mistake, not as a squint.
    return np.where(opening < 0.2, np.clip(opening - 0.08, 0.0, None) * (0.2 / 0.12), opening)


def _move_lids(app: MeshAppearance, shape: np.ndarray, residual: np.ndarray, opening: np.ndarray) -> None:
    for side, eye in enumerate(EYES):
        upper, lower = app.shape[list(eye.upper)], app.shape[list(eye.lower)]
        meet = lower + 0.14 * (upper - lower)
        a = opening[:, side, None, None]
        new_upper = meet + (upper - meet) * a
        new_lower = meet + (lower - meet) * a
        lid = new_upper - upper
        socket = residual[:, list(eye.upper3)].mean(axis=1, keepdims=True) * 0.25
        shape[:, list(eye.corners)] = app.shape[list(eye.corners)] + socket * 0.2
        shape[:, list(eye.upper)] = new_upper + socket
        shape[:, list(eye.lower)] = new_lower + socket * 0.6
        shape[:, list(eye.upper2)] = (
            app.shape[list(eye.upper2)] + 0.5 * lid + 0.4 * residual[:, list(eye.upper3)]
        )
        shape[:, list(eye.upper3)] = app.shape[list(eye.upper3)] + 0.1 * lid + residual[:, list(eye.upper3)]
        shape[:, list(eye.lower2)] = (
            app.shape[list(eye.lower2)] + 0.35 * (new_lower - lower) + 0.5 * residual[:, list(eye.lower2)]
        )


def _move_lips(app: MeshAppearance, shape: np.ndarray, change: np.ndarray) -> np.ndarray:
    """Correct the gap between the inner lips to the wanted one and keep them from crossing; returns gap /
    width (n,).
    """
    left, right = INNER_LIP_CORNERS
    width = np.linalg.norm(shape[:, left] - shape[:, right], axis=1)
    own_width = np.linalg.norm(app.shape[left] - app.shape[right])
    own = (app.shape[14, 1] - app.shape[13, 1]) / own_width
    wanted = np.maximum(own + change, min(own, 0.0)) * own_width
    need = wanted - (shape[:, 14, 1] - shape[:, 13, 1])
    for up, low, weight in zip(UPPER_LIP_ROWS, LOWER_LIP_ROWS, LIP_ROW_WEIGHT):
        step = need[:, None] * LIP_COLUMN * weight
        shape[:, list(up), 1] -= 0.3 * step
        shape[:, list(low), 1] += 0.7 * step
    inner_up, inner_low = list(UPPER_LIP_ROWS[0]), list(LOWER_LIP_ROWS[0])
    gap = shape[:, inner_low, 1] - shape[:, inner_up, 1]
    rest = app.shape[inner_low, 1] - app.shape[inner_up, 1]
    # Lips meant to touch touch; those that nearly touch in the source itself stay as they are there.
    shut = np.clip(1.0 - wanted / (SHUT_LIPS * width), 0.0, 1.0) - max(0.0, 1.0 - max(own, 0.0) / SHUT_LIPS)
    close = np.maximum(gap, 0.0) * np.clip(shut, 0.0, 1.0)[:, None] + np.minimum(
        gap - np.minimum(rest, 0.0), 0.0
    )
    shape[:, inner_up, 1] += 0.5 * close
    shape[:, inner_low, 1] -= 0.5 * close
    return (shape[:, 14, 1] - shape[:, 13, 1]) / width


def _surroundings(
    app: MeshAppearance,
    ratio: np.ndarray,
    rotation: np.ndarray,
    translation: np.ndarray,
    face: np.ndarray,
    rigid: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Where hair and neck go (n,o,2) and how far the head moved at most (n,), eye units.

    They follow the head, less with distance; what lies outside the person hardly moves.
    """
    rest = app.rest[FACE_POINTS:]
    turned = _apply(rest, ratio, rotation, translation)
    shift = (turned - rest)[..., :2]
    unit = app.eye_unit * app.scale
    # The band round the person over which the motion dies away is as wide as it must be for no triangle to
    # fold.
    hull = np.linalg.norm(shift * app.still[:, None], axis=2).max(axis=1) / unit
    band = np.clip(2.2 * hull, 0.22, 1.1)[:, None]
    follow = app.still * (1.0 - smoothstep(app.distance / band))
    own = (face - rigid)[:, topology().oval, :2]
    spill = (own[:, app.spill_index] * app.spill_weight[None, ..., None]).sum(axis=2)
    return rest[:, :2] + (shift + spill) * follow[..., None], hull
