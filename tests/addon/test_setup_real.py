# SPDX-License-Identifier: GPL-3.0-or-later
"""The small set-up for real: plan, packages, environment, and a backend that starts out of it."""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path

import pytest

from liveportrait_blender import environments
from liveportrait_blender.client import Client
from liveportrait_blender.setup_runner import Job, Runner
from liveportrait_blender.supervisor import Launch, Supervisor
from scripts import machine, offline_bundle
from scripts.environment import VERSIONS

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 600.0  # seconds; packages come from wherever pip is told


@pytest.mark.slow
def test_from_nothing_to_an_answering_backend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    extension, user = tmp_path / "extension", tmp_path / "user folder"
    shutil.copytree(ROOT / "backend", extension / "backend", ignore=shutil.ignore_patterns("__pycache__"))
    user.mkdir()
    runner = Runner(Job("mesh", user, ROOT / "requirements", extension))
    runner.start()
    told = runner.wait(PATIENCE)
    if told.state == "failed" and "index cannot be reached" in told.sentence:
        pytest.skip("pip reaches no package index here")
    assert told.state == "done", (told, list(runner.lines)[-20:])
    found = environments.look(user)
    assert found.kind == "whole" and found.python is not None
    assert {path.name for path in user.iterdir()} == {"environment", "logs"}
    assert not list(extension.rglob("__pycache__"))

    launch = Launch(found.python, extension, user / "cache", user / "logs" / "backend.log", copy_to=user)
    supervisor = Supervisor(launch)
    supervisor.start()
    try:
        end = time.monotonic() + 120
        while supervisor.watch().kind == "starting" and time.monotonic() < end:
            time.sleep(0.05)
        assert supervisor.address is not None, supervisor.state
        url, token = supervisor.address
        with Client(url, token, attempts=1) as client:
            welcome = client.wait_ready(60)
            assert welcome["pid"] == supervisor.pid and welcome["engines"]["mesh"]["available"]
    finally:
        supervisor.stop(60)
    assert not list(extension.rglob("__pycache__"))  # it ran from its copy
    assert (user / "backend-0.1.0" / "backend" / "__main__.py").is_file()

    paths = [path for _, path, _ in environments.takes(user, None, user / "cache")]
    assert environments.remove(user, paths) == []
    assert {path.name for path in user.iterdir()} == {"logs"}


@pytest.mark.slow
def test_the_offline_file_needs_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = machine.probe_python([getattr(sys, "_base_executable", sys.executable)], VERSIONS)
    pip = None if base is None else machine.find_pip(base)  # environments of the project's have none
    if pip is None:
        pytest.skip("there is no pip that could fetch the wheels")
    try:
        path = offline_bundle.build(tmp_path, sys.version_info[:2], pip)
    except machine.SetupError as error:
        pytest.skip(f"the file cannot be made here: {error}")
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/nobody-is-there")
    (tmp_path / "user").mkdir()
    runner = Runner(Job("mesh", tmp_path / "user", ROOT / "requirements", ROOT, offline=path))
    runner.start()
    told = runner.wait(PATIENCE)
    assert told.state == "done", (told, list(runner.lines)[-20:])
    found = environments.look(tmp_path / "user")
    assert found.kind == "whole" and found.made is not None and found.made.offline
    assert {path.name for path in (tmp_path / "user").iterdir()} == {"environment", "logs"}
