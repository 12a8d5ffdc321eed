# SPDX-License-Identifier: GPL-3.0-or-later
"""Backends that misbehave: a WebSocket server on a thread that does what a test tells it."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.sync.server import Server, ServerConnection, serve

WELCOME = {"protocol": 1, "version": "0.1.0", "pid": 1, "session": "s", "resumed": False, "nonce_file": ""}

Behaviour = Callable[[ServerConnection, dict[str, Any]], None]


class FakeBackend:
    """hello is answered well unless `welcome` says otherwise (None: never); all else is up to `behave`."""

    def __init__(self, behave: Behaviour, welcome: dict[str, Any] | None | Exception = WELCOME) -> None:
        self._behave, self._welcome = behave, welcome
        self.asked: list[dict[str, Any]] = []
        self.connections = 0
        self._server: Server = serve(self._meet, "127.0.0.1", 0, max_size=None)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self._server.socket.getsockname()[1]}"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join(5)

    def _meet(self, connection: ServerConnection) -> None:
        self.connections += 1
        with contextlib.suppress(ConnectionClosed):
            for text in connection:
                request = json.loads(text)
                self.asked.append(request)
                if request["method"] != "hello":
                    self._behave(connection, request)
                elif isinstance(self._welcome, dict):
                    answer(connection, request, self._welcome)


@contextlib.contextmanager
def backend(behave: Behaviour, **named: Any) -> Iterator[FakeBackend]:
    made = FakeBackend(behave, **named)
    try:
        yield made
    finally:
        made.close()


def answer(connection: ServerConnection, request: dict[str, Any], result: Any) -> None:
    connection.send(json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": result}))


def refuse(connection: ServerConnection, request: dict[str, Any], code: str, message: str) -> None:
    data = {"code": code, "hint": "Do something.", "details": ""}
    error = {"code": -32000, "message": message, "data": data}
    connection.send(json.dumps({"jsonrpc": "2.0", "id": request["id"], "error": error}))


def tell(connection: ServerConnection, method: str, **params: Any) -> None:
    connection.send(json.dumps({"jsonrpc": "2.0", "method": method, "params": params}))


def bulk(connection: ServerConnection, header: Any, payload: bytes = b"") -> None:
    head = header if isinstance(header, bytes) else json.dumps(header).encode()
    connection.send(len(head).to_bytes(4, "big") + head + payload)
