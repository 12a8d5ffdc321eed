# SPDX-License-Identifier: GPL-3.0-or-later
"""Head rotations in LivePortrait's row-vector convention, vectorised over leading axes.

A row vector turns as x' = x @ R with R = (Rz(roll) Ry(yaw) Rx(pitch))^T, angles in degrees, axes x right,
y down, z into the picture: pitch > 0 looks down, yaw > 0 turns the nose to image left, roll > 0 leans
clockwise. Arithmetic is float64; callers store float32.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

_TINY = 1e-12
_GIMBAL = 1.0 - 1e-9  # |sin(yaw)| beyond which pitch and roll turn about the same axis


def rotation_from_euler(pitch: ArrayLike, yaw: ArrayLike, roll: ArrayLike) -> Array:
    """(…,3,3) rotations from angles in degrees; the three broadcast against each other."""
    p, y, r = np.broadcast_arrays(*(np.radians(np.asarray(a, np.float64)) for a in (pitch, yaw, roll)))
    cp, sp, cy, sy, cr, sr = np.cos(p), np.sin(p), np.cos(y), np.sin(y), np.cos(r), np.sin(r)
    # The rows below are the columns of Rz Ry Rx, written out.
    return np.stack(
        [
            np.stack([cr * cy, sr * cy, -sy], -1),
            np.stack([cr * sy * sp - sr * cp, sr * sy * sp + cr * cp, cy * sp], -1),
            np.stack([cr * sy * cp + sr * sp, sr * sy * cp - cr * sp, cy * cp], -1),
        ],
        -2,
    )


def euler_from_rotation(rotation: ArrayLike) -> tuple[Array, Array, Array]:
    """(pitch, yaw, roll) in degrees, each (…,): pitch and roll in (-180, 180], yaw in [-90, 90].

    At |yaw| = 90 degrees pitch and roll are one angle: all of it is given as pitch, roll is 0.
    """
    m = np.asarray(rotation, np.float64)
    sin_yaw = np.clip(-m[..., 0, 2], -1.0, 1.0)
    locked = np.abs(sin_yaw) > _GIMBAL
    pitch = np.where(
        locked,
        np.arctan2(-m[..., 2, 1], m[..., 1, 1]),
        np.arctan2(m[..., 1, 2], m[..., 2, 2]),
    )
    roll = np.where(locked, 0.0, np.arctan2(m[..., 0, 1], m[..., 0, 0]))
    # arctan2 against the cosine is exact near 90 degrees, where arcsin loses half the digits.
    yaw = np.arctan2(sin_yaw, np.hypot(m[..., 0, 0], m[..., 0, 1]))
    return np.degrees(pitch), np.degrees(yaw), np.degrees(roll)


def quaternion_from_rotation(rotation: ArrayLike) -> Array:
    """Unit quaternions (…,4) as w, x, y, z with w >= 0, of the column matrix R^T (Shepperd's method)."""
    m = np.swapaxes(np.asarray(rotation, np.float64), -1, -2)
    xx, yy, zz = m[..., 0, 0], m[..., 1, 1], m[..., 2, 2]
    # Four ways to write 4 q_i q; the one with the largest q_i loses no digits.
    a = m[..., 2, 1] - m[..., 1, 2]
    b = m[..., 0, 2] - m[..., 2, 0]
    c = m[..., 1, 0] - m[..., 0, 1]
    d = m[..., 1, 0] + m[..., 0, 1]
    e = m[..., 0, 2] + m[..., 2, 0]
    f = m[..., 2, 1] + m[..., 1, 2]
    squares = [1 + xx + yy + zz, 1 + xx - yy - zz, 1 - xx + yy - zz, 1 - xx - yy + zz]
    candidates = np.stack(
        [
            np.stack([squares[0], a, b, c], -1),
            np.stack([a, squares[1], d, e], -1),
            np.stack([b, d, squares[2], f], -1),
            np.stack([c, e, f, squares[3]], -1),
        ],
        -2,
    )
    best = np.argmax(np.stack(squares, -1), -1)
    q: Array = np.take_along_axis(candidates, best[..., None, None], -2)[..., 0, :]
    q = q / np.linalg.norm(q, axis=-1, keepdims=True)
    return np.where(q[..., :1] < 0, -q, q)


def rotation_from_quaternion(quaternion: ArrayLike) -> Array:
    """(…,3,3) row-vector rotations from quaternions (…,4) w, x, y, z of any non-zero length."""
    q = np.asarray(quaternion, np.float64)
    q = q / np.linalg.norm(q, axis=-1, keepdims=True)
    w, x, y, z = q[..., 0], q[..., 1], q[..., 2], q[..., 3]
    return np.stack(
        [
            np.stack([1 - 2 * (y * y + z * z), 2 * (x * y + z * w), 2 * (x * z - y * w)], -1),
            np.stack([2 * (x * y - z * w), 1 - 2 * (x * x + z * z), 2 * (y * z + x * w)], -1),
            np.stack([2 * (x * z + y * w), 2 * (y * z - x * w), 1 - 2 * (x * x + y * y)], -1),
        ],
        -2,
    )


def rotation_vector(rotation: ArrayLike) -> Array:
    """(…,3) axis times angle in radians, angle in [0, pi], of the column matrix R^T."""
    q = quaternion_from_rotation(rotation)
    length = np.linalg.norm(q[..., 1:], axis=-1, keepdims=True)
    angle = 2.0 * np.arctan2(length, q[..., :1])
    return np.where(length > _TINY, angle / np.maximum(length, _TINY), 2.0) * q[..., 1:]


def rotation_from_vector(vector: ArrayLike) -> Array:
    """(…,3,3) row-vector rotations; the inverse of `rotation_vector`."""
    v = np.asarray(vector, np.float64)
    angle = np.linalg.norm(v, axis=-1, keepdims=True)
    half_sinc = 0.5 * np.sinc(angle / (2.0 * np.pi))
    return rotation_from_quaternion(np.concatenate([np.cos(angle / 2.0), half_sinc * v], -1))


def slerp(start: ArrayLike, end: ArrayLike, amount: ArrayLike) -> Array:
    """Constant-speed turn from `start` (amount 0) to `end` (amount 1), the short way; everything broadcasts.

    start, end: (…,3,3); amount: (…,). At exactly 180 degrees apart one of the two ways is taken.
    """
    r0 = np.asarray(start, np.float64)
    step = rotation_vector(np.swapaxes(r0, -1, -2) @ np.asarray(end, np.float64))
    return r0 @ rotation_from_vector(step * np.asarray(amount, np.float64)[..., None])


def geodesic_degrees(first: ArrayLike, second: ArrayLike) -> Array:
    """The angle (…,) in degrees, 0 to 180, of the turn between rotations (…,3,3)."""
    turn = np.swapaxes(np.asarray(first, np.float64), -1, -2) @ np.asarray(second, np.float64)
    return np.degrees(np.linalg.norm(rotation_vector(turn), axis=-1))


def nearest_rotation(matrix: ArrayLike) -> Array:
    """The proper rotations (…,3,3) nearest to any matrices in the Frobenius sense (orthogonal Procrustes)."""
    u, _, vt = np.linalg.svd(np.asarray(matrix, np.float64))
    u[..., :, 2] *= np.where(np.linalg.det(u @ vt) < 0, -1.0, 1.0)[..., None]
    return u @ vt


def mean_rotation(rotations: ArrayLike) -> Array:
    """(3,3) chordal mean of rotations (n,3,3)."""
    return nearest_rotation(np.asarray(rotations, np.float64).mean(axis=0))
