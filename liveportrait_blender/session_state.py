# SPDX-License-Identifier: GPL-3.0-or-later
"""How the backend is, in words; and what a session needs of the network. Imports no bpy."""

from __future__ import annotations

import logging
import ssl
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from .client import Client
from .names import UserError
from .supervisor import Supervisor

PREFERENCES, RESTART = "liveportrait.open_preferences", "liveportrait.restart_backend"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SessionState:
    """kind: stopped, starting, ready, busy, silent or failed. fix: the id of an operator that helps, or "".
    engines, device: as hello told; empty before.
    """

    kind: str = "stopped"
    sentence: str = "The backend is not running."
    hint: str = "It starts by itself when it is needed."
    log: Path | None = None
    fix: str = ""
    engines: Mapping[str, Any] = field(default_factory=dict)
    device: Any = ""

    @property
    def up(self) -> bool:
        """Whether it answers."""
        return self.kind in ("ready", "busy")


def connection_state(
    supervisor: Supervisor | None, client: Client | None, connected: bool, silent: bool, busy: int
) -> SessionState:
    """The state of a backend that is wanted and has not failed. busy: jobs that have not ended."""
    path = None if supervisor is None else supervisor.state.log
    if supervisor is not None and supervisor.state.kind == "starting":
        return SessionState("starting", supervisor.state.sentence, "", path)
    if silent:
        if supervisor is None and not connected:
            return SessionState("silent", "The backend cannot be reached.", "Is it running?", path)
        return SessionState("silent", "The backend does not answer.", "Restart it.", path, RESTART)
    if client is None or not connected:
        return SessionState("starting", "Connecting to the backend.", "", path)
    sentence = "The backend is ready."
    if busy:
        sentence = "1 job" if busy == 1 else f"{busy} jobs"
    engines = client.welcome.get("engines") or {}
    device = client.welcome.get("device") or ""
    return SessionState("busy" if busy else "ready", sentence, "", path, "", engines, device)


def tls_context(url: str, certificate: Path | None) -> ssl.SSLContext | None:
    """What a remote address needs. Raises UserError where it would not be encrypted, or cannot be used."""
    try:
        parts = urlsplit(url)
        scheme, host = parts.scheme, parts.hostname or ""
        _ = parts.port
    except ValueError:
        scheme = host = ""
    if scheme not in ("ws", "wss") or not host:
        raise UserError(
            "The address of the remote backend is no address.", "Write wss://name:port.", PREFERENCES
        )
    if scheme == "ws":
        if host in ("127.0.0.1", "localhost", "::1"):
            return None
        raise UserError(
            "The connection to the remote backend would not be encrypted.",
            "Use wss:// and start the backend with a certificate.",
            PREFERENCES,
        )
    try:
        return ssl.create_default_context(cafile=None if certificate is None else str(certificate))
    except (OSError, ssl.SSLError) as error:
        raise UserError(
            f"The certificate {certificate} cannot be used: {getattr(error, 'strerror', '') or error}.",
            "Choose the PEM file of the remote backend's certificate.",
            PREFERENCES,
        ) from error


def close_within(timeout: float, client: Client | None, supervisor: Supervisor | None) -> None:
    """Close both, side by side, and wait for them no longer than so; what takes longer ends by itself."""

    def end() -> None:
        try:
            if supervisor is not None:
                supervisor.stop(max(timeout * 0.8, 0.5))
        except OSError:
            log.exception("The backend could not be ended")

    threads = []
    if supervisor is not None:
        threads.append(threading.Thread(target=end, name="liveportrait-end", daemon=True))
    if client is not None:
        threads.append(threading.Thread(target=client.close, name="liveportrait-end", daemon=True))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout)
