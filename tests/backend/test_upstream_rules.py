# SPDX-License-Identifier: GPL-3.0-or-later
"""Upstream compatibility is the released program in every combination of its options.

Recorded combinations come from tests/data (and from ../shared where it is). All others are compared with
`released`, a second telling of the released program frame by frame, made to be read and not to be fast.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backend.expressions import neutral_expression
from backend.kalman import kalman_smooth
from backend.motion import Motion
from backend.options import Options
from backend.retargeting import retarget
from backend.rotations import rotation_from_euler
from tests.backend.oracle_cases import recorded, run_case

DATA = Path(__file__).parents[1] / "data"
COMBOS, ARRAYS = recorded(DATA)
REGIONS = ("all", "expression", "pose", "lips", "eyes")


@pytest.mark.parametrize("combo", COMBOS, ids=[combo["name"] for combo in COMBOS])
def test_recorded_combinations(combo: dict[str, Any]) -> None:
    pytest.importorskip("torch", reason="S, R_eye and R_lip need torch, which is not in this environment")
    done = run_case(combo, ARRAYS)
    for name in ("x_s", "x_d"):
        want = ARRAYS[f"{combo['name']}.{name}"]
        assert done[name].shape == want.shape
        assert np.abs(done[name] - want).max() <= 1e-5 * want.std()


def test_the_recorded_numbers_are_those_beside_the_checkout() -> None:
    shared = DATA.parents[2] / "shared" / "oracle"
    if not shared.is_dir():
        pytest.skip("the recorded numbers are absent: there is no ../shared/oracle beside this checkout")
    combos, arrays = recorded(shared)
    assert combos == COMBOS
    for name in ARRAYS:
        np.testing.assert_array_equal(arrays[name], ARRAYS[name])


@dataclass(frozen=True)
class Flags:
    """The released program's flags that bear on motion."""

    relative: bool
    region: str
    clip_source: bool
    clip_driving: bool
    stitching: bool
    eye_retargeting: bool
    lip_retargeting: bool
    normalize_lip: bool
    source_eyes: bool
    friendly: bool = True
    multiplier: float = 1.0
    variance: float = 3e-7


class Networks:
    """Answers that depend on every number asked with, so that nothing can be left out or exchanged."""

    def __init__(self) -> None:
        r = np.random.default_rng(7)
        self.weights = {n: r.standard_normal((n, 65)) / 20 for n in (126, 66, 65)}

    def _answer(self, *features: np.ndarray) -> np.ndarray:
        joined = np.concatenate([part.reshape(len(part), -1) for part in features], axis=1)
        return 0.1 * np.tanh(joined @ self.weights[joined.shape[1]] + 0.3)

    def stitch(self, source: np.ndarray, driving: np.ndarray) -> np.ndarray:
        answer = self._answer(source, driving)
        moved = driving + answer[:, :63].reshape(-1, 21, 3)
        moved[..., :2] += answer[:, None, 63:]
        return moved

    def retarget_eyes(self, source: np.ndarray, ratios: np.ndarray) -> np.ndarray:
        return self._answer(source, ratios)[:, :63].reshape(-1, 21, 3)

    def retarget_lips(self, source: np.ndarray, ratios: np.ndarray) -> np.ndarray:
        return self._answer(source, ratios)[:, :63].reshape(-1, 21, 3)


def released(source: Motion, driving: Motion, flags: Flags, nets: Networks) -> tuple[np.ndarray, np.ndarray]:
    """x_s and x_d as the released program makes them: its order, its branches, one frame after the other."""
    n = len(driving)
    if flags.clip_source:
        n = min(len(source), n) if flags.clip_driving else len(source)
    face = neutral_expression()
    d = driving
    first_expression, first_rotation = d.expression[0], d.rotation[0]

    def of_source(i: int) -> int:
        return i if flags.clip_source else 0

    def of_driving(i: int) -> int:
        return i if flags.clip_driving else 0

    # A clip as source has its motion made beforehand, and smoothed when the driving is a clip as well.
    planned_expression = np.zeros((n, 21, 3), np.float32)
    planned_rotation = np.zeros((n, 3, 3), np.float32)
    for i in range(n if flags.clip_source else 0):
        own, turned, k = source.expression[i], source.rotation[i], of_driving(i)
        if not flags.relative:
            planned_expression[i], planned_rotation[i] = d.expression[k], d.rotation[k]
        elif flags.clip_driving:
            planned_expression[i] = own + d.expression[i] - first_expression
            planned_rotation[i] = d.rotation[i] @ first_rotation.T @ turned
        else:
            planned_expression[i], planned_rotation[i] = own + (d.expression[0] - face), turned
    if flags.clip_source and flags.clip_driving:
        planned_expression = kalman_smooth(planned_expression, flags.variance)
        planned_rotation = kalman_smooth(planned_rotation, flags.variance)

    all_s, all_d = [], []
    lip_delta: np.ndarray | None = None
    first_x_d = np.zeros(0)
    for i in range(n):
        s, k = of_source(i), of_driving(i)
        x_s = source.keypoints()[s]
        own = source.expression[s]
        eyes, lips = source.eye_ratio[s], source.lip_ratio[s]
        ask_s = x_s[None]

        if flags.normalize_lip and flags.relative:
            lip_delta = nets.retarget_lips(ask_s, np.array([[lips, 0]]))[0] if lips >= 0.03 else None
        eye_delta: np.ndarray | None = None
        if flags.source_eyes and flags.clip_source:
            opening = source.eye_ratio[0].mean()
            opening = 0.39 if opening < 0.18 else opening
            eye_delta = nets.retarget_eyes(ask_s, np.array([[*eyes, opening]]))[0]

        # Expression.
        delta = own.copy()
        chosen: list[tuple[int, Any]] = []
        if flags.region in ("all", "expression"):
            chosen = [(j, slice(None)) for j in (1, 2, 6, *range(11, 21))]
            chosen += [(3, 1), (4, 1), (5, 2), (8, 2), (9, slice(1, None))]
        elif flags.region == "lips":
            chosen = [(j, slice(None)) for j in (6, 12, 14, 17, 19, 20)]
        elif flags.region == "eyes":
            chosen = [(j, slice(None)) for j in (11, 13, 15, 16, 18)]
        if flags.clip_source:
            wanted = planned_expression[i]
        elif not flags.relative:
            wanted = d.expression[k]
        elif flags.clip_driving:
            wanted = own + (d.expression[k] - first_expression)
        elif flags.region == "eyes":
            wanted = own + d.expression[k]
        else:
            wanted = own + (d.expression[k] - face)
        if flags.relative and not flags.clip_source and flags.region in ("all", "expression"):
            delta = wanted
        else:
            for j, axes in chosen:
                delta[j, axes] = wanted[j, axes]

        # Pose.
        turned, scale, shift = source.rotation[s], float(source.scale[s]), source.translation[s]
        if flags.region in ("all", "pose"):
            if flags.clip_source:
                turned = planned_rotation[i]
            elif flags.relative:
                turned = d.rotation[k] @ first_rotation.T @ turned
            else:
                turned = d.rotation[k]
            if not flags.relative:
                shift = d.translation[k]
            elif not flags.clip_source:
                shift = shift + (d.translation[k] - d.translation[0])
            if flags.relative and flags.region == "all" and not flags.clip_source:
                scale = scale * float(d.scale[k] / d.scale[0])
        x_d = scale * (source.canonical[s] @ turned + delta) + shift * np.array([1, 1, 0], np.float32)

        if flags.relative and flags.friendly and not flags.clip_source and flags.clip_driving:
            if i == 0:
                first_x_d = x_d
            x_d = x_s + (x_d - first_x_d)  # times 1: first_x_d is x_s

        if not flags.eye_retargeting and not flags.lip_retargeting:
            if flags.stitching:
                x_d = nets.stitch(ask_s, x_d[None])[0]
            x_d = x_d + (0 if lip_delta is None else lip_delta) + (0 if eye_delta is None else eye_delta)
        else:
            added = np.zeros((21, 3))
            if flags.eye_retargeting:
                added += nets.retarget_eyes(ask_s, np.array([[*eyes, d.eye_ratio[k, 0]]]))[0]
            if flags.lip_retargeting:
                added += nets.retarget_lips(ask_s, np.array([[lips, d.lip_ratio[k]]]))[0]
            x_d = (x_s if flags.relative else x_d) + added
            if flags.stitching:
                x_d = nets.stitch(ask_s, x_d[None])[0]
        all_s.append(x_s)
        all_d.append(x_s + (x_d - x_s) * flags.multiplier)
    return np.array(all_s), np.array(all_d)


def some_motion(n: int, r: np.random.Generator) -> Motion:
    return Motion(
        rotation=rotation_from_euler(*(10 * r.standard_normal((3, n)))),
        expression=0.02 * r.standard_normal((n, 21, 3)),
        scale=r.uniform(1.2, 1.8, n),
        translation=0.1 * r.standard_normal((n, 3)),
        canonical=0.3 * r.standard_normal((n, 21, 3)),
        eye_ratio=r.uniform(0.05, 0.45, (n, 2)),
        lip_ratio=r.choice([0.0, 0.02, 0.029, 0.031, 0.1, 0.4], n),
    )


def combinations(relative: bool, region: str, clip_source: bool, clip_driving: bool) -> list[Flags]:
    """All combinations of the flags that are on or off; the others are drawn for each."""
    r = np.random.default_rng([relative, REGIONS.index(region), clip_source, clip_driving])
    return [
        Flags(
            relative,
            region,
            clip_source,
            clip_driving,
            *switches,  # type: ignore[misc]  # five of them
            friendly=bool(r.integers(2)),
            multiplier=float(r.choice([1.0, 0.5, 1.5])),
            variance=float(r.choice([3e-7, 1e-5, 1e-3])),
        )
        for switches in itertools.product((False, True), repeat=5)
    ]


@pytest.mark.parametrize("clip_driving", [False, True], ids=["one", "clip"])
@pytest.mark.parametrize("clip_source", [False, True], ids=["still", "clip source"])
@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("relative", [True, False], ids=["relative", "absolute"])
def test_every_combination(relative: bool, region: str, clip_source: bool, clip_driving: bool) -> None:
    nets, wrong = Networks(), []
    for number, flags in enumerate(combinations(relative, region, clip_source, clip_driving)):
        r = np.random.default_rng(number)
        source = some_motion(int(r.choice([1, 4, 6])) if clip_source else 1, r)
        driving = some_motion(int(r.choice([3, 5])) if clip_driving else 1, r)
        options = Options(
            compatibility="upstream",
            relative=relative,
            region=region,  # type: ignore[arg-type]
            stitch=flags.stitching,
            eye_retargeting=flags.eye_retargeting,
            lip_retargeting=flags.lip_retargeting,
            normalize_lips=flags.normalize_lip,
            steady_source_eyes=flags.source_eyes,
            driving_option="expression-friendly" if flags.friendly else "pose-friendly",
            multiplier=flags.multiplier,
            observation_variance=flags.variance,
        )
        done = retarget(source, driving, options, nets, source_is_clip=clip_source)
        x_s, x_d = released(source, driving, flags, nets)
        assert done.driving.shape == x_d.shape
        error = max(np.abs(done.source - x_s).max(), np.abs(done.driving - x_d).max())
        if not error < 1e-5 * x_d.std():
            wrong.append((error, flags))
    assert wrong == []
