# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes and keeps the Python environment that the project runs in.

    python3 scripts/environment.py [PROFILE]     make or update .venv and print its Python

The other scripts call `ensure()`. Nothing but the standard library is needed, and any Python from 3.9 on
may run this: it looks for a 3.11 or 3.12 itself. Debian's python3 without python3-venv and ensurepip is
enough: the environment is made without pip and filled by `pip --python` from outside.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ".venv"
MARKER = "liveportrait-environment.json"  # in the environment; says whether all of it is there
PROFILES = ("mesh", "demo", "test", "neural-cpu")
VERSIONS = ((3, 11), (3, 12))  # every pinned package has wheels for these; pyproject.toml agrees
OLDEST_PIP = {(3, 11): (22, 3), (3, 12): (23, 2)}  # --python came with 22.3; older ones break inside a 3.12

# What OpenCV's wheel expects of a Linux system, with the Debian and Ubuntu package that brings it. Everything
# else that OpenCV, MediaPipe and PyAV load is in their wheels or in every system.
SYSTEM_LIBRARIES = {"libGL.so.1": "libgl1", "libgthread-2.0.so.0": "libglib2.0-0"}


class SetupError(Exception):
    """The environment cannot be made; the text says why and what to do, in one line."""


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


def find_python(wanted: str | None = None) -> Python:
    """The Python to build with: `wanted` if given, else the one that runs this, else one found elsewhere."""
    if wanted:
        found = probe_python([wanted])
        if found is None:
            raise SetupError(f"{wanted} does not run as Python {_spoken_versions()}; give --python another.")
        return found
    for command in _candidate_commands():
        found = probe_python(command)
        if found is not None:
            return found
    running = ".".join(map(str, sys.version_info[:3]))
    raise SetupError(
        f"Python {_spoken_versions()} is needed (this is {running}) and none was found;"
        " install one and run this again, or name it with --python PATH."
    )


def _spoken_versions() -> str:
    return " or ".join(f"{major}.{minor}" for major, minor in VERSIONS)


def _candidate_commands() -> Iterator[list[str]]:
    """Commands that may start a suitable Python, the likeliest first; many will not run at all."""
    yield [getattr(sys, "_base_executable", None) or sys.executable]  # the one below a virtual environment
    names = [f"python{major}.{minor}" for major, minor in VERSIONS]
    for name in [*names, "python3"]:
        # Every folder of the path, not only the first: a pyenv shim exists for versions that it then refuses.
        for folder in os.get_exec_path():
            if found := shutil.which(name, path=folder):
                yield [found]
    versions = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    for major, minor in VERSIONS:
        yield from ([str(path)] for path in sorted(versions.glob(f"{major}.{minor}.*/bin/python3")))
    if os.name == "nt" and (launcher := shutil.which("py")):
        yield from ([launcher, f"-{major}.{minor}"] for major, minor in VERSIONS)


def probe_python(command: Sequence[str]) -> Python | None:
    """Runs `command` as a Python; None unless it answers, as one of VERSIONS, and can make environments."""
    question = (
        "import json, sys, venv; print(json.dumps([getattr(sys, '_base_executable', None) or sys.executable,"
        " sys.version_info[:3], sys.base_prefix]))"
    )
    try:
        executable, version, prefix = json.loads(_ask([*command, "-I", "-c", question]).stdout)
    except (OSError, subprocess.TimeoutExpired, ValueError):
        return None
    if tuple(version[:2]) not in VERSIONS:
        return None
    return Python(executable, (version[0], version[1], version[2]), prefix)


# --- what belongs in it -------------------------------------------------------------------------------------


def read_pins(profile: str, root: Path = ROOT) -> list[str]:
    """The requirement lines of a profile, those of the lists that it names with -r included, sorted."""
    pins = set()
    for line in _lines(root / "requirements" / f"{profile}.txt"):
        if line.startswith("-r "):
            pins.update(read_pins(line[3:].strip().removesuffix(".txt"), root))
        else:
            pins.add(line)
    return sorted(pins, key=str.lower)


def allowed_complaints(pins: Sequence[str], root: Path = ROOT) -> set[str]:
    """What `pip check` is expected to say: the lines of pip-check-allowed.txt that are about these pins, and
    about what is missing with them.
    """
    versions = dict(pin.split(";")[0].strip().lower().split("==") for pin in pins)
    present = {_plain(name) for name in versions}
    expected = set()
    for line in _lines(root / "requirements" / "pip-check-allowed.txt"):
        name, version, _, missing = line.lower().split()[:4]  # "NAME VERSION requires NAME, which is ..."
        if versions.get(name) == version and _plain(missing.rstrip(",")) not in present:
            expected.add(line)
    return expected


def _plain(name: str) -> str:
    """A package's name as packaging compares them."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _lines(path: Path) -> list[str]:
    """The lines of a list, without comments and blank ones."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise SetupError(f"{path} is missing; fetch the project again, this copy is incomplete.") from None
    return [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]


# --- what the machine has to have ---------------------------------------------------------------------------


def missing_libraries() -> list[str]:
    """The system libraries (by file name) that the packages need and this machine lacks."""
    if not sys.platform.startswith("linux"):
        return []
    missing = []
    for library in SYSTEM_LIBRARIES:
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
            answer = _ask([*command, "--version"])
        except (OSError, subprocess.TimeoutExpired):
            continue
        found = re.match(r"pip (\d+)\.(\d+)", answer.stdout)
        if found and tuple(map(int, found.groups())) >= OLDEST_PIP[python.version[:2]]:
            return command
    return None


def has_ensurepip(python: Python) -> bool:
    """Whether `python` can put its own pip into an environment (Debian's cannot without python3-venv)."""
    return _ask([python.executable, "-I", "-c", "import ensurepip; ensurepip.version()"]).returncode == 0


def prepare_machine(python: Python) -> None:
    """Installs the system packages that are missing, where that is possible; else says what to do.

    Raises:
        SetupError: something is missing and this cannot install it.
    """
    libraries = missing_libraries()
    needs_pip = find_pip(python) is None and not has_ensurepip(python)
    packages = [*(["python3-pip"] if needs_pip else []), *(SYSTEM_LIBRARIES[name] for name in libraries)]
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
        _run(step, "apt-get failed", {"DEBIAN_FRONTEND": "noninteractive"})
    if still := missing_libraries():
        raise SetupError(f"{', '.join(still)} cannot be loaded, although apt-get was content.")


# --- making it ----------------------------------------------------------------------------------------------


def environment_python(folder: Path) -> Path:
    """The interpreter inside an environment."""
    return folder / "Scripts" / "python.exe" if os.name == "nt" else folder / "bin" / "python"


def serves(folder: Path, profile: str, python: Python, root: Path = ROOT) -> bool:
    """Whether the environment is whole, of this Python, as its own list says today, and has all of `profile`.

    So an environment that was made for the tests serves the demo too, and the two do not rebuild it in turn.
    """
    try:
        made = json.loads((folder / MARKER).read_text(encoding="utf-8"))
        return (
            made["complete"]
            and made["python"] == [list(python.version), python.prefix]
            and made["profile"] in PROFILES
            and made["pins"] == read_pins(made["profile"], root)
            and set(read_pins(profile, root)) <= set(made["pins"])
            and environment_python(folder).exists()
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def ensure(profile: str, python: str | None = None, root: Path = ROOT) -> Path:
    """Makes the project's environment hold `profile`, if it does not yet; gives its interpreter.

    Args:
        profile: one of PROFILES.
        python: an interpreter to build with; None finds one.
        root: the project's folder; the environment is `.venv` in it.

    Raises:
        SetupError: it could not be made; the next call starts again.
    """
    base = find_python(python)
    folder = root / FOLDER
    with _one_at_a_time(root / f"{FOLDER}.lock"):
        if not serves(folder, profile, base, root):
            prepare_machine(base)
            _build(folder, profile, base, root)
    return environment_python(folder)


def _build(folder: Path, profile: str, python: Python, root: Path) -> None:
    """Makes the environment from nothing; its marker says `complete` only when all of it is there."""
    started = time.monotonic()
    pins = read_pins(profile, root)
    if folder.exists() and not _is_environment(folder):
        raise SetupError(f"{folder} is in the way and is not a virtual environment; move it elsewhere.")
    action = "Rebuilding" if folder.exists() else "Making"
    print(f"{action} {folder} ({profile}: {len(pins)} packages) with {python.name}", flush=True)
    try:
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir()
        made = {"profile": profile, "pins": pins, "python": [python.version, python.prefix]}
        _write_marker(folder, {**made, "complete": False})
    except OSError as error:
        raise SetupError(f"{folder} cannot be written ({error.strerror}); make it writable.") from error
    inside = str(environment_python(folder))
    _run([python.executable, "-m", "venv", "--without-pip", str(folder)], "It could not be created")
    pip = find_pip(python)
    if pip is None:
        _run([inside, "-m", "ensurepip"], "pip could not be put into the environment")
        pip = [inside, "-m", "pip"]
    wanted = ["--no-deps", "--only-binary", ":all:", "-r", str(root / "requirements" / f"{profile}.txt")]
    _run(
        [*pip, "--python", inside, "install", *wanted],
        "The packages could not be installed (check the network and pip's settings, then run this again)",
        quiet=not sys.stdout.isatty(),
    )
    if unexpected := complaints(pip, inside) - allowed_complaints(pins, root):
        raise SetupError(f"The packages do not fit together: {' '.join(sorted(unexpected))}")
    _write_marker(folder, {**made, "complete": True})
    print(f"Done in {time.monotonic() - started:.0f} s", flush=True)


def complaints(pip: Sequence[str], inside: str) -> set[str]:
    """What `pip check` finds wrong in the environment whose interpreter is `inside`, line by line."""
    answer = _ask([*pip, "--python", inside, "check"])
    if answer.returncode not in (0, 1):  # nothing found, something found
        reason = (answer.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise SetupError(f"{shlex.join(pip)} does not work inside {inside}: {reason}")
    return {line.strip() for line in answer.stdout.splitlines()} - {"", "No broken requirements found."}


def _is_environment(folder: Path) -> bool:
    """Whether a folder may be replaced: an environment, one that was begun, or nothing at all."""
    if not folder.is_dir() or folder.is_symlink():
        return False
    return any((folder / name).exists() for name in (MARKER, "pyvenv.cfg")) or not any(folder.iterdir())


def _write_marker(folder: Path, made: dict[str, object]) -> None:
    part = folder / f"{MARKER}.part"
    part.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
    part.replace(folder / MARKER)


@contextlib.contextmanager
def _one_at_a_time(path: Path) -> Iterator[None]:
    """Lets one process at a time build; the others wait. The system drops the lock when its holder ends."""
    try:
        handle = path.open("a+b")
    except OSError as error:
        raise SetupError(f"{path} cannot be written ({error.strerror}); make its folder writable.") from error
    with handle:
        if sys.platform == "win32":
            import msvcrt

            while True:
                with contextlib.suppress(OSError):  # gives up after ten seconds each
                    handle.seek(0)
                    msvcrt.locking(handle.fileno(), msvcrt.LK_LOCK, 1)
                    break
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _ask(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Runs a short command for its answer."""
    return subprocess.run(
        list(command),
        capture_output=True,
        text=True,
        errors="replace",
        timeout=120,
        stdin=subprocess.DEVNULL,
        env=_clean_variables(),
    )


def _run(
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
        env={**_clean_variables(), **(variables or {})},
    )
    if result.returncode != 0:
        if quiet:
            print((result.stdout or "").rstrip(), file=sys.stderr)
        raise SetupError(f"{failure}: {shlex.join(command)} ended with {result.returncode}.")


def _clean_variables() -> dict[str, str]:
    """The user's variables for Python and pip, without those that would mix in packages of other places."""
    elsewhere = {"PYTHONHOME", "PYTHONPATH", "PIP_PREFIX", "PIP_PYTHON", "PIP_ROOT", "PIP_TARGET"}
    kept = {name: value for name, value in os.environ.items() if name not in elsewhere}
    return {**kept, "PIP_USER": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Make or update the project's Python environment.")
    parser.add_argument("profile", nargs="?", choices=PROFILES, default="mesh", help="what goes in [mesh]")
    parser.add_argument("--python", metavar="PATH", help=f"a Python {_spoken_versions()} to build with")
    options = parser.parse_args(arguments)
    print(ensure(options.profile, options.python))
    return 0


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


if __name__ == "__main__":
    sys.exit(guarded(main))
