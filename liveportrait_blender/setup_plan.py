# SPDX-License-Identifier: GPL-3.0-or-later
"""What Set Up Backend does: which packages, how big, where, and every command line of it. Imports no bpy.

`make_plan` writes all command lines, looks at nothing and runs nothing; setup_runner.py carries them out.
Everything lies in one folder, the extension's own:

    environment/        the backend's Python environment; its marker says what is in it
    environment.part/   one that is being made
    tools/              uv, where it was needed
    python/             a Python that uv fetched
    downloads/          what pip and uv keep of their downloads until the set-up has succeeded
"""

from __future__ import annotations

import ast
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .backend_code import where_it_lies
from .pythons import Python, spoken_versions

FETCHED = "3.11"  # the Python that uv fetches where there is none
MB = 1_000_000


@dataclass(frozen=True)
class Profile:
    """What can be set up. download and disk: bytes; measured says whether on a machine or by estimate."""

    name: str
    label: str
    description: str
    pins: str  # the list in requirements/
    download: int
    disk: int
    measured: bool
    torch: str = ""  # uv's --torch-backend

    @property
    def sizes(self) -> str:
        about = "" if self.measured else "about "
        return f"{about}{_spoken(self.download)} to download, {_spoken(self.disk)} on disk"


def _spoken(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / MB:.0f} MB"


PROFILES: Mapping[str, Profile] = {
    profile.name: profile
    for profile in (
        Profile(
            "mesh",
            "Embedded Engine",
            "Small and quick to install; works on every machine, without a graphics card",
            "mesh",
            172 * MB,
            571 * MB,
            True,
        ),
        Profile(
            "neural-cpu",
            "Neural Engine, Processor or Apple GPU",
            "PyTorch without CUDA as well: LivePortrait's networks, at seconds a frame on a processor",
            "neural-cpu",
            420 * MB,
            1600 * MB,
            False,
            "cpu",
        ),
        Profile(
            "neural-cuda",
            "Neural Engine, Graphics Card",
            "PyTorch for the graphics card as well: the build that fits this machine's driver",
            "neural-gpu",  # not neural-cuda: which CUDA packages, the build of torch decides
            2900 * MB,
            7000 * MB,
            False,
            "auto",
        ),
    )
}


class PlanError(Exception):
    """There is no way to set it up here. sentence: what is missing; hint: what to do."""

    def __init__(self, sentence: str, hint: str) -> None:
        super().__init__(f"{sentence} {hint}")
        self.sentence, self.hint = sentence, hint


@dataclass(frozen=True)
class Request:
    """What is to be set up, and what there is for it.

    folder: the extension's own. requirements: the folder of the lists. code: the folder that holds
    `backend/`. host: the Python that runs this; base: the one for the environment, None to fetch one.
    offline: the folder with the wheels of an offline file, None to use the package index. index: what uv
    has to know of pip's settings (`uv_settings`).
    """

    profile: str
    folder: Path
    requirements: Path
    code: Path
    host: Python | None
    base: Python | None
    offline: Path | None = None
    index: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Step:
    """One command. share: its part of the time, of all shares together; expects: packages that it brings."""

    name: str
    label: str
    line: tuple[str, ...]
    share: float
    environment: Mapping[str, str] = field(default_factory=dict)
    expects: int = 0


@dataclass(frozen=True)
class Plan:
    """The commands in order, and what to do about `building` when they have succeeded or not."""

    steps: tuple[Step, ...]
    building: Path  # the environment while it is made
    python: Path  # the interpreter in it
    pins: tuple[str, ...]
    uses_uv: bool


class Places:
    """The folders of the set-up."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = folder / "environment"
        self.building = folder / "environment.part"
        self.old = folder / "environment.old"
        self.tools = folder / "tools"
        self.python = folder / "python"
        self.downloads = folder / "downloads"
        self.log = folder / "logs" / "set-up.log"
        self.lock = folder / "set-up.lock"

    @property
    def all(self) -> tuple[Path, ...]:
        """Everything but the log."""
        folders = (self.environment, self.building, self.old, self.tools, self.python)
        return (*folders, self.downloads, self.lock)


def python_in(environment: Path) -> Path:
    """The interpreter inside an environment."""
    return environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def read_pins(requirements: Path, name: str) -> tuple[str, ...]:
    """The packages of a list with those that it names with -r, sorted. Raises PlanError."""
    pins: set[str] = set()
    try:
        lines = (requirements / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise PlanError(f"The list of packages {name}.txt is missing.", "Reinstall the extension.") from error
    for line in (line.strip() for line in lines):
        if line.startswith("-r "):
            pins.update(read_pins(requirements, line[3:].strip().removesuffix(".txt")))
        elif line and not line.startswith("#"):
            pins.add(line)
    return tuple(sorted(pins, key=str.lower))


def make_plan(request: Request) -> Plan:
    """Every command line of a set-up. Raises PlanError."""
    profile = PROFILES[request.profile]
    places = Places(request.folder)
    pins = read_pins(request.requirements, profile.pins)
    listed = request.requirements / f"{profile.pins}.txt"
    inside = python_in(places.building)
    base = request.base
    if not profile.torch and base is not None and base.fills:
        steps = _by_pip(request, places, base, inside, listed, len(pins))
        uses_uv = False
    elif request.offline is not None:
        raise PlanError(
            f"The offline file needs Python {spoken_versions()} with pip on this machine.",
            "Install one, or use a Blender that brings it (4.2 to 5.0).",
        )
    else:
        steps = _by_uv(request, profile, places, inside, listed, len(pins))
        uses_uv = True
    check = Step(
        "check",
        "Trying it",
        (str(inside), "-m", "backend", "doctor", "--json"),
        4,
        where_it_lies(request.code),
    )
    return Plan((*steps, check), places.building, inside, pins, uses_uv)


def _by_pip(
    request: Request, places: Places, base: Python, inside: Path, listed: Path, count: int
) -> list[Step]:
    """With the Python's own pip."""
    create = [base.executable, "-I", "-m", "venv"]
    create += [] if base.ensurepip else ["--without-pip"]
    if base.ensurepip:
        pip = [str(inside), "-I", "-m", "pip"]
    else:
        pip = [base.executable, "-I", "-m", "pip", "--python", str(inside)]
    install = [*pip, "install", "--no-deps", "--only-binary", ":all:", "--no-input", "--progress-bar", "off"]
    if request.offline is not None:
        install += ["--no-index", "--find-links", str(request.offline)]
    install += ["-r", str(listed)]
    variables = _pip_variables(places)
    create.append(str(places.building))
    return [
        Step("create", f"Making the environment with {base.name}", tuple(create), 6, variables),
        Step("install", "Installing packages", tuple(install), 90, variables, count),
    ]


def _pip_variables(places: Places) -> dict[str, str]:
    return {
        "PIP_CACHE_DIR": str(places.downloads / "pip"),
        "PIP_USER": "0",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_REQUIRE_VIRTUALENV": "0",
        "PIP_NO_COLOR": "1",
    }


def _by_uv(
    request: Request, profile: Profile, places: Places, inside: Path, listed: Path, count: int
) -> list[Step]:
    """With uv, which finds or fetches a Python and knows PyTorch's builds. uv itself comes by pip."""
    (pinned,) = read_pins(request.requirements, "tools")
    steps, uv = _get_uv(request, places, pinned)
    variables = {
        "UV_CACHE_DIR": str(places.downloads / "uv"),
        "UV_PYTHON_INSTALL_DIR": str(places.python),
        "UV_NO_PROGRESS": "1",
        "UV_NO_CONFIG": "1",  # what the user set for projects of their own has no say here
        "UV_NO_PROJECT": "1",
        "NO_COLOR": "1",
        **request.index,
    }
    wanted = request.base.executable if request.base is not None else FETCHED
    if request.base is None:
        fetch = (*uv, "python", "install", FETCHED, "--install-dir", str(places.python), "--no-bin")
        steps.append(Step("python", f"Fetching Python {FETCHED}", (*fetch, "--no-registry"), 10, variables))
    preference = ["--managed-python"] if request.base is None else ["--no-python-downloads"]
    create = (*uv, "venv", "--clear", "--python", wanted, *preference, str(places.building))
    steps.append(Step("create", "Making the environment", create, 2, variables))
    torch = ["--torch-backend", profile.torch] if profile.torch else []
    pip = [*uv, "pip", "install", "--python", str(inside), "--only-binary", ":all:", *torch]
    install = (*pip, "--no-deps", "-r", str(listed))
    steps.append(Step("install", "Installing packages", install, 90, variables, count))
    if profile.torch == "auto":
        # The build that was chosen names its CUDA packages in its own metadata, each with an exact version.
        (pin,) = (pin for pin in read_pins(request.requirements, profile.pins) if pin.startswith("torch=="))
        cuda = (*pip, "--constraints", str(listed), pin)
        steps.append(Step("cuda", "Installing what the graphics card needs", cuda, 120, variables, 20))
    return steps


def _get_uv(request: Request, places: Places, pinned: str) -> tuple[list[Step], tuple[str, ...]]:
    """The steps that bring uv, none where it is here already, and how to call it."""
    pythons = [python for python in (request.host, request.base) if python is not None]
    host = next((python for python in pythons if python.ensurepip or python.pip), None)
    if host is None:
        raise PlanError(
            "Blender's Python has no pip to fetch packages with.",
            f"Install Python {spoken_versions()} with pip and venv, or choose one in the preferences.",
        )
    name = "uv.exe" if os.name == "nt" else "uv"
    variables = _pip_variables(places)
    wanted = ("install", "--no-deps", "--only-binary", ":all:", "--no-input", "--progress-bar", "off", pinned)
    if host.ensurepip:
        uv = python_in(places.tools).with_name(name)
        own = (str(python_in(places.tools)), "-I", "-m", "pip")
        create = (host.executable, "-I", "-m", "venv", "--clear", str(places.tools))
        steps = [
            Step("tools", "Making room for tools", create, 4),
            Step("uv", "Fetching uv", (*own, *wanted), 6, variables, 1),
        ]
    else:
        uv = places.tools / "bin" / name
        into = ("--target", str(places.tools), "--upgrade")
        line = (host.executable, "-I", "-m", "pip", wanted[0], *into, *wanted[1:])
        steps = [Step("uv", "Fetching uv", line, 6, variables, 1)]
    return steps, (str(uv),)


# --- pip's settings, for uv ---------------------------------------------------------------------------------

_FOR_UV = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "cert": "SSL_CERT_FILE",
    "trusted-host": "UV_INSECURE_HOST",
    "timeout": "UV_HTTP_TIMEOUT",
    "default-timeout": "UV_HTTP_TIMEOUT",
    "proxy": "ALL_PROXY",
}


def uv_settings(listing: str) -> dict[str, str]:
    """Variables for uv that say what `pip config list` says: uv does not read pip's files, and in many houses
    packages come from a mirror that only those name.
    """
    found: dict[str, str] = {}
    for line in listing.splitlines():
        name, _, text = line.partition("=")
        section, _, option = name.strip().rpartition(".")
        if section not in ("global", "install", ":env:") or option not in _FOR_UV:
            continue
        try:
            value = str(ast.literal_eval(text.strip()))
        except (ValueError, SyntaxError):
            continue
        several = "," if option == "find-links" else " "
        found[_FOR_UV[option]] = several.join(value.split())
    if "UV_INDEX" in found:
        found["UV_INDEX_STRATEGY"] = "unsafe-best-match"  # as pip does with more than one
    return found


def has_nvidia() -> bool:
    """Whether an NVIDIA driver is here; a guess for the default, which the user may change."""
    if sys.platform == "darwin":
        return False
    return bool(shutil.which("nvidia-smi")) or Path("/proc/driver/nvidia/version").is_file()
