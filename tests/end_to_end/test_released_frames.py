# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line with the neural engine gives the released program's frames, level by level.

The released implementation was run with generated weights; `chain.*` in tests/data is one frame of it, for a
picture of 256 px, and every fifth pixel of what came out. The template here leads to the same keypoints.
"""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.backend import generated_weights as weights
from tests.end_to_end.commands import run

pytest.importorskip("torch", reason="the networks need torch, which is not in this environment")

ORACLE = np.load(Path(__file__).parents[1] / "data" / "networks_oracle.npz", allow_pickle=False)


def template_to(x_s: np.ndarray, x_d: np.ndarray, scale: float) -> dict[str, object]:
    """A template of two frames in the released form: rest, and what brings x_s (21,3) to x_d in relative
    mode, where x_d = scale * (x_c R_s + expression_s + difference) + t.
    """
    differences = (np.zeros_like(x_s), (x_d - x_s) / scale)
    motion = [
        {
            "scale": np.ones((1, 1), np.float32),
            "R": np.eye(3, dtype=np.float32)[None],
            "exp": difference[None].astype(np.float32),
            "t": np.zeros((1, 3), np.float32),
            "kp": np.zeros((1, 21, 3), np.float32),
            "x_s": np.zeros((1, 21, 3), np.float32),
        }
        for difference in differences
    ]
    openings = [np.zeros((1, 2), np.float32)] * 2, [np.zeros((1, 1), np.float32)] * 2
    return {
        "n_frames": 2,
        "output_fps": 25,
        "motion": motion,
        "c_eyes_lst": openings[0],
        "c_lip_lst": openings[1],
    }


@pytest.mark.slow
def test_frames_of_the_command_line_are_the_released_ones(tmp_path: Path) -> None:
    models, picture, template = tmp_path / "models", tmp_path / "picture.png", tmp_path / "template.pkl"
    weights.write(models)
    assert cv2.imwrite(str(picture), ORACLE["img"][0][..., ::-1])
    leads = template_to(ORACLE["M.x_s"][0], ORACLE["chain.x_d"][0], float(ORACLE["M.scale"][0, 0]))
    template.write_bytes(pickle.dumps(leads))

    plain = ("--no-crop", "--no-stitch", "--compatibility", "upstream")
    engine = ("--engine", "neural", "--device", "cpu", "--models", models)
    done = run("animate", picture, template, *plain, *engine, "-o", tmp_path / "frames", timeout=600)
    assert done.returncode == 0, done.stderr

    result = json.loads((tmp_path / "frames" / "result.json").read_text("utf-8"))
    assert (result["engine"], result["frames"], result["size"]) == ("neural", 2, [512, 512])
    frame = cv2.imread(str(tmp_path / "frames" / "000001.png"))[..., ::-1].astype(int)
    wanted = ORACLE["chain.out_uint8"][0].transpose(1, 2, 0).astype(int)
    assert wanted.std() > 10  # a picture, not a plain
    assert np.abs(frame[::5, ::5] - wanted).max() <= 1
    rest = cv2.imread(str(tmp_path / "frames" / "000000.png"))[..., ::-1].astype(int)
    assert np.abs(rest - frame).max() > 20  # the two differ, so the keypoints arrived
