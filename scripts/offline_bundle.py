# SPDX-License-Identifier: GPL-3.0-or-later
"""One file with everything that setting up the backend would otherwise fetch: the mesh profile's wheels.

The extension's Set Up Backend takes it instead of the network. It is a zip that holds

    liveportrait-offline.json     {"format": 1, "profile": "mesh", "platform": "linux-x64", "python": "3.11",
                                   "pins": ["numpy==1.26.4", ...],
                                   "wheels": {"numpy-1.26.4-cp311-...whl": "<SHA-256 in hex>", ...}}
    wheels/*.whl                  exactly the wheels that are named there, stored, not compressed again

`pins` are the lines of requirements/mesh.txt that hold on that platform, sorted, markers left out; each has
one wheel. `platform` is Blender's word for it: the two tables in liveportrait_blender/data/offline.json give
it, from `sys.platform` and the lower-case `platform.machine()`. The reader has to refuse another format,
platform or Python, pins that are not those of its own list, and a wheel with another hash or of a name that
leaves the folder; then `pip install --no-index --no-deps --find-links wheels -r ...` needs nothing else.
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scripts import environment, machine
from scripts.machine import SetupError, Version

TABLE = "liveportrait_blender/data/offline.json"
PROFILE = "mesh"
FIXED_TIME = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip can say; the same contents make the same file


def table() -> dict[str, Any]:
    """What the script and the add-on agree on: names inside the file, and how platforms are called."""
    read: dict[str, Any] = json.loads((environment.ROOT / TABLE).read_text(encoding="utf-8"))
    return read


def this_platform() -> str:
    """This machine as Blender's extensions call it: linux-x64, windows-x64, macos-arm64, ...

    Raises:
        SetupError: Blender has no word for it.
    """
    words = table()
    system, kind = words["systems"].get(sys.platform), words["machines"].get(platform.machine().lower())
    if not system or not kind:
        raise SetupError(f"There is no Blender for {sys.platform} on {platform.machine()}; build elsewhere.")
    return f"{system}-{kind}"


def pins_here() -> list[str]:
    """The pins that hold on this platform, without their markers."""
    held = []
    for pin in environment.read_pins(PROFILE):
        name, _, marker = (part.strip() for part in pin.partition(";"))
        found = re.fullmatch(r'sys_platform == "(\w+)"', marker) if marker else None
        if marker and not found:
            raise SetupError(f"requirements/{PROFILE}.txt has a marker that this cannot read: {marker}")
        if found is None or found[1] == sys.platform:
            held.append(name)
    return held


def build(folder: Path, version: Version, pip: Sequence[str]) -> Path:
    """Fetches the wheels for this platform and a Python, packs them; gives the file, put into `folder`.

    Args:
        folder: an existing folder; a file of the same name is replaced once the new one is whole.
        version: which Python the environment will have, (3, 11) or (3, 12); any Python may run this.
        pip: the command of a pip.

    Raises:
        SetupError: a wheel cannot be had, or is not the only one of its pin.
    """
    words = table()
    name = words["file"].format(platform=this_platform(), python="".join(map(str, version)))
    pins = pins_here()
    with tempfile.TemporaryDirectory(prefix="liveportrait-offline-") as temporary:
        wheels = fetch(Path(temporary), pins, version, pip)
        manifest = {
            "format": words["format"],
            "profile": PROFILE,
            "platform": this_platform(),
            "python": ".".join(map(str, version)),
            "pins": pins,
            "wheels": {wheel.name: sha256(wheel) for wheel in wheels},
        }
        part = folder / f"{name}.part"
        with zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as packed:
            text = json.dumps(manifest, indent=1, ensure_ascii=False) + "\n"
            packed.writestr(entry(words["manifest"]), text)
            for wheel in wheels:
                packed.writestr(entry(words["wheels"] + wheel.name), wheel.read_bytes())
    return part.replace(folder / name)


def fetch(folder: Path, pins: Sequence[str], version: Version, pip: Sequence[str]) -> list[Path]:
    """One wheel for each pin, sorted by name."""
    dotted = ".".join(map(str, version))
    wanted = ["--no-deps", "--only-binary", ":all:", "--implementation", "cp", "--python-version", dotted]
    machine.run(
        [*pip, "download", "--quiet", *wanted, "--dest", str(folder), *pins],
        f"The wheels for Python {dotted} could not be fetched (check the network and pip's settings)",
    )
    wheels = sorted(folder.iterdir())
    here = [plain(wheel.name.split("-")[0]) for wheel in wheels if wheel.suffix == ".whl"]
    if sorted(here) != sorted(plain(pin.split("==")[0]) for pin in pins) or len(here) != len(wheels):
        raise SetupError(f"pip fetched other files than one wheel for each of {len(pins)} pins: {here}")
    return wheels


def plain(name: str) -> str:
    """A package's name as packaging compares them."""
    return re.sub(r"[-_.]+", "-", name).lower()


def sha256(path: Path) -> str:
    """The hash of a file's contents, in hex."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def entry(name: str) -> zipfile.ZipInfo:
    """The head of one file in a zip, that says nothing about when and where it was made."""
    made = zipfile.ZipInfo(name, FIXED_TIME)
    made.create_system, made.external_attr = 3, 0o100644 << 16  # as on Linux, wherever it is made
    return made
