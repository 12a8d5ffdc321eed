# SPDX-License-Identifier: GPL-3.0-or-later
"""What Set Up Backend would run: its command lines, its lists, and the Python that it chooses."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from liveportrait_blender import pythons
from liveportrait_blender.pythons import Python
from liveportrait_blender.setup_plan import (
    PROFILES,
    Places,
    PlanError,
    Request,
    make_plan,
    python_in,
    read_pins,
    uv_settings,
)

ROOT = Path(__file__).resolve().parents[2]
LISTS = ROOT / "requirements"

OWN = Python("/blender/python", (3, 11, 9), "/blender", pip=(24, 0))
NEWER = Python("/blender/python", (3, 13, 1), "/blender", pip=(25, 0))
BARE = Python("/blender/python", (3, 13, 1), "/blender", ensurepip=False)

pytestmark = pytest.mark.skipif(os.name == "nt", reason="paths as POSIX has them")


def request(folder: Path, profile: str = "mesh", host: Python | None = OWN, **named: Any) -> Request:
    base = named.pop("base", host)
    return Request(profile, folder, LISTS, ROOT, host, base, **named)


# --- command lines ------------------------------------------------------------------------------------------


def test_the_small_set_up_needs_only_blenders_own_python(tmp_path: Path) -> None:
    plan = make_plan(request(tmp_path))
    inside = str(tmp_path / "environment.part" / "bin" / "python")
    create, install, check = (step.line for step in plan.steps)
    assert create == ("/blender/python", "-I", "-m", "venv", str(tmp_path / "environment.part"))
    assert install[:5] == (inside, "-I", "-m", "pip", "install")
    assert {"--no-deps", "--only-binary", "--no-input"} <= set(install)
    assert install[-2:] == ("-r", str(LISTS / "mesh.txt"))
    assert check == (inside, "-m", "backend", "doctor", "--json")
    # The code is run where it is, and nothing is written there.
    assert plan.steps[-1].environment["PYTHONPATH"] == str(ROOT)
    assert plan.steps[-1].environment["PYTHONDONTWRITEBYTECODE"] == "1"
    assert plan.pins == read_pins(LISTS, "mesh") and not plan.uses_uv
    # Nothing is kept anywhere but in the extension's own folder.
    assert plan.steps[1].environment["PIP_CACHE_DIR"].startswith(str(tmp_path))


def test_a_python_without_ensurepip_fills_it_from_outside(tmp_path: Path) -> None:
    debian = Python("/usr/bin/python3.11", (3, 11, 2), "/usr", ensurepip=False, pip=(23, 0))
    create, install, _ = (step.line for step in make_plan(request(tmp_path, host=debian)).steps)
    assert "--without-pip" in create
    assert install[:6] == (
        "/usr/bin/python3.11",
        "-I",
        "-m",
        "pip",
        "--python",
        str(python_in(Places(tmp_path).building)),
    )


def test_a_newer_blender_uses_a_python_of_the_machine(tmp_path: Path) -> None:
    other = Python("/usr/bin/python3.12", (3, 12, 1), "/usr")
    plan = make_plan(request(tmp_path, host=NEWER, base=other))
    assert plan.steps[0].line[0] == "/usr/bin/python3.12" and not plan.uses_uv


def test_where_there_is_none_uv_fetches_one(tmp_path: Path) -> None:
    plan = make_plan(request(tmp_path, host=NEWER, base=None, index={"UV_INDEX": "https://mirror.invalid"}))
    lines = {step.name: step.line for step in plan.steps}
    assert list(lines) == ["tools", "uv", "python", "create", "install", "check"]
    assert lines["uv"][-1] == read_pins(LISTS, "tools")[0] and "==" in lines["uv"][-1]
    uv = str(tmp_path / "tools" / "bin" / "uv")
    assert lines["python"][:4] == (uv, "python", "install", "3.11")
    assert {"--no-bin", "--no-registry"} <= set(lines["python"])  # nothing outside our folder
    assert lines["create"][:2] == (uv, "venv") and "--managed-python" in lines["create"]
    assert lines["install"][:3] == (uv, "pip", "install") and "--no-deps" in lines["install"]
    variables = plan.steps[3].environment
    assert variables["UV_INDEX"] == "https://mirror.invalid"
    for name in ("UV_CACHE_DIR", "UV_PYTHON_INSTALL_DIR"):
        assert variables[name].startswith(str(tmp_path))


def test_the_build_of_torch_is_chosen_for_the_machine(tmp_path: Path) -> None:
    steps = {step.name: step.line for step in make_plan(request(tmp_path, "neural-cuda")).steps}
    assert list(steps) == ["tools", "uv", "create", "install", "cuda", "check"]
    for name in ("install", "cuda"):
        assert steps[name][steps[name].index("--torch-backend") + 1] == "auto"
    assert "--no-deps" in steps["install"] and "--no-deps" not in steps["cuda"]
    assert steps["cuda"][-1] == "torch==2.13.0" and "--constraints" in steps["cuda"]
    on_processor = {step.name: step.line for step in make_plan(request(tmp_path, "neural-cpu")).steps}
    assert "cuda" not in on_processor and "cpu" in on_processor["install"]


def test_an_offline_file_keeps_pip_from_the_network(tmp_path: Path) -> None:
    plan = make_plan(request(tmp_path, offline=tmp_path / "wheels"))
    install = plan.steps[1].line
    assert "--no-index" in install and install[install.index("--find-links") + 1] == str(tmp_path / "wheels")
    with pytest.raises(PlanError, match="offline file needs Python"):
        make_plan(request(tmp_path, host=NEWER, base=None, offline=tmp_path / "wheels"))


def test_without_any_pip_it_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(PlanError) as caught:
        make_plan(request(tmp_path, host=BARE, base=None))
    assert "no pip" in caught.value.sentence and "Install Python 3.11 or 3.12" in caught.value.hint
    with pytest.raises(PlanError, match="Reinstall the extension"):
        make_plan(Request("mesh", tmp_path, tmp_path, ROOT, OWN, OWN))


def test_no_shell_and_no_secret_is_in_any_line(tmp_path: Path) -> None:
    odd = tmp_path / "a folder; rm -rf $HOME & `x`"
    for profile in PROFILES:
        for step in make_plan(request(odd, profile, host=NEWER, base=None)).steps:
            assert all(isinstance(part, str) for part in step.line)
            assert step.line[0] not in ("sh", "cmd", "powershell")


def test_every_profile_has_its_lists() -> None:
    for profile in PROFILES.values():
        assert set(read_pins(LISTS, "mesh")) <= set(read_pins(LISTS, profile.pins))
        assert profile.disk > profile.download > 0
    assert set(read_pins(LISTS, "neural")) < set(read_pins(LISTS, "neural-cuda"))


def test_no_profile_brings_both_kinds_of_onnxruntime() -> None:
    """They are one package under two names: the second overwrites half of the first."""
    for name in ("neural-cpu", "neural-gpu", "neural-cuda"):
        kinds = {pin.split("==")[0] for pin in read_pins(LISTS, name) if pin.startswith("onnxruntime")}
        assert kinds == {"onnxruntime" if name == "neural-cpu" else "onnxruntime-gpu"}


def test_uv_hears_what_pip_is_told() -> None:
    told = """
:env:.find-links='/wheels /more'
global.cert='/certificates.crt'
global.extra-index-url='https://one.invalid/simple\\nhttps://two.invalid/simple'
global.index-url='https://mirror.invalid/simple'
global.no-cache-dir='1'
freeze.index-url='https://never.invalid'
nonsense
"""
    assert uv_settings(told) == {
        "UV_FIND_LINKS": "/wheels,/more",
        "SSL_CERT_FILE": "/certificates.crt",
        "UV_INDEX": "https://one.invalid/simple https://two.invalid/simple",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_DEFAULT_INDEX": "https://mirror.invalid/simple",
    }
    assert uv_settings("") == {}


# --- choosing a Python --------------------------------------------------------------------------------------


def test_this_python_is_asked_about_itself() -> None:
    found = pythons.running()
    assert found is not None
    assert found.version == sys.version_info[:3] and Path(found.executable).is_file()


def test_one_that_needs_no_help_is_preferred(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {
        "old": Python("old", (3, 10, 1)),
        "bare": Python("bare", (3, 11, 2), ensurepip=False),
        "good": Python("good", (3, 12, 3)),
    }
    monkeypatch.setattr(pythons, "probe", lambda command: known.get(command[0]))
    names = [["missing"], ["old"], ["bare"], ["good"]]
    assert pythons.find(OWN, names) is OWN
    assert pythons.find(NEWER, names) is known["good"]
    assert pythons.find(NEWER, names[:3]) is known["bare"]
    assert pythons.find(NEWER, names[:2]) is None
    assert pythons.find(OWN, names, version=(3, 12)) is known["good"]
    assert pythons.find(NEWER, names, cancelled=lambda: True) is None


def test_what_is_no_python_is_refused(tmp_path: Path) -> None:
    assert pythons.from_path(tmp_path / "python")[1].endswith("is not there.")
    (tmp_path / "python").write_text("#!/bin/sh\necho hello\n")
    (tmp_path / "python").chmod(0o700)
    assert "does not run as a Python" in pythons.from_path(tmp_path / "python")[1]
