# SPDX-License-Identifier: GPL-3.0-or-later
"""Thousands of broken messages, and the server still answers the next good request."""

from __future__ import annotations

import json
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed

from backend.server.methods import METHODS
from tests.contract.serving import PATIENCE, TOKEN, Raw, Running, serving

MANY = settings(
    max_examples=400,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
SAFE = sorted(set(METHODS) - {"shutdown", "unload", "prove", "models.download"})

leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(max_size=20),
    st.sampled_from(["j1", "s1", "u1", "talk", "0" * 64, "frames", "mp4", "png", "/etc/passwd", "../.."]),
)
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
PARAMS = [
    "source", "driving", "motion", "options", "job", "upload", "sha256", "size", "name", "first_frame",
    "format", "output", "frame", "keypoints", "faces", "keep_mouth", "token", "session", "models",
]  # fmt: skip
requests = st.fixed_dictionaries(
    {},
    optional={
        "jsonrpc": st.sampled_from(["2.0", "2.0", "2.0", "1.0", 2]),
        "id": st.one_of(st.integers(), st.text(max_size=70), values),
        "method": st.one_of(st.sampled_from(SAFE), st.sampled_from(SAFE), st.text(max_size=12)),
        "params": st.one_of(st.dictionaries(st.sampled_from(PARAMS), values, max_size=5), values),
    },
)
headers = st.one_of(
    st.dictionaries(st.sampled_from(["type", "upload", "offset", "x"]), values, max_size=4),
    st.fixed_dictionaries({"type": st.just("upload"), "upload": leaves, "offset": leaves}),
)


@st.composite
def binaries(draw: st.DrawFn) -> bytes:
    """A binary message with something wrong, or nothing but its content."""
    head = json.dumps(draw(headers)).encode()
    length = draw(st.one_of(st.just(len(head)), st.integers(0, 2**32 - 1)))
    message = length.to_bytes(4, "big") + head + draw(st.binary(max_size=40))
    return message[: draw(st.integers(0, len(message)))] if draw(st.booleans()) else message


messages = st.one_of(
    st.text(max_size=60),
    st.binary(max_size=60),
    requests.map(json.dumps),
    requests.map(json.dumps).flatmap(lambda text: st.integers(0, len(text)).map(lambda at: text[:at])),
    binaries(),
)


class Line:
    """A connection to throw things at, made again when the server ends it."""

    def __init__(self, running: Running) -> None:
        self._running = running
        self._raw: Raw | None = None

    def throw(self, batch: list[str | bytes]) -> None:
        """Send everything, then see that a good request is answered, with nothing lost between."""
        raw = self.raw()
        for message in batch:
            raw.socket.send(message)
        assert "result" in raw.ask("status")

    def raw(self) -> Raw:
        if self._raw is None:
            self._raw = Raw(self._running)
            self._raw.hello()
            self._raw._number = 1 << 40  # ids that nothing thrown has
        return self._raw

    def close(self) -> None:
        if self._raw is not None:
            self._raw.socket.close()


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server that takes many requests at a time, so that a good one is not the one too many."""
    limits = ("--limit=requests=100000", "--limit=queue=1000000", "--limit=queue_total=1000000")
    with serving(tmp_path_factory.mktemp("target"), *limits) as running:
        yield running


@pytest.fixture(scope="module")
def line(target: Running) -> Iterator[Line]:
    line = Line(target)
    yield line
    line.close()


@MANY
@given(batch=st.lists(messages, min_size=8, max_size=16))
def test_broken_messages_after_hello(line: Line, batch: list[str | bytes]) -> None:
    line.throw(batch)


@settings(parent=MANY, max_examples=60)
@given(batch=st.lists(messages, min_size=1, max_size=3))
def test_broken_messages_instead_of_hello(target: Running, line: Line, batch: list[str | bytes]) -> None:
    """Not a word comes back."""
    with Raw(target) as raw, pytest.raises(ConnectionClosed):
        for message in batch:
            raw.socket.send(message)
        raw.socket.recv(timeout=PATIENCE)
    line.throw([])


frames = st.builds(
    lambda first, second, rest: bytes([first, second]) + rest,
    st.integers(0, 255),
    st.integers(0, 255),
    st.binary(max_size=30),
)


@settings(parent=MANY, max_examples=150)
@given(first=st.sampled_from(["nothing", "handshake", "hello"]), bytes_sent=st.lists(frames, max_size=6))
def test_broken_frames(target: Running, line: Line, first: str, bytes_sent: list[bytes]) -> None:
    with socket.create_connection(("127.0.0.1", target.port), timeout=PATIENCE) as plain:
        if first != "nothing":
            shake = "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            shake += "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
            plain.sendall(shake.encode())
            plain.recv(1000)
        if first == "hello":
            plain.sendall(masked(json.dumps(hello()).encode()))
        try:
            for piece in bytes_sent:
                plain.sendall(piece)
        except ConnectionError:
            pass
    line.throw([])


def hello() -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": "hello", "params": {"token": TOKEN, "protocol": 1}}


def masked(payload: bytes) -> bytes:
    """A whole text frame with a mask of zeros."""
    return b"\x81" + bytes([0x80 | 126]) + struct.pack(">H", len(payload)) + b"\0\0\0\0" + payload


def test_nothing_is_left_open(target: Running, line: Line) -> None:
    """After all that: no connections, and the files of the process can be counted."""
    folder = Path(f"/proc/{target.process.pid}/fd")
    if not folder.is_dir():
        pytest.skip("open files cannot be counted on this system")
    end = time.monotonic() + PATIENCE
    while (told := line.raw().ask("status")["result"])["connections"] > 1 and time.monotonic() < end:
        time.sleep(0.1)
    assert told["connections"] == 1
    assert len(list(folder.iterdir())) < 60
