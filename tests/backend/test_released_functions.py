# SPDX-License-Identifier: GPL-3.0-or-later
"""The helper functions of the released program, number for number.

tests/data/released_oracle.npz was recorded from the released implementation; crops are in test_cropping.py,
networks in test_checkpoints.py, the whole algorithm in test_upstream_rules.py.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.cropping import Rect, crop, crop_matrix, crop_rectangle, invert, transform_points
from backend.errors import InputError
from backend.expressions import neutral_expression
from backend.hull import hull_volume, motion_multiplier
from backend.kalman import kalman_smooth
from backend.motion import Motion
from backend.paste import paste_back
from backend.ratios import eye_ratio, lip_ratio
from backend.rotations import rotation_from_euler
from tests.backend.test_cropping import waves

ORACLE = np.load(Path(__file__).parents[1] / "data" / "released_oracle.npz", allow_pickle=False)
LAYOUTS = [f"{count}{tilt}" for count in (203, 106, 478, 101, 68, 5, 9) for tilt in ("", ".tilt")]


def error(got: object, want: np.ndarray) -> float:
    """Largest difference, in standard deviations of what is wanted."""
    return float(np.abs(np.asarray(got, np.float64) - want).max() / want.std())


def test_rotation_from_degrees() -> None:
    pitch, yaw, roll = ORACLE["rot.deg_pitch_yaw_roll"].T
    assert error(rotation_from_euler(pitch, yaw, roll), ORACLE["rot.R"]) < 1e-6


def test_degrees_of_66_bins() -> None:
    torch = pytest.importorskip("torch", reason="M's angles need torch, which is not in this environment")
    from backend.networks.motion import degrees

    logits = torch.from_numpy(ORACLE["headpose.logits"])
    assert error(degrees(logits).reshape(-1).numpy(), ORACLE["headpose.deg"]) < 1e-5
    sure = torch.from_numpy(np.where(np.eye(66) > 0, 1e4, 0).astype(np.float32))
    np.testing.assert_allclose(degrees(sure).reshape(-1).numpy(), ORACLE["headpose.onehot_deg"], atol=1e-4)


def test_keypoints_of_a_motion() -> None:
    angles = ORACLE["rot.deg_pitch_yaw_roll"][:4]
    motion = Motion(
        rotation=rotation_from_euler(*angles.T),
        expression=ORACLE["tk.exp"],
        scale=ORACLE["tk.scale"][:, 0],
        translation=ORACLE["tk.t"],
        canonical=ORACLE["S.kp_s"],
        eye_ratio=np.zeros((4, 2)),
        lip_ratio=np.zeros(4),
    )
    assert error(motion.keypoints(), ORACLE["tk.out"]) < 1e-6


def test_ratios() -> None:
    assert error(eye_ratio(ORACLE["lmk203"]), ORACLE["ratio.eye"]) < 1e-9
    assert error(lip_ratio(ORACLE["lmk203"]), ORACLE["ratio.lip"][:, 0]) < 1e-9


def test_neutral_expression() -> None:
    np.testing.assert_allclose(neutral_expression(), ORACLE["lip_array"][0], atol=1e-7)


@pytest.mark.parametrize("variance", ["3e-07", "1e-05", "0.001"])
def test_smoothing(variance: str) -> None:
    smooth = kalman_smooth(ORACLE["smooth.in"][:, 0], float(variance))
    assert error(smooth, ORACLE[f"smooth.out_{variance}"]) < 1e-5


def test_smoothed_rotations_are_none_any_more() -> None:
    smooth = kalman_smooth(ORACLE["smooth.R_in"][:, 0], 1e-5)
    assert error(smooth, ORACLE["smooth.R_out_1e-05"]) < 1e-5
    assert np.abs(smooth @ smooth.transpose(0, 2, 1) - np.eye(3)).max() > 1e-4


class TestMotionMultiplier:
    def test_recorded_volumes(self) -> None:
        for i in range(4):
            source, driving = ORACLE["S.kp_s"][i], ORACLE["S.kp_d"][i]
            assert hull_volume(source) == pytest.approx(ORACLE["mm.hull_volume_s"][i], rel=1e-9)
            assert hull_volume(driving) == pytest.approx(ORACLE["mm.hull_volume_d"][i], rel=1e-9)
            assert motion_multiplier(source, driving) == pytest.approx(ORACLE["mm.value"][i], rel=1e-9)

    @given(st.permutations(range(12)), st.floats(0.1, 10), st.integers(0, 5))
    def test_a_box_whatever_lies_in_and_on_it(self, order: list[int], side: float, seed: int) -> None:
        corners = np.array(np.meshgrid([0, 1], [0, 1], [0, 1])).reshape(3, -1).T.astype(float)
        within = np.random.default_rng(seed).uniform(0, 1, (4, 3))
        within[0, 2] = 1  # on a side
        within[1] = [0.5, 0, 0]  # on an edge
        points = side * np.concatenate([corners, within])[order] * [1, 2, 3] - 5
        assert hull_volume(points) == pytest.approx(6 * side**3, rel=1e-9)

    @pytest.mark.parametrize("points", [np.zeros((5, 3)), np.eye(4, 3) * 0 + np.arange(4)[:, None]])
    def test_no_volume(self, points: np.ndarray) -> None:
        with pytest.raises(InputError, match="in a plane"):
            hull_volume(points)

    def test_a_plane(self) -> None:
        flat = np.random.default_rng(1).standard_normal((9, 3)) * [1, 1, 0]
        with pytest.raises(InputError, match="in a plane"):
            hull_volume(flat)


# ------------------------------------------------------------------ crops, beyond test_cropping.py


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_way_back_from_a_crop(layout: str) -> None:
    points = np.load(Path(__file__).parents[1] / "data" / "crop_oracle.npz")[f"crop.{layout}.pts"]
    for name, scale, vy, size in (("default", 2.3, -0.125, 512), ("lmk", 1.5, -0.1, 224)):
        rect = crop_rectangle(points, scale, 0.0, vy, compatibility="upstream")
        back = invert(crop_matrix(rect, size))
        assert error(back, ORACLE[f"crop.{layout}.{name}.M_c2o_f64"][:2]) < 1e-6


def averaged_box() -> Rect:
    x0, y0, x1, y1 = ORACLE["bbox.avg"]
    return Rect((x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, 0.0)


def test_the_averaged_driving_box() -> None:
    box = averaged_box()
    matrix = crop_matrix(box, 512)
    assert error(matrix, ORACLE["bbox.M_o2c"][:2]) < 1e-6
    assert error(invert(matrix), ORACLE["bbox.M_c2o"][:2]) < 1e-6
    assert error(transform_points(ORACLE["crop.203.pts"], matrix), ORACLE["bbox.lmk_crop"]) < 1e-6
    turned = crop_matrix(Rect(box.cx, box.cy, box.size, 0.3), 512)
    assert error(turned, ORACLE["bbox.rot0p3.M_o2c"][:2]) < 1e-6
    cut = crop(waves(720, 1280), matrix, 512, compatibility="upstream")
    assert np.abs(cut[::10, ::10].astype(int) - ORACLE["bbox.img_crop_s10"]).max() <= 1


def test_the_released_mask_in_the_picture() -> None:
    """White pasted on black shows the mask, but for the crop's own rim, which fades by itself."""
    back = ORACLE["cropimg.M_c2o"]
    white = np.full((512, 512, 3), 255, np.uint8)
    out = paste_back(np.zeros((720, 1280, 3), np.uint8), white, back, compatibility="upstream")
    y, x = np.mgrid[0:720:10, 0:1280:10]
    place = transform_points(np.stack([x, y], -1).astype(float), invert(back[:2]))
    whole = ((place >= 1) & (place <= 510)).all(-1) | ((place < -1) | (place > 512)).any(-1)
    levels = np.abs(out[::10, ::10, 0] - 255.0 * ORACLE["paste.mask_s10"])
    assert whole.mean() > 0.98
    assert levels[whole].max() <= 1
