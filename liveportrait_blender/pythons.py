# SPDX-License-Identifier: GPL-3.0-or-later
"""Which Pythons there are for the backend's environment: Blender's own, or others of this machine.

Imports no bpy. Nothing is installed or changed here; every interpreter is asked in a process of its own.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .supervisor import apart, clean_environment

VERSIONS = ((3, 11), (3, 12))  # MediaPipe 0.10.21, which carries the face models, has wheels for these
OLDEST_PIP = {(3, 11): (22, 3), (3, 12): (23, 2)}  # --python came with 22.3; older ones break inside a 3.12
PATIENCE = 30.0  # seconds for an answer

_QUESTION = """
import json, platform, sys
def have(name):
    try:
        return __import__(name)
    except Exception:
        return None
pip = have("pip")
print(json.dumps([getattr(sys, "_base_executable", None) or sys.executable, list(sys.version_info[:3]),
                  sys.base_prefix, have("venv") is not None, have("ensurepip") is not None,
                  pip.__version__ if pip else "", sys.maxsize > 2**32, platform.machine()]))
"""


@dataclass(frozen=True)
class Python:
    """An interpreter: what to call, its version, where it is installed, and what it can do.

    pip: the version of its own pip, () for none. ensurepip: whether it can give one to an environment.
    """

    executable: str
    version: tuple[int, int, int]
    prefix: str = ""
    venv: bool = True
    ensurepip: bool = True
    pip: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        return "Python " + ".".join(map(str, self.version))

    @property
    def fits(self) -> bool:
        """Whether the backend's packages have wheels for it."""
        return self.version[:2] in VERSIONS and self.venv

    @property
    def fills(self) -> bool:
        """Whether it can make an environment and fill it without help."""
        return self.fits and (self.ensurepip or self.pip >= OLDEST_PIP[self.version[:2]])


def spoken_versions() -> str:
    return " or ".join(f"{major}.{minor}" for major, minor in VERSIONS)


def probe(command: Sequence[str]) -> Python | None:
    """Run `command` as a Python: None unless it answers as one of 64 bits."""
    try:
        answer = subprocess.run(
            [*command, "-I", "-c", _QUESTION],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=PATIENCE,
            env=clean_environment(),
            **apart(),
        )
        executable, version, prefix, venv, ensurepip, pip, wide, _ = json.loads(answer.stdout)
    except (OSError, subprocess.TimeoutExpired, ValueError):
        return None
    if not wide:
        return None
    numbers = tuple(int(part) for part in pip.split(".")[:2] if part.isdigit())
    return Python(executable, (version[0], version[1], version[2]), prefix, venv, ensurepip, numbers)


def running() -> Python | None:
    """The Python that runs this: inside Blender, Blender's own."""
    own = getattr(sys, "_base_executable", None) or sys.executable
    return probe([own]) if own else None


def find(
    host: Python | None,
    commands: Iterable[Sequence[str]] | None = None,
    cancelled: Callable[[], bool] = lambda: False,
    version: tuple[int, int] | None = None,
) -> Python | None:
    """The Python to make the environment with: `host` if it fits, else the first fitting one of the machine.

    version: only this one will do. One that needs no help is preferred to one without pip. None: there is
    none, or it was cancelled.
    """

    def will_do(python: Python) -> bool:
        return python.fits and version in (None, python.version[:2])

    second = None
    if host is not None and will_do(host):
        if host.fills:
            return host
        second = host
    for command in candidates() if commands is None else commands:
        if cancelled():
            return None
        found = probe(command)
        if found is None or not will_do(found):
            continue
        if found.fills:
            return found
        second = second or found
    return second


def candidates() -> Iterator[list[str]]:
    """Commands that may start a fitting Python, the likeliest first; many will not run at all."""
    names = [f"python{major}.{minor}" for major, minor in VERSIONS]
    folders = [*os.get_exec_path(), "/usr/local/bin", "/opt/homebrew/bin", "/usr/bin"]
    seen: set[str] = set()
    for name in [*names, "python3"]:
        # Every folder of the path, not only the first: a pyenv shim exists for versions that it then refuses.
        for folder in folders:
            found = shutil.which(name, path=folder)
            if found and found not in seen:
                seen.add(found)
                yield [found]
    versions = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    frameworks = Path("/Library/Frameworks/Python.framework/Versions")
    for major, minor in VERSIONS:
        yield from ([str(path)] for path in sorted(versions.glob(f"{major}.{minor}.*/bin/python3")))
        if (framework := frameworks / f"{major}.{minor}" / "bin" / "python3").is_file():
            yield [str(framework)]
    if os.name == "nt" and (launcher := shutil.which("py")):
        yield from ([launcher, f"-{major}.{minor}"] for major, minor in VERSIONS)


def from_path(path: Path) -> tuple[Python | None, str]:
    """An interpreter that the user named, and why it does not serve, or ""."""
    if not path.is_file():
        return None, f"{path} is not there."
    found = probe([str(path)])
    if found is None:
        return None, f"{path} does not run as a Python."
    if found.version[:2] not in VERSIONS:
        return found, f"{path} is {found.name}; the backend needs Python {spoken_versions()}."
    return found, ""
