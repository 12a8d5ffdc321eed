# SPDX-License-Identifier: GPL-3.0-or-later
"""The driver's own inner mouth: taken out of its frames, and put between a source's lips in that one's light
and colours.
"""

from __future__ import annotations

import cv2
import numpy as np

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

PATCH_SIZE = (48, 64)  # rows, columns of a driver's mouth
PATCH_LUMA = 110.0  # brightness of the driver's cheek after normalising
INSET = 0.06  # of the inner mouth at each side that is left out of a patch: it is still lip
CAVITY = 0.18  # brightness of the darkest place in an open mouth, of the skin's
DEEPER = 0.8  # share of its contrast by which a mouth may be deepened, so that noise stays noise
BORROWED_SHADE = 0.8  # share of the lips' shade that a borrowed mouth gets besides its own
TINT = 0.55  # share of the source's own colours in a borrowed mouth's flesh
FLESH = (0.12, 0.30)  # redness from and to which a place counts as flesh


def mouth_patch(picture: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """The driver's inner mouth (48,64,3) uint8 out of a picture (h,w,3) with landmarks (478,2+) in its
    pixels.

    Straightened: columns run from corner to corner, rows from the upper to the lower inner lip; its light
    is normalised by the driver's cheeks, so that a source can put on its own.
    """
    opening = opening_of(landmarks[:, :2].astype(np.float64))
    rows, columns = PATCH_SIZE
    x = ((np.arange(columns) + 0.5) / columns - 0.5) * (1.0 - 2.0 * INSET) * opening.width
    top, bottom = np.interp(x, opening.across, opening.upper), np.interp(x, opening.across, opening.lower)
    y = top + (bottom - top) * (INSET + (1.0 - 2.0 * INSET) * (np.arange(rows) + 0.5) / rows)[:, None]
    px = opening.centre[0] + x * opening.ex[0] + y * opening.ey[0] - 0.5
    py = opening.centre[1] + x * opening.ex[1] + y * opening.ey[1] - 0.5
    patch = cv2.remap(
        picture,
        px.astype(np.float32),
        py.astype(np.float32),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    cheek = np.maximum(cheek_colour(picture, landmarks), 8.0)
    light = max(luma(cheek), 8.0)
    gain = np.clip(PATCH_LUMA / light, 0.4, 4.0) * np.clip((light / cheek) ** 0.35, 0.6, 1.5)
    return np.clip(patch * gain + 0.5, 0, 255).astype(np.uint8)


def borrowed(
    own: tuple[np.ndarray, np.ndarray],
    opening: Opening,
    x: np.ndarray,
    y: np.ndarray,
    alpha: np.ndarray,
    patch: np.ndarray,
) -> np.ndarray:
    """A patch (48,64,3) uint8 between a source's lips: (h,w,3) float32.

    own: the source's skin and lip colours (3,); x, y (h,w): places along the opening's axes, pixels; alpha
    (h,w) float32: how far the opening covers them.
    """
    rows, columns = PATCH_SIZE
    top, bottom = np.interp(x, opening.across, opening.upper), np.interp(x, opening.across, opening.lower)
    u = (x / opening.width + 0.5) * columns - 0.5
    v = (y - top) / np.maximum(bottom - top, 1e-3) * rows - 0.5
    inside = cv2.remap(
        patch, u.astype(np.float32), v.astype(np.float32), cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    ).astype(np.float32)
    # Teeth are pale or yellow, flesh is red before the source's own light comes in.
    redness = 1.0 - inside[..., 1] / np.maximum(inside[..., 0], 1.0)
    flesh = np.clip((redness - FLESH[0]) / (FLESH[1] - FLESH[0]), 0.0, 1.0)
    inside = _deepened(inside, patch)
    skin, lip = np.maximum(own[0], 8.0), own[1]
    light = luma(skin)
    gain = np.clip(light / PATCH_LUMA, 0.25, 1.8) * np.clip((skin / light) ** 0.35, 0.6, 1.5)
    inside *= gain.astype(np.float32)
    inside = _tinted(inside, flesh, skin, lip)
    shading = lip_shade(opening, x, y, alpha)
    # What is bright lies in front and gets more of the light.
    bright = np.clip(inside @ LUMA / light, 0.0, 1.0)
    inside *= (1.0 - BORROWED_SHADE * (1.0 - shading) * (1.0 - ENAMEL_LIGHT * bright))[..., None]
    return inside


def _deepened(inside: np.ndarray, patch: np.ndarray) -> np.ndarray:
    """A borrowed mouth (h,w,3) float32 with the depth that a hazy or evenly lit driver's lacks: its dark
    parts darker, its brightest as they are.
    """
    low, high = np.percentile(patch.reshape(-1, 3) @ LUMA, (3, 97))
    dark = min(low, max(CAVITY * PATCH_LUMA, low - DEEPER * (high - low)))
    if low - dark < 1.0:
        return inside
    light = np.maximum(inside @ LUMA, 1.0)
    reach = np.clip((high - light) / max(high - low, 12.0), 0.0, 1.0)  # 0 the brightest, 1 the darkest
    wanted = light - (low - dark) * reach
    return inside * (np.maximum(wanted, 0.2 * light) / light)[..., None].astype(np.float32)


def _tinted(inside: np.ndarray, flesh: np.ndarray, skin: np.ndarray, lip: np.ndarray) -> np.ndarray:
    """A borrowed mouth (h,w,3) with its flesh (h,w) 0..1, not its teeth, in the source's own colours."""
    light = inside @ LUMA
    share = TINT * flesh
    own = 0.7 * lip + 0.3 * skin
    own = np.maximum(own + WARMTH * luma(own), 0.0)
    own = own / max(luma(own), 8.0)
    tinted = light[..., None] * own.astype(np.float32)
    inside = inside + (tinted - inside) * share[..., None].astype(np.float32)
    grey = colourfulness(skin)
    if grey < 1.0:  # a grey source gets a grey mouth
        inside = light[..., None] + (inside - light[..., None]) * np.float32(grey)
    return inside
