# SPDX-License-Identifier: GPL-3.0-or-later
"""The narrowest way through everything: a server, the add-on's client, frames on a plane."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
from pathlib import Path

import bpy
import numpy as np

from tests.blender.conftest import ROOT
from tests.blender.frames import landed, look_at, read_png, rendered
from tests.blender.working import PATIENCE, portrait  # noqa: F401


def test_a_still_moves_on_a_plane(addon, backend_python: Path, portrait: Path, tmp_path: Path) -> None:  # noqa: F811
    from liveportrait_blender.client import Client

    token = secrets.token_urlsafe(24)
    around = {**os.environ, "LIVEPORTRAIT_TOKEN": token, "XDG_STATE_HOME": str(tmp_path / "state")}
    command = [backend_python, "-m", "backend", "serve", "--watch-stdin", "--cache", str(tmp_path / "cache")]
    server = subprocess.Popen(
        command,
        cwd=ROOT,
        env=around,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert server.stdout is not None
        with Client(json.loads(server.stdout.readline())["url"], token) as client:
            client.wait_ready(PATIENCE)
            asked = {"source": portrait, "driving": {"library": "talk"}, "options": {"frames": [0, 6]}}
            job = client.start_job("animate", tmp_path / "anna", **asked)
            assert job.wait(PATIENCE)["frames"] == 6
    finally:
        _, _ = server.communicate(timeout=PATIENCE)
    scene = bpy.context.scene
    result = landed(tmp_path / "anna", 1)
    look_at(result.owner, scene, (320, 320))
    for index in (0, 5):
        came = read_png(tmp_path / "anna" / f"{index:06d}.png")
        shown = rendered(scene, 1 + index, tmp_path / "out.png")
        assert np.abs(shown[..., :3].astype(int) - came[..., :3]).max() <= 1
