# SPDX-License-Identifier: GPL-3.0-or-later
"""Finding and following faces with the real model, in a photograph and in real material."""

from __future__ import annotations

import logging
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from backend.cropping import transform_points
from backend.errors import FaceTooSmallError, NoFaceError
from backend.face_region import region_of_landmarks
from backend.face_search import search
from backend.faces import MINIMUM_FACE, FaceTracker, choose_face, find_faces
from backend.landmarker import LANDMARKS, MediaPipeLandmarker, quiet_stderr


@pytest.fixture(scope="module")
def model() -> Iterator[MediaPipeLandmarker]:
    landmarker = MediaPipeLandmarker()
    yield landmarker
    landmarker.close()


@pytest.fixture(scope="module")
def photo(astronaut: Path) -> np.ndarray:
    """A photograph of one woman, (512, 512, 3); her face is 110 px large round (226, 123)."""
    return cv2.cvtColor(cv2.imdecode(np.fromfile(astronaut, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def read(path: Path) -> np.ndarray:
    return cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)


def difference(landmarks: np.ndarray, others: np.ndarray) -> float:
    """Mean distance in sizes of the face."""
    apart = np.linalg.norm(landmarks[:, :2] - others[:, :2], axis=1).mean()
    return float(apart / region_of_landmarks(others, 1.0).size)


# ------------------------------------------------------------------ the real model, on a photograph


def test_the_face_of_a_photograph(photo: np.ndarray, model: MediaPipeLandmarker) -> None:
    faces = find_faces(photo, landmarker=model)
    assert len(faces) == 1
    face = choose_face(faces)
    assert face.landmarks.shape == (LANDMARKS, 3)
    assert face.landmarks.dtype == np.float32
    assert face.center == pytest.approx((226, 123), abs=4)
    assert face.size == pytest.approx(110, abs=6)
    left, right, nose, chin = face.landmarks[[468, 473, 1, 152], :2]
    assert left[0] < nose[0] < right[0] and max(left[1], right[1]) < nose[1] < chin[1]
    assert face.landmarks[1, 2] < face.landmarks[[234, 454], 2].min()  # the nose is nearest


def test_landmarks_do_not_depend_on_where_the_face_lies(
    photo: np.ndarray, model: MediaPipeLandmarker
) -> None:
    """Turned, in a long picture, in a large one: each the same landmarks to half a percent of the face."""
    want = choose_face(find_faces(photo, landmarker=model)).landmarks
    turn = cv2.getRotationMatrix2D((223.5, 114.5), 35, 1)
    turned = cv2.warpAffine(photo, turn, (512, 512), borderMode=cv2.BORDER_REPLICATE)
    centred = np.array([[turn[0, 0], turn[0, 1], 0], [turn[1, 0], turn[1, 1], 0]])
    centred[:, 2] = (224, 115) - centred[:, :2] @ (224, 115)
    long = np.full((600, 2400, 3), 90, np.uint8)
    long[50:562, 1500:2012] = photo
    large = np.full((3000, 4000, 3), 90, np.uint8)
    large[2000:2512, 300:812] = photo
    for picture, move, tolerance in (
        (turned, centred, 0.01),
        (long, np.array([[1, 0, 1500], [0, 1, 50.0]]), 0.005),
        (large, np.array([[1, 0, 300], [0, 1, 2000.0]]), 0.005),
    ):
        got = choose_face(find_faces(picture, landmarker=model)).landmarks
        assert difference(got, transform_points(want, move)) < tolerance


def test_refined_landmarks_are_better_than_a_first_pass(
    photo: np.ndarray, model: MediaPipeLandmarker
) -> None:
    """Looked at from regions a tenth of a face apart, the result stays the same to a tenth of a percent."""
    face = choose_face(find_faces(photo, landmarker=model))
    results = []
    for shift in (-10, 10):
        moved = np.roll(photo, shift, axis=1)
        results.append(choose_face(find_faces(moved, landmarker=model)).landmarks - (shift, 0, 0))
    for landmarks in results:
        assert difference(landmarks, face.landmarks) < 0.001


def test_everybody_in_a_large_group_is_found(photo: np.ndarray, model: MediaPipeLandmarker) -> None:
    """Eight faces of 55 px in 1600: the detectors alone see some of them."""
    head = cv2.resize(photo[20:240, 110:340], None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    group = np.full((1000, 1600, 3), 90, np.uint8)
    places = [(60 + 400 * column, 150 + 480 * row) for row in range(2) for column in range(4)]
    for x, y in places:
        group[y : y + head.shape[0], x : x + head.shape[1]] = head
    faces = find_faces(group, "top-bottom", model)
    assert len(faces) == 8
    by_row = sorted(faces[:4], key=lambda f: f.center[0]) + sorted(faces[4:], key=lambda f: f.center[0])
    for face, (x, y) in zip(by_row, places):
        assert face.center == pytest.approx((x + 58, y + 51), abs=4)


def test_a_face_that_fills_the_picture_is_found(photo: np.ndarray, model: MediaPipeLandmarker) -> None:
    whole = choose_face(find_faces(photo, landmarker=model))
    x0, y0, x1, y1 = (round(v) for v in whole.box)
    tight = choose_face(find_faces(photo[y0:y1, x0:x1].copy(), landmarker=model))
    assert difference(tight.landmarks + (x0, y0, 0), whole.landmarks) < 0.06


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_picture_on_its_side_or_upside_down(
    photo: np.ndarray, model: MediaPipeLandmarker, quarters: int
) -> None:
    """The same landmarks as in the upright picture, whichever way that one was turned."""
    (face,) = find_faces(np.ascontiguousarray(np.rot90(photo, quarters)), landmarker=model)
    points = face.landmarks[:, :2].astype(float)
    for _ in range(quarters):
        points = np.stack([512 - points[:, 1], points[:, 0]], axis=1)
    assert difference(points, find_faces(photo, landmarker=model)[0].landmarks) < 0.01


def test_a_large_picture_upside_down(photo: np.ndarray, model: MediaPipeLandmarker) -> None:
    """Searched in a smaller copy, found in the picture's own pixels."""
    large = cv2.resize(photo[::-1, ::-1], (1800, 1800), interpolation=cv2.INTER_LINEAR)
    (face,) = find_faces(large, landmarker=model)
    x, y = face.center
    assert (512 - x * 512 / 1800, 512 - y * 512 / 1800) == pytest.approx((226, 123), abs=4)


def test_a_small_face_is_named_with_its_size(photo: np.ndarray, model: MediaPipeLandmarker) -> None:
    small = cv2.resize(photo, None, fx=0.24, fy=0.24, interpolation=cv2.INTER_AREA)
    faces = find_faces(small, landmarker=model)
    with pytest.raises(FaceTooSmallError, match=rf"is 2\d pixels large; at least {MINIMUM_FACE:.0f}"):
        choose_face(faces)


def test_no_face_where_there_is_none(model: MediaPipeLandmarker) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
    for picture in (noise, noise * 0, noise[:1, :1], noise[:3]):
        assert find_faces(picture, landmarker=model) == []


def test_a_moving_photograph_is_followed(photo: np.ndarray, model: MediaPipeLandmarker) -> None:
    """Pan, zoom and roll; then darkness; then it is there again, elsewhere."""
    want = choose_face(find_faces(photo, landmarker=model)).landmarks
    tracker = FaceTracker(landmarker=model)
    for i in range(25):
        angle, scale = math.radians(20 * math.sin(i / 5)), 1 + 0.02 * i
        cos, sin = math.cos(angle) * scale, math.sin(angle) * scale
        move = np.array([[cos, -sin, 0], [sin, cos, 0]])
        move[:, 2] = (320 + 6 * i, 240 - 2 * i) - move[:, :2] @ (224, 115)
        index = move.copy()
        index[:, 2] += move[:, :2] @ (0.5, 0.5) - 0.5
        face = tracker.update(cv2.warpAffine(photo, index, (640, 480), borderMode=cv2.BORDER_REPLICATE))
        assert face is not None
        assert difference(face.landmarks, transform_points(want, move)) < 0.015
    black = np.zeros((480, 640, 3), np.uint8)
    assert [tracker.update(black) for _ in range(3)] == [None] * 3
    again = np.full((480, 640, 3), 60, np.uint8)
    again[:, :512] = photo[:480]
    face = tracker.update(again)
    assert face is not None
    assert difference(face.landmarks, want) < 0.01


def test_a_hurried_face_is_measured_as_well(photo: np.ndarray, model: MediaPipeLandmarker) -> None:
    """It moves by up to half its size from frame to frame."""
    want = choose_face(find_faces(photo, landmarker=model)).landmarks
    tracker = FaceTracker(landmarker=model)
    for i in range(16):
        shift = round(200 * math.sin(i / 4))
        move = np.array([[1.0, 0, shift], [0, 1, shift / 2]])
        face = tracker.update(cv2.warpAffine(photo, move, (512, 512), borderMode=cv2.BORDER_REPLICATE))
        assert face is not None
        assert difference(face.landmarks, transform_points(want, move)) < 0.007


def test_one_of_two_is_followed(photo: np.ndarray, model: MediaPipeLandmarker) -> None:
    head = photo[20:240, 110:340]
    tracker = FaceTracker(index=1, order="left-right", landmarker=model)
    for i in range(12):
        frame = np.full((480, 900, 3), 70, np.uint8)
        frame[10 : 10 + 220, 40 + 4 * i : 270 + 4 * i] = head
        frame[200 - i : 420 - i, 560 - 8 * i : 790 - 8 * i] = head[:, ::-1]
        face = tracker.update(frame)
        assert face is not None
        assert face.center[0] == pytest.approx(560 - 8 * i + 116, abs=8)


def test_nothing_is_written_to_the_users_terminal(photo: np.ndarray, tmp_path: Path) -> None:
    np.save(tmp_path / "photo.npy", photo)
    code = (
        "import sys, numpy\n"
        "from backend.faces import find_faces\n"
        "assert len(find_faces(numpy.load(sys.argv[1]))) == 1\n"
    )
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-c", code, str(tmp_path / "photo.npy")]
    result = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_real_errors_on_stderr_are_passed_on(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(RuntimeError, match="stopped"), quiet_stderr():
        os.write(2, b"INFO: Created TensorFlow Lite XNNPACK delegate for CPU.\nE0000 disk is on fire\n")
        raise RuntimeError("stopped")
    assert capfd.readouterr().err == "E0000 disk is on fire\n"
    assert "XNNPACK" in caplog.text


# ------------------------------------------------------------------ real material


def test_every_person_is_found_and_no_animal(shared_data: Path, model: MediaPipeLandmarker) -> None:
    animals = {"animal_s39", "s25", "s38"}
    pictures = sorted((shared_data / "portraits").glob("*.jpg")) + sorted(
        (shared_data / "driving").glob("*.jpg")
    )
    found = {path.stem: len(find_faces(read(path), landmarker=model)) for path in pictures}
    assert found == {path.stem: int(path.stem not in animals) for path in pictures}


@pytest.mark.parametrize("name", ["portraits/s13", pytest.param("driving/d12", marks=pytest.mark.slow)])
def test_every_frame_of_a_clip(shared_data: Path, model: MediaPipeLandmarker, name: str) -> None:
    """s13: a face 90 px large in 1080; d12: a head that turns fast and far."""
    tracker = FaceTracker(landmarker=model)
    missed = 0
    with av.open(str(shared_data / f"{name}.mp4")) as clip:
        for frame in clip.decode(video=0):
            missed += tracker.update(frame.to_ndarray(format="rgb24")) is None
    assert missed == 0
    assert tracker.found > 50


def test_a_frame_of_a_clip_is_measured_like_its_first(shared_data: Path, model: MediaPipeLandmarker) -> None:
    """One pass a frame stays within half a percent of what settling would give."""
    with av.open(str(shared_data / "driving" / "d3.mp4")) as clip, FaceTracker(landmarker=model) as tracker:
        for number, frame in zip(range(40), clip.decode(video=0)):
            rgb = frame.to_ndarray(format="rgb24")
            face = tracker.update(rgb)
            assert face is not None
            if number % 8 == 7:
                settled = max(search(rgb, model, thorough=False), key=lambda f: f.size)
                assert difference(face.landmarks, settled.landmarks) < 0.005


def test_an_upside_down_clip_is_refused_rather_than_read_the_wrong_way_round(
    photo: np.ndarray, model: MediaPipeLandmarker
) -> None:
    with FaceTracker(landmarker=model) as tracker:
        assert tracker.update(np.ascontiguousarray(photo[::-1, ::-1])) is None
        with pytest.raises(NoFaceError, match="No face was found"):
            tracker.require_found()
