# SPDX-License-Identifier: GPL-3.0-or-later
"""LivePortrait's motion templates: both generations read, the newer one written, the released ones met."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from backend import templates
from backend.errors import MotionFileError
from backend.motion_files import load_motion, load_template, save_motion, save_template
from backend.pickles import read_pickle
from tests.backend.synthetic_motion import assert_same, dump, make_motion, template

RATED = ("d0", "d1", "d2", "d5", "d7", "image_d9", "image_d12")
UNRATED = ("aggrieved", "laugh", "open_lip", "shake_face", "shy", "talking", "wink")


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_templates_of_every_binary_protocol_are_read(tmp_path: Path, protocol: int) -> None:
    content = template(3, c_d_eyes_lst=[np.full((1, 2), 0.25, np.float32)] * 3, output_fps=np.float64(30.0))
    motion = load_template(dump(tmp_path, content, protocol))
    assert motion.fps == 30
    assert_array_equal(motion.rotation[1], content["motion"][1]["R_d"][0])
    assert_array_equal(motion.eye_ratio, np.full((3, 2), 0.25, np.float32))


def test_numpy_2_names_are_read() -> None:
    data = pickle.dumps(template(2), 2).replace(b"cnumpy.core.multiarray\n", b"cnumpy._core.multiarray\n")
    assert b"numpy._core" in data
    assert len(templates.motion_from_template(data)) == 2


def test_what_an_old_template_lacks_is_supplied_and_marked(tmp_path: Path) -> None:
    content = template(3)
    content["motion"][0]["exp"][:] = 0
    content["motion"][1]["exp"][:] = 0
    content["motion"][1]["exp"][0, [11, 15], 1] += 0.012  # upper lids down
    motion = load_motion(dump(tmp_path, content))
    assert motion.ratios_estimated
    assert (motion.eye_ratio[1] < motion.eye_ratio[0] - 0.1).all()
    assert (motion.eye_ratio >= 0).all()
    assert_allclose(motion.canonical, np.broadcast_to(templates.mean_canonical(), (3, 21, 3)))
    assert load_motion(save_motion(motion, tmp_path / "kept.npz")).ratios_estimated
    assert not load_template(save_template(make_motion(), tmp_path / "measured.pkl")).ratios_estimated


def test_a_written_template_has_the_released_layout_and_comes_back(tmp_path: Path) -> None:
    motion = make_motion(3, mouth=None, gaze=None, valid=None, start=0.0, engine="liveportrait")
    path = save_motion(motion, tmp_path / "template.pkl")
    content = read_pickle(path.read_bytes())
    assert list(content) == ["n_frames", "output_fps", "motion", "c_eyes_lst", "c_lip_lst"]
    assert content["output_fps"] == pytest.approx(30000 / 1001)
    shapes = {key: value.shape for key, value in content["motion"][0].items()}
    assert shapes == {
        "scale": (1, 1),
        "R": (1, 3, 3),
        "exp": (1, 21, 3),
        "t": (1, 3),
        "kp": (1, 21, 3),
        "x_s": (1, 21, 3),
    }
    assert content["c_eyes_lst"][0].shape == (1, 2)
    assert content["c_lip_lst"][0].shape == (1, 1)
    assert all(value.dtype == np.float32 for value in content["motion"][2].values())
    assert_array_equal(content["motion"][2]["x_s"][0], motion.keypoints()[2])
    assert_same(load_motion(path), motion)


def test_a_whole_frame_rate_is_written_as_the_released_program_writes_it(tmp_path: Path) -> None:
    path = save_template(make_motion(1, fps_numerator=25, fps_denominator=1), tmp_path / "template.pkl")
    assert type(read_pickle(path.read_bytes())["output_fps"]) is int


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"motion": []}, "motion"),
        ({"motion": {}}, "motion"),
        ({"motion": [1, 2]}, "motion"),
        ({"n_frames": 4}, "n_frames"),
        ({"n_frames": np.zeros(2)}, "n_frames"),
        ({"output_fps": 0}, "output_fps"),
        ({"output_fps": float("nan")}, "output_fps"),
        ({"output_fps": "fast"}, "output_fps"),
        ({"c_eyes_lst": [np.zeros((1, 2), np.float32)]}, "c_eyes_lst"),
        ({"c_eyes_lst": np.zeros((3, 2), np.float32)}, "c_eyes_lst"),
        ({"c_lip_lst": ["a", "b", "c"]}, "c_lip_lst"),
        ({"c_d_lip_lst": [np.zeros((1, 2))] * 3}, "c_d_lip_lst"),
    ],
)
def test_a_spoiled_template_is_one_error_that_names_the_key(
    tmp_path: Path, change: dict[str, Any], match: str
) -> None:
    with pytest.raises(MotionFileError, match=match) as caught:
        load_template(dump(tmp_path, template(3, **change)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "match"),
    [
        ("exp", np.full((1, 21, 3), np.nan, np.float32), "expression"),
        ("exp", np.full((1, 21, 3), 1e300), "expression"),
        ("exp", np.zeros((1, 20, 3), np.float32), "exp"),
        ("exp", np.zeros((3, 21), np.float32), "exp"),
        ("exp", np.zeros((1, 21, 3), bool), "exp"),
        ("exp", None, "exp"),
        ("R_d", np.zeros((1, 3, 3), np.float32), "rotation"),
        ("scale", np.zeros((1, 1), np.float32), "scale"),
        ("t", [0.0, 0.0, 0.0], "t "),
    ],
)
def test_a_spoiled_frame_is_one_error_that_names_the_key(
    tmp_path: Path, key: str, value: Any, match: str
) -> None:
    content = template(3)
    content["motion"][1][key] = value
    with pytest.raises(MotionFileError, match=match):
        load_template(dump(tmp_path, content))


@pytest.mark.parametrize("root", [[], "text", 7, None, np.zeros(3, np.float32), ({},)])
def test_a_pickle_of_something_else_is_refused(tmp_path: Path, root: Any) -> None:
    with pytest.raises(MotionFileError, match="motion"):
        load_template(dump(tmp_path, root))


@pytest.mark.parametrize("name", RATED + UNRATED)
def test_every_released_template_is_read(shared_data: Path, name: str) -> None:
    path = shared_data / "templates" / f"{name}.pkl"
    content = read_pickle(path.read_bytes())
    motion = load_motion(path)
    assert len(motion) == content["n_frames"]
    assert motion.fps == content["output_fps"]
    assert motion.valid.all()
    assert motion.ratios_estimated == (name in UNRATED)
    frame = content["motion"][-1]
    assert_array_equal(motion.expression[-1], frame["exp"][0])
    assert_array_equal(motion.rotation[-1], frame["R" if "R" in frame else "R_d"][0])
    if "x_s" in frame:
        assert_allclose(motion.keypoints()[-1], frame["x_s"][0], atol=1e-6)


@pytest.mark.parametrize("name", ["d0", "image_d9"])
def test_a_released_template_is_written_as_it_was(shared_data: Path, tmp_path: Path, name: str) -> None:
    released = read_pickle((shared_data / "templates" / f"{name}.pkl").read_bytes())
    motion = load_motion(shared_data / "templates" / f"{name}.pkl")
    ours = read_pickle(save_motion(motion, tmp_path / "again.pkl").read_bytes())
    assert list(ours) == list(released)
    assert type(ours["output_fps"]) is type(released["output_fps"])
    for ours_frame, frame in zip(ours["motion"], released["motion"]):
        assert list(ours_frame) == list(frame)
        for key, value in frame.items():
            assert ours_frame[key].shape == value.shape
            assert ours_frame[key].dtype == value.dtype
            assert_allclose(ours_frame[key], value, atol=1e-6 if key == "x_s" else 0)
    for key in ("c_eyes_lst", "c_lip_lst"):
        assert_array_equal(np.stack(ours[key]), np.stack(released[key]))


def test_estimated_ratios_follow_the_measured_ones(shared_data: Path) -> None:
    for name in ("d0", "d1", "d2", "d5", "d7"):
        motion = load_motion(shared_data / "templates" / f"{name}.pkl")
        eyes, lips = templates.estimate_ratios(motion.expression)
        for side in (0, 1):
            assert np.corrcoef(eyes[:, side], motion.eye_ratio[:, side])[0, 1] > 0.94, name
        if np.ptp(motion.lip_ratio) > 0.1:
            assert np.corrcoef(lips, motion.lip_ratio)[0, 1] > 0.93, name


def test_smoothing_keeps_the_blinks_of_real_performances(shared_data: Path) -> None:
    for name in RATED[:5]:
        motion = load_motion(shared_data / "templates" / f"{name}.pkl")
        smooth = motion.smooth(1.0)
        assert np.ptp(smooth.eye_ratio) > 0.9 * np.ptp(motion.eye_ratio), name
        assert motion.smooth("auto").validate()
