# SPDX-License-Identifier: GPL-3.0-or-later
"""The add-on's reader and writer of motion files against the backend's: the same numbers both ways."""

from __future__ import annotations

import io
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from backend.errors import MotionFileError
from backend.motion import FRAME_SHAPES, Motion
from backend.motion_files import load_motion, save_motion
from backend.rotations import rotation_from_euler
from liveportrait_blender import motion_file
from liveportrait_blender.names import UserError


def motion(n: int = 7, *, gaze: bool = True, cuts: bool = True, mouth: bool = False) -> Motion:
    random = np.random.default_rng(n)
    looks = random.normal(0, 0.1, (n, 2, 2))
    looks[n // 2, 0] = np.nan
    return Motion(
        rotation=rotation_from_euler(*random.normal(0, 12, (3, n))),
        expression=random.normal(0, 0.02, (n, 21, 3)),
        scale=random.uniform(1, 2, n),
        translation=random.normal(0, 0.1, (n, 3)),
        canonical=random.normal(0, 0.3, (21, 3)),
        eye_ratio=random.uniform(0, 0.5, (n, 2)),
        lip_ratio=random.uniform(0, 0.5, n),
        gaze=looks if gaze else None,
        mouth=random.integers(0, 255, (n, 48, 64, 3), np.uint8) if mouth else None,
        valid=np.arange(n) != 2,
        cuts=np.arange(n) == 3 if cuts else None,
        fps_numerator=30000,
        fps_denominator=1001,
        start=1.25,
        engine="mesh",
        ratios_estimated=cuts,
    )


def assert_same(ours: Motion, theirs: motion_file.Motion) -> None:
    for name in FRAME_SHAPES:
        first, second = getattr(ours, name), getattr(theirs, name)
        assert (first is None) == (second is None), name
        if first is not None:
            assert first.dtype == second.dtype
            np.testing.assert_array_equal(first, second, err_msg=name)
    for name in ("fps", "start", "engine", "ratios_estimated"):
        assert getattr(ours, name) == getattr(theirs, name), name


@pytest.mark.parametrize("optional", [True, False])
def test_the_addon_reads_what_the_backend_writes(tmp_path: Path, optional: bool) -> None:
    written = motion(gaze=optional, cuts=optional, mouth=optional)
    save_motion(written, tmp_path / "motion.npz", keep_mouth=True)
    assert_same(written, motion_file.read(tmp_path / "motion.npz"))


@pytest.mark.parametrize("optional", [True, False])
def test_the_backend_reads_what_the_addon_writes(tmp_path: Path, optional: bool) -> None:
    first = save_motion(
        motion(gaze=optional, cuts=optional, mouth=optional), tmp_path / "1.npz", keep_mouth=True
    )
    read = motion_file.read(first)
    second = motion_file.write(tmp_path / "deep" / "er" / "2.npz", read, keep_mouth=True)
    assert_same(load_motion(second), read)


def test_the_drivers_picture_is_only_written_when_asked(tmp_path: Path) -> None:
    read = motion_file.read(save_motion(motion(mouth=True), tmp_path / "1.npz", keep_mouth=True))
    assert load_motion(motion_file.write(tmp_path / "2.npz", read)).mouth is None


def test_every_motion_of_the_library_can_be_read() -> None:
    files = sorted((Path(motion_file.__file__).parents[1] / "backend" / "data" / "library").glob("*.npz"))
    assert files
    for path in files:
        assert_same(load_motion(path), motion_file.read(path))


def test_keypoints_are_the_backends(tmp_path: Path) -> None:
    written = motion()
    read = motion_file.read(save_motion(written, tmp_path / "motion.npz"))
    np.testing.assert_allclose(read.keypoints()[..., :2], written.keypoints()[..., :2], atol=1e-6)


def damaged(path: Path) -> dict[str, bytes]:
    """Ways in which a motion file may be wrong, by name."""
    good = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}

    def packed(**changes: bytes | None) -> bytes:
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in {**members, **changes}.items():
                if content is not None:
                    archive.writestr(name, content)
        return out.getvalue()

    def array(value: object) -> bytes:
        out = io.BytesIO()
        np.save(out, np.asarray(value), allow_pickle=True)
        return out.getvalue()

    huge = members["scale.npy"].replace(b"'shape': (7,), }", b"'shape': (9999999,), }"[:16])
    with np.load(path) as arrays:
        rotation, scale = arrays["rotation"].copy(), arrays["scale"].copy()
    rotation[4] *= 2
    scale[3] = np.nan
    return {
        "empty": b"",
        "text": b"no motion at all",
        "cut short": good[: len(good) // 2],
        "only a zip": packed(**dict.fromkeys(members)),
        "without scale": packed(**{"scale.npy": None}),
        "without format": packed(**{"format.npy": None}),
        "another format": packed(**{"format.npy": array("liveportrait-motion/9")}),
        "objects": packed(**{"scale.npy": array(np.array([{}] * 7, object))}),
        "no array": packed(**{"scale.npy": b"1234"}),
        "wrong length": packed(**{"scale.npy": array(np.ones(6, np.float32))}),
        "wrong shape": packed(**{"scale.npy": array(np.ones((7, 2), np.float32))}),
        "wrong type": packed(**{"scale.npy": array(np.ones(7, np.float64))}),
        "claims more than it has": packed(**{"scale.npy": huge[:-4]}),
        "has more than it says": packed(**{"scale.npy": members["scale.npy"] + b"1"}),
        "no frames": packed(
            **{
                f"{name}.npy": array(np.ones((0, *shape), dtype))
                for name, shape, dtype in (
                    (name, shape, "f4" if name != "valid" else "?")
                    for name, shape in FRAME_SHAPES.items()
                    if f"{name}.npy" in members
                )
            }
        ),
        "rate of zero": packed(**{"fps_numerator.npy": array(np.int64(0))}),
        "no rotation": packed(**{"rotation.npy": array(rotation)}),
        "no number": packed(**{"scale.npy": array(scale)}),
    }


def test_what_is_wrong_with_a_file_is_one_sentence(tmp_path: Path) -> None:
    good = save_motion(motion(cuts=False), tmp_path / "good.npz")
    for what, content in damaged(good).items():
        path = tmp_path / "bad.npz"
        path.write_bytes(content)
        with pytest.raises(MotionFileError):
            load_motion(path)
        with pytest.raises(UserError) as caught:
            motion_file.read(path)
        assert caught.value.sentence.startswith("bad.npz"), what
        assert caught.value.sentence.count("\n") == 0 and len(caught.value.sentence) < 200, what
    with pytest.raises(UserError, match="does not exist"):
        motion_file.read(tmp_path / "none.npz")
    with pytest.raises(UserError, match="cannot be read"):
        motion_file.read(tmp_path)


def test_nothing_impossible_is_written(tmp_path: Path) -> None:
    read = motion_file.read(save_motion(motion(cuts=False), tmp_path / "good.npz"))
    for wrong in (
        replace(read, scale=-read.scale),
        replace(read, expression=read.expression * np.nan),
        replace(read, fps_denominator=0),
        read.take(slice(0, 0)),
    ):
        with pytest.raises(UserError):
            motion_file.write(tmp_path / "bad.npz", wrong)
    assert [path.name for path in tmp_path.iterdir()] == ["good.npz"]


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    read = motion_file.read(save_motion(motion(), tmp_path / "good.npz"))
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(UserError, match="cannot be written"):
        motion_file.write(tmp_path / "folder.npz", read)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder.npz", "good.npz"]
