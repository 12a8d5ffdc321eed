# SPDX-License-Identifier: GPL-3.0-or-later
"""How a connection begins: hello, and the proof of being on the backend's machine. Imports no bpy."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .client_jobs import NOT_A_BACKEND, BackendError, error_of

PROTOCOL = 1
NONCE = re.compile(r"[0-9a-f]{64}")


def greet(
    socket: Any, token: str, name: str, session: str | None, prove: bool, timeout: float
) -> tuple[dict[str, Any], bool]:
    """Say hello, and with `prove` that this is the backend's machine: (what hello told, whether it is).

    Raises BackendError, and what websockets raises where the connection ends.
    """
    from websockets.exceptions import ConnectionClosed

    who = {"name": name, "pid": os.getpid()}
    hello: dict[str, Any] = {"token": token, "protocol": PROTOCOL, "client": who}
    if session is not None:
        hello["session"] = session
    try:
        welcome = _ask(socket, "hello", hello, timeout)
        if not isinstance(welcome.get("session"), str) or welcome.get("protocol") != PROTOCOL:
            raise NOT_A_BACKEND
        return welcome, prove and _prove(socket, welcome, timeout)
    except ConnectionClosed as closed:
        if closed.rcvd is not None and closed.rcvd.code == 1008:
            raise BackendError(
                "unauthorized", "The backend does not know this client.", "Check the token."
            ) from closed
        raise


def _ask(socket: Any, method: str, params: Mapping[str, Any], timeout: float) -> dict[str, Any]:
    """A request before anything else goes over the socket."""
    socket.send(json.dumps({"jsonrpc": "2.0", "id": 0, "method": method, "params": params}))
    told = socket.recv(timeout=timeout)
    try:
        message = json.loads(told)
        if "error" in message:
            raise error_of(message["error"])
        return dict(message["result"])
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise NOT_A_BACKEND from error


def _prove(socket: Any, welcome: Mapping[str, Any], timeout: float) -> bool:
    nonce = nonce_in(welcome.get("nonce_file"))
    if nonce is None:
        return False
    try:
        return bool(_ask(socket, "prove", {"nonce": nonce}, timeout)["local"])
    except BackendError:
        return False


def nonce_in(path: Any) -> str | None:
    """What a backend wrote for those who can read this machine's files; it is never told anything else."""
    try:
        with Path(path).open("r", encoding="ascii") as stream:
            text = stream.read(65)
    except (OSError, ValueError, TypeError):
        return None
    return text if NONCE.fullmatch(text) else None
