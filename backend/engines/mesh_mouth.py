# SPDX-License-Identifier: GPL-3.0-or-later
"""The mouth layer: what shows between parted lips.

Either the driver's own inner mouth (mouth_borrowed) or a modelled one: two dental arches, the upper
fixed to the skull and the lower to the jaw, a tongue and a dark cavity, in the source's own light and colour.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np

from .curves import closed_curve, patch_round, polygon_alpha
from .mesh_topology import LOWER_LIP_ROWS, topology
from .mouth_borrowed import PATCH_SIZE, borrowed, mouth_patch
from .mouth_opening import (
    ENAMEL_LIGHT,
    LUMA,
    WARMTH,
    Opening,
    cheek_colour,
    colourfulness,
    lip_shade,
    luma,
    opening_of,
)

__all__ = ["PATCH_SIZE", "MouthInterior", "draw_mouth", "make_mouth", "mouth_patch"]

FEATHER = 0.012  # mouth widths
APPEAR = (0.012, 0.045)  # inner gap / width over which the layer fades in
# A source's own open mouth gives way from so many times its gap on, over so many more.
OWN_STRETCH_BORROWED, OWN_STRETCH_MODELLED = (1.1, 0.5), (1.75, 0.15)
# Anatomy in outer-eye distances (about 90 mm): mean adult dental arches.
ARCH_HALF_WIDTH, ARCH_DEPTH, ARCH_ANGLE = 0.30, 0.30, 1.25
UPPER_EDGE = 0.034  # upper biting edge below the line of closed lips
UPPER_HEIGHT, SHOWN_TOOTH = 0.120, 0.10  # crown, and how much of it an open mouth shows
LOWER_EDGE, LOWER_HEIGHT = -0.024, 0.105  # lower biting edge against the upper one, jaw shut; crown
LOWER_SHOWN, UPPER_SHOWN = 0.040, 0.035  # of the crowns, past the lips
TOOTH_WIDTHS = (8.6, 6.6, 7.6, 7.1, 6.8, 10.0)  # mm from the midline outwards
LOWER_WIDTHS = (5.4, 6.0, 6.9, 7.0, 7.2, 11.0)


@dataclass
class MouthInterior:
    """What the layer needs of one source. Colours (3,) float RGB 0..255; bite (3,): where the upper front
    teeth end, canonical.
    """

    skin: np.ndarray
    lip: np.ndarray
    tooth: np.ndarray
    own_gap: float
    bite: np.ndarray
    unit: float


def make_mouth(
    region: np.ndarray, landmarks: np.ndarray, shape: np.ndarray, eye_unit: float
) -> MouthInterior:
    lips = landmarks[list(LOWER_LIP_ROWS[1][2:7] + LOWER_LIP_ROWS[2][2:7]), :2].astype(int)
    height, width = region.shape[:2]
    colours = region[np.clip(lips[:, 1], 0, height - 1), np.clip(lips[:, 0], 0, width - 1)]
    own = float((shape[14, 1] - shape[13, 1]) / np.linalg.norm(shape[78] - shape[308]))
    skin = cheek_colour(region, landmarks)
    return MouthInterior(
        skin=skin,
        tooth=_tooth_colour(region, landmarks, skin, own),
        lip=np.median(colours, axis=0).astype(np.float64),
        own_gap=max(own, 0.0),
        bite=_bite(shape, eye_unit),
        unit=eye_unit,
    )


def _tooth_colour(region: np.ndarray, landmarks: np.ndarray, skin: np.ndarray, own_gap: float) -> np.ndarray:
    """(3,) the source's own teeth where its open mouth shows them, else enamel in the light of its skin."""
    modelled = np.minimum(0.60 * 1.16 * luma(skin) + 0.40 * 1.20 * skin, 246.0)
    share = float(np.clip((own_gap - 0.05) / 0.05, 0.0, 1.0))
    if share <= 0.0:
        return modelled
    mask = np.zeros(region.shape[:2], np.uint8)
    cv2.fillPoly(mask, [landmarks[topology().inner_lips, :2].astype(np.int32)], (1,))
    pixels = region[mask > 0].astype(np.float64)
    if len(pixels) < 8:
        return modelled
    light = pixels @ LUMA
    own = pixels[light >= np.percentile(light, 80)].mean(axis=0)
    bright = luma(own) > 0.75 * luma(skin)
    pale = np.ptp(own) / max(own.max(), 1.0) < 0.6 * np.ptp(skin) / max(skin.max(), 1.0) + 0.03
    return modelled + share * (own - modelled) if bright and pale else modelled


def _bite(shape: np.ndarray, unit: float) -> np.ndarray:
    """Where the upper front teeth end (3,), canonical: a little under the line of closed lips; in an open
    mouth as far below the upper lip as the lower one is, but no further than a tooth is long.
    """
    upper, lower = shape[13], shape[14]
    gap = float(np.clip(lower[1] - upper[1], 0.0, SHOWN_TOOTH * unit))
    closed = 1.0 - min(1.0, gap / (0.5 * SHOWN_TOOTH * unit))
    edge = 0.5 * (upper + lower)
    edge[1] = upper[1] + gap + UPPER_EDGE * unit * closed
    return edge


@cache
def _teeth(upper: bool) -> np.ndarray:
    """Texture (128,512,2) float32 of one dental arch laid flat, midline in the middle, gums at row 0: shade
    and opacity.
    """
    rows, columns = 128, 512
    widths = np.array(TOOTH_WIDTHS if upper else LOWER_WIDTHS)
    edges = np.concatenate([[0.0], np.cumsum(widths)])
    edges = edges / edges[-1] * (columns / 2)
    x = np.abs(np.arange(columns) + 0.5 - columns / 2)
    tooth = np.clip(np.searchsorted(edges, x, side="right") - 1, 0, len(widths) - 1)
    left, right = edges[tooth], edges[tooth + 1]
    position = (x - left) / (right - left)  # 0..1 within a tooth
    lengths = np.array([1.0, 0.93, 0.99, 0.90, 0.86, 0.84] if upper else [0.94, 0.96, 1.0, 0.93, 0.88, 0.86])
    corner = 1.0 - np.abs(2 * position - 1) ** 4 * (0.10 if upper else 0.06)
    length = 0.96 * lengths[tooth] * corner
    y = ((np.arange(rows) + 0.5) / rows)[:, None]
    opacity = np.clip((length - y) * rows / 3.0, 0.0, 1.0)
    bulge = 1.0 - 0.06 * np.abs(2 * position - 1) ** 3
    gap = 1.0 - 0.13 * np.exp(-((np.minimum(position, 1 - position) * (right - left) / 2.2) ** 2))
    fade = np.array([1.0, 0.97, 0.92, 0.82, 0.70, 0.56])[tooth]
    shade = bulge * gap * fade * (0.90 + 0.12 * y)
    gum = np.clip((0.16 + 0.05 * np.cos((position - 0.5) * 2 * np.pi) * -1 - y) * 14, 0.0, 1.0)
    shade = shade * (1.0 - 0.45 * gum)
    return np.stack([shade, opacity + np.zeros_like(shade)], axis=-1).astype(np.float32)


def _arch(
    interior: MouthInterior, edge: float, height: float, drop: float, back: float
) -> tuple[np.ndarray, np.ndarray]:
    """Canonical points (33,3) of an arch's gum line and biting edge."""
    angle = np.linspace(-ARCH_ANGLE, ARCH_ANGLE, 33)
    unit = interior.unit
    x = np.sin(angle) * ARCH_HALF_WIDTH
    z = (1.0 - np.cos(angle)) * ARCH_DEPTH + back
    rise = -0.035 * (x / ARCH_HALF_WIDTH) ** 2  # the smile line climbs to the sides
    base = interior.bite + np.column_stack([x, np.zeros(33), z]) * unit
    edge_points = base + np.column_stack([np.zeros(33), edge + rise, np.zeros(33)]) * unit
    gum_points = edge_points - np.array([0.0, height, 0.0]) * unit
    offset = np.array([0.0, drop, 0.0])
    return gum_points + offset, edge_points + offset


def draw_mouth(
    frame: np.ndarray,
    interior: MouthInterior,
    points: np.ndarray,
    loop: np.ndarray,
    project,
    gap: float,
    jaw: float,
    patch: np.ndarray | None,
) -> None:
    """Draw the inner mouth into frame (h,w,3) in place.

    points (478,2): moved landmarks in frame pixels; loop (20,): the inner lips; project: canonical points
    (m,3) fixed to the skull -> frame pixels (m,2); gap: inner gap / width; jaw: canonical drop of the chin;
    patch (48,64,3) uint8 or None.
    """
    show = np.clip((gap - APPEAR[0]) / (APPEAR[1] - APPEAR[0]), 0.0, 1.0)
    own = np.clip((interior.own_gap - 0.06) / 0.08, 0.0, 1.0)
    if own > 0:  # an open mouth keeps its own pixels until they would be stretched too far
        start, span = OWN_STRETCH_BORROWED if patch is not None else OWN_STRETCH_MODELLED
        stretched = np.clip((gap / interior.own_gap - start) / span, 0.0, 1.0)
        show *= 1.0 - own * (1.0 - stretched)
    if show <= 0.0:
        return
    opening = opening_of(points)
    feather = FEATHER * opening.width
    outline = points[loop]
    pad = int(np.ceil(3 * feather)) + 2
    box = patch_round(outline, pad, frame.shape[:2])
    if box is None:
        return
    x0, y0, x1, y1 = box
    origin = np.array([x0, y0], np.float64)
    alpha = polygon_alpha(closed_curve(outline - origin), (y1 - y0, x1 - x0), feather)
    px = np.arange(x0, x1) + 0.5 - opening.centre[0]
    py = (np.arange(y0, y1) + 0.5 - opening.centre[1])[:, None]
    x = px * opening.ex[0] + py * opening.ex[1]
    y = px * opening.ey[0] + py * opening.ey[1]
    if patch is None:
        inside = _modelled(interior, opening, x, y, alpha, project, jaw, gap)
    else:
        inside = borrowed((interior.skin, interior.lip), opening, x, y, alpha, patch)
    view = frame[y0:y1, x0:x1]
    weight = (alpha * np.float32(show))[..., None]
    view[:] = np.clip(view + (inside - view) * weight + 0.5, 0, 255).astype(np.uint8)


def _modelled(
    interior: MouthInterior,
    opening: Opening,
    x: np.ndarray,
    y: np.ndarray,
    alpha: np.ndarray,
    project,
    jaw: float,
    gap: float,
) -> np.ndarray:
    skin, lip = interior.skin, interior.lip
    light = luma(skin)
    warmth = WARMTH * light * colourfulness(skin)
    cavity = np.maximum(0.19 * lip + 0.03 * skin + 0.35 * warmth, 0.0)
    tongue = 0.56 * lip + 0.12 * skin + warmth
    tooth = interior.tooth
    gum = 0.62 * lip + 0.18 * skin + warmth
    inside = np.broadcast_to(cavity.astype(np.float32), (*x.shape, 3)).copy()
    enamel = np.zeros(x.shape, np.float32)

    half = 0.5 * opening.width
    depth = max(float((opening.lower - opening.upper).max()), 1e-3)
    # the tongue lies behind the lower teeth and shows in a wide mouth
    level = np.interp(x, opening.across, opening.lower)
    shape = np.clip(
        1.0 - (x / (0.78 * half)) ** 2 - ((level + 0.06 * opening.width - y) / (0.68 * depth)) ** 2, 0.0, 1.0
    )
    bright = np.clip(shape * 2.2, 0.0, 1.0) * np.clip((gap - 0.10) / 0.20, 0.0, 1.0)
    bright *= 1.0 - 0.18 * np.exp(-((x / (0.05 * opening.width)) ** 2))
    inside += (tongue.astype(np.float32) * (0.55 + 0.45 * shape[..., None]) - inside) * bright[
        ..., None
    ].astype(np.float32)

    lower = _arch(interior, LOWER_EDGE, -LOWER_HEIGHT, jaw, 0.035)
    upper = _arch(interior, 0.0, UPPER_HEIGHT, 0.0, 0.0)
    for is_upper, (gum_line, edge) in ((False, lower), (True, upper)):
        gum_x, gum_y = opening.local(project(gum_line))
        edge_x, edge_y = opening.local(project(edge))
        shift = _kept_in_sight(is_upper, opening, edge_x, edge_y)
        gum_y, edge_y = gum_y + shift, edge_y + shift
        ascending = np.maximum.accumulate(edge_x + np.arange(33) * 1e-6)
        s = np.interp(x, ascending, np.linspace(0.0, 1.0, 33), left=-1.0, right=2.0)
        at = np.clip(s, 0, 1) * 32
        top = np.interp(at, np.arange(33), gum_y)
        bottom = np.interp(at, np.arange(33), edge_y)
        v = (y - top) / np.where(np.abs(bottom - top) < 1e-3, 1e-3, bottom - top)
        texture = _teeth(is_upper)
        span = max(8, int(2.0 * (edge_x[-1] - edge_x[0])))
        if span < texture.shape[1]:  # as fine as it will be shown, so that no tooth flickers
            texture = cv2.resize(texture, (span, max(8, span // 4)), interpolation=cv2.INTER_AREA)
        columns, rows = texture.shape[1], texture.shape[0]
        drawn = cv2.remap(
            texture,
            (s * columns - 0.5).astype(np.float32),
            (np.clip(v, 0.0, 1.5) * rows - 0.5).astype(np.float32),
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
        shade = drawn[..., 0]
        gums = np.clip(-v * 5.0, 0.0, 1.0).astype(np.float32)
        opacity = np.where(v < 0, 1.0 - np.clip((-v - 0.6) * 3.0, 0.0, 1.0), drawn[..., 1])
        opacity = np.where((s >= 0.0) & (s <= 1.0) & (v <= 1.0), opacity, 0.0).astype(np.float32)
        colour = tooth.astype(np.float32) * shade[..., None] * np.float32(1.0 if is_upper else 0.86)
        colour += (gum.astype(np.float32) * 0.8 - colour) * gums[..., None]
        inside += (colour - inside) * opacity[..., None]
        enamel = np.maximum(enamel * (1.0 - opacity), opacity * (1.0 - gums))

    shading = lip_shade(opening, x, y, alpha)
    shading = 1.0 - (1.0 - shading) * (1.0 - ENAMEL_LIGHT * enamel)  # enamel shines out of the shadow
    inside *= shading[..., None].astype(np.float32)
    return inside


def _kept_in_sight(is_upper: bool, opening: Opening, edge_x: np.ndarray, edge_y: np.ndarray) -> float:
    """Pixels to move an arch down: the lips cover all but LOWER_SHOWN of the lower teeth, and in a wide mouth
    let UPPER_SHOWN of the upper ones be seen.
    """
    unit = float(edge_x[-1] - edge_x[0]) / (2.0 * ARCH_HALF_WIDTH * np.sin(ARCH_ANGLE))
    middle = len(opening.across) // 2
    edge = float(edge_y[len(edge_y) // 2])
    if is_upper:
        wide = np.clip((opening.lower[middle] - opening.upper[middle]) / (0.3 * unit) - 0.5, 0.0, 1.0)
        return float(wide * max(0.0, opening.upper[middle] + UPPER_SHOWN * unit - edge))
    return max(0.0, float(opening.lower[middle]) - LOWER_SHOWN * unit - edge)
