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
from dataclasses import dataclass
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


# The first lines of what runs in a Blender of its own, with the extension as it was installed.
ENABLE = f"""
import bpy, addon_utils, os, sys
addon = addon_utils.enable("bl_ext.user_default.{PACKAGE}", default_set=True)
assert addon is not None, "the extension cannot be enabled"
wheels = ".local/lib/python%d.%d/site-packages" % sys.version_info[:2]
sys.path.insert(0, os.path.join(bpy.utils.user_resource("EXTENSIONS"), wheels))  # not this environment's
"""
# The last ones: bpy 5.2 now and then crashes while Python shuts down, after all is done.
LEAVE = """
import os, sys
if addon_utils.check(addon.__name__)[1]:
    addon_utils.disable(addon.__name__)
sys.stdout.flush()
os._exit(0)
"""


@dataclass(frozen=True)
class Installed:
    """The extension, installed from its zip in a profile of its own."""

    zip: Path
    profile: Path

    @property
    def folder(self) -> Path:
        """Where Blender unpacked it. Nothing may ever be written there."""
        return self.profile / "extensions" / "user_default" / PACKAGE

    def run(self, code: str, *arguments: str | Path, **variables: str) -> str:
        """Runs code in a Blender of its own with the extension enabled (`addon`); gives what it printed.

        The test fails, with all that was said, if the code raises or Blender dies.
        """
        return run_blender(f"{ENABLE}\n{code}\n{LEAVE}", self.profile, *arguments, **variables)


def run_blender(code: str, profile: Path, *arguments: str | Path, **variables: str) -> str:
    """Runs code in a fresh Python with bpy, away from the checkout; gives what it printed."""
    command = [sys.executable, "-I", "-c", code, *map(str, arguments)]
    around = {**os.environ, "BLENDER_USER_RESOURCES": str(profile), **variables}
    answer = subprocess.run(command, cwd=profile, env=around, capture_output=True, text=True, timeout=600)
    if answer.returncode != 0:
        pytest.fail(f"Blender ended with {answer.returncode}\n{answer.stdout}{answer.stderr}", pytrace=False)
    return answer.stdout


@pytest.fixture(scope="session")
def extension_zip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The zip that users install, built once a run."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, str(ROOT / "scripts" / "build_extension.py"), "--output", str(folder)]
    answer = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if answer.returncode != 0:
        pytest.fail(f"the extension cannot be built\n{answer.stdout}{answer.stderr}", pytrace=False)
    return next(folder.glob("*.zip"))


@pytest.fixture
def installed(extension_zip: Path, tmp_path: Path) -> Installed:
    """The extension, installed from its zip in a profile that belongs to this test."""
    profile = tmp_path / "profile"
    profile.mkdir()
    install = """
import bpy, os, sys
bpy.ops.extensions.package_install_files(
    filepath=sys.argv[1], repo="user_default", enable_on_install=False
)
sys.stdout.flush()
os._exit(0)
"""
    run_blender(install, profile, extension_zip)
    made = Installed(extension_zip, profile)
    assert (made.folder / "__init__.py").is_file()
    return made


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


EXIT_STATUS = pytest.StashKey[int]()


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    session.config.stash[EXIT_STATUS] = int(session.exitstatus)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """bpy 5.2 now and then crashes while Python shuts down; the run is over, and its result stands."""
    if "bpy" in sys.modules and EXIT_STATUS in config.stash:
        shutil.rmtree(PROFILE, ignore_errors=True)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(config.stash[EXIT_STATUS])
