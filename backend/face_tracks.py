# SPDX-License-Identifier: GPL-3.0-or-later
"""Several faces followed at once, so that people who cross do not change places; and the released way."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, Self

import numpy as np

from backend.clip_rules import clip_rules
from backend.errors import FaceTooSmallError, NoFaceError
from backend.face_region import cut_patch, face_box, mesh_in_region, region_of_landmarks
from backend.face_search import PRESENCE, Face, search, sort_faces
from backend.faces import MAXIMUM_FACES, MINIMUM_FACE, FaceTracker, no_such_face
from backend.landmarker import Landmarker, MediaPipeLandmarker
from backend.options import Options
from backend.shots import CutDetector

STEP = 0.35  # of its size: by no more does a face miss the place it is expected in from frame to frame,
GROWTH = 1.3  # or by more than this factor the size
LOOK_SIZE = 12  # px across the copy of a face by which it is known again
LOOK_WEIGHT = 2.0  # face sizes of distance that a wholly different look counts as
STRANGER = 0.45  # difference of looks from which two faces are two people
FORGET = 8  # frames over which the way of a hidden face is carried on
SEARCH_EVERY = 3  # frames between two searches for a hidden face


class Tracker(Protocol):
    """Finds one face in the frames of a clip, told in turn; a context manager."""

    def update(self, rgb: np.ndarray) -> Face | None: ...

    def require_found(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


def tracker_for(options: Options, number: int | None) -> Tracker:
    """The tracker of a face (None: the largest). One chosen by number is told from the others all along."""
    if not clip_rules(options).faces_found_again:
        return SeededTracker()
    if number is None:
        return FaceTracker(None)
    return OneOf(number, options.face_order)


class SeededTracker:
    """The released way: the landmarks of a frame say where the next ones are, whatever is there."""

    def __init__(self, landmarker: Landmarker | None = None) -> None:
        self._own = landmarker is None
        self._landmarker = landmarker or MediaPipeLandmarker()
        self._face: Face | None = None

    def update(self, rgb: np.ndarray) -> Face | None:
        """The landmarks in the next frame; None before the first face."""
        if self._face is None:
            faces = [
                face for face in search(rgb, self._landmarker, thorough=True) if face.size >= MINIMUM_FACE
            ]
            self._face = max(faces, key=lambda face: face.size, default=None)
            return self._face
        landmarks, score = mesh_in_region(rgb, region_of_landmarks(self._face.landmarks), self._landmarker)
        if landmarks is not None and np.isfinite(landmarks).all():
            self._face = Face(landmarks, score, face_box(landmarks))
        return self._face

    def require_found(self) -> None:
        """Raises NoFaceError when no frame had a face."""
        if self._face is None:
            raise NoFaceError(
                "No face was found in the clip.", "Use a clip with one face, seen from the front."
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._own:
            self._landmarker.close()


@dataclass
class _Track:
    """One person: the last face seen, its way a frame (px), its look, frames since it was seen."""

    face: Face
    look: np.ndarray
    velocity: np.ndarray
    lost: int = 0

    def expected(self) -> np.ndarray:
        """Where its middle should be in the next frame, px."""
        return np.asarray(self.face.center) + self.velocity * min(self.lost + 1, FORGET)


class MultiTracker:
    """Follows every face of the first frame that has enough of them, numbered in `order`.

    `wanted` are the numbers that `update` answers, in that order. Faces are known by place, way, size and
    look: two that meet are given apart again, and one that is hidden is looked for where it should come out.
    """

    def __init__(
        self,
        wanted: Sequence[int],
        order: str = "large-small",
        landmarker: Landmarker | None = None,
        minimum: float = MINIMUM_FACE,
    ) -> None:
        self._wanted, self._order, self._minimum = list(wanted), order, minimum
        self._own = landmarker is None
        self._landmarker = landmarker or MediaPipeLandmarker()
        self._tracks: list[_Track] = []
        self._cuts = CutDetector()
        self._frame = 0
        self._cut_at = -1
        self.found = [0] * len(self._wanted)
        self.most_faces = 0
        self.largest_face = 0.0

    def update(self, rgb: np.ndarray) -> list[Face | None]:
        """The wanted faces in the next frame (h, w, 3 uint8), each None where it is not seen."""
        cut = self._cuts.is_cut(rgb)
        self._frame += 1
        if not self._tracks:
            self._begin(rgb)
        elif cut:
            for track in self._tracks:
                track.lost += FORGET
                track.velocity = np.zeros(2)
            self._find_again(rgb, self._tracks, anywhere=True)
        else:
            self._follow(rgb)
        seen: list[Face | None] = []
        for place, number in enumerate(self._wanted):
            known = self._tracks[number] if number < len(self._tracks) else None
            seen.append(known.face if known is not None and known.lost == 0 else None)
            self.found[place] += seen[-1] is not None
        return seen

    def _begin(self, rgb: np.ndarray) -> None:
        thorough = self._frame % (4 * SEARCH_EVERY) == 1
        faces = search(rgb, self._landmarker, thorough=thorough)
        self.largest_face = max([self.largest_face, *(face.size for face in faces)])
        faces = [face for face in faces if face.size >= self._minimum]
        self.most_faces = max(self.most_faces, len(faces))
        if len(faces) <= max(self._wanted, default=0):
            return
        largest = sorted(faces, key=lambda face: -face.size)[:MAXIMUM_FACES]
        ordered = sort_faces(largest, self._order, (rgb.shape[1], rgb.shape[0]))
        self._tracks = [_Track(face, _look(rgb, face), np.zeros(2)) for face in ordered]

    def _follow(self, rgb: np.ndarray) -> None:
        found: dict[int, Face] = {}
        for number, track in enumerate(self._tracks):
            face = self._ahead(rgb, track) if track.lost == 0 else None
            if face is not None:
                found[number] = face
        self._part(rgb, found)
        hidden = []
        for number, track in enumerate(self._tracks):
            if number in found:
                self._seen(rgb, track, found[number])
            else:
                track.lost += 1
                hidden.append(track)
        if hidden and (self._frame % SEARCH_EVERY == 0 or any(track.lost == 1 for track in hidden)):
            self._find_again(rgb, hidden)

    def _ahead(self, rgb: np.ndarray, track: _Track) -> Face | None:
        """The face where the track should be now, or None for another place or size."""
        region = region_of_landmarks(track.face.landmarks)
        region = replace(region, x=region.x + track.velocity[0], y=region.y + track.velocity[1])
        landmarks, score = mesh_in_region(rgb, region, self._landmarker)
        if landmarks is None or score < PRESENCE:
            return None
        face = Face(landmarks, score, face_box(landmarks))
        away = math.dist(face.center, track.expected()) / track.face.size
        if away > STEP or not 1 / GROWTH < face.size / track.face.size < GROWTH:
            return None
        return face if face.size >= self._minimum else None

    def _part(self, rgb: np.ndarray, found: dict[int, Face]) -> None:
        """Where two tracks have come upon one face, leave it to the one it looks like and drop the other."""
        for a, b in itertools.combinations(sorted(found), 2):
            if a not in found or b not in found:
                continue
            apart = math.dist(found[a].center, found[b].center)
            if apart > 0.4 * min(found[a].size, found[b].size):
                continue
            costs = [self._cost(self._tracks[n], found[n], _look(rgb, found[n])) for n in (a, b)]
            del found[b if costs[0] <= costs[1] else a]

    def _find_again(self, rgb: np.ndarray, hidden: list[_Track], anywhere: bool = False) -> None:
        """Give faces that no track has to the hidden tracks they suit best."""
        taken = [track.face for track in self._tracks if track.lost == 0]
        free = [
            face
            for face in search(rgb, self._landmarker, thorough=anywhere)
            if face.size >= self._minimum
            and all(math.dist(face.center, other.center) > 0.4 * other.size for other in taken)
        ]
        looks = [_look(rgb, face) for face in free]
        pairs = sorted(
            (
                (self._cost(track, face, look), number, place)
                for number, track in enumerate(hidden)
                for place, (face, look) in enumerate(zip(free, looks, strict=True))
                if anywhere or self._may_be(track, face, look)
            ),
        )
        given: set[int] = set()
        for _, number, place in pairs:
            if hidden[number].lost and place not in given:
                given.add(place)
                hidden[number].velocity = np.zeros(2)
                self._seen(rgb, hidden[number], free[place], jumped=True)

    def _may_be(self, track: _Track, face: Face, look: np.ndarray) -> bool:
        reach = STEP * (2 + track.lost)
        near = math.dist(face.center, track.expected()) / track.face.size < reach
        grown = 1 / 2.5 < face.size / track.face.size < 2.5
        # With nobody else about it is this person again, whatever the light.
        alike = len(self._tracks) == 1 or _difference(look, track.look) < STRANGER
        return near and grown and alike

    def _cost(self, track: _Track, face: Face, look: np.ndarray) -> float:
        """How badly a face suits a track, in face sizes."""
        away = math.dist(face.center, track.expected()) / track.face.size
        grown = abs(math.log(face.size / track.face.size))
        return min(away, 3.0) + grown + LOOK_WEIGHT * _difference(look, track.look)

    def _seen(self, rgb: np.ndarray, track: _Track, face: Face, jumped: bool = False) -> None:
        step = np.subtract(face.center, track.face.center)
        track.velocity = np.zeros(2) if jumped else 0.5 * track.velocity + 0.5 * step
        alone = all(
            other is track or math.dist(other.face.center, face.center) > 1.2 * face.size
            for other in self._tracks
        )
        if alone:  # beside another face it may be half hidden, which is not how it looks
            track.look = 0.9 * track.look + 0.1 * _look(rgb, face)
        track.face, track.lost = face, 0

    def require_found(self) -> None:
        """Raises NoFaceError or FaceTooSmallError for a wanted face that no frame had."""
        for number, found in zip(self._wanted, self.found, strict=True):
            if found:
                continue
            if self.most_faces:
                raise no_such_face(number, self.most_faces)
            if self.largest_face > 0:
                raise FaceTooSmallError(
                    f"The largest face in the clip has {self.largest_face:.0f} pixels; "
                    f"at least {self._minimum:.0f} are needed.",
                    "Use a clip with more pixels or one taken from nearer.",
                )
            raise NoFaceError("No face was found in the clip.", "Use a clip with faces seen from the front.")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._own:
            self._landmarker.close()


class OneOf:
    """One face of several, by MultiTracker."""

    def __init__(self, index: int, order: str = "large-small", landmarker: Landmarker | None = None) -> None:
        self._tracker = MultiTracker([index], order, landmarker)

    def update(self, rgb: np.ndarray) -> Face | None:
        """The face in the next frame, or None."""
        return self._tracker.update(rgb)[0]

    def require_found(self) -> None:
        """See MultiTracker."""
        self._tracker.require_found()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._tracker.__exit__()


def _look(rgb: np.ndarray, face: Face) -> np.ndarray:
    """A small upright copy of a face, (12, 12, 3) f4, its brightness evened out."""
    patch = cut_patch(rgb, region_of_landmarks(face.landmarks, 1.0)).astype(np.float32)
    side = len(patch) // LOOK_SIZE
    small = (
        patch[: side * LOOK_SIZE, : side * LOOK_SIZE]
        .reshape(LOOK_SIZE, side, LOOK_SIZE, side, 3)
        .mean((1, 3))
    )
    return np.asarray(small / max(float(small.mean()), 1.0), np.float32)


def _difference(look: np.ndarray, other: np.ndarray) -> float:
    """Between two looks: near 0.1 for one person in two poses, 0.3 to 1 for two people."""
    return float(np.abs(look - other).mean())
