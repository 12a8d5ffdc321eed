# SPDX-License-Identifier: GPL-3.0-or-later
"""Limits exactly at their bound, and those that need a server of their own; the others are in test_access."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from backend.server.app import SWEEP
from backend.server.limits import Limits
from backend.server.work import Work
from tests.contract.serving import PATIENCE, ROOT, Raw, Running, serving

BYTES = {
    "message_bytes": 50_000,
    "text_bytes": 20_000,
    "header_bytes": 200,
    "nesting": 6,
    "upload_bytes": 1000,
}


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    given = [f"--limit={name}={value}" for name, value in BYTES.items()]
    with serving(tmp_path_factory.mktemp("narrow"), *given) as running:
        yield running


@pytest.fixture
def line(narrow: Running) -> Iterator[Raw]:
    with Raw(narrow) as raw:
        raw.hello(prove=True)
        yield raw


def test_the_protocol_lists_every_limit_with_its_default() -> None:
    table = (ROOT / "backend" / "PROTOCOL.md").read_text("utf-8").partition("## Limits")[2]
    units = {"": 1, "MiB": 1 << 20, "GiB": 1 << 30}
    told = {
        name: int(number) * units[unit or ""]
        for name, number, unit in re.findall(r"^\| `(\w+)` \| (\d+)(?: (MiB|GiB))? \|", table, re.MULTILINE)
    }
    assert told == {entry.name: entry.default for entry in fields(Limits)}


def text_of(size: int, letter: str = "b") -> str:
    """A request of so many bytes; it is answered with bad-params, for status has no parameter a."""
    empty = json.dumps({"jsonrpc": "2.0", "id": 7, "method": "status", "params": {"a": ""}})
    content = letter * ((size - len(empty)) // len(letter.encode()))
    text = empty.replace('""', f'"{content}"')
    return text + " " * (size - len(text.encode()))


@pytest.mark.parametrize("letter", ["b", "\u00e4", "\U0001f600"])
def test_text_bytes(line: Raw, letter: str) -> None:
    line.socket.send(text_of(BYTES["text_bytes"], letter))
    assert line.answer(7)["error"]["data"]["code"] == "bad-params"
    line.socket.send(text_of(BYTES["text_bytes"] + 1, letter))
    assert json.loads(line.socket.recv(timeout=PATIENCE))["error"]["data"]["code"] == "invalid-request"


def test_message_bytes(line: Raw) -> None:
    line.socket.send(b"\0" * BYTES["message_bytes"])
    assert line.answer(None)["error"]["data"]["code"] == "parse"  # a header of no bytes is no JSON
    line.socket.send(b"\0" * (BYTES["message_bytes"] + 1))
    with pytest.raises(ConnectionClosed) as caught:
        line.socket.recv(timeout=PATIENCE)
    assert caught.value.rcvd is not None and caught.value.rcvd.code == 1009


def test_header_bytes(line: Raw) -> None:
    for size, code in ((BYTES["header_bytes"], "not-found"), (BYTES["header_bytes"] + 1, "invalid-request")):
        head = json.dumps({"type": "upload", "upload": "u9", "offset": 0})
        head += " " * (size - len(head))
        line.socket.send(size.to_bytes(4, "big") + head.encode())
        assert line.answer(None)["error"]["data"]["code"] == code


def test_nesting(line: Raw) -> None:
    for depth, code in ((BYTES["nesting"], "bad-params"), (BYTES["nesting"] + 1, "parse")):
        value: Any = []
        for _ in range(depth - 3):  # the request and its params are two, the innermost list one
            value = [value]
        line.socket.send(json.dumps({"jsonrpc": "2.0", "id": 5, "method": "status", "params": {"a": value}}))
        told = line.answer(5 if code == "bad-params" else None)
        assert told["error"]["data"]["code"] == code


def test_upload_bytes(line: Raw) -> None:
    assert "result" in line.ask("upload.begin", {"sha256": "3" * 64, "size": BYTES["upload_bytes"]})
    told = line.ask("upload.begin", {"sha256": "4" * 64, "size": BYTES["upload_bytes"] + 1})
    assert told["error"]["data"]["details"] == {"limit": "upload_bytes"}


def test_queue_total(tmp_path: Path, portrait: Path) -> None:
    """Two jobs of one client and one of another are all that there may be; one that ends makes room."""
    asked: dict[str, Any] = {
        "source": {"path": str(portrait)},
        "driving": {"library": "talk"},
        "format": "none",
    }
    with serving(tmp_path, "--limit=queue_total=3") as running, Raw(running) as one, Raw(running) as other:
        one.hello(prove=True)
        other.hello(prove=True)
        first = one.ask("animate", {**asked, "options": {"multiplier": 1.5}})["result"]["job"]
        for raw, multiplier in ((one, 0.6), (other, 0.5)):
            assert "result" in raw.ask("animate", {**asked, "options": {"multiplier": multiplier}})
        for raw in (one, other):
            told = raw.ask("animate", asked)["error"]
            assert told["data"]["code"] == "too-many" and told["data"]["details"] == {"limit": "queue_total"}
        one.ask("job.cancel", {"job": first})
        end = time.monotonic() + PATIENCE
        while "error" in (told := other.ask("animate", asked)) and time.monotonic() < end:
            time.sleep(0.05)  # the worker has to let go of it first
        assert "result" in told


def test_detached_seconds(tmp_path: Path, portrait: Path) -> None:
    """Who stays away too long finds a new session, and nothing works for the old one any more."""
    asked = {"source": {"path": str(portrait)}, "driving": {"library": "talk"}, "format": "none"}
    with serving(tmp_path, "--limit=detached_seconds=1") as running:
        with Raw(running) as raw:
            session = raw.hello(prove=True)["result"]["session"]
            raw.ask("animate", asked)
        end = time.monotonic() + PATIENCE
        again = {"resumed": True}
        while again["resumed"] and time.monotonic() < end:  # a look that comes too early begins anew
            time.sleep(1 + 2 * SWEEP)
            with Raw(running) as raw:
                again = raw.hello(session=session)["result"]
                listed = raw.ask("job.list")["result"]
        assert again["resumed"] is False and again["session"] != session
        assert listed == {"jobs": []}
        with Raw(running) as other:
            other.hello()
            # The job keeps the worker busy until it has ended with its session.
            while "error" in (told := other.ask("unload")) and time.monotonic() < end:
                assert told["error"]["data"]["code"] == "busy"
                time.sleep(0.05)
        assert "result" in told
        assert not list((tmp_path / "store" / "work").glob("*/result.json"))  # it was ended, not finished


def test_source_bytes(portrait: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker keeps the sources used last, within the bound, and opens the others again."""
    from backend.server import work as module

    opened: list[str] = []
    really = module.open_faces

    def counting(path: Path, *rest: Any) -> Any:
        opened.append(str(rest[1]))
        return really(path, *rest)

    monkeypatch.setattr(module, "open_faces", counting)
    picture = 320 * 320 * 3 * module.SOURCE_COPIES
    for most, expected in ((2 * picture, 3), (2 * picture - 1, 5)):
        opened.clear()
        work = Work(most)
        for key in ("a", "b", "a", "b", "c"):
            task: dict[str, Any] = {"source": str(portrait), "key": key, "options": {}, "engine": "mesh"}
            told = work.open(task, Silence(), threading.Event())
            assert told.result["width"] == 320
        assert len(opened) == expected


def test_sources_outlive_a_small_memory(tmp_path: Path, portrait: Path) -> None:
    with serving(tmp_path, "--limit=source_bytes=1") as running, running.client() as client:
        named = {"source": {"path": str(portrait)}}
        opened = [client.call("source.open", {**named, "options": {"crop_scale": s}}) for s in (2.0, 2.4)]
        for one in opened:
            asked = {"source": one["source"], "format": "raw", "options": {"controls": {"smile": 0.7}}}
            assert client.preview(**asked)[1] == client.preview(**asked)[1]


class Silence:
    def update(self, stage: str, done: int, total: int | None) -> None: ...

    def warn(self, message: str) -> None: ...
