# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes the zip that Blender installs: the add-on, the backend's sources, and the wheel that they talk by.

    python3 scripts/build_extension.py                    dist/liveportrait_blender-VERSION.zip
    python3 scripts/build_extension.py --output DIR
    python3 scripts/build_extension.py --offline          and the backend's wheels, in one zip

Blender's own extension tool, out of the bpy wheel of one of the environments for tests, checks and packs it;
then the entries are put in order, with fixed times and permissions, so that the same sources make the same
file; then the tool has the last word on that file.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts import environment, machine, offline_bundle
from scripts.environment import BLENDERS, ROOT, VERSIONS, ensure
from scripts.machine import SetupError, Version, guarded

MANIFEST = "blender_manifest.toml"
PACKAGE = "liveportrait_blender"
BUNDLED = {  # the wheels that the manifest names: what fetches them, and the contents they must have
    "websockets-17.4-py3-none-any.whl": (
        "websockets==17.4",
        "c6bd2c9781915592b209160d0f017d4c7c82ad53075e6b0c24d2a89299e7f9e9",
    ),
}
KEPT_WHEELS = ROOT / ".wheels"
TOOL = "bpy/*/scripts/addons_core/bl_pkg/cli/blender_ext.py"
TOOL_FROM = "5.0.1"  # the release whose tool is used where none is installed yet

# Lists of packages that only this project's own environments need.
NOT_SHIPPED = re.compile(r"(bpy.*|demo|test)\.txt")
# What the add-on and the backend consist of; anything else in their folders was left there by accident.
KNOWN = {".py", ".json", ".npz", ".md", ".txt", ".png", ".svg"}


# --- what goes in -------------------------------------------------------------------------------------------


def contents() -> dict[str, Path]:
    """Every file of the extension, by its name in the zip.

    Raises:
        SetupError: a folder holds something that is no part of the project.
    """
    found = {path.relative_to(ROOT / PACKAGE): path for path in _files(ROOT / PACKAGE)}
    for folder in ("backend", "requirements"):
        found.update({path.relative_to(ROOT): path for path in _files(ROOT / folder)})
    packed = {
        name.as_posix(): path
        for name, path in found.items()
        if not (name.parts[0] == "requirements" and NOT_SHIPPED.fullmatch(name.name))
    }
    if strange := sorted(name for name in packed if Path(name).suffix not in KNOWN):
        raise SetupError(f"{', '.join(strange)}: no part of the extension; move it out of the project.")
    packed.update({name: ROOT / name for name in (MANIFEST, "LICENSE")})
    packed.update({f"wheels/{name}": fetch_bundled_wheel(name) for name in BUNDLED})
    return dict(sorted(packed.items()))


def read_version() -> str:
    """The extension's version, as its manifest says it."""
    found = re.search(r'^version = "([0-9.]+)"$', (ROOT / MANIFEST).read_text(encoding="utf-8"), re.MULTILINE)
    if found is None:
        raise SetupError(f"{MANIFEST} says no version.")
    return found[1]


def _files(folder: Path) -> Iterator[Path]:
    """The files below a folder, without what Python, editors and systems leave behind."""
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        hidden = any(part.startswith(".") or part == "__pycache__" for part in parts)
        if path.is_file() and not hidden and path.suffix not in (".pyc", ".pyo"):
            yield path


def fetch_bundled_wheel(name: str = next(iter(BUNDLED))) -> Path:
    """A wheel that goes into the zip, fetched once by pip and kept in the project's folder.

    Raises:
        SetupError: it cannot be had, or its contents are not those that were pinned.
    """
    pin, wanted = BUNDLED[name]
    kept = KEPT_WHEELS / name
    if not kept.is_file() or offline_bundle.sha256(kept) != wanted:
        with tempfile.TemporaryDirectory(prefix="liveportrait-wheel-") as temporary:
            pure = ["--platform", "any", "--implementation", "py", "--abi", "none"]
            machine.run(
                [*any_pip(), "download", "--quiet", "--no-deps", "--only-binary", ":all:", *pure]
                + ["--python-version", "3.11"]
                + ["--dest", temporary, pin],
                f"{name} could not be fetched (check the network and pip's settings, then run this again)",
            )
            fetched = Path(temporary) / name
            if not fetched.is_file() or offline_bundle.sha256(fetched) != wanted:
                raise SetupError(f"pip fetched something else than the {name} that belongs to the extension.")
            KEPT_WHEELS.mkdir(exist_ok=True)
            part = Path(shutil.copy(fetched, KEPT_WHEELS / f"{name}.part"))
            part.replace(kept)
    return kept


def any_pip() -> list[str]:
    """The command of a pip: the machine's, or one put into the project's environment."""
    pip = machine.find_pip(machine.find_python(VERSIONS))
    if pip is None:
        inside = str(ensure("mesh"))
        if machine.ask([inside, "-m", "pip", "--version"]).returncode != 0:
            machine.run([inside, "-m", "ensurepip"], "pip could not be put into the environment")
        pip = [inside, "-m", "pip"]
    return pip


# --- packing it ---------------------------------------------------------------------------------------------


def blenders_tool() -> list[str]:
    """The command of Blender's extension tool: of the running Python's bpy wheel, or of an environment's."""
    here = [Path(sys.prefix), *(ROOT / f".venv-bpy-{version}" for version in (TOOL_FROM, *BLENDERS))]
    for folder in here:
        if found := _tool_in(folder):
            return found
    ensure(f"bpy-{TOOL_FROM}")
    found = _tool_in(ROOT / f".venv-bpy-{TOOL_FROM}")
    if not found:
        raise SetupError(f"There is no extension tool in .venv-bpy-{TOOL_FROM}; remove that and try again.")
    return found


def _tool_in(folder: Path) -> list[str]:
    python = environment.environment_python(folder)
    for packages in ("lib/python*/site-packages", "Lib/site-packages"):
        tools = sorted(folder.glob(f"{packages}/{TOOL}")) if python.is_file() else []
        if tools:
            return [str(python), "-I", str(tools[-1])]
    return []


def build(folder: Path) -> Path:
    """Makes and checks the zip; gives its path. One of the same name is replaced once the new one is whole.

    Raises:
        SetupError: something is missing, or Blender's tool refuses it.
    """
    tool = blenders_tool()
    files = contents()
    version = read_version()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="liveportrait-extension-") as temporary:
        stage, packed = Path(temporary) / PACKAGE, Path(temporary) / "packed.zip"
        for name, path in files.items():
            target = stage / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        machine.run(
            [*tool, "build", "--source-dir", str(stage), "--output-filepath", str(packed)],
            "Blender's extension tool refused to pack it",
        )
        part = folder / f"{PACKAGE}-{version}.zip.part"
        put_in_order(packed, part)
        with zipfile.ZipFile(part) as made:
            if differing := set(made.namelist()) ^ set(files):
                raise SetupError(f"Blender's tool packed other files than wanted: {sorted(differing)}")
        last = Path(shutil.copyfile(part, Path(temporary) / "last.zip"))  # the tool asks for the ending
        machine.run([*tool, "validate", str(last)], "Blender's extension tool refused the finished file")
    return part.replace(folder / f"{PACKAGE}-{version}.zip")


def put_in_order(packed: Path, target: Path) -> None:
    """Writes a zip anew so that it depends on names and contents alone."""
    with zipfile.ZipFile(packed) as source, zipfile.ZipFile(target, "w") as made:
        for name in sorted(name for name in source.namelist() if not name.endswith("/")):
            entry = offline_bundle.entry(name)
            entry.compress_type = zipfile.ZIP_STORED if name.endswith(".whl") else zipfile.ZIP_DEFLATED
            made.writestr(entry, source.read(name), compresslevel=9)


def describe(path: Path) -> str:
    """Path, size and hash of a file, for the one who made it."""
    return f"{path}\n  {path.stat().st_size:,} bytes, SHA-256 {offline_bundle.sha256(path)}"


def main() -> int:
    parser = argparse.ArgumentParser(description="Make the zip that Blender installs.")
    parser.add_argument("--output", metavar="DIR", default="dist", type=Path, help="where to [dist]")
    parser.add_argument(
        "--offline",
        action="store_true",
        help="also pack what Set Up Backend would fetch for this platform, mesh engine only",
    )
    parser.add_argument(
        "--offline-python",
        metavar="VERSION",
        choices=[".".join(map(str, version)) for version in VERSIONS],
        default="3.11",
        help="the Python that the backend's environment will have: 3.11 (Blender's until 5.0) or 3.12 [3.11]",
    )
    options = parser.parse_args()
    folder = options.output.resolve() if options.output != Path("dist") else ROOT / "dist"
    print(describe(build(folder)))
    if options.offline:
        major, minor = options.offline_python.split(".")
        version: Version = (int(major), int(minor))
        print(describe(offline_bundle.build(folder, version, any_pip())))
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
