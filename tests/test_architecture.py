# SPDX-License-Identifier: GPL-3.0-or-later
"""The rules about who may know whom, held by reading the sources."""

from __future__ import annotations

import ast
import json
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import backend
from scripts import environment

ROOT = environment.ROOT
ROOMS = ("backend", "liveportrait_blender", "scripts", "tests")
TEXT = {".py", ".md", ".txt", ".toml", ".json", ".yml", ".yaml", ".sh", ""}


@cache
def sources() -> tuple[Path, ...]:
    """Every Python file of the project, relative to its root."""
    found = (path for room in ROOMS for path in (ROOT / room).rglob("*.py"))
    return tuple(sorted(path.relative_to(ROOT) for path in found))


@cache
def imports(path: Path) -> frozenset[str]:
    """The dotted names that a file imports, at module level or inside functions, relative ones resolved."""
    names: set[str] = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = list(path.parent.parts[: len(path.parent.parts) - node.level + 1]) if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            names.update({module, *(f"{module}.{alias.name}" for alias in node.names)})
    return frozenset(names)


def importers(package: str, within: str = "") -> list[str]:
    """The files (under `within`) that import a package or anything in it."""
    return [
        path.as_posix()
        for path in sources()
        if path.as_posix().startswith(within)
        and any(name == package or name.startswith(f"{package}.") for name in imports(path))
    ]


def texts() -> Iterator[tuple[Path, str]]:
    """Every text file that belongs to the project, environments, caches and results left out."""
    here = [path for path in ROOT.iterdir() if path.is_file()]
    for folder in (*ROOMS, ".ci", "requirements", "docs"):
        here += [path for path in (ROOT / folder).rglob("*") if path.is_file()]
    for path in here:
        if path.suffix in TEXT and "__pycache__" not in path.parts and path.name != ".git":
            yield path.relative_to(ROOT), path.read_text(encoding="utf-8", errors="replace")


def test_every_source_names_its_licence_first() -> None:
    start = re.compile(r"(#![^\n]*\n)?# SPDX-License-Identifier: GPL-3\.0-or-later\n")
    without = [path for path in sources() if not start.match((ROOT / path).read_text(encoding="utf-8"))]
    assert sources()
    assert without == []


def test_torch_is_only_known_to_the_neural_engine() -> None:
    allowed = re.compile(r"backend/(engines/neural\.py|networks/.*)|tests/.*")
    assert [path for path in importers("torch") if not allowed.fullmatch(path)] == []


def test_bpy_is_only_known_to_the_addon() -> None:
    without = {"liveportrait_blender/client.py", "liveportrait_blender/supervisor.py"}
    for package in ("bpy", "bmesh", "mathutils"):
        strangers = [p for p in importers(package) if not p.startswith(("liveportrait_blender/", "tests/"))]
        assert strangers == []
        assert without.isdisjoint(importers(package))


def test_the_addon_and_the_backend_share_no_code() -> None:
    assert importers("backend", "liveportrait_blender/") == []
    assert importers("liveportrait_blender", "backend/") == []
    for package in ("torch", "cv2", "mediapipe"):
        assert importers(package, "liveportrait_blender/") == []


@pytest.mark.parametrize("package", ["backend.pipeline", "backend.retargeting", "backend.cli"])
def test_engines_never_look_up(package: str) -> None:
    assert importers(package, "backend/engines/") == []


def test_motion_looks_at_nobody_above_it() -> None:
    for above in ("pipeline", "retargeting", "engines", "cli", "faces", "media"):
        assert "backend/motion.py" not in importers(f"backend.{above}")


def test_the_backend_never_imports_scripts_or_tests() -> None:
    for package in ("scripts", "tests"):
        assert importers(package, "backend/") == []


def test_what_runs_before_the_environment_imports_only_the_standard_library() -> None:
    import sys

    known = {*sys.stdlib_module_names, "scripts", "__future__"}
    for name in ("environment", "test", "demo"):
        strangers = {module.split(".")[0] for module in imports(Path(f"scripts/{name}.py"))} - known
        assert strangers == set(), f"scripts/{name}.py"


def test_paths_of_one_machine_stay_out() -> None:
    named = re.compile(r"\.\./shared|/work/|/root/|/home/[a-z]")
    outside = [path for path, text in texts() if path.parts[0] not in ("tests", ".ci") and named.search(text)]
    assert outside == []


def test_tables_are_json_that_every_reader_takes() -> None:
    def refuse(constant: str) -> float:
        raise ValueError(f"{constant} is not JSON")

    for path in (ROOT / "backend" / "data").rglob("*.json"):
        assert json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse), path


def test_shared_tables_are_the_same_on_both_sides() -> None:
    ours, theirs = ROOT / "backend" / "data", ROOT / "liveportrait_blender" / "data"
    if not theirs.is_dir():
        pytest.skip("the add-on has no tables yet")
    both = [path for path in theirs.glob("*.json") if (ours / path.name).exists()]
    assert [path.name for path in both if path.read_bytes() != (ours / path.name).read_bytes()] == []


def test_the_metadata_agree_with_the_code() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    oldest, newest = environment.VERSIONS[0], environment.VERSIONS[-1]
    assert project["version"] == backend.__version__
    assert project["license"] == "GPL-3.0-or-later"
    assert project["requires-python"] == f">={oldest[0]}.{oldest[1]},<{newest[0]}.{newest[1] + 1}"
    assert "GNU GENERAL PUBLIC LICENSE" in (ROOT / "LICENSE").read_text(encoding="utf-8")
