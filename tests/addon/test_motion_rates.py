# SPDX-License-Identifier: GPL-3.0-or-later
"""The rate that the add-on reads off a motion file is the one that the backend plays it at."""

from __future__ import annotations

import pickle
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from backend import curve_files
from backend.curves import Curves
from backend.driving import at_rest, open_driving
from backend.motion_files import save_motion
from liveportrait_blender.motion_rates import rate_of

RATES = [Fraction(rate) for rate in (24, 25, 30, 50, 60)] + [Fraction(30000, 1001)]


def curves(rate: Fraction, frames: int = 90, start: float = 3723.2) -> Curves:
    moving = np.tile(np.linspace(0, 1, frames, dtype=np.float32)[:, None], (1, 52))
    return Curves(moving, np.zeros((frames, 3), np.float32), np.ones(frames, np.bool_), rate, start)


@pytest.mark.parametrize("rate", RATES, ids=str)
@pytest.mark.parametrize("suffix", [".npz", ".pkl"])
def test_motions_and_templates(tmp_path: Path, suffix: str, rate: Fraction) -> None:
    path = tmp_path / f"motion{suffix}"
    motion = at_rest(30, rate).motion
    assert motion is not None
    save_motion(motion, path)
    assert rate_of(path) == rate


@pytest.mark.parametrize("protocol", range(6))
def test_templates_of_every_pickle_protocol(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "template.pkl"
    path.write_bytes(pickle.dumps({"n_frames": 3, "output_fps": 24, "motion": [b"x"] * 9}, protocol))
    assert rate_of(path) == 24
    path.write_bytes(pickle.dumps({"n_frames": 3, "motion": []}, protocol))
    assert rate_of(path) == 25


@pytest.mark.parametrize("rate", RATES, ids=str)
@pytest.mark.parametrize("suffix", [".csv", ".json"])
def test_curves(tmp_path: Path, suffix: str, rate: Fraction) -> None:
    path = tmp_path / f"curves{suffix}"
    told = curves(rate)
    path.write_text(curve_files.to_csv(told) if suffix == ".csv" else curve_files.to_json(told))
    motion = open_driving(path).motion
    assert motion is not None and motion.fps == rate
    read = rate_of(path)
    assert read is not None and abs(float(read / rate) - 1) < 2e-3


def test_rows_that_are_missing_do_not_slow_a_table_down(tmp_path: Path) -> None:
    lines = curve_files.to_csv(curves(Fraction(60), frames=300)).splitlines()
    path = tmp_path / "curves.csv"
    path.write_text("\n".join(lines[:20] + lines[50:90] + lines[95:]))
    assert rate_of(path) == 60


@pytest.mark.parametrize("suffix", [".npz", ".pkl", ".csv", ".json"])
@pytest.mark.parametrize("content", [b"", b"\x80", b"Timecode,JawOpen\n1:2,x\n", b"\xff\xfe\0"])
def test_what_is_none_says_nothing_or_what_the_backend_takes(
    tmp_path: Path, suffix: str, content: bytes
) -> None:
    path = tmp_path / f"broken{suffix}"
    path.write_bytes(content)
    assert rate_of(path) in (None, 25, 60)
    assert rate_of(tmp_path / f"gone{suffix}") is None
