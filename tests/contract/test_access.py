# SPDX-License-Identifier: GPL-3.0-or-later
"""Who is let in, how far, and every limit."""

from __future__ import annotations

import json
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from liveportrait_blender.client import BackendError, Client
from tests.contract.serving import PATIENCE, TOKEN, Raw, Running, serving, spawn

LIMITS = {
    "message_bytes": 100_000,
    "text_bytes": 20_000,
    "header_bytes": 200,
    "nesting": 6,
    "connections": 6,
    "strangers": 2,
    "hello_seconds": 2,
    "requests": 3,
    "queue": 2,
    "sessions": 8,
    "detached_seconds": 0,
    "open_sources": 1,
    "uploads": 1,
    "upload_bytes": 1000,
}


@pytest.fixture(scope="module")
def tight(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server with small limits."""
    given = [f"--limit={name}={value}" for name, value in LIMITS.items()]
    with serving(tmp_path_factory.mktemp("tight"), *given) as running:
        yield running


def closed_with(raw: Raw) -> int:
    """The code of the close that comes, with nothing before it."""
    with pytest.raises(ConnectionClosed) as caught:
        raw.socket.recv(timeout=PATIENCE)
    assert caught.value.rcvd is not None
    return caught.value.rcvd.code


@pytest.mark.parametrize(
    "message",
    [
        json.dumps(
            {"jsonrpc": "2.0", "id": 1, "method": "hello", "params": {"token": "x" * 30, "protocol": 1}}
        ),
        json.dumps(
            {"jsonrpc": "2.0", "id": 1, "method": "hello", "params": {"token": "\ud800", "protocol": 1}}
        ),
        json.dumps({"jsonrpc": "2.0", "id": 1, "method": "hello", "params": {"token": None, "protocol": 1}}),
        json.dumps({"jsonrpc": "2.0", "id": 1, "method": "status", "params": {"token": TOKEN}}),
        json.dumps({"jsonrpc": "2.0", "method": "hello", "params": {"token": TOKEN, "protocol": 1}}),
        "{",
        b"hello",
    ],
)
def test_nothing_is_answered_before_a_good_hello(server: Running, message: str | bytes) -> None:
    with Raw(server) as raw:
        raw.socket.send(message)
        assert closed_with(raw) == 1008


def test_silence_ends(tight: Running) -> None:
    with Raw(tight) as raw:
        assert closed_with(raw) == 1008


def test_wrong_tokens_wait_longer_each_time_and_good_ones_do_not(server: Running) -> None:
    """The second wrong one ends after the first; a good one gets in while they wait."""
    with Raw(server) as first, Raw(server) as second, Raw(server) as good:
        for raw in (first, second):
            raw.socket.send(
                json.dumps({"jsonrpc": "2.0", "id": 1, "method": "hello", "params": {"token": "no"}})
            )
        assert "result" in good.hello()
        assert closed_with(first) == closed_with(second) == 1008


def test_the_delays_of_wrong_tokens_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    import asyncio

    from backend.server.connection import LONGEST_DELAY, Guard

    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    guard = Guard("the token that is right")

    async def guess() -> None:
        for _ in range(200):
            await guard.punish()

    asyncio.run(guess())
    assert waited == sorted(waited) and waited[0] < waited[3] and waited[-1] == LONGEST_DELAY
    assert guard.admits("the token that is right") and not guard.admits("the token that is wrong")


@pytest.mark.parametrize("origin", ["https://example.org", "http://127.0.0.1", "null"])
def test_browsers_are_refused(server: Running, origin: str) -> None:
    with pytest.raises(InvalidStatus) as caught:
        Raw(server, origin=origin)
    assert caught.value.response.status_code == 403


def test_plain_http_does_no_harm(server: Running) -> None:
    for request in (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01" * 50, b"A" * 100_000):
        with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as plain:
            plain.sendall(request)
            plain.shutdown(socket.SHUT_WR)
            try:
                while plain.recv(65536):
                    pass
            except ConnectionError:
                pass
    with Raw(server) as raw:
        assert "result" in raw.hello()


def test_too_long_messages_end_the_connection(tight: Running) -> None:
    with Raw(tight) as raw:
        raw.hello()
        raw.socket.send(b"\0" * 100_001)
        assert closed_with(raw) == 1009


def test_limits_of_messages(tight: Running) -> None:
    with Raw(tight) as raw:
        raw.hello()
        raw.socket.send(
            json.dumps({"jsonrpc": "2.0", "id": 7, "method": "status", "params": {"a": "b" * 20_000}})
        )
        assert raw.answer(None)["error"]["data"]["code"] == "invalid-request"
        raw.socket.send((300).to_bytes(4, "big") + b"{" + b" " * 298 + b"}")
        assert raw.answer(None)["error"]["data"]["code"] == "invalid-request"
        nested = {"jsonrpc": "2.0", "id": 8, "method": "status", "params": {"a": [[[[[]]]]]}}
        raw.socket.send(json.dumps(nested))
        assert raw.answer(None)["error"]["data"]["code"] == "parse"
        assert "result" in raw.ask("status")


def test_limit_of_connections(tight: Running) -> None:
    with ExitStack() as stack:
        for _ in range(LIMITS["connections"]):
            raw = stack.enter_context(Raw(tight))
            raw.hello()
        with pytest.raises(InvalidStatus) as caught:
            Raw(tight)
        assert caught.value.response.status_code == 503


def test_strangers_push_each_other_out_and_nobody_else(tight: Running) -> None:
    with Raw(tight) as known, ExitStack() as stack:
        known.hello()
        strangers = [stack.enter_context(Raw(tight)) for _ in range(3)]
        assert closed_with(strangers[0]) == 1008
        assert "result" in strangers[-1].hello()
        assert "result" in known.ask("status")


def test_limits_of_uploads(tight: Running) -> None:
    with Raw(tight) as raw:
        raw.hello()
        large = raw.ask("upload.begin", {"sha256": "1" * 64, "size": 1001})["error"]
        assert large["data"] == {**large["data"], "code": "too-many", "details": {"limit": "upload_bytes"}}
        assert "result" in raw.ask("upload.begin", {"sha256": "1" * 64, "size": 1000})
        second = raw.ask("upload.begin", {"sha256": "2" * 64, "size": 10})["error"]
        assert second["data"]["details"] == {"limit": "uploads"}


def test_limit_of_open_sources(tight: Running, portrait: Path) -> None:
    with Raw(tight) as raw:
        raw.hello(prove=True)
        asked = {"source": {"path": str(portrait)}}
        assert "result" in raw.ask("source.open", asked)
        told = raw.ask("source.open", asked)["error"]
        assert told["data"]["details"] == {"limit": "open_sources"}


def test_limits_of_queue_and_requests(tight: Running, portrait: Path) -> None:
    with Raw(tight) as raw:
        raw.hello(prove=True)
        asked = {"source": {"path": str(portrait)}, "driving": {"library": "talk"}, "format": "none"}
        numbers = []
        for multiplier in (1, 2, 3):
            numbers.append(
                raw.ask("animate", {**asked, "options": {"multiplier": multiplier}})["result"]["job"]
            )
        told = raw.ask("animate", asked)["error"]
        assert told["data"]["details"] == {"limit": "queue"}
        for number in numbers:
            assert raw.ask("job.cancel", {"job": number})["result"] == {"state": "cancelled"}
        source = raw.ask("source.open", {"source": {"path": str(portrait)}})["result"]["source"]
        sent = [raw.send("preview", {"source": source}) for _ in range(12)]
        codes: list[str] = []
        seen: set[int] = set()
        while len(seen) < len(sent):
            message = raw.socket.recv(timeout=PATIENCE)
            if isinstance(message, str) and "id" in (answer := json.loads(message)):
                seen.add(answer["id"])
                if "error" in answer and answer["error"]["data"]["details"] == {"limit": "requests"}:
                    codes.append("requests")
        assert codes


def test_limit_of_sessions(tmp_path: Path) -> None:
    with serving(tmp_path, "--limit=sessions=1") as running, Raw(running) as first, Raw(running) as second:
        assert "result" in first.hello()
        told = second.hello()["error"]
        assert told["data"]["details"] == {"limit": "sessions"}


def test_the_store_is_bounded(tmp_path: Path, portrait: Path) -> None:
    with serving(tmp_path, "--limit=store_bytes=1000000") as running, running.client() as client:
        for multiplier in (1.0, 1.1, 1.2, 1.3, 1.4):
            job = client.start_job(
                "animate",
                tmp_path / "out",
                source=portrait,
                driving={"library": "talk"},
                options={"frames": [0, 4], "multiplier": multiplier},
            )
            job.wait(PATIENCE)
        with pytest.raises(BackendError, match="no room") as caught:
            client.call("upload.begin", {"sha256": "1" * 64, "size": 1_000_001})
        assert caught.value.details == {"limit": "store_bytes"}
        left = client.call("status")["store_bytes"]
        assert 0 < left <= 1_000_000
        assert len(list((tmp_path / "store" / "work").glob("*.lock"))) < 5


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    tool = shutil.which("openssl")
    if tool is None:
        pytest.skip("openssl makes the certificate of this test, and is not installed")
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        [tool, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
        + ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
        + ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")],
        check=True,
        capture_output=True,
    )
    return folder / "cert.pem", folder / "key.pem"


def test_tls(certificate: tuple[Path, Path], tmp_path: Path) -> None:
    given = ["--tls-cert", str(certificate[0]), "--tls-key", str(certificate[1]), "--host", "0.0.0.0"]
    with serving(tmp_path, *given) as running:
        url = f"wss://127.0.0.1:{running.port}"
        context = ssl.create_default_context(cafile=str(certificate[0]))
        with Client(url, TOKEN, context=context, attempts=2) as client:
            assert client.wait_ready(PATIENCE)["protocol"] == 1
        stranger = Client(url, TOKEN, attempts=1)  # does not trust the certificate
        stranger.start()
        with pytest.raises(BackendError):
            stranger.wait_ready(PATIENCE)
        stranger.close()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_other_addresses_need_tls(tmp_path: Path, host: str) -> None:
    process = spawn(tmp_path, "--host", host)
    assert process.communicate(timeout=PATIENCE)[0] == ""
    assert process.returncode == 2
    assert "--tls-cert" in (tmp_path / "stderr.txt").read_text()


@pytest.mark.parametrize("token", [None, "", "short"])
def test_no_token_no_server(tmp_path: Path, token: str | None) -> None:
    process = spawn(tmp_path, token=token)
    assert process.communicate(timeout=PATIENCE)[0] == ""
    assert process.returncode == 2
    assert "LIVEPORTRAIT_TOKEN" in (tmp_path / "stderr.txt").read_text()
