# SPDX-License-Identifier: GPL-3.0-or-later
"""What the machine brings: a fitting Python, a pip that fills environments from outside, system libraries.

Nothing but the standard library is needed, and any Python from 3.9 on may run this.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

# (major, minor) of Python
Version = tuple[int, int]

# pip's --python came with 22.3; older ones than these break inside the newer Pythons
OLDEST_PIP: dict[Version, Version] = {(3, 11): (22, 3), (3, 12): (23, 2), (3, 13): (24, 1)}


class SetupError(Exception):
    """The environment cannot be made; the text says why and what to do, in one line."""


class NoPython(SetupError):
    """No Python of a fitting version was found on this machine."""


@dataclass(frozen=True)
class Python:
    """An interpreter that can make the environment: what to call, which version, where it is installed."""

    executable: str
    version: tuple[int, int, int]
    prefix: str

    @property
    def name(self) -> str:
        return "Python " + ".".join(map(str, self.version))


# --- which Python -------------------------------------------------------------------------------------------


def find_python(versions: Sequence[Version], wanted: str | None = None) -> Python:
    """The Python to build with: `wanted` if given, else the one that runs this, else one found elsewhere.

    Raises:
        NoPython: there is none of these versions.
        SetupError: `wanted` is none.
    """
    if wanted:
        found = probe_python([wanted], versions)
        if found is None:
            raise SetupError(f"{wanted} does not run as Python {spoken(versions)}; give --python another.")
        return found
    for command in _candidate_commands(versions):
        found = probe_python(command, versions)
        if found is not None:
            return found
    running = ".".join(map(str, sys.version_info[:3]))
    raise NoPython(
        f"Python {spoken(versions)} is needed (this is {running}) and none was found;"
        " install one and run this again, or name it with --python PATH."
    )


def spoken(versions: Sequence[Version]) -> str:
    """Versions as a sentence has them."""
    return " or ".join(f"{major}.{minor}" for major, minor in versions)


def _candidate_commands(versions: Sequence[Version]) -> Iterator[list[str]]:
    """Commands that may start a suitable Python, the likeliest first; many will not run at all."""
    yield [getattr(sys, "_base_executable", None) or sys.executable]  # the one below a virtual environment
    names = [f"python{major}.{minor}" for major, minor in versions]
    for name in [*names, "python3"]:
        # Every folder of the path, not only the first: a pyenv shim exists for versions that it then refuses.
        for folder in os.get_exec_path():
            if found := shutil.which(name, path=folder):
                yield [found]
    # pyenv keeps one folder a version; so do others, and the running Python may be in one of those.
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    for side_by_side in (pyenv, Path(sys.base_prefix).parent):
        for major, minor in versions:
            yield from ([str(path)] for path in sorted(side_by_side.glob(f"{major}.{minor}.*/bin/python3")))
    if os.name == "nt" and (launcher := shutil.which("py")):
        yield from ([launcher, f"-{major}.{minor}"] for major, minor in versions)


def probe_python(command: Sequence[str], versions: Sequence[Version]) -> Python | None:
    """Runs `command` as a Python; None unless it answers, as one of `versions`, and makes environments."""
    question = (
        "import json, sys, venv; print(json.dumps([getattr(sys, '_base_executable', None) or sys.executable,"
        " sys.version_info[:3], sys.base_prefix]))"
    )
    try:
        executable, version, prefix = json.loads(ask([*command, "-I", "-c", question]).stdout)
    except (OSError, subprocess.TimeoutExpired, ValueError):
        return None
    if tuple(version[:2]) not in versions:
        return None
    return Python(executable, (version[0], version[1], version[2]), prefix)


# --- what it has to have ------------------------------------------------------------------------------------


def missing_libraries(libraries: Iterable[str]) -> list[str]:
    """Those of the system libraries (by file name) that this machine lacks."""
    if not sys.platform.startswith("linux"):
        return []
    missing = []
    for library in libraries:
        try:
            ctypes.CDLL(library)
        except OSError:
            missing.append(library)
    return missing


def find_pip(python: Python) -> list[str] | None:
    """The command of a pip that can fill another environment, or None."""
    for executable in dict.fromkeys([python.executable, sys.executable, shutil.which("python3") or ""]):
        if not executable:
            continue
        command = [executable, "-m", "pip"]
        try:
            answer = ask([*command, "--version"])
        except (OSError, subprocess.TimeoutExpired):
            continue
        found = re.match(r"pip (\d+)\.(\d+)", answer.stdout)
        if found and tuple(map(int, found.groups())) >= OLDEST_PIP[python.version[:2]]:
            return command
    return None


def has_ensurepip(python: Python) -> bool:
    """Whether `python` can put its own pip into an environment (Debian's cannot without python3-venv)."""
    return ask([python.executable, "-I", "-c", "import ensurepip; ensurepip.version()"]).returncode == 0


def prepare_machine(python: Python, needed: Mapping[str, str]) -> None:
    """Installs the system packages that are missing, where that is possible; else says what to do.

    Args:
        python: what the environment will be made with.
        needed: system libraries by file name, each with the Debian package that brings it.

    Raises:
        SetupError: something is missing and this cannot install it.
    """
    libraries = missing_libraries(needed)
    needs_pip = find_pip(python) is None and not has_ensurepip(python)
    packages = [*(["python3-pip"] if needs_pip else []), *(needed[name] for name in libraries)]
    if not packages:
        return
    missing = ", ".join([*(["pip"] if needs_pip else []), *libraries])
    if not shutil.which("apt-get"):
        raise SetupError(f"This machine lacks {missing}; install what provides it and run this again.")
    command = ["apt-get", "install", "--yes", "--no-install-recommends", *packages]
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        line = f"sudo apt-get update && sudo {shlex.join(command)}"
        raise SetupError(f"This machine lacks {missing}. Run this, then try again:  {line}")
    print(f"This machine lacks {missing}; installing with apt-get: {' '.join(packages)}", flush=True)
    for step in (["apt-get", "update"], command):
        run(step, "apt-get failed", {"DEBIAN_FRONTEND": "noninteractive"})
    if still := missing_libraries(needed):
        raise SetupError(f"{', '.join(still)} cannot be loaded, although apt-get was content.")


# --- running commands ---------------------------------------------------------------------------------------


def ask(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Runs a short command for its answer."""
    return subprocess.run(
        list(command),
        capture_output=True,
        text=True,
        errors="replace",
        timeout=120,
        stdin=subprocess.DEVNULL,
        env=clean_variables(),
    )


def run(
    command: Sequence[str], failure: str, variables: dict[str, str] | None = None, quiet: bool = True
) -> None:
    """Runs a command to its end; shows what it said if it fails (`quiet`) or all along.

    Raises:
        SetupError: it ended with an error.
    """
    result = subprocess.run(
        list(command),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE if quiet else None,
        stderr=subprocess.STDOUT if quiet else None,
        text=True,
        errors="replace",
        env={**clean_variables(), **(variables or {})},
    )
    if result.returncode != 0:
        if quiet:
            print((result.stdout or "").rstrip(), file=sys.stderr)
        raise SetupError(f"{failure}: {shlex.join(command)} ended with {result.returncode}.")


def clean_variables() -> dict[str, str]:
    """The user's variables for Python and pip, without those that would mix in packages of other places."""
    elsewhere = {"PYTHONHOME", "PYTHONPATH", "PIP_PREFIX", "PIP_PYTHON", "PIP_ROOT", "PIP_TARGET"}
    kept = {name: value for name, value in os.environ.items() if name not in elsewhere}
    return {**kept, "PIP_USER": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


def guarded(main_function: Callable[[], int]) -> int:
    """Runs a script's main function; its set-up errors and Ctrl-C become one line and an exit code."""
    try:
        return main_function()
    except SetupError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 130
