# SPDX-License-Identifier: GPL-3.0-or-later
"""What borrowed and modelled mouths have in common: the opening between the lips, and the light and colours
round it.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from .mesh_topology import CHEEKS, INNER_LIP_CORNERS, LOWER_LIP_ROWS, UPPER_LIP_ROWS

LUMA = np.array([0.299, 0.587, 0.114], np.float32)
WARMTH = np.array([0.10, -0.06, -0.06])  # flesh against skin, in shares of the brightness
ENAMEL_LIGHT = 0.6  # share of the lips' shading that enamel is spared


@dataclass
class Opening:
    """The inner lips in a frame along the mouth's own axes: x across from corner to corner, y down."""

    centre: np.ndarray
    ex: np.ndarray
    ey: np.ndarray
    width: float
    across: np.ndarray
    upper: np.ndarray
    lower: np.ndarray

    def local(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        away = points - self.centre
        return away @ self.ex, away @ self.ey


def opening_of(points: np.ndarray) -> Opening:
    """points (478,2): landmarks in pixels."""
    left, right = points[INNER_LIP_CORNERS[0]], points[INNER_LIP_CORNERS[1]]
    width = float(np.linalg.norm(right - left)) or 1.0
    ex = (right - left) / width
    ey = np.array([-ex[1], ex[0]])
    opening = Opening(0.5 * (left + right), ex, ey, width, np.zeros(0), np.zeros(0), np.zeros(0))
    rows = []
    for row in (UPPER_LIP_ROWS[0], LOWER_LIP_ROWS[0]):
        x, y = opening.local(points[[INNER_LIP_CORNERS[0], *row, INNER_LIP_CORNERS[1]]])
        x = np.maximum.accumulate(x + np.arange(len(x)) * 1e-6)
        rows.append((x, y))
    across = np.linspace(-0.5 * width, 0.5 * width, 33)
    opening.across = across
    opening.upper = np.interp(across, *rows[0])
    opening.lower = np.maximum(np.interp(across, *rows[1]), opening.upper)
    return opening


def lip_shade(opening: Opening, x: np.ndarray, y: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """How much light the lips leave to what lies behind them (h,w), 0..1: less to the corners and the upper
    lip.
    """
    light_in = cv2.GaussianBlur(alpha, (0, 0), max(0.7, 0.05 * opening.width))
    top = np.interp(x, opening.across, opening.upper)
    overhang = np.clip((y - top) / max(0.10 * opening.width, 1e-3), 0.0, 1.0)
    corner = 1.0 - 0.55 * np.clip(np.abs(x) / (0.5 * opening.width), 0, 1) ** 3
    return np.asarray((0.76 + 0.24 * np.clip(light_in, 0, 1)) * (0.80 + 0.20 * overhang) * corner, np.float32)


def luma(colour: np.ndarray) -> float:
    return float(colour @ LUMA)


def colourfulness(skin: np.ndarray) -> float:
    """0 for a grey picture, 1 from the saturation of a pale photograph on."""
    return min(1.0, float(np.ptp(skin)) / max(float(skin.max()), 1.0) / 0.12)


def cheek_colour(picture: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """Median colour (3,) float of small squares on the cheeks."""
    reach = max(1, round(0.05 * float(np.linalg.norm(landmarks[33, :2] - landmarks[263, :2]))))
    samples = []
    for index in CHEEKS:
        x, y = landmarks[index, :2].astype(int)
        square = picture[max(0, y - reach) : y + reach + 1, max(0, x - reach) : x + reach + 1]
        samples.append(square.reshape(-1, 3))
    pixels = np.concatenate(samples)
    return np.median(pixels, axis=0).astype(np.float64) if len(pixels) else np.array([180.0, 150.0, 130.0])
