# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a picture shows a person: MediaPipe's selfie segmentation, so that the background can stay where it
is.
"""

from __future__ import annotations

import numpy as np

from ..landmarker import quiet_stderr


def person_mask(picture: np.ndarray) -> np.ndarray | None:
    """picture (h,w,3) uint8 RGB -> (h,w) float32 0..1, or None where MediaPipe's segmentation is not
    installed.
    """
    try:
        with quiet_stderr():
            from mediapipe.python.solutions.selfie_segmentation import SelfieSegmentation
    except ImportError:
        return None
    with quiet_stderr(), SelfieSegmentation(model_selection=0) as segmentation:
        mask = segmentation.process(np.ascontiguousarray(picture)).segmentation_mask
    return None if mask is None else np.asarray(mask, np.float32)
