# SPDX-License-Identifier: GPL-3.0-or-later
"""From the zip to an answering backend, with nothing but Blender: Set Up Backend for real."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

SET_UP = """
import json, os, sys
from pathlib import Path
from importlib import import_module
bpy.context.preferences.system.use_online_access = True
ops, preferences = bpy.ops.liveportrait, import_module(addon.__name__ + ".preferences")
try:
    ops.set_up_backend(profile="mesh")
except RuntimeError as error:
    print("##" + json.dumps({"failed": str(error)}))
else:
    launch = preferences.backend_settings().local
    ops.start_backend(wait=120)
    session = import_module(addon.__name__ + ".runtime").session
    told = session.call("status")
    told["code"] = os.readlink(f"/proc/{told['pid']}/cwd") if os.path.isdir("/proc") else ""
    told["engines"] = sorted(name for name, engine in session.state.engines.items() if engine["available"])
    ops.stop_backend()
    user = launch.copy_to
    made = sorted(path.name for path in user.iterdir())
    ops.remove_backend()
    told.update(made=made, left=sorted(path.name for path in user.iterdir()), user=str(user))
    print("##" + json.dumps(told))
"""


@pytest.mark.slow
def test_set_up_start_and_remove_out_of_the_installed_zip(installed: Any) -> None:
    def everything() -> set[Path]:
        return {path for path in installed.folder.rglob("*") if "__pycache__" not in path.parts}

    before = everything()
    (line,) = [line for line in installed.run(SET_UP).splitlines() if line.startswith("##")]
    told = json.loads(line[2:])
    if "index cannot be reached" in told.get("failed", ""):
        pytest.skip("pip reaches no package index here")
    assert "failed" not in told, told["failed"]
    assert "mesh" in told["engines"]
    user = Path(told["user"])
    assert ".user" in user.parts and user.is_relative_to(installed.profile)
    if told["code"]:
        assert Path(told["code"]) == user / "backend-0.1.0"  # it ran from its copy
    assert {"backend-0.1.0", "environment"} <= set(told["made"])
    assert told["left"] == ["logs"]
    assert everything() == before
