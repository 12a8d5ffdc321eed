# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a picture shows a person: MediaPipe's selfie segmentation, so that the background can stay where it
is.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..landmarker import quiet_stderr


class PersonFinder:
    """Opens the model at the first question. Not for several threads at once."""

    def __init__(self) -> None:
        self._model: Any = None
        self._missing = False

    def mask(self, picture: np.ndarray) -> np.ndarray | None:
        """picture (h,w,3) uint8 RGB -> (h,w) float32 0..1, or None where MediaPipe's segmentation is
        missing.
        """
        if self._missing:
            return None
        with quiet_stderr():
            if self._model is None:
                try:
                    from mediapipe.python.solutions.selfie_segmentation import SelfieSegmentation
                except ImportError:
                    self._missing = True
                    return None
                self._model = SelfieSegmentation(model_selection=0)
            found = self._model.process(np.ascontiguousarray(picture)).segmentation_mask
        return None if found is None else np.array(found, np.float32)
