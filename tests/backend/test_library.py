# SPDX-License-Identifier: GPL-3.0-or-later
"""The motion library: what is shipped is what the script makes, it loops, and it moves as its names say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from backend.errors import InputError
from backend.library import FOLDER, library_names, load_library
from backend.motion import Motion
from backend.rotations import euler_from_rotation

ROOT = Path(__file__).resolve().parents[2]
NAMES = ["blink", "laugh", "look-around", "nod", "shake", "smile", "surprise", "talk", "tilt", "wink"]


def angles(motion: Motion) -> np.ndarray:
    """(n, 3) pitch, yaw, roll in degrees."""
    return np.stack(euler_from_rotation(motion.rotation), axis=1)


def swings(curve: np.ndarray, least: float) -> int:
    """How often the curve turns back by at least `least`."""
    turns, extreme, rising = 0, float(curve[0]), None
    for value in curve:
        if (
            rising in (None, True)
            and value < extreme - least
            or rising in (None, False)
            and value > extreme + least
        ):
            rising, turns, extreme = value > extreme, turns + 1, float(value)
        elif rising is not None:
            extreme = max(extreme, float(value)) if rising else min(extreme, float(value))
    return turns


def blinks(motion: Motion) -> list[tuple[int, int]]:
    """(frames closing, frames opening) of every blink, counted from and to 70 % of the opening before it."""
    openness = motion.eye_ratio.max(axis=1)
    found = []
    for frame in np.flatnonzero((openness < 0.12) & (np.roll(openness, 1) >= 0.12)):
        level = 0.7 * openness[max(frame - 5, 0)]
        closing = np.argmax(openness[frame::-1] > level)
        opening = np.argmax(openness[frame:] > level)
        found.append((int(closing), int(opening)))
    return found


def test_names() -> None:
    assert library_names() == NAMES


@pytest.mark.parametrize("name", ["look-around", "look_around", "Look around"])
def test_names_are_forgiving(name: str) -> None:
    assert len(load_library(name)) == 168


@pytest.mark.parametrize("name", ["nodd", "", "../mesh_maps", "a/b"])
def test_unknown_name(name: str) -> None:
    with pytest.raises(InputError, match="There are: blink, laugh, look-around"):
        load_library(name)


@pytest.mark.parametrize("name", NAMES)
def test_is_a_small_loop_at_rest_at_both_ends(name: str) -> None:
    motion = load_library(name)
    motion.validate()
    assert motion.fps == 30 and 2 <= motion.duration <= 6
    assert (FOLDER / f"{name}.npz").stat().st_size < 20_000
    for values in (motion.rotation, motion.expression, motion.scale, motion.translation, motion.eye_ratio):
        assert np.abs(values[0] - values[-1]).max() < 1e-4
        # The speed is the same at the seam too: the loop does not jerk.
        assert np.abs(values[1] - values[0]).max() < 0.01 and np.abs(values[-1] - values[-2]).max() < 0.01
    assert np.abs(angles(motion)[0]).max() < 0.01
    assert np.ptp(motion.expression, axis=0).max() > 0.005


@pytest.mark.parametrize("name", NAMES)
def test_nothing_jumps(name: str) -> None:
    motion = load_library(name)
    assert np.abs(np.diff(angles(motion), axis=0)).max() < 4  # degrees a frame
    assert np.abs(np.diff(angles(motion), n=2, axis=0)).max() < 1.5
    lips = np.abs(np.diff(motion.lip_ratio)).max()
    assert lips < 0.2


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"wink", "laugh"}))
def test_lids_close_fast_and_open_slowly(name: str) -> None:
    found = blinks(load_library(name))
    assert found, "everybody blinks"
    for closing, opening in found:
        assert 1 <= closing <= 3 and closing < opening <= 10


def test_each_does_what_it_is_called() -> None:
    pitch, yaw, roll = angles(load_library("nod")).T
    assert swings(pitch, 2.0) >= 4 and np.ptp(pitch) > 8 and np.ptp(yaw) < 4
    pitch, yaw, roll = angles(load_library("shake")).T
    assert swings(yaw, 3.0) >= 4 and np.ptp(yaw) > 15 and np.ptp(pitch) < 5
    assert np.ptp(angles(load_library("tilt"))[:, 2]) > 9
    yaw = angles(load_library("look-around"))[:, 1]
    assert yaw.max() > 10 and yaw.min() < -10
    wink = load_library("wink").eye_ratio
    assert wink[:, 0].min() < 0.05 and wink[:, 1].min() > 0.1
    assert load_library("surprise").lip_ratio.max() > 0.3
    smile = load_library("smile").expression[:, 14, 1]
    assert smile[0] - smile.min() > 0.015


def test_laugh_and_talk_have_the_rhythm_of_speech() -> None:
    laugh = load_library("laugh")
    bouts = swings(laugh.lip_ratio[12:100], 0.04) / 2 / (88 / 30)
    assert 3.5 < bouts < 5.5
    talk = load_library("talk").lip_ratio
    phrase = talk[76:142]
    assert 2.5 < swings(phrase, 0.03) / 2 / (len(phrase) / 30) < 5.5
    pause = talk[62:72]
    assert pause.max() < 0.03 and talk.max() > 0.2


def test_the_eyes_lead_the_head() -> None:
    motion = load_library("look-around")
    yaw = angles(motion)[:, 1]
    assert motion.gaze is not None
    gaze = motion.gaze[:, :, 0].mean(axis=1)
    looks, turns = np.argmax(gaze < -0.05), np.argmax(yaw > 3)
    assert 2 <= turns - looks <= 12


def test_the_script_makes_what_is_shipped(tmp_path: Path) -> None:
    script = ROOT / "scripts" / "make_motion_library.py"
    subprocess.run([sys.executable, str(script), "--output", str(tmp_path)], check=True, capture_output=True)
    for name in NAMES:
        with np.load(tmp_path / f"{name}.npz") as made, np.load(FOLDER / f"{name}.npz") as shipped:
            assert set(made.files) == set(shipped.files)
            for key in made.files:
                if made[key].dtype.kind == "f":
                    message = f"{name}.{key}: run scripts/make_motion_library.py"
                    np.testing.assert_allclose(made[key], shipped[key], atol=3e-4, err_msg=message)
                else:
                    np.testing.assert_array_equal(made[key], shipped[key])
