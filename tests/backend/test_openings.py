# SPDX-License-Identifier: GPL-3.0-or-later
"""Eye and lip retargeting, normalised lips: how far eyes and lips open, and what else stays as it is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from backend.engines.mesh import MeshEngine
from backend.expressions import neutral_expression
from backend.motion import Motion
from backend.options import Options
from backend.ratios import ratio_change
from backend.retargeting import retarget
from backend.retargeting_rules import PRODUCT
from backend.rotations import euler_from_rotation, rotation_from_euler
from tests.backend.retargeting_helpers import LinearEngine, expression_of, make

UP = Options(compatibility="upstream")


@pytest.fixture
def engine() -> LinearEngine:
    return LinearEngine()


class TestRetargeting:
    """Eye and lip retargeting: the released program drops the driving motion, ours corrects it."""

    def test_upstream_drops_the_driving_motion(self, engine: LinearEngine) -> None:
        source, driving = make(1, 1), make(6, 2)
        done = retarget(source, driving, replace(UP, eye_retargeting=True), engine)
        ratios = np.column_stack([np.repeat(source.eye_ratio, 6, 0), driving.eye_ratio[:, 0]])
        np.testing.assert_allclose(
            done.driving - done.source, engine.retarget_eyes(done.source, ratios), atol=1e-6
        )

    def test_upstream_adds_to_absolute_motion(self, engine: LinearEngine) -> None:
        source, driving = make(1, 1), make(6, 2)
        options = replace(UP, relative=False)
        plain = retarget(source, driving, options, engine).driving
        done = retarget(source, driving, replace(options, lip_retargeting=True), engine)
        ratios = np.column_stack([np.repeat(source.lip_ratio, 6), driving.lip_ratio])
        np.testing.assert_allclose(done.driving - plain, engine.retarget_lips(done.source, ratios), atol=1e-6)

    @pytest.mark.parametrize("relative", [True, False])
    def test_product_keeps_the_motion_and_reaches_the_opening(
        self, engine: LinearEngine, relative: bool
    ) -> None:
        source, driving = make(1, 1), make(6, 2)
        source.lip_ratio[:], source.eye_ratio[:] = 0.05, (0.3, 0.33)
        engine.scale = float(source.scale[0])  # its deltas are changes of keypoints
        options = Options(relative=relative, region="expression")
        plain = retarget(source, driving, options, engine).driving
        eyes = retarget(source, driving, replace(options, eye_retargeting=True), engine).driving
        lips = retarget(source, driving, replace(options, lip_retargeting=True), engine).driving
        opened = source.eye_ratio + ratio_change(expression_of(eyes, source) - source.expression).eye_ratio
        np.testing.assert_allclose(opened, driving.eye_ratio, atol=1e-3)
        opened = source.lip_ratio + ratio_change(expression_of(lips, source) - source.expression).lip_ratio
        np.testing.assert_allclose(opened, driving.lip_ratio, atol=1e-3)
        others = [k for k in range(21) if k not in (11, 15, 19)]
        np.testing.assert_allclose(eyes[:, others], plain[:, others], atol=1e-5)
        np.testing.assert_allclose(lips[:, others], plain[:, others], atol=1e-5)

    def test_each_eye_its_own(self, engine: LinearEngine) -> None:
        source, driving = make(1, 1), make(4, 2)
        driving.eye_ratio[:] = (0.35, 0.05)  # the image-right eye is shut
        options = Options(region="pose", eye_retargeting=True)
        source.eye_ratio[:] = 0.35
        engine.scale = float(source.scale[0])
        plain = retarget(source, driving, Options(region="pose"), engine).driving
        ours = retarget(source, driving, options, engine)
        ratios = ratio_change((ours.driving - plain) / source.scale[0]).eye_ratio
        np.testing.assert_allclose(ratios, [[0.0, -0.3]] * 4, atol=1e-3)
        theirs = retarget(source, driving, options, engine, rules=replace(PRODUCT, each_eye_its_own=False))
        assert np.abs(theirs.driving - plain).max() < 1e-6  # the image-left eye, and so both, stay open

    def test_a_control_stays_on_top(self, engine: LinearEngine) -> None:
        source, driving = make(1, 1), make(4, 2)
        options = Options(eye_retargeting=True, region="expression")
        plain = retarget(source, driving, options, engine).driving
        shut = retarget(source, driving, replace(options, controls={"blink": -10.0}), engine).driving
        lids = (shut - plain)[:, 11, 1] / source.scale
        np.testing.assert_allclose(lids, 0.01, atol=1e-5)


class TestNormalizedLips:
    def _lips(self, engine: LinearEngine, source: Motion, driving: Motion, options: Options) -> np.ndarray:
        on = retarget(source, driving, replace(options, normalize_lips=True), engine).driving
        off = retarget(source, driving, options, engine).driving
        return ratio_change(on - off).lip_ratio

    def test_closes_an_open_source(self, engine: LinearEngine) -> None:
        source, driving = make(1, 1), make(4, 2)
        source.lip_ratio[:], driving.lip_ratio[0] = 0.2, 0.0
        for options in (Options(), UP):
            np.testing.assert_allclose(self._lips(engine, source, driving, options), -0.2, atol=1e-3)
        source.lip_ratio[:] = 0.02  # under the released threshold
        for options in (Options(), UP):
            np.testing.assert_allclose(self._lips(engine, source, driving, options), 0, atol=1e-6)

    def test_rests_like_the_driver(self, engine: LinearEngine) -> None:
        source, driving = make(1, 1), make(4, 2)
        source.lip_ratio[:], driving.lip_ratio[0] = 0.2, 0.15
        np.testing.assert_allclose(self._lips(engine, source, driving, Options()), -0.05, atol=1e-3)
        np.testing.assert_allclose(self._lips(engine, source, driving, UP), -0.2, atol=1e-3)
        driving.lip_ratio[0] = 0.4
        np.testing.assert_allclose(self._lips(engine, source, driving, Options()), 0, atol=1e-6)

    def test_beside_eye_retargeting(self, engine: LinearEngine) -> None:
        source, driving = make(1, 1), make(4, 2)
        source.lip_ratio[:], driving.lip_ratio[0] = 0.2, 0.0
        ours = self._lips(engine, source, driving, Options(eye_retargeting=True))
        np.testing.assert_allclose(ours, -0.2, atol=1e-3)
        np.testing.assert_allclose(
            self._lips(engine, source, driving, replace(UP, eye_retargeting=True)), 0, atol=1e-6
        )
        np.testing.assert_allclose(self._lips(engine, source, driving, Options(relative=False)), 0, atol=1e-6)


def test_mesh_engine_reaches_the_openings() -> None:
    engine = MeshEngine()
    canonical = engine.maps.canonical_keypoints
    source = Motion.still(canonical=canonical, scale=1.6, rotation=rotation_from_euler(4.0, -9.0, 3.0),
                          translation=(0.1, 0.05, 0), eye_ratio=(0.35, 0.33), lip_ratio=0.05)  # fmt: skip
    options = Options(controls={"eyes_open": 0.1, "lips_open_target": 0.3})
    done = retarget(source, replace(source, expression=neutral_expression()[None]), options, engine)
    decoded = engine.maps.decode(engine.maps.split(done.source, done.driving).change)
    np.testing.assert_allclose(decoded.eye_ratio[0], [-0.25, -0.23], atol=0.02)
    np.testing.assert_allclose(decoded.lip_ratio[0], 0.25, atol=0.02)
    assert abs(euler_from_rotation(source.rotation)[1][0] + 9) < 1e-3
