# SPDX-License-Identifier: GPL-3.0-or-later
"""Faces in pictures and clips: found and ordered, one chosen, and that one followed from frame to frame."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Self

import numpy as np

from backend.errors import FaceTooSmallError, InputError, NoFaceError
from backend.face_region import face_box, mesh_in_region, region_of_landmarks
from backend.face_search import ORDERS, PRESENCE, Face, displacement, search, sort_faces
from backend.landmarker import Landmarker, MediaPipeLandmarker

__all__ = ["ORDERS", "Face", "FaceTracker", "choose_face", "find_faces", "named"]

MAXIMUM_FACES = 8
# Longer side of the landmarks' box in px. Ten portraits made smaller: at 64 px landmarks are off by 0.4 % of
# the face and eye ratios by 0.014, at 32 by 1.0 % and 0.034, at 24 by 1.6 % and 0.07, where a blink is lost.
MINIMUM_FACE = 32.0

# A face that moved by more of its size between two frames is looked at once more. Where a head moves fast
# that halves the error, from 0.7 to 0.3 % of the face; elsewhere it gains little for the time it takes.
_HURRIED = 0.04
_TELEPORT = 0.7  # no head moves by more of its size between two frames ...
_GROWTH = 1.45  # ... or becomes larger or smaller by more
_CUT = 40.0  # mean change of a coarse copy of the frame, in levels, that is taken for a cut
_THOROUGH_EVERY = 24  # frames without a face between two searches that leave nothing out
_FORGET_AFTER = 12  # frames without a face after which any face of the wanted number will do


def find_faces(
    rgb: np.ndarray,
    order: str = "large-small",
    landmarker: Landmarker | None = None,
    maximum: int = MAXIMUM_FACES,
) -> list[Face]:
    """The faces of a still picture (h, w, 3 uint8), at most `maximum`, in `order` (one of ORDERS).

    Every candidate's mesh is refined until it stands still, and dropped when it depends on where one looked:
    animals, profiles and patterns. Without a `landmarker` one is made and closed again.
    """
    if order not in ORDERS:
        raise InputError(f"There is no face order {order!r}.", f"Choose one of {', '.join(ORDERS)}.")
    own = landmarker or MediaPipeLandmarker()
    try:
        faces = search(rgb, own, thorough=True, average=True, turned=True)
    finally:
        if landmarker is None:
            own.close()
    largest = sorted(faces, key=lambda face: -face.size)[:maximum]
    return sort_faces(largest, order, (rgb.shape[1], rgb.shape[0]))


def choose_face(faces: Sequence[Face], index: int | None = None, minimum: float = MINIMUM_FACE) -> Face:
    """The face at `index` of `faces`, or the largest. Raises NoFaceError when there is none or not so many,
    and FaceTooSmallError when it is under `minimum` px."""
    if not faces:
        raise NoFaceError(
            "No face was found in the picture.",
            "Use a picture with a human face from the front or up to three quarters, unobstructed.",
        )
    if index is not None and not 0 <= index < len(faces):
        raise no_such_face(index, len(faces))
    face = max(faces, key=lambda f: f.size) if index is None else faces[index]
    if face.size < minimum:
        raise FaceTooSmallError(
            f"The face is {face.size:.0f} pixels large; at least {minimum:.0f} are needed.",
            "Use a larger picture or one taken from nearer.",
        )
    return face


@contextmanager
def named(name: str) -> Iterator[None]:
    """Says in which file there was no usable face."""
    try:
        yield
    except NoFaceError as error:
        raise type(error)(f"{name}: {error.message}", error.hint, error.details) from error


def no_such_face(index: int, found: int) -> NoFaceError:
    many = "1 face was" if found == 1 else f"{found} faces were"
    allowed = "0" if found == 1 else f"0 to {found - 1}"
    return NoFaceError(f"There is no face number {index}: {many} found.", f"Choose {allowed}.")


class FaceTracker:
    """Follows one face: the largest at the start, or number `index` in `order`, then the one nearest to it.

    Call `update` with the frames in turn. A frame costs one pass of the mesh (two when the head moves fast),
    whatever the frame's size; the detectors run only at the start, at a cut, and after a loss.
    """

    def __init__(
        self,
        index: int | None = None,
        order: str = "large-small",
        landmarker: Landmarker | None = None,
        minimum: float = MINIMUM_FACE,
    ) -> None:
        if order not in ORDERS:
            raise InputError(f"There is no face order {order!r}.", f"Choose one of {', '.join(ORDERS)}.")
        self._index, self._order, self._minimum = index, order, minimum
        self._own = landmarker is None
        self._landmarker = landmarker or MediaPipeLandmarker()
        self._face: Face | None = None  # the last one seen, perhaps some frames ago
        self._lost = 0  # frames since
        self._searched = 0  # frames searched in vain
        self._coarse: np.ndarray | None = None
        self.found = 0  # frames with the face
        self.most_faces = 0  # that were seen at once in a frame that was searched
        self.largest_face = 0.0  # px, of those; also of faces too small to use

    def update(self, rgb: np.ndarray) -> Face | None:
        """The face in the next frame (h, w, 3 uint8), landmarks in px of the frame, or None."""
        cut = self._is_cut(rgb)
        face = None
        if self._face is not None and self._lost == 0 and not cut:
            face = self._follow(rgb, self._face)
        if face is None:
            face = self._find(rgb, cut)
        if face is None:
            self._lost += 1
            return None
        self._face, self._lost = face, 0
        self.found += 1
        return face

    def _follow(self, rgb: np.ndarray, last: Face) -> Face | None:
        landmarks, presence = mesh_in_region(rgb, region_of_landmarks(last.landmarks), self._landmarker)
        if landmarks is not None and displacement(landmarks, last.landmarks) > _HURRIED * last.size:
            landmarks, presence = mesh_in_region(rgb, region_of_landmarks(landmarks), self._landmarker)
        if landmarks is None or presence < PRESENCE:
            return None
        face = Face(landmarks, presence, face_box(landmarks))
        if _distance(face, last) > _TELEPORT or not 1 / _GROWTH < face.size / last.size < _GROWTH:
            return None
        return face if face.size >= self._minimum else None

    def _find(self, rgb: np.ndarray, cut: bool) -> Face | None:
        thorough = cut or self._searched % _THOROUGH_EVERY == 0
        self._searched += 1
        seen = search(rgb, self._landmarker, thorough=thorough)
        self.largest_face = max([self.largest_face, *(face.size for face in seen)])
        faces = [face for face in seen if face.size >= self._minimum]
        self.most_faces = max(self.most_faces, len(faces))
        if not faces:
            return None
        self._searched = 0
        last = self._face
        if last is not None:
            # The longer it was lost the further away it may be.
            reach = _TELEPORT * (1 + self._lost / 4)
            near = [f for f in faces if _distance(f, last) < reach and 0.5 < f.size / last.size < 2]
            if near:
                return min(near, key=lambda f: _distance(f, last) + abs(math.log(f.size / last.size)))
            if not cut and self._lost < _FORGET_AFTER:
                return None
        if self._index is None:
            return max(faces, key=lambda face: face.size)
        ordered = sort_faces(faces, self._order, (rgb.shape[1], rgb.shape[0]))
        return ordered[self._index] if 0 <= self._index < len(ordered) else None

    def _is_cut(self, rgb: np.ndarray) -> bool:
        height, width = rgb.shape[:2]
        step_y, step_x = max(height // 32, 1), max(width // 32, 1)
        coarse = rgb[step_y // 2 :: step_y, step_x // 2 :: step_x].astype(np.int16)
        before, self._coarse = self._coarse, coarse
        if before is None:
            return False
        return before.shape != coarse.shape or float(np.abs(coarse - before).mean()) > _CUT

    def require_found(self) -> None:
        """After the last frame: raises NoFaceError or FaceTooSmallError when no frame had the wanted face."""
        if self.found:
            return
        if self._index is not None and self.most_faces:
            raise no_such_face(self._index, self.most_faces)
        if self.largest_face > 0:
            raise FaceTooSmallError(
                f"The face in the clip is {self.largest_face:.0f} pixels large; "
                f"at least {self._minimum:.0f} are needed.",
                "Use a clip with more pixels or one taken from nearer.",
            )
        raise NoFaceError(
            "No face was found in the clip.",
            "Use an upright clip where one human face is seen from the front or up to three quarters,"
            " unobstructed.",
        )

    def reset(self) -> None:
        """Starts anew, as for another clip."""
        self._face, self._coarse = None, None
        self._lost = self._searched = self.found = self.most_faces = 0
        self.largest_face = 0.0

    def close(self) -> None:
        """Closes the landmarker that the tracker made for itself."""
        if self._own:
            self._landmarker.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _distance(face: Face, other: Face) -> float:
    """Between two faces' middles, in sizes of the second."""
    return math.dist(face.center, other.center) / other.size
