# SPDX-License-Identifier: GPL-3.0-or-later
"""The add-on's session with a real backend on another machine: over TLS, with uploads instead of paths."""

from __future__ import annotations

import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from backend.library import load_library
from backend.motion_files import save_motion
from liveportrait_blender import motion_file
from liveportrait_blender.session import Session
from liveportrait_blender.supervisor import BackendSettings
from tests.contract.serving import PATIENCE, TOKEN, serving


@dataclass(frozen=True)
class Asked:
    """What the add-on's requests are to a session."""

    source: Path
    folder: Path
    method: str = "animate"
    label: str = "anna"
    landing: Any = None

    def params(self) -> dict[str, Any]:
        return {"source": self.source, "driving": {"library": "wink"}, "options": {"frames": [0, 3]}}


@dataclass(frozen=True)
class Converted:
    """A file of curves or a template to be read, as the add-on's import asks for it."""

    motion: Path
    folder: Path
    method: str = "motion.convert"
    label: str = "anna"
    landing: Any = None

    def params(self) -> dict[str, Any]:
        return {"motion": self.motion, "format": "npz"}


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that nobody else has signed, and its key."""
    tool = shutil.which("openssl")
    if tool is None:
        pytest.skip("openssl makes the certificate of this test, and is not installed")
    made, key = folder / "cert.pem", folder / "key.pem"
    words = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    words += ["-addext", "subjectAltName=IP:127.0.0.1", "-out", str(made), "-keyout", str(key)]
    subprocess.run([tool, *words], check=True, capture_output=True)
    return made, key


def ended(session: Session, asked: Asked | Converted) -> Any:
    record = session.submit(asked)
    end = time.monotonic() + PATIENCE
    while not record.ended:
        assert time.monotonic() < end, session.state
        for deliver in session.take():
            deliver()
        time.sleep(0.005)
    return record


def test_a_remote_backend_is_reached_over_tls_and_gets_the_files(portrait: Path, tmp_path: Path) -> None:
    made, key = certificate(tmp_path)
    with serving(tmp_path, "--tls-cert", str(made), "--tls-key", str(key)) as running:
        url = f"wss://127.0.0.1:{running.port}"
        settings = BackendSettings(remote_url=url, remote_token=TOKEN, remote_certificate=made)
        session = Session(lambda: settings)
        try:
            record = ended(session, Asked(portrait, tmp_path / "out"))
            assert (record.state, record.frames) == ("done", 3)
            assert not session.local  # so the portrait was sent
            assert session.state.kind == "ready" and session.state.engines["mesh"]["available"]
        finally:
            session.close()


@pytest.mark.parametrize(
    "name", ["curves.csv", "curves.json", "curves", "Kurven ä.JSON", "template.pkl", "motion.npz"]
)
def test_curves_and_templates_are_sent_to_a_remote_backend_and_come_back_as_motion(
    name: str, tmp_path: Path
) -> None:
    """It cannot read the path, and goes by the contents and the name that are sent."""
    smile = load_library("smile")
    given = tmp_path / "here" / name
    given.parent.mkdir()
    suffix = Path(name).suffix.lower() or ".csv"
    save_motion(smile, tmp_path / f"written{suffix}").rename(given)
    with serving(tmp_path) as running:
        settings = BackendSettings(remote_url=running.url, remote_token=TOKEN)
        session = Session(lambda: settings)
        try:
            record = ended(session, Converted(given, tmp_path / "out"))
            assert record.state == "done", (record.error, record.hint)
            assert not session.local
            motion = motion_file.read(tmp_path / "out" / "motion.npz")
            assert len(motion) == len(smile)
            assert (motion.engine == "arkit") == (suffix in (".csv", ".json"))
            given.write_text('{"format": "something else"}' if suffix == ".json" else "no table")
            record = ended(session, Converted(given, tmp_path / "again"))
            # A name without an ending may be a clip's.
            wanted = {"": "unreadable-media", ".pkl": "unsafe-pickle"}.get(Path(name).suffix, "bad-motion")
            assert (record.state, record.code) == ("failed", wanted), record
            assert "store" not in record.error  # where it was kept is no matter of hers
            assert given.name in record.error or suffix == ".pkl"
        finally:
            session.close()
