# SPDX-License-Identifier: GPL-3.0-or-later
"""People who cross keep their numbers, who hides is found again, and the released way keeps its faults."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from backend.errors import FaceTooSmallError, NoFaceError
from backend.face_search import Face
from backend.face_tracks import MultiTracker, OneOf, SeededTracker, tracker_for
from backend.faces import FaceTracker
from backend.options import Options
from tests.backend.moving_faces import crossing, head, scene


def middle(face: Face | None) -> float:
    return float("nan") if face is None else face.center[0]


def test_people_who_cross_do_not_change_places(astronaut: Path) -> None:
    frames = crossing(astronaut)
    way = np.linspace(100, 540, len(frames))
    with MultiTracker([0, 1]) as tracker:
        seen = [tracker.update(frame) for frame in frames]
        tracker.require_found()
    she = np.array([middle(faces[0]) for faces in seen])
    he = np.array([middle(faces[1]) for faces in seen])
    assert np.nanmax(np.abs(she - way)) < 25
    assert np.nanmax(np.abs(he - (640 - way))) < 25
    assert np.isnan(she).sum() <= 3  # she is in front all the time
    assert np.isnan(he).any() and not np.isnan(he[-6:]).any()  # he is hidden for a while, and found again


def test_the_chosen_one_of_two_is_followed_through_a_crossing(astronaut: Path) -> None:
    frames = crossing(astronaut)
    with OneOf(0, "right-left") as tracker:
        seen = [middle(tracker.update(frame)) for frame in frames]
    assert seen[0] > 500 and seen[-1] < 140


def test_who_leaves_the_picture_keeps_the_number(astronaut: Path) -> None:
    she, he = head(astronaut, scale=0.8), head(astronaut, other=True, scale=0.8)
    out = [*np.linspace(480, 760, 14), *[900.0] * 10, *np.linspace(760, 480, 14)]
    frames = [scene((640, 240), [(she, 160, 120), (he, x, 120)]) for x in out]
    with MultiTracker([0, 1], "left-right") as tracker:
        seen = [[middle(face) for face in tracker.update(frame)] for frame in frames]
    left, right = np.array(seen).T
    assert np.abs(left - 160).max() < 20
    assert np.isnan(right[16:22]).all()
    assert np.abs(right[-3:] - np.array(out[-3:])).max() < 25


def test_a_cut_lets_everybody_be_found_anywhere(astronaut: Path) -> None:
    she = head(astronaut)
    frames = [scene((640, 260), [(she, 150, 130)])] * 4 + [
        scene((640, 260), [(she, 480, 130)], level=200)
    ] * 4
    with MultiTracker([0]) as tracker:
        seen = [middle(tracker.update(frame)[0]) for frame in frames]
    assert max(seen[:4]) < 200 and min(seen[4:]) > 430


def test_a_number_that_nobody_has_is_refused(astronaut: Path) -> None:
    frame = scene((400, 260), [(head(astronaut), 200, 130)])
    with MultiTracker([0, 1]) as tracker:
        assert tracker.update(frame) == [None, None]
        with pytest.raises(NoFaceError, match="no face number 0|no face number 1"):
            tracker.require_found()


def test_nobody_and_too_small_a_face_are_told_apart(astronaut: Path) -> None:
    with MultiTracker([0]) as tracker:
        tracker.update(np.full((200, 200, 3), 90, np.uint8))
        with pytest.raises(NoFaceError, match="No face"):
            tracker.require_found()
    with MultiTracker([0], minimum=400.0) as tracker:
        tracker.update(scene((400, 260), [(head(astronaut), 200, 130)]))
        with pytest.raises(FaceTooSmallError, match="400"):
            tracker.require_found()


def test_the_released_way_never_looks_again(astronaut: Path) -> None:
    she = head(astronaut)
    frames = [scene((640, 260), [(she, 150, 130)])] * 3 + [scene((640, 260), [(she, 500, 130)])] * 3
    with SeededTracker() as released, FaceTracker() as ours:
        theirs = [released.update(frame) for frame in frames]
        found = [ours.update(frame) for frame in frames]
    assert all(face is not None for face in theirs)
    assert middle(theirs[-1]) < 300
    assert middle(found[-1]) > 450


def test_upstream_compatibility_follows_the_released_way() -> None:
    assert isinstance(tracker_for(Options(compatibility="upstream"), 1), SeededTracker)
    assert isinstance(tracker_for(Options(), None), FaceTracker)
    assert isinstance(tracker_for(Options(), 0), OneOf)
