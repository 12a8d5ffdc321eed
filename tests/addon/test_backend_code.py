# SPDX-License-Identifier: GPL-3.0-or-later
"""The backend's code, copied out of an installed extension."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from liveportrait_blender import backend_code


@pytest.fixture
def extension(tmp_path: Path) -> Path:
    """An installed extension's folder, with something like a backend in it."""
    folder = tmp_path / "extension"
    (folder / "backend" / "engines").mkdir(parents=True)
    (folder / "backend" / "__init__.py").write_text('__version__ = "1.2.3"\n')
    (folder / "backend" / "engines" / "mesh.py").write_text("ANSWER = 42\n")
    (folder / "backend" / "__pycache__").mkdir()
    (folder / "backend" / "__pycache__" / "x.pyc").touch()
    return folder


def test_it_is_copied_once_and_whole(extension: Path, tmp_path: Path) -> None:
    user = tmp_path / "user"
    user.mkdir()
    place = backend_code.placed(extension, user)
    assert place == user / "backend-1.2.3"
    assert (place / "backend" / "engines" / "mesh.py").read_text() == "ANSWER = 42\n"
    assert not (place / "backend" / "__pycache__").exists()
    before = (place / "backend" / "__init__.py").stat().st_mtime_ns
    (place / "backend" / "__pycache__").mkdir()  # what Python writes there changes nothing
    assert backend_code.placed(extension, user) == place
    assert (place / "backend" / "__init__.py").stat().st_mtime_ns == before
    assert [path.name for path in user.iterdir()] == ["backend-1.2.3"]


@pytest.mark.parametrize("damage", ["changed", "missing", "added", "update"])
def test_one_that_differs_is_replaced(extension: Path, tmp_path: Path, damage: str) -> None:
    place = backend_code.placed(extension, tmp_path / "user")
    file = place / "backend" / "engines" / "mesh.py"
    if damage == "changed":
        file.write_text("ANSWER = 41\n")
    elif damage == "missing":
        file.unlink()
    elif damage == "added":
        (place / "backend" / "engines" / "old.py").touch()
    else:
        (extension / "backend" / "engines" / "mesh.py").write_text("ANSWER = 43\n")
    assert backend_code.placed(extension, tmp_path / "user") == place
    assert backend_code.fingerprint(place) == backend_code.fingerprint(extension)


def test_what_is_not_ours_is_not_replaced(extension: Path, tmp_path: Path) -> None:
    other = tmp_path / "backend-1.2.3"
    other.mkdir()
    (other / "thesis.txt").write_text("years of work")
    with pytest.raises(OSError, match="in the way"):
        backend_code.placed(extension, tmp_path)
    assert (other / "thesis.txt").read_text() == "years of work"


def test_old_versions_go_once_nothing_runs_from_them(extension: Path, tmp_path: Path) -> None:
    user = tmp_path / "user"
    old = backend_code.placed(extension, user)
    (user / "backend-notes").mkdir()
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        backend_code.note_use(old, child.pid)
        (extension / "backend" / "__init__.py").write_text('__version__ = "1.3.0"\n')
        new = backend_code.placed(extension, user)
        assert backend_code.remove_others(user, new) == [] and old.is_dir()
    finally:
        child.communicate(b"\n")
    assert backend_code.remove_others(user, new) == [old]
    assert not old.exists() and new.is_dir() and (user / "backend-notes").is_dir()


def test_a_copy_that_was_interrupted_is_cleared(extension: Path, tmp_path: Path) -> None:
    left = tmp_path / ".backend-1.2.3.999999999.part"
    left.mkdir()
    mine = tmp_path / f".backend-1.2.3.{os.getpid()}.part"
    mine.mkdir()
    place = backend_code.placed(extension, tmp_path)
    backend_code.remove_others(tmp_path, place)
    assert [path.name for path in tmp_path.iterdir() if path != extension] == ["backend-1.2.3"]


def test_code_without_a_version_is_refused(extension: Path, tmp_path: Path) -> None:
    (extension / "backend" / "__init__.py").write_text("")
    with pytest.raises(ValueError, match="reinstall"):
        backend_code.placed(extension, tmp_path)
