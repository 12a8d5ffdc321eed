# SPDX-License-Identifier: GPL-3.0-or-later
"""Starting real servers, and talking to them below the add-on's client."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

from liveportrait_blender.client import Client

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "a token for the contract tests"
PATIENCE = 60.0  # seconds; a busy machine is slow, not wrong


class Running:
    """A server process and where it listens."""

    def __init__(self, process: subprocess.Popen[str], ready: dict[str, Any]) -> None:
        self.process, self.ready = process, ready
        self.url = str(ready["url"])

    @property
    def port(self) -> int:
        return int(self.ready["port"])

    def client(self, **named: Any) -> Client:
        """The add-on's client, connected."""
        client = Client(self.url, TOKEN, timeout=PATIENCE, attempts=named.pop("attempts", 3), **named)
        client.start()
        client.wait_ready(PATIENCE)
        return client

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def spawn(
    cache: Path,
    *arguments: str,
    token: str | None = TOKEN,
    stdin: int | None = subprocess.DEVNULL,
    module: Sequence[str] = ("backend",),
    more: Mapping[str, str] | None = None,
) -> subprocess.Popen[str]:
    """`python -m backend serve` with logs and caches in `cache`.

    module: what is run in place of backend, with arguments of its own. more: of the environment.
    """
    environment = {**os.environ, "XDG_STATE_HOME": str(cache / "state"), "PYTHONUNBUFFERED": "1"}
    environment |= more or {}
    environment.pop("LIVEPORTRAIT_TOKEN", None)
    if token is not None:
        environment["LIVEPORTRAIT_TOKEN"] = token
    log = (cache / "stderr.txt").open("a")
    with log:
        return subprocess.Popen(
            [sys.executable, "-m", *module, "serve", "--cache", str(cache / "store"), *arguments],
            cwd=ROOT,
            env=environment,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )


@contextmanager
def serving(cache: Path, *arguments: str, **named: Any) -> Iterator[Running]:
    """A server, ended at the end."""
    process = spawn(cache, *arguments, **named)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, (cache / "stderr.txt").read_text()
        yield Running(process, json.loads(line))
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()
        process.wait()


class Raw:
    """A connection without any help."""

    def __init__(self, running: Running, **named: Any) -> None:
        opening = connect(running.url, compression=None, proxy=None, max_size=None, **named)
        self.socket: ClientConnection = opening.__enter__()
        self._number = 0

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def hello(self, token: str = TOKEN, prove: bool = False, **params: Any) -> dict[str, Any]:
        told = self.ask("hello", {"token": token, "protocol": 1, **params})
        if prove:
            self.ask("prove", {"nonce": Path(told["result"]["nonce_file"]).read_text()})
        return told

    def send(self, method: str, params: Mapping[str, Any] | None = None) -> int:
        self._number += 1
        request = {"jsonrpc": "2.0", "id": self._number, "method": method, "params": params or {}}
        self.socket.send(json.dumps(request))
        return self._number

    def ask(self, method: str, params: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The whole answer; everything else that comes before it is dropped."""
        return self.answer(self.send(method, params))

    def answer(self, number: int | str | None) -> dict[str, Any]:
        while True:
            message = self.socket.recv(timeout=PATIENCE)
            if isinstance(message, str) and "id" in (told := json.loads(message)) and told["id"] == number:
                return dict(told)

    def error(self, method: str, params: Mapping[str, Any] | None = None) -> tuple[int, str]:
        """The two codes of the error that a request gets."""
        told = self.ask(method, params)
        assert "error" in told, told
        assert told["error"]["message"]
        return told["error"]["code"], told["error"]["data"]["code"]
