# SPDX-License-Identifier: GPL-3.0-or-later
"""A backend that really works, for tests of jobs: fixtures, and looks at what has come.

    from tests.blender.working import portrait, working  # noqa: F401
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import bpy
import numpy as np
import pytest

from tests.blender.frames import read_png, write_png

PATIENCE = 90.0  # seconds; a busy machine is slow, not wrong


@pytest.fixture(scope="session")
def portrait(astronaut: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small portrait, 320 x 320."""
    picture = read_png(astronaut)[:320, 60:380, :3]
    return write_png(tmp_path_factory.mktemp("inputs") / "anna.png", np.ascontiguousarray(picture))


@pytest.fixture
def working(
    addon: ModuleType, backend_python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Any]:
    """The add-on with a backend's Python, as a farm gives it one; its files in a temp folder: runtime."""
    monkeypatch.setenv("LIVEPORTRAIT_PYTHON", str(backend_python))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    from liveportrait_blender import runtime

    runtime.forget_settings()
    yield runtime


def ops() -> Any:
    return bpy.ops.liveportrait


def animate(portrait: Path, driving: str = "talk", **more: Any) -> Any:
    """Blocking, from a script: the image of the result."""
    before = set(bpy.data.images)
    assert ops().animate(source=str(portrait), driving=driving, **more) == {"FINISHED"}
    (image,) = set(bpy.data.images) - before
    return image


def folder_of(image: Any) -> Path:
    return Path(bpy.path.abspath(image.filepath)).parent


def frames_of(folder: Path) -> list[Path]:
    return sorted(folder.glob("[0-9]*.png"))


def until(condition: Any, timeout: float = PATIENCE) -> None:
    """Drain, as the timer would."""
    from liveportrait_blender import pump, runtime

    assert pump.run_until(condition, timeout), (runtime.session.state, runtime.session.jobs)
