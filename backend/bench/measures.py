# SPDX-License-Identifier: GPL-3.0-or-later
"""Figures of merit on pictures, landmarks and motion."""

from __future__ import annotations

import cv2
import numpy as np

from backend.motion import Motion
from backend.rotations import euler_from_rotation, geodesic_degrees

FACE_POINTS = 468
OUTER_EYE_CORNERS = (33, 263)


def psnr(picture: np.ndarray, truth: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB of two uint8 pictures."""
    error = float(np.mean((picture.astype(np.float32) - truth.astype(np.float32)) ** 2))
    return float("inf") if error == 0 else float(10 * np.log10(255**2 / error))


def ssim(picture: np.ndarray, truth: np.ndarray) -> float:
    """Structural similarity (Wang et al. 2004) of the grey pictures: Gaussian window 11, sigma 1.5."""
    a, b = (cv2.cvtColor(p, cv2.COLOR_RGB2GRAY).astype(np.float64) for p in (picture, truth))

    def mean(x: np.ndarray) -> np.ndarray:
        return cv2.GaussianBlur(x, (11, 11), 1.5)

    mean_a, mean_b = mean(a), mean(b)
    var_a, var_b, both = mean(a * a) - mean_a**2, mean(b * b) - mean_b**2, mean(a * b) - mean_a * mean_b
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    return float(np.mean(luminance * (2 * both + c2) / (var_a + var_b + c2)))


def landmark_error(found: np.ndarray, truth: np.ndarray) -> float:
    """Mean distance of the 468 face points (478, 2+) in outer-eye distances of the truth."""
    a, b = OUTER_EYE_CORNERS
    unit = np.linalg.norm(truth[a, :2] - truth[b, :2])
    gaps = np.linalg.norm(found[:FACE_POINTS, :2] - truth[:FACE_POINTS, :2], axis=1)
    return float(gaps.mean() / unit)


def angle_error(motion: Motion, truth: Motion) -> float:
    """Mean angle in degrees between the head rotations of two motions, each relative to its frame 0."""

    def relative(m: Motion) -> np.ndarray:
        return m.rotation @ m.rotation[0].T

    return float(np.mean(geodesic_degrees(relative(motion), relative(truth))))


def explained_variance(motion: Motion, truth: Motion) -> float:
    """1 - sum of squared errors over sum of squares of delta's change since frame 0, all 63 numbers."""

    def relative(m: Motion) -> np.ndarray:
        return (m.expression - m.expression[0]).astype(np.float64)

    wanted = relative(truth)
    total = float((wanted**2).sum())
    return float("nan") if total == 0 else float(1 - ((relative(motion) - wanted) ** 2).sum() / total)


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's; NaN where one of them does not move."""
    a, b = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    if a.std() == 0 or b.std() == 0:
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])


def jitter(motion: Motion) -> tuple[float, float]:
    """Mean absolute second difference of the head's Euler angles (degrees) and the keypoints (crop units)."""
    if len(motion) < 3:
        return 0.0, 0.0
    angles = np.stack(euler_from_rotation(motion.rotation), axis=1)
    return (
        float(np.abs(np.diff(angles, n=2, axis=0)).mean()),
        float(np.abs(np.diff(motion.keypoints(), n=2, axis=0)).mean()),
    )
