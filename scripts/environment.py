# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes and keeps the Python environments that the project runs in.

    python3 scripts/environment.py [PROFILE]     make or update .venv and print its Python

The other scripts call `ensure()`. Nothing but the standard library is needed, and any Python from 3.9 on
may run this: it looks for a fitting one itself. Debian's python3 without python3-venv and ensurepip is
enough: an environment is made without pip and filled by `pip --python` from outside.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shlex
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts import machine
from scripts.machine import Python, SetupError, Version, guarded, spoken

ROOT = Path(__file__).resolve().parents[1]
MARKER = "liveportrait-environment.json"  # in an environment; says whether all of it is there
VERSIONS: tuple[Version, ...] = ((3, 11), (3, 12))  # every pinned package has wheels for these

# The Blenders that the add-on is tested in, and the one Python that each release's bpy wheel is made for.
BLENDERS: dict[str, Version] = {"4.2.23": (3, 11), "4.5.15": (3, 11), "5.0.1": (3, 11), "5.2.3": (3, 13)}
BACKEND_PROFILES = ("mesh", "demo", "test", "neural-cpu", "neural-cuda")
PROFILES = (*BACKEND_PROFILES, *(f"bpy-{version}" for version in BLENDERS))

# What OpenCV's wheel expects of a Linux system, with the Debian and Ubuntu package that brings it. Everything
# else that OpenCV, MediaPipe and PyAV load is in their wheels or in every system.
SYSTEM_LIBRARIES = {"libGL.so.1": "libgl1", "libgthread-2.0.so.0": "libglib2.0-0"}
# The same for Blender's wheel, which is linked to what its windows need although it opens none.
BLENDER_LIBRARIES = {
    "libX11.so.6": "libx11-6",
    "libXrender.so.1": "libxrender1",
    "libXxf86vm.so.1": "libxxf86vm1",
    "libXfixes.so.3": "libxfixes3",
    "libXi.so.6": "libxi6",
    "libxkbcommon.so.0": "libxkbcommon0",
    "libSM.so.6": "libsm6",
    "libGL.so.1": "libgl1",
    "libEGL.so.1": "libegl1",
    "libgomp.so.1": "libgomp1",
}


@dataclass(frozen=True)
class Place:
    """Where a profile is installed (a folder of the project), with which Pythons, on what system."""

    folder: str
    versions: tuple[Version, ...]
    libraries: dict[str, str]


def place_of(profile: str) -> Place:
    """The backend's profiles share one environment; every Blender has its own."""
    kind, _, version = profile.partition("-")
    if kind == "bpy":
        return Place(f".venv-{profile}", (BLENDERS[version],), BLENDER_LIBRARIES)
    return Place(".venv", VERSIONS, SYSTEM_LIBRARIES)


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
            and place_of(made["profile"]).folder == folder.name
            and made["pins"] == read_pins(made["profile"], root)
            and set(read_pins(profile, root)) <= set(made["pins"])
            and environment_python(folder).exists()
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def ensure(profile: str, python: str | None = None, root: Path = ROOT) -> Path:
    """Makes the profile's environment hold all of it, if it does not yet; gives its interpreter.

    Args:
        profile: one of PROFILES.
        python: an interpreter to build with; None finds one.
        root: the project's folder; the environments are in it.

    Raises:
        NoPython: this machine has no Python that fits the profile.
        SetupError: it could not be made; the next call starts again.
    """
    place = place_of(profile)
    base = machine.find_python(place.versions, python)
    folder = root / place.folder
    with _one_at_a_time(root / f"{place.folder}.lock"):
        if not serves(folder, profile, base, root):
            machine.prepare_machine(base, place.libraries)
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
    machine.run([python.executable, "-m", "venv", "--without-pip", str(folder)], "It could not be created")
    pip = machine.find_pip(python)
    if pip is None:
        machine.run([inside, "-m", "ensurepip"], "pip could not be put into the environment")
        pip = [inside, "-m", "pip"]
    wanted = ["--no-deps", "--only-binary", ":all:", "-r", str(root / "requirements" / f"{profile}.txt")]
    machine.run(
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
    answer = machine.ask([*pip, "--python", inside, "check"])
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


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Make or update the project's Python environment.")
    parser.add_argument("profile", nargs="?", choices=PROFILES, default="mesh", help="what goes in [mesh]")
    parser.add_argument("--python", metavar="PATH", help=f"a Python to build with ({spoken(VERSIONS)})")
    options = parser.parse_args(arguments)
    print(ensure(options.profile, options.python))
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
