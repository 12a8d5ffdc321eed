# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests inside Blender, as the bpy wheel brings it: their profile, the add-on, a backend's Python.

bpy is loaded once a process, and only after the variables below are set: Blender reads them when it starts.
Timers and modal operators do not run in the wheel; what they do is tested through the functions they call.
"""

from __future__ import annotations

import atexit
import importlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "liveportrait_blender"

if importlib.util.find_spec("bpy") is None:
    collect_ignore_glob = ["*"]
else:
    # A user's own profile is neither read nor written.
    PROFILE = Path(tempfile.mkdtemp(prefix="liveportrait-profile-"))
    atexit.register(shutil.rmtree, PROFILE, ignore_errors=True)
    for variable in list(os.environ):
        if variable.startswith(("BLENDER_USER_", "BLENDER_SYSTEM_", "LIVEPORTRAIT_USER_")):
            del os.environ[variable]
    os.environ["BLENDER_USER_RESOURCES"] = str(PROFILE)
    sys.path.insert(0, str(ROOT))  # the checkout's add-on, under its own name

    import bpy


@pytest.fixture(autouse=True)
def empty_file() -> None:
    """Every test starts with a file that holds one empty scene and has no place on the disk."""
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=True)


@pytest.fixture
def addon(empty_file: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The checkout's add-on, enabled with fresh preferences; what it writes goes to a temp folder."""
    monkeypatch.setenv("LIVEPORTRAIT_USER_FOLDER", str(tmp_path / "user-folder"))
    module = importlib.import_module(PACKAGE)
    # What Blender keeps for an enabled add-on; its preferences hang on it.
    entry = bpy.context.preferences.addons.new()
    entry.module = PACKAGE
    try:
        module.register()
        try:
            yield module
        finally:
            module.unregister()
    finally:
        addons = bpy.context.preferences.addons
        addons.remove(addons[PACKAGE])


@pytest.fixture(scope="session")
def backend_python() -> Path:
    """The Python of the environment with the backend's packages: LIVEPORTRAIT_TEST_PYTHON or .venv."""
    inside = "Scripts/python.exe" if os.name == "nt" else "bin/python"
    python = Path(os.environ.get("LIVEPORTRAIT_TEST_PYTHON") or ROOT / ".venv" / inside)
    if not python.is_file():
        pytest.skip(f"no backend's environment: {python} does not exist; scripts/test.py makes it")
    return python


@pytest.fixture(scope="session")
def astronaut(backend_python: Path) -> Path:
    """The photograph that scikit-image ships, from the backend's environment: 512 x 512, one frontal face."""
    code = "import importlib.util as u; s = u.find_spec('skimage'); print(s.origin if s else '')"
    answer = subprocess.run([backend_python, "-I", "-c", code], capture_output=True, text=True, check=True)
    if not answer.stdout.strip():
        pytest.skip("the astronaut picture is absent: scikit-image is not installed beside the backend")
    return Path(answer.stdout.strip()).parent / "data" / "astronaut.png"
