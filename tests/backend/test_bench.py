# SPDX-License-Identifier: GPL-3.0-or-later
"""The bench's measures are right on cases with known answers, and its material can be measured."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path

import cv2
import numpy as np
import pytest

from backend.bench import measures, run
from backend.bench.face import drawn_face
from backend.bench.report import Report
from backend.errors import InputError
from backend.faces import find_faces
from backend.rotations import rotation_from_euler
from tests.backend.synthetic_motion import make_motion


def test_psnr_of_a_known_error() -> None:
    black = np.zeros((8, 8, 3), np.uint8)
    assert measures.psnr(black, black) == math.inf
    assert measures.psnr(black + np.uint8(255), black) == pytest.approx(0)
    assert measures.psnr(black + np.uint8(5), black) == pytest.approx(20 * math.log10(255 / 5))


def test_ssim_is_one_for_the_same_picture_and_falls_with_noise() -> None:
    face = drawn_face(128)
    noise = np.random.default_rng(0).normal(0, 25, face.shape)
    noisy = np.clip(face + noise, 0, 255).astype(np.uint8)
    assert measures.ssim(face, face) == pytest.approx(1)
    assert measures.ssim(noisy, face) < 0.6 < measures.ssim(cv2.GaussianBlur(face, (0, 0), 0.7), face)


def test_landmark_error_is_in_eye_distances() -> None:
    truth = np.zeros((478, 3))
    truth[263, 0] = 50
    assert measures.landmark_error(truth + [3, 4, 99], truth) == pytest.approx(5 / 50)


def test_angle_error_counts_from_the_first_frame() -> None:
    still = rotation_from_euler(np.zeros(11), np.full(11, 20.0), np.zeros(11))
    turning = rotation_from_euler(np.zeros(11), np.linspace(-5, 5, 11), np.zeros(11))
    truth = make_motion(11, rotation=turning)
    assert measures.angle_error(truth, truth) == pytest.approx(0, abs=0.05)
    assert measures.angle_error(make_motion(11, rotation=still), truth) == pytest.approx(5, abs=0.05)


def test_explained_variance_of_half_the_motion_is_three_quarters() -> None:
    motion = make_motion(30)
    first = motion.expression[0]
    half = make_motion(30, expression=first + (motion.expression - first) / 2)
    assert measures.explained_variance(motion, motion) == pytest.approx(1)
    assert measures.explained_variance(half, motion) == pytest.approx(0.75, abs=1e-4)


def test_jitter_is_zero_for_even_motion() -> None:
    turn = rotation_from_euler(np.zeros(20), np.linspace(0, 10, 20), np.zeros(20))
    even = make_motion(20, rotation=turn)
    assert measures.jitter(even)[0] == pytest.approx(0, abs=1e-3)
    assert measures.jitter(make_motion(20))[0] > 1


@pytest.mark.parametrize("size", [256, 1024])
def test_the_drawn_face_is_found(size: int) -> None:
    faces = find_faces(drawn_face(size))
    assert len(faces) == 1
    assert 0.35 < faces[0].size / size < 0.6


def test_a_report_judges_by_its_targets_and_names_the_machine(tmp_path: Path) -> None:
    report = Report("mesh")
    report.add("speed", "fast", 31, "fps", at_least=30)
    report.add("speed", "slow", 3, "fps", at_least=30)
    report.add("error", "small", 0.1, at_most=0.2)
    report.add("error", "unknown", math.nan, at_most=0.2)
    report.write(tmp_path / "bench.json")
    told = json.loads((tmp_path / "bench.json").read_text("utf-8"))
    assert [row["reached"] for row in told["rows"]] == [True, False, True, None]
    assert told["machine"]["processor"] and told["machine"]["cores"] >= 1
    stream = io.StringIO()
    report.show(stream)
    assert "missed" in stream.getvalue() and told["machine"]["processor"] in stream.getvalue()


def test_a_folder_without_clips_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="driving"):
        run("mesh", data=tmp_path)
