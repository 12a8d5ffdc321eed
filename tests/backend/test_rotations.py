# SPDX-License-Identifier: GPL-3.0-or-later
"""Head rotations: the released program's convention, and maps that undo each other at every angle."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from backend import rotations as r

ANGLE = st.floats(-179.0, 179.0)
YAW = st.floats(-89.0, 89.0)
VECTOR = st.tuples(*[st.floats(-1.8, 1.8)] * 3)


def column_matrix(pitch: float, yaw: float, roll: float) -> np.ndarray:
    """Rz Ry Rx as textbooks write it."""
    p, y, q = np.radians([pitch, yaw, roll])
    rx = [[1, 0, 0], [0, np.cos(p), -np.sin(p)], [0, np.sin(p), np.cos(p)]]
    ry = [[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]]
    rz = [[np.cos(q), -np.sin(q), 0], [np.sin(q), np.cos(q), 0], [0, 0, 1]]
    return np.array(rz) @ np.array(ry) @ np.array(rx)


@given(ANGLE, YAW, ANGLE)
def test_rotations_are_the_transpose_of_rz_ry_rx(pitch: float, yaw: float, roll: float) -> None:
    assert_allclose(r.rotation_from_euler(pitch, yaw, roll), column_matrix(pitch, yaw, roll).T, atol=1e-12)


@given(ANGLE, YAW, ANGLE)
def test_angles_come_back(pitch: float, yaw: float, roll: float) -> None:
    angles = r.euler_from_rotation(r.rotation_from_euler(pitch, yaw, roll))
    assert_allclose(angles, (pitch, yaw, roll), atol=1e-9)


@pytest.mark.parametrize("yaw", [90.0, -90.0])
def test_a_profile_keeps_its_rotation_although_its_angles_are_ambiguous(yaw: float) -> None:
    rotation = r.rotation_from_euler(20.0, yaw, 35.0)
    angles = r.euler_from_rotation(rotation)
    assert angles[2] == 0.0
    assert_allclose(r.rotation_from_euler(*angles), rotation, atol=1e-9)


def test_the_nose_moves_as_the_signs_say() -> None:
    nose = np.array([0.0, 0.0, -1.0])  # towards the camera; y is down
    assert (nose @ r.rotation_from_euler(10, 0, 0))[1] > 0
    assert (nose @ r.rotation_from_euler(0, 10, 0))[0] < 0
    crown = np.array([0.0, -1.0, 0.0])
    assert (crown @ r.rotation_from_euler(0, 0, 10))[0] > 0


@given(VECTOR)
def test_rotation_vectors_come_back(vector: tuple[float, float, float]) -> None:
    v = np.array(vector)
    assert_allclose(r.rotation_vector(r.rotation_from_vector(v)), v, atol=1e-7)


@given(st.tuples(*[st.floats(-4, 4)] * 3), st.sampled_from([1e-9, 1e-4, 1.0]))
def test_quaternions_come_back_at_every_angle(vector: tuple[float, float, float], size: float) -> None:
    rotation = r.rotation_from_vector(np.array(vector) * size)
    assert_allclose(r.rotation_from_quaternion(r.quaternion_from_rotation(rotation)), rotation, atol=1e-12)


@given(ANGLE, YAW, ANGLE, st.floats(0, 1))
def test_slerp_turns_at_constant_speed(pitch: float, yaw: float, roll: float, amount: float) -> None:
    start = r.rotation_from_euler(-30.0, 12.0, 5.0)
    end = r.rotation_from_euler(pitch, yaw, roll)
    whole = r.geodesic_degrees(start, end)
    between = r.slerp(start, end, amount)
    assert_allclose(r.geodesic_degrees(start, between), amount * whole, atol=1e-5)
    assert_allclose(r.geodesic_degrees(between, end), (1 - amount) * whole, atol=1e-5)


def test_slerp_works_on_whole_clips_with_a_share_for_each_frame() -> None:
    angles = np.array([0.0, 10.0, 40.0])
    start = r.rotation_from_euler(0.0, 0.0, np.zeros(3))
    end = r.rotation_from_euler(0.0, 0.0, angles)
    roll = r.euler_from_rotation(r.slerp(start, end, [0.5, 0.1, 0.25]))[2]
    assert_allclose(roll, [0.0, 1.0, 10.0], atol=1e-9)


def test_the_nearest_rotation_is_proper_even_for_a_mirrored_matrix() -> None:
    rotation = r.rotation_from_euler(5.0, -20.0, 8.0)
    assert_allclose(r.nearest_rotation(1.7 * rotation), rotation, atol=1e-12)
    fixed = r.nearest_rotation(np.stack([rotation @ np.diag([1, 1, -1.0]), rotation]))
    assert_allclose(np.linalg.det(fixed), 1.0)
    assert_allclose(fixed[1], rotation, atol=1e-12)


def test_the_mean_rotation_lies_in_the_middle() -> None:
    mean = r.mean_rotation(r.rotation_from_euler(0.0, [-10.0, 0.0, 25.0], 0.0))
    assert r.euler_from_rotation(mean)[1] == pytest.approx(5.0, abs=0.1)


def test_rotations_agree_with_the_released_program(shared_data) -> None:
    oracle = shared_data.parent / "oracle" / "modules.npz"
    if not oracle.is_file():
        pytest.skip("the reference numbers are absent: there is no ../shared/oracle")
    with np.load(oracle, allow_pickle=False) as reference:
        angles, rotation = reference["rot.deg_pitch_yaw_roll"], reference["rot.R"]
    assert_allclose(r.rotation_from_euler(*angles.T), rotation, atol=1e-6)
