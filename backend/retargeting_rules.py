# SPDX-License-Identifier: GPL-3.0-or-later
"""Which keypoints a region is made of, and where the product differs from the released program."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from backend.options import Options

EYE_KEYPOINTS = (11, 13, 15, 16, 18)
LIP_KEYPOINTS = (6, 12, 14, 17, 19, 20)


@dataclass(frozen=True)
class Rules:
    """Where the product differs from the released program: True is ours, False is theirs."""

    retargeting_keeps_motion: bool = True
    """Eye and lip retargeting correct the driven face by what it lacks to the driver's opening. Theirs throws
    the driving motion away in relative mode (x_s + deltas) and corrects twice in absolute mode."""

    each_eye_its_own: bool = True
    """Each eye reaches the driver's opening of that eye. In theirs both follow the image-left one: no
    winks."""

    lips_rest_like_driver: bool = True
    """Normalising the lips brings the source's resting mouth to the driver's at the reference frame, and
    never opens it. Theirs closes it even if the driver's is open there; the lips then cross when it
    closes."""

    lips_normalized_beside_eyes: bool = True
    """Normalising the lips also works with eye retargeting, which in theirs switches it off."""

    reference_has_face: bool = True
    """A reference frame without a face is replaced by the nearest one with a face. Theirs takes what is
    there."""

    smooth_by_motion: bool = True
    """With a clip as source only options.smoothing smooths, and rotations stay rotations. Theirs always
    runs a Kalman filter over each element of R and delta."""

    driving_options_agree: bool = True
    """expression-friendly is pose-friendly. Theirs multiplies the motion by the source's size over that of
    the animation's first frame, which is the source again: by 1, but for rounding."""

    translation_in_source_size: bool = True
    """The head moves by the same share of its own size as the driver's. Theirs adds the driver's way in its
    crop as it is, however large either head is in its own."""

    lids_close_with_driver: bool = True
    """A driver's lids that close by a share of their opening close the source's by that share. Theirs adds
    the change, so narrow eyes never shut wide ones. Only the size of closing is changed, within limits."""

    controls_move_the_head: bool = True
    """The controls move_x and move_y move the whole head. Theirs pull one keypoint in the neck the other way
    and leave it to the networks what follows."""


PRODUCT = Rules()
UPSTREAM = Rules(*[False] * len(fields(Rules)))


def rules_of(options: Options) -> Rules:
    """The rules of the chosen compatibility."""
    return UPSTREAM if options.compatibility == "upstream" else PRODUCT


def transferred(region: str, everything: bool = False) -> np.ndarray:
    """Which numbers of delta come from the driving, (21, 3) bool.

    The released sets: all and expression copy every keypoint (`everything`: a picture in relative mode) or
    only what carries neither identity nor pose (else); lips and eyes have their own sets; pose copies none.
    """
    mask = np.zeros((21, 3), dtype=bool)
    if region == "lips":
        mask[list(LIP_KEYPOINTS)] = True
    elif region == "eyes":
        mask[list(EYE_KEYPOINTS)] = True
    elif region in ("all", "expression"):
        mask[[1, 2, 6, *range(11, 21)]] = True
        mask[3:5, 1] = mask[5, 2] = mask[8, 2] = True
        mask[9, 1:] = True
        mask |= everything
    return mask
