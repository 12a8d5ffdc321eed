# SPDX-License-Identifier: GPL-3.0-or-later
"""Finding, choosing and following faces: the rules, with a model made of paper."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from backend.cropping import transform_points
from backend.errors import FaceTooSmallError, InputError, NoFaceError
from backend.face_region import Region, cut_patch, mesh_in_region
from backend.face_search import ORDERS
from backend.faces import MINIMUM_FACE, Face, FaceTracker, choose_face, find_faces
from backend.landmarker import LANDMARKS, PATCH_SIZE, Detection


def paper_mesh() -> np.ndarray:
    """(478, 3) landmarks of a face in the unit square, eyes level."""
    mesh = np.random.default_rng(3).uniform(0, 1, (LANDMARKS, 3)).astype(np.float32)
    mesh[0, :2], mesh[1, :2] = 0, 1
    mesh[33, :2], mesh[263, :2] = (0.2, 0.4), (0.8, 0.4)
    return mesh


class PaperLandmarker:
    """Takes every red square in a picture for a face that fills it."""

    def __init__(self) -> None:
        self.meshes = self.searches = 0
        self.closed = False

    @staticmethod
    def _squares(rgb: np.ndarray) -> list[tuple[int, int, int, int]]:
        red = (rgb[..., 0] > 128) & (rgb[..., 1] < 128)
        _, _, stats, _ = cv2.connectedComponentsWithStats(red.astype(np.uint8))
        return [(x, y, x + w, y + h) for x, y, w, h, area in stats[1:] if area > 0.8 * w * h > 16]

    def detect(self, rgb: np.ndarray, full_range: bool) -> list[Detection]:
        self.searches += 1
        found = []
        for x0, y0, x1, y1 in self._squares(rgb):
            eyes = np.array([(x0 + 0.2 * (x1 - x0), y0), (x0 + 0.8 * (x1 - x0), y0)], np.float32)
            found.append(Detection((x0, y0, x1, y1), eyes, 0.9))
        return found

    def mesh(self, patch: np.ndarray) -> tuple[np.ndarray | None, float]:
        self.meshes += 1
        middle = PATCH_SIZE / 2
        for x0, y0, x1, y1 in self._squares(patch):
            if x0 < middle < x1 and y0 < middle < y1:
                return paper_mesh() * (x1 - x0, y1 - y0, 1) + np.array([x0, y0, 0], np.float32), 1.0
        return None, 0.1

    def close(self) -> None:
        self.closed = True


def paper(*squares: tuple[int, int, int], size: tuple[int, int] = (480, 640), back: int = 0) -> np.ndarray:
    """A frame with red squares (x, y, side)."""
    frame = np.full((*size, 3), back, np.uint8)
    for x, y, side in squares:
        frame[max(y, 0) : y + side, max(x, 0) : x + side] = (255, 0, 0)
    return frame


def a_face(x: float, y: float, size: float) -> Face:
    return Face(paper_mesh() * size + np.array([x, y, 0], np.float32), 1.0, (x, y, x + size, y + size))


# ------------------------------------------------------------------ geometry and choice


def test_a_patch_and_its_landmarks_lie_where_the_region_says() -> None:
    y, x = np.mgrid[0:900, 0:1200] + 0.5
    ramp = np.stack([x / 8, y / 8, x * 0], -1).astype(np.float32)
    for region in (Region(500, 400, 150, 0.3), Region(600, 450, 700, -0.7)):
        patch = cut_patch(ramp, region)
        assert patch.shape == (PATCH_SIZE, PATCH_SIZE, 3)

        class Fixed(PaperLandmarker):
            def mesh(self, patch: np.ndarray) -> tuple[np.ndarray | None, float]:
                return np.array([[80.5, 100.5, 10]], np.float32), 1.0

        points, _ = mesh_in_region(ramp, region, Fixed())
        assert points is not None
        np.testing.assert_allclose(patch[100, 80, :2] * 8, points[0, :2], atol=0.3)
        assert points[0, 2] == pytest.approx(10 * region.size / PATCH_SIZE)
        back = transform_points(points[:, :2].astype(float), region.to_patch())
        np.testing.assert_allclose(back, [[80.5, 100.5]], atol=1e-3)


def test_orders() -> None:
    picture = paper((20, 300, 60), (250, 190, 100), (550, 10, 80))
    sides = {
        order: [round(f.size) for f in find_faces(picture, order, PaperLandmarker())] for order in ORDERS
    }
    near = {order: [round(size, -1) for size in sizes] for order, sizes in sides.items()}
    assert near == {
        "large-small": [100, 80, 60],
        "small-large": [60, 80, 100],
        "left-right": [60, 100, 80],
        "right-left": [80, 100, 60],
        "top-bottom": [80, 100, 60],
        "bottom-top": [60, 100, 80],
        "distance-from-center": [100, 60, 80],
    }
    assert [round(f.size, -1) for f in find_faces(picture, "left-right", PaperLandmarker(), maximum=2)] == [
        100,
        80,
    ]
    with pytest.raises(InputError, match=r"'biggest'.*large-small"):
        find_faces(picture, "biggest", PaperLandmarker())


def test_choice() -> None:
    faces = [a_face(0, 0, 50), a_face(100, 0, 90), a_face(300, 0, 20)]
    assert choose_face(faces) is faces[1]
    assert choose_face(faces, 0) is faces[0]
    with pytest.raises(NoFaceError, match=r"no face number 3: 3 faces were found\. Choose 0 to 2"):
        choose_face(faces, 3)
    with pytest.raises(NoFaceError, match=r"1 face was found"):
        choose_face(faces[:1], -1)
    with pytest.raises(FaceTooSmallError, match=rf"20 pixels large; at least {MINIMUM_FACE:.0f}"):
        choose_face(faces, 2)
    with pytest.raises(NoFaceError, match="No face was found"):
        choose_face([])


# ------------------------------------------------------------------ following, with the paper model


def test_a_followed_face_costs_one_pass_and_no_search() -> None:
    landmarker = PaperLandmarker()
    tracker = FaceTracker(landmarker=landmarker)
    tracker.update(paper((100, 100, 120)))
    landmarker.meshes = landmarker.searches = 0
    for i in range(1, 30):
        face = tracker.update(paper((100 + 3 * i, 100 + i, 120)))
        assert face is not None
        assert face.center == pytest.approx((160 + 3 * i, 160 + i), abs=2)
    assert (landmarker.meshes, landmarker.searches) == (29, 0)
    tracker.require_found()


def test_the_chosen_face_is_followed_while_they_cross() -> None:
    """The second from the left at the start stays the one even when it passes the other."""
    tracker = FaceTracker(index=1, order="left-right", landmarker=PaperLandmarker())
    for i in range(40):
        face = tracker.update(paper((40 + 10 * i, 20, 100), (400 - 10 * i, 300, 90)))
        assert face is not None
        assert face.center == pytest.approx((445 - 10 * i, 345), abs=2)


def test_frames_without_the_face_are_none_and_it_comes_back() -> None:
    tracker = FaceTracker(index=0, order="left-right", landmarker=PaperLandmarker())
    other = (450, 300, 100)
    assert tracker.update(paper((100, 100, 100), other)) is not None
    for _ in range(5):
        assert tracker.update(paper(other)) is None  # the other one is not taken for it
    face = tracker.update(paper((130, 110, 104), other))
    assert face is not None
    assert face.center == pytest.approx((182, 162), abs=2)


def test_a_face_that_jumps_within_the_frame_is_found_again() -> None:
    landmarker = PaperLandmarker()
    tracker = FaceTracker(landmarker=landmarker)
    assert tracker.update(paper((20, 20, 100))) is not None
    seen = [tracker.update(paper((480, 340, 100))) for _ in range(15)]
    assert seen[-1] is not None
    assert seen[-1].center == pytest.approx((530, 390), abs=2)


def test_a_cut_searches_anew_even_where_a_face_was() -> None:
    """After a cut the largest face is meant, not a small one that happens to be where the last one was."""
    landmarker = PaperLandmarker()
    tracker = FaceTracker(landmarker=landmarker)
    for _ in range(3):
        tracker.update(paper((100, 100, 120)))
    landmarker.searches = 0
    face = tracker.update(paper((140, 140, 40), (350, 100, 200), back=100))
    assert landmarker.searches > 0
    assert face is not None
    assert face.size == pytest.approx(200, abs=4)


def test_what_a_clip_without_the_wanted_face_says() -> None:
    for frame, index, error, text in (
        (paper(), None, NoFaceError, "No face was found in the clip"),
        (paper((100, 100, 100)), 2, NoFaceError, "no face number 2: 1 face was found"),
        (
            paper((100, 100, 20)),
            None,
            FaceTooSmallError,
            rf"is \d+ pixels large; at least {MINIMUM_FACE:.0f}",
        ),
    ):
        tracker = FaceTracker(index=index, landmarker=PaperLandmarker())
        assert tracker.update(frame) is None
        with pytest.raises(error, match=text):
            tracker.require_found()


def test_reset_forgets_the_clip() -> None:
    tracker = FaceTracker(landmarker=PaperLandmarker())
    tracker.update(paper((20, 20, 100)))
    tracker.reset()
    face = tracker.update(paper((400, 300, 60)))
    assert face is not None
    assert face.size == pytest.approx(60, abs=2)


def test_a_tracker_closes_only_the_model_it_made() -> None:
    lent = PaperLandmarker()
    with FaceTracker(landmarker=lent) as tracker:
        tracker.update(paper())
    assert not lent.closed
