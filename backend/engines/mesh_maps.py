# SPDX-License-Identifier: GPL-3.0-or-later
"""The mesh engine's numbers: 478 face landmarks to LivePortrait's motion space and back.

Everything here is linear algebra on constants of `backend/data/mesh_maps.npz`, which
`scripts/fit_mesh_engine.py` fits on clips whose motion the released LivePortrait model measured. Spaces:

* *crop*: [-1, 1] across the square crop, x right, y down, z into the picture.
* *canonical*: LivePortrait's, in which x_c lives: crop = scale * (canonical @ R) + t; a face is .65 wide.
* *head frame*: canonical axes, turning with the head.

Landmarks are MediaPipe's 478, in continuous pixels of the crop (x * W, y * H, z * W). "Left" is image-left.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from backend.rotations import rotation_from_vector

Array = NDArray[np.floating]

DATA = Path(__file__).resolve().parent.parent / "data" / "mesh_maps.npz"
#: Implicit keypoints to which the released model gives no expression (delta below 1e-4 in every template).
INERT = np.array([6, 8, 9, 12, 18])
#: The keypoint that stays with the shoulders when the head moves: over the templates its delta is about -.85
#: times what the head's rotation does to it and -.5 times t / s (R2 .8 to .99), so within its natural range
#: it says nothing beyond the pose. The published move_x and move_y controls set it far beyond; then the head
#: goes with it, as picture content goes with keypoints.
SHOULDERS = 5
_IDLE = 0.02  # the end of its natural range
#: The 36 of 63 numbers of delta that live: x, y of sixteen keypoints and z of four of them.
LIVE = np.array(
    [3 * k + a for k in (0, 1, 2, 3, 4, 5, 7, 10, 11, 13, 14, 15, 16, 17, 19, 20)
     for a in range(3 if k in (10, 17, 19, 20) else 2)]
)  # fmt: skip
LANDMARKS = 478
FEATURES = 2 * LANDMARKS + 2 + 1 + 4 + 3 + 3
# Corners, upper lid, lower lid, iris; image-left first.
_EYES = ((33, 133, 159, 145, 468), (362, 263, 386, 374, 473))
_POSE_STEPS = 3
_OPENINGS = slice(2 * LANDMARKS, 2 * LANDMARKS + 3)
_GAZE = slice(2 * LANDMARKS + 3, 2 * LANDMARKS + 7)


@dataclass(frozen=True)
class Measurement:
    """What `MeshMaps.measure` finds, per frame, in the fields of `Motion` (all float32).

    rotation (n,3,3) row-vector R; scale (n,); translation (n,3) with z = 0; expression (n,21,3) delta, 0 on
    the inert keypoints; canonical (n,21,3) x_c; eye_ratio (n,2) and lip_ratio (n,) on LivePortrait's scale;
    gaze (n,2,2) iris offset from the middle of the eye in eye widths, head frame.
    """

    rotation: Array
    scale: Array
    translation: Array
    expression: Array
    canonical: Array
    eye_ratio: Array
    lip_ratio: Array
    gaze: Array


@dataclass(frozen=True)
class Split:
    """x_d as a rigid change of x_s plus a change of expression; unpacks as its first four fields.

    p -> ratio * p @ rotation + translation takes crop points of the source's head to the driven head; change
    (n,21,3) is delta_d - delta_s. `scale` (n,) and `head_rotation` (n,3,3) are the driven head's own s and R,
    so a displacement v in the head frame moves a crop point by scale * v @ head_rotation.
    """

    ratio: Array
    rotation: Array
    translation: Array
    change: Array
    scale: Array
    head_rotation: Array

    def __iter__(self) -> Iterator[Array]:
        return iter((self.ratio, self.rotation, self.translation, self.change))


@dataclass(frozen=True)
class Decoded:
    """residual (n,478,3): landmark displacement, canonical units, head frame; the rest are changes:

    eye_ratio (n,2), lip_ratio (n,), gaze (n,2,2).
    """

    residual: Array
    eye_ratio: Array
    lip_ratio: Array
    gaze: Array


def crop_coordinates(landmarks: Array, size: float) -> Array:
    """Landmarks (n,478,3) in continuous px of a `size` px crop -> crop coordinates, MediaPipe's own depth."""
    points = np.asarray(landmarks, dtype=np.float64) * (2.0 / size)
    points[..., :2] -= 1.0
    return points


def similarity(shape: Array, points: Array, weights: Array) -> tuple[Array, Array, Array]:
    """Weighted least squares points ~ s * shape @ R + t (Umeyama 1991), R a proper rotation, row vectors.

    shape (k,3), points (n,k,3), weights (k,) -> s (n,), R (n,3,3), t (n,3).
    """
    w = weights / weights.sum()
    mean_shape = w @ shape
    mean_points = np.einsum("k,nkj->nj", w, points)
    centred = shape - mean_shape
    covariance = np.einsum("ka,nkb->nab", centred * w[:, None], points - mean_points[:, None])
    u, singular, vt = np.linalg.svd(covariance)
    signs = np.ones_like(singular)
    signs[:, 2] = np.sign(np.linalg.det(u @ vt))
    rotation = (u * signs[:, None, :]) @ vt
    scale = (singular * signs).sum(axis=1) / np.einsum("k,ka,ka->", w, centred, centred)
    return scale, rotation, mean_points - scale[:, None] * (mean_shape @ rotation)


def _refine_pose(
    shape: Array, points: Array, weights: Array, depth_weight: float, pose: tuple[Array, Array, Array]
) -> tuple[Array, Array, Array]:
    """Gauss-Newton on the similarity with depth counted `depth_weight` times as much as x and y (squared)."""
    scale, rotation, translation = pose
    root = np.sqrt(weights / weights.sum())[:, None] * np.array([1.0, 1.0, np.sqrt(depth_weight)])
    jacobian = np.zeros((len(points), len(shape), 3, 7))
    for _ in range(_POSE_STEPS):
        turned = shape @ rotation
        v = scale[:, None, None] * turned
        error = ((points - v - translation[:, None]) * root).reshape(len(points), 3 * len(shape), 1)
        jacobian[..., 0, 1], jacobian[..., 0, 2] = v[..., 2], -v[..., 1]
        jacobian[..., 1, 0], jacobian[..., 1, 2] = -v[..., 2], v[..., 0]
        jacobian[..., 2, 0], jacobian[..., 2, 1] = v[..., 1], -v[..., 0]
        jacobian[..., 3] = turned
        jacobian[..., (0, 1, 2), (4, 5, 6)] = 1.0
        j = (jacobian * root[:, :, None]).reshape(len(points), 3 * len(shape), 7)
        jt = j.transpose(0, 2, 1)
        step = np.linalg.solve(jt @ j, jt @ error)[..., 0]
        rotation = rotation @ rotation_from_vector(step[:, :3])
        scale = scale + step[:, 3]
        translation = translation + step[:, 4:]
    return scale, rotation, translation


def _level_off(values: Array, size: Array, limit: Array) -> Array:
    """values, whose size is `size`, scaled to stay within `limit`; hardly changed up to half of it."""
    return values * (1.0 + (size / limit) ** 4) ** -0.25


def _distance(points: Array, a: int, b: int) -> Array:
    d = points[..., a, :2] - points[..., b, :2]
    return np.sqrt((d * d).sum(axis=-1))


def eye_openings(points: Array) -> Array:
    """Lid over corner distance, (..., 2), image-left first, of (..., 478, 2+) landmarks in the head frame."""
    return np.stack(
        [_distance(points, up, low) / _distance(points, a, b) for a, b, up, low, _ in _EYES], axis=-1
    )


def lip_opening(points: Array) -> Array:
    """Inner lip distance h over mouth width plus h, (...).

    h alone in the denominator's place bends the scale of wide-open mouths, as LivePortrait's own landmarks
    do: over the paired clips that speak, correlation .96 instead of .94 with h / width, and one slope for
    both.
    """
    gap = _distance(points, 13, 14)
    return gap / (_distance(points, 61, 291) + 0.5 * gap)


def gaze_offsets(points: Array) -> Array:
    """Iris centre minus the middle of the eye corners in eye widths, (..., 2 eyes, 2), image-left first."""
    return np.stack(
        [
            (points[..., iris, :2] - 0.5 * (points[..., a, :2] + points[..., b, :2]))
            / _distance(points, a, b)[..., None]
            for a, b, _, _, iris in _EYES
        ],
        axis=-2,
    )


def features(head: Array, pose: tuple[Array, Array, Array], rest: Array) -> Array:
    """What the encoder is linear in, (n, FEATURES).

    head (n,478,3) landmarks in the head frame, pose their (s, R, t), rest (478,3). In turn: x and y of every
    landmark from its rest position; eye openings (2) and lip opening (1); gaze (4); pitch, yaw, roll in
    radians; t / s (2) and log s. The last six are limited to what the fit has seen, since they serve to
    explain how LivePortrait's delta follows the pose: its keypoint 5, say, stays with the shoulders.
    """
    scale, rotation, translation = pose
    n = len(head)
    angles = np.column_stack(
        [
            np.arctan2(rotation[:, 1, 2], rotation[:, 2, 2]),
            np.arcsin(np.clip(-rotation[:, 0, 2], -1.0, 1.0)),
            np.arctan2(rotation[:, 0, 1], rotation[:, 0, 0]),
        ]
    )
    place = np.column_stack([translation[:, :2] / scale[:, None], np.log(scale)])
    place = np.clip(place, (-0.25, -0.25, 0.0), (0.25, 0.25, 0.75))
    return np.concatenate(
        [
            (head - rest)[..., :2].reshape(n, 2 * LANDMARKS),
            eye_openings(head),
            lip_opening(head)[:, None],
            gaze_offsets(head).reshape(n, 4),
            0.35 * np.tanh(angles / 0.35),
            place,
        ],
        axis=1,
    )


class MeshMaps:
    """The fitted maps. `MeshMaps.load()` reads the shipped numbers once."""

    def __init__(self, numbers: dict[str, Array]) -> None:
        n = {key: np.asarray(value, dtype=np.float64) for key, value in numbers.items()}
        self.canonical_keypoints: Array = n["canonical_keypoints"].astype(np.float32)
        self.canonical_landmarks: Array = n["canonical_landmarks"].astype(np.float32)
        #: MediaPipe's depth times this is depth in the units of x and y.
        self.depth_scale = float(n["depth_scale"])
        self._keypoints = n["canonical_keypoints"]
        self._landmarks = n["canonical_landmarks"]
        self._weights = n["rigid_weights"]
        self.rigid_weights: Array = n["rigid_weights"]  # (478,): 0 where a landmark takes part in expressions
        self._rigid = np.flatnonzero(self._weights)
        self._depth_weight = float(n["depth_weight"])
        self._encoder = n["encoder"]
        self._encoder_bias = n["encoder_bias"]
        self._ratio_scale = n["ratio_scale"]
        self._ratio_offset = n["ratio_offset"]
        self._decoder = n["decoder"].reshape(len(LIVE), LANDMARKS * 3)
        self._ratio_decoder = n["ratio_decoder"]
        self._live_limit = n["live_limit"]
        self._residual_limit = n["residual_limit"]
        self._inert_pinv = np.linalg.pinv(np.column_stack([self._keypoints[INERT], np.ones(len(INERT))]))

    @staticmethod
    @lru_cache(maxsize=1)
    def load() -> MeshMaps:
        """The shipped maps (cached)."""
        with np.load(DATA, allow_pickle=False) as file:
            return MeshMaps({key: file[key] for key in file.files})

    def pose(self, landmarks: Array, size: float = 256.0) -> tuple[Array, Array, Array, Array]:
        """Geometric head pose of landmarks (n,478,3) px: s (n,), R (n,3,3), t (n,3), points (n,478,3).

        points are in crop coordinates with the depth put where LivePortrait has it (t_z = 0), so that
        points = s * (head_points @ R) + t. Only rigid landmarks count (nose, eye corners, temples, forehead).
        """
        points = crop_coordinates(landmarks, size)
        points[..., 2] *= self.depth_scale
        rigid = points[:, self._rigid]
        shape, weights = self._landmarks[self._rigid], self._weights[self._rigid]
        first = similarity(shape, rigid, weights)
        scale, rotation, translation = _refine_pose(shape, rigid, weights, self._depth_weight, first)
        points[..., 2] -= translation[:, None, 2]
        translation[:, 2] = 0.0
        return scale, rotation, translation, points

    def measure(self, landmarks: Array, size: float = 256.0) -> Measurement:
        """Landmarks (n,478,3) in continuous px of a square crop of `size` px -> the motion they show."""
        landmarks = np.asarray(landmarks)
        if landmarks.ndim != 3 or landmarks.shape[1:] != (LANDMARKS, 3):
            raise ValueError(f"landmarks must be (n, {LANDMARKS}, 3), not {landmarks.shape}")
        scale, rotation, translation, points = self.pose(landmarks, size)
        head = ((points - translation[:, None]) / scale[:, None, None]) @ rotation.transpose(0, 2, 1)
        inputs = features(head, (scale, rotation, translation), self._landmarks)
        openings, gaze = inputs[:, _OPENINGS], inputs[:, _GAZE].reshape(-1, 2, 2)
        ratios = np.maximum(openings * self._ratio_scale + self._ratio_offset, 0.0)
        out = inputs @ self._encoder + self._encoder_bias
        live, correction = out[:, : len(LIVE)], out[:, len(LIVE) :]
        expression = np.zeros((len(head), 63))
        expression[:, LIVE] = live
        rotation = rotation @ rotation_from_vector(correction[:, :3])
        translation[:, :2] += correction[:, 4:6] * scale[:, None]
        scale = scale * np.exp(correction[:, 3])
        f4 = np.float32
        return Measurement(
            rotation=rotation.astype(f4),
            scale=scale.astype(f4),
            translation=translation.astype(f4),
            expression=expression.reshape(-1, 21, 3).astype(f4),
            canonical=np.repeat(self.canonical_keypoints[None], len(head), axis=0),
            eye_ratio=ratios[:, :2].astype(f4),
            lip_ratio=ratios[:, 2].astype(f4),
            gaze=gaze.astype(f4),
        )

    def _fit_inert(self, keypoints: Array) -> tuple[Array, Array, Array, Array]:
        """s, R, origin and s * delta of keypoints (n,21,3), by the affine map of x_c's inert points.

        Affine, not a similarity, because the driving multiplier mixes two poses linearly: 5 points that lie
        in no plane determine it, and its polar part is the rotation.
        """
        affine = self._inert_pinv @ keypoints[:, INERT]
        linear, origin = affine[:, :3], affine[:, 3]
        u, singular, vt = np.linalg.svd(linear)
        signs = np.ones_like(singular)
        signs[:, 2] = np.sign(np.linalg.det(u @ vt))
        rotation = (u * signs[:, None, :]) @ vt
        scale = (singular * signs).mean(axis=1)
        return scale, rotation, origin, keypoints - self._keypoints @ linear - origin[:, None]

    def split(self, x_s: Array, x_d: Array) -> Split:
        """x_d (n,21,3) as a rigid change of x_s (n or 1,21,3) and a change of expression, see `Split`."""
        source = np.atleast_3d(np.asarray(x_s, dtype=np.float64)).reshape(-1, 21, 3)
        driven = np.asarray(x_d, dtype=np.float64).reshape(-1, 21, 3)
        s0, r0, t0, e0 = self._fit_inert(source)
        s1, r1, t1, e1 = self._fit_inert(driven)
        ratio = s1 / s0
        rotation = r0.transpose(0, 2, 1) @ r1
        # Keypoint 5 moved on purpose, far beyond its natural range, takes the head along (see SHOULDERS).
        change = e1 / s1[:, None, None] - e0 / s0[:, None, None]
        change[:, INERT] = 0.0
        push = change[:, SHOULDERS, :2]
        t1[:, :2] += s1[:, None] * (push - _IDLE * np.tanh(push / _IDLE))
        translation = t1 - ratio[:, None] * np.einsum("nj,njk->nk", np.broadcast_to(t0, t1.shape), rotation)
        f4 = np.float32
        parts = (ratio, rotation, translation, change, s1, r1)
        return Split(*(part.astype(f4) for part in parts))

    def decode(self, change: Array) -> Decoded:
        """Change of delta (n,21,3) -> landmark displacement and changes of ratios and gaze, see `Decoded`."""
        live = np.asarray(change, dtype=np.float64).reshape(-1, 63)[:, LIVE]
        # Extreme controls ask for more than any face does: keypoints and landmarks level off where faces end.
        natural = _level_off(live, live, self._live_limit)
        residual = (natural @ self._decoder).reshape(-1, LANDMARKS, 3)
        length = np.sqrt((residual * residual).sum(axis=-1))
        residual = _level_off(residual, length[..., None], self._residual_limit[:, None])
        ratios = live @ self._ratio_decoder
        f4 = np.float32
        return Decoded(
            residual=residual.astype(f4),
            eye_ratio=ratios[:, :2].astype(f4),
            lip_ratio=ratios[:, 2].astype(f4),
            gaze=ratios[:, 3:7].reshape(-1, 2, 2).astype(f4),
        )
