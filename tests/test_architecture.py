# SPDX-License-Identifier: GPL-3.0-or-later
"""The rules about who may know whom, held by reading the sources."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
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


def imports_when_loaded(path: Path) -> frozenset[str]:
    """The packages that a file imports as soon as it is loaded: not in functions, nor for types alone."""
    names: set[str] = set()
    rest: list[ast.AST] = [ast.parse((ROOT / path).read_text(encoding="utf-8"), str(path))]
    while rest:
        node = rest.pop()
        if isinstance(node, ast.Import):
            names.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add((node.module or "").split(".")[0])
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            rest += node.orelse
        elif not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            rest += ast.iter_child_nodes(node)
    return frozenset(names)


def of_the_addon() -> list[Path]:
    """The add-on's modules; presets are scripts that Blender runs."""
    return [p for p in sources() if p.parts[0] == "liveportrait_blender" and "presets" not in p.parts]


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
    for package in ("bpy", "bmesh", "mathutils"):
        in_blender = ("scripts/demo_in_blender.py", "scripts/bench_blender.py")
        allowed = ("liveportrait_blender/", "tests/", *in_blender)
        strangers = [path for path in importers(package) if not path.startswith(allowed)]
        assert strangers == []


# What of the add-on has to work in any Python: the client, the session, the backend's processes and set-up.
WITHOUT_BPY = re.compile(
    r"__init__|names|paths|motion_file|motion_rates|picture_size|own_files|offline_file|environments|pythons"
    r"|job_records|folder_copies|supervisor"
    r"|(client|session|setup|backend)(_\w+)?"
)


def test_what_works_without_blender_does_not_import_it() -> None:
    bound = [p for p in of_the_addon() if len(p.parts) == 2 and WITHOUT_BPY.fullmatch(p.stem)]
    assert {"client", "session", "supervisor", "setup_plan", "motion_file"} <= {p.stem for p in bound}
    for path in bound:
        if path.stem != "paths":  # asks Blender where an extension may write, when it is called
            assert importers("bpy", path.as_posix()) == []
        assert imports_when_loaded(path).isdisjoint({"bpy", "mathutils"}), path


def test_the_addon_loads_without_numpy_and_websockets() -> None:
    # Not every Blender has numpy, and the wheel must not be loaded before it is needed.
    for path in of_the_addon():
        assert imports_when_loaded(path).isdisjoint({"numpy", "websockets"}), path


def test_what_works_without_blender_is_loaded_without_anything_else() -> None:
    modules = [
        f"liveportrait_blender.{p.stem}"
        for p in of_the_addon()
        if len(p.parts) == 2 and p.stem != "__init__" and WITHOUT_BPY.fullmatch(p.stem)
    ]
    code = (
        f"import importlib, sys; [importlib.import_module(name) for name in {modules!r}];"
        " known = {*sys.stdlib_module_names, 'liveportrait_blender'};"
        " loaded = {n.split('.')[0] for n, m in sys.modules.items() if getattr(m, '__file__', None)};"
        " print(sorted(n for n in loaded - known if not n.startswith('_')))"
    )
    command = [sys.executable, "-S", "-c", code]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.strip() == "[]"


def test_the_addon_never_names_itself() -> None:
    # Installed it is called bl_ext.<repository>.liveportrait_blender.
    for path in of_the_addon():
        for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
            absolute = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                absolute = [node.module or ""]
            assert not [name for name in absolute if name.startswith("liveportrait_blender")], path


def test_one_file_knows_blenders_versions() -> None:
    asked = re.compile(r"\bapp\.version(?!_string)")  # which one it is may be said anywhere
    knowing = [p.name for p in of_the_addon() if asked.search((ROOT / p).read_text(encoding="utf-8"))]
    assert knowing == ["compat.py"]


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
    known = {*sys.stdlib_module_names, "scripts", "__future__"}
    for name in ("machine", "environment", "test", "demo", "build_extension", "offline_bundle"):
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


# The add-on's alone: options.json is made of the command line by a script that can check it, offline.json is
# what the set-up and scripts/offline_bundle.py agree on.
ONLY_THE_ADDONS = {"options.json", "offline.json", "shape_key_names.json", "shape_key_presets"}


def test_shared_tables_are_the_same_on_both_sides() -> None:
    ours, theirs = ROOT / "backend" / "data", ROOT / "liveportrait_blender" / "data"
    tables = [path.relative_to(theirs) for path in theirs.rglob("*.*")]
    shared = [theirs / path for path in tables if path.parts[0] not in ONLY_THE_ADDONS]
    assert shared
    for path in shared:
        copy_of = ours / path.relative_to(theirs)
        assert copy_of.is_file() and path.read_bytes() == copy_of.read_bytes(), path.name


def test_the_metadata_agree_with_the_code() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    oldest, newest = environment.VERSIONS[0], environment.VERSIONS[-1]
    assert project["version"] == backend.__version__
    assert project["license"] == "GPL-3.0-or-later"
    assert project["requires-python"] == f">={oldest[0]}.{oldest[1]},<{newest[0]}.{newest[1] + 1}"
    assert "GNU GENERAL PUBLIC LICENSE" in (ROOT / "LICENSE").read_text(encoding="utf-8")
