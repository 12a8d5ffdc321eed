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


def ended(session: Session, asked: Asked) -> Any:
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
