# SPDX-License-Identifier: GPL-3.0-or-later
"""The session against backends that hang, lie, send rubbish or speak another version."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from liveportrait_blender.client import BackendError
from liveportrait_blender.names import UserError
from liveportrait_blender.session import Session
from liveportrait_blender.supervisor import BackendSettings
from tests.addon.fake_backend import FakeBackend, answer, backend, bulk, refuse, tell

PATIENCE = 30.0
PNG = b"\x89PNG\r\n\x1a\n" + b"pixels"

sessions: list[Session] = []


@pytest.fixture(autouse=True)
def ended() -> Iterator[None]:
    """No session outlives its test, and none takes long to end, whatever its backend does."""
    yield
    while sessions:
        began = time.monotonic()
        sessions.pop().close(1.0)
        assert time.monotonic() - began < 10.0
    left = [thread.name for thread in threading.enumerate() if thread.name == "liveportrait-client"]
    assert left == []


@dataclass(frozen=True)
class Asked:
    """What the add-on's requests are to a session."""

    source: Path
    folder: Path
    method: str = "animate"
    label: str = "anna"
    landing: Any = None

    def params(self) -> dict[str, Any]:
        return {"source": self.source, "driving": {"library": "talk"}, "options": {}}


def session_with(url: str, **named: Any) -> Session:
    settings = BackendSettings(remote_url=url, remote_token="a token of sixteen characters")
    session = Session(lambda: settings, **named)
    sessions.append(session)
    return session


def until(session: Session, condition: Callable[[], bool], timeout: float = PATIENCE) -> None:
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, (session.state, session.jobs)
        for deliver in session.take():
            deliver()
        time.sleep(0.005)


def job(session: Session, folder: Path) -> Any:
    """A job that needs no file."""
    source = folder.parent / "anna.png"
    source.write_bytes(b"not looked at")
    return session.submit(Asked(source, folder))


def serves(then: Callable[[Any, str], None]) -> Callable[[Any, dict[str, Any]], None]:
    """A backend that takes every job and then does something with it."""

    def behave(connection: Any, request: dict[str, Any]) -> None:
        if request["method"] == "upload.begin":
            answer(connection, request, {"have": True})
        elif request["method"] in ("animate", "job.resume"):
            answer(connection, request, {"job": "j1", "state": "queued", "key": None})
            then(connection, "j1")
        else:
            answer(connection, request, {})

    return behave


# --- hostile ------------------------------------------------------------------------------------------------


def frame(**header: Any) -> dict[str, Any]:
    return {"type": "frame", "job": "j1", "index": 0, "format": "png", **header}


def part(**header: Any) -> dict[str, Any]:
    return {"type": "file", "job": "j1", "name": "motion.npz", "offset": 0, "size": 4, **header}


RUBBISH: dict[str, Callable[[Any, str], None]] = {
    "no JSON": lambda c, j: c.send("}{"),
    "no object": lambda c, j: c.send("[1, 2]"),
    "deep": lambda c, j: c.send("[" * 200_000),
    "a bare number": lambda c, j: c.send("17"),
    "no params": lambda c, j: c.send('{"method": "job.finished"}'),
    "params of the wrong kind": lambda c, j: c.send('{"method": "job.finished", "params": 3}'),
    "an empty binary message": lambda c, j: c.send(b""),
    "a header of the wrong length": lambda c, j: c.send(b"\xff\xff\xff\xff{}"),
    "a header that is no JSON": lambda c, j: bulk(c, b"rubbish"),
    "a header that is a list": lambda c, j: bulk(c, [1]),
    "a frame without a number": lambda c, j: bulk(c, {"type": "frame", "job": j, "format": "png"}, PNG),
    "a frame far off": lambda c, j: bulk(c, frame(index=10**9), PNG),
    "a negative frame": lambda c, j: bulk(c, frame(index=-1), PNG),
    "a frame that is a path": lambda c, j: bulk(c, frame(index="../../evil"), PNG),
    "a frame of truth": lambda c, j: bulk(c, frame(index=True), PNG),
    "a frame that is no picture": lambda c, j: bulk(c, frame(), b"MZ rubbish"),
    "an empty frame": lambda c, j: bulk(c, frame(), b""),
    "a file above": lambda c, j: bulk(c, part(name="../evil"), b"evil"),
    "a file elsewhere": lambda c, j: bulk(c, part(name="/tmp/evil"), b"evil"),
    "a file of another name": lambda c, j: bulk(c, part(name="autoexec.py"), b"evil"),
    "a file with a gap": lambda c, j: bulk(c, part(offset=1 << 40, size=1 << 41), b"evil"),
    "a file before its start": lambda c, j: bulk(c, part(offset=-4), b"evil"),
    "a file without a size": lambda c, j: bulk(c, {"type": "file", "job": j, "name": "motion.npz"}, b"evil"),
}


@pytest.mark.parametrize("sent", RUBBISH)
def test_rubbish_ends_the_job_with_a_sentence_and_writes_nothing_else(tmp_path: Path, sent: str) -> None:
    def then(connection: Any, number: str) -> None:
        bulk(connection, frame(), PNG)
        RUBBISH[sent](connection, number)

    with backend(serves(then)) as fake:
        session = session_with(fake.url)
        record = job(session, tmp_path / "out")
        until(session, lambda: record.ended)
        assert record.state == "failed"
        assert "backend" in record.error.lower() and record.error.endswith(".") and record.hint
        assert session.state.kind == "failed"
        assert fake.connections == 1  # it is not asked again and again
    written = sorted(path.name for path in (tmp_path / "out").iterdir() if not path.name.endswith(".part"))
    assert written == ["000000.png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["anna.png", "out"]


def test_strange_numbers_do_no_harm(tmp_path: Path) -> None:
    def then(connection: Any, number: str) -> None:
        strange = {"job": number, "stage": ["x"], "done": "many", "total": -3, "fps": None, "eta": 1e300}
        tell(connection, "job.progress", **strange)
        tell(connection, "job.warning", job=number, message={"not": "a text"})
        for count in range(100):
            tell(connection, "job.warning", job=number, message=f"warning {count} " + "x" * 10_000)
        tell(connection, "job.finished", job="another", state="done", result={})
        tell(connection, "no.such.thing", a=1)
        bulk(connection, frame(), PNG)
        tell(connection, "job.finished", job=number, state="done", result={"frames": 1})

    with backend(serves(then)) as fake:
        session = session_with(fake.url)
        record = job(session, tmp_path / "out")
        until(session, lambda: record.ended)
        assert record.state == "done" and record.factor == 1.0 and isinstance(record.text, str)
        assert len(record.warnings) <= 20 and all(len(text) <= 500 for text in record.warnings)


def test_a_message_that_is_too_large_is_not_kept_in_memory(tmp_path: Path, monkeypatch: Any) -> None:
    from liveportrait_blender import client_jobs

    monkeypatch.setattr(client_jobs, "LARGEST_MESSAGE", 1 << 16)

    def then(connection: Any, number: str) -> None:
        bulk(connection, frame(), PNG + b"x" * (1 << 17))

    with backend(serves(then)) as fake:
        session = session_with(fake.url)
        record = job(session, tmp_path / "out")
        until(session, lambda: fake.connections >= 2 or record.ended)
        assert not list((tmp_path / "out").glob("*.png"))


def test_a_remote_backend_learns_nothing_of_this_machine(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("0123456789abcdef" * 4)
    welcome = {
        "protocol": 1, "version": "0", "pid": 1, "session": "s", "nonce_file": str(secret), "resumed": False,
    }  # fmt: skip
    with backend(serves(lambda connection, number: None), welcome=welcome) as fake:
        session = session_with(fake.url)
        job(session, tmp_path / "out")
        until(session, lambda: any(asked["method"] == "animate" for asked in fake.asked))
        assert "prove" not in [asked["method"] for asked in fake.asked]
        assert str(tmp_path) not in str(fake.asked) and secret.read_text() not in str(fake.asked)


# --- silence ------------------------------------------------------------------------------------------------


def test_a_backend_that_falls_silent_is_noticed_and_its_job_can_be_cancelled(tmp_path: Path) -> None:
    def behave(connection: Any, request: dict[str, Any]) -> None:
        if request["method"] != "status":
            serves(lambda connection, number: None)(connection, request)

    with backend(behave) as fake:
        session = session_with(fake.url, patience=0.5)
        record = job(session, tmp_path / "out")
        until(session, lambda: session.state.kind == "busy")
        until(session, lambda: session.state.kind == "silent")
        assert session.state.sentence == "The backend does not answer." and session.state.hint
        session.cancel(record.key)
        until(session, lambda: record.ended, 2.0)
        assert record.state == "cancelled"
        with pytest.raises(BackendError, match="not answered"):
            session.call("status", {}, 0.2)


def test_one_that_never_says_hello_is_noticed(tmp_path: Path) -> None:
    with backend(lambda connection, request: None, welcome=None) as fake:
        session = session_with(fake.url, patience=0.5)
        record = job(session, tmp_path / "out")
        assert session.state.kind == "starting"
        until(session, lambda: session.state.kind == "silent")
        session.cancel(record.key)
        assert record.state == "cancelled"


def test_taking_never_waits(tmp_path: Path) -> None:
    """What the main thread does while the backend hangs: no call may wait for an answer."""
    with backend(lambda connection, request: None) as fake:
        session = session_with(fake.url, patience=0.2)
        job(session, tmp_path / "out")
        told: list[Any] = []
        session.later("status", {}, lambda result, error: told.append(error))
        for _ in range(50):
            for deliver in session.take(0.001):
                deliver()
            session.later("status", {}, lambda result, error: told.append(error), timeout=0.1)
            time.sleep(0.01)
        assert told and all(error.code in ("lost", "timeout") for error in told)


# --- versions and tokens ------------------------------------------------------------------------------------


class Refusing(FakeBackend):
    """Answers hello with an error."""

    def _meet(self, connection: Any) -> None:
        self.connections += 1
        refuse(connection, json.loads(connection.recv()), "protocol-mismatch", "The backend is older.")
        connection.close()


def test_another_protocol_is_said_once(tmp_path: Path) -> None:
    fake = Refusing(lambda connection, request: None)
    try:
        session = session_with(fake.url)
        record = job(session, tmp_path / "out")
        until(session, lambda: record.ended)
        assert record.error == "The backend is older." and record.code in ("lost", "protocol-mismatch")
        assert session.state.kind == "failed" and session.state.sentence == "The backend is older."
        assert fake.connections == 1
    finally:
        fake.close()


def test_a_backend_that_claims_another_protocol_is_not_used(tmp_path: Path) -> None:
    welcome = {"protocol": 99, "version": "9", "pid": 1, "session": "s", "resumed": False}
    with backend(serves(lambda connection, number: None), welcome=welcome) as fake:
        session = session_with(fake.url)
        record = job(session, tmp_path / "out")
        until(session, lambda: record.ended)
        assert record.state == "failed" and "update" in record.hint.lower()


def test_a_wrong_token_is_said(tmp_path: Path) -> None:
    class Strict(FakeBackend):
        def _meet(self, connection: Any) -> None:
            connection.recv()
            connection.close(1008)

    fake = Strict(lambda connection, request: None)
    try:
        session = session_with(fake.url)
        record = job(session, tmp_path / "out")
        until(session, lambda: record.ended)
        assert "token" in record.hint
    finally:
        fake.close()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("ws://example.org:80", "not be encrypted"),
        ("http://127.0.0.1:80", "no address"),
        ("nonsense", "no address"),
        ("wss://example.org:notaport", "no address"),
    ],
)
def test_addresses_that_cannot_be(url: str, said: str) -> None:
    session = session_with(url)
    with pytest.raises(UserError, match=said):
        session.ensure()
    assert not session.active


def test_a_certificate_that_is_none_is_said(tmp_path: Path) -> None:
    (tmp_path / "cert.pem").write_text("rubbish")
    settings = BackendSettings(
        remote_url="wss://127.0.0.1:1", remote_token="x" * 16, remote_certificate=tmp_path / "cert.pem"
    )
    session = Session(lambda: settings)
    with pytest.raises(UserError, match="cannot be used"):
        session.ensure()


# --- order --------------------------------------------------------------------------------------------------


def test_a_lost_connection_is_made_again_and_the_job_goes_on(tmp_path: Path) -> None:
    def then(connection: Any, number: str) -> None:
        count = len(list((tmp_path / "out").glob("0*.png"))) if (tmp_path / "out").exists() else 0
        bulk(connection, frame(index=count), PNG)
        if count < 2:
            connection.close()
            return
        tell(connection, "job.finished", job=number, state="done", result={"frames": 3})

    with backend(serves(then)) as fake:
        session = session_with(fake.url)
        record = job(session, tmp_path / "out")
        until(session, lambda: record.ended)
        assert record.state == "done" and record.frames == 3 and fake.connections == 3


def test_changed_settings_count_from_the_next_job_on(tmp_path: Path) -> None:
    def then(connection: Any, number: str) -> None:
        tell(connection, "job.finished", job=number, state="done", result={})

    with backend(serves(then)) as first, backend(serves(then)) as second:
        where = [first.url]
        session = Session(lambda: BackendSettings(remote_url=where[0], remote_token="x" * 16))
        sessions.append(session)
        record = job(session, tmp_path / "a")
        until(session, lambda: record.ended)
        where[0] = second.url
        record = job(session, tmp_path / "b")
        until(session, lambda: record.ended)
        assert record.state == "done" and first.connections == second.connections == 1


def test_each_end_is_told_once_and_only_while_taking(tmp_path: Path) -> None:
    def then(connection: Any, number: str) -> None:
        tell(connection, "job.finished", job=number, state="done", result={"frames": 0})
        tell(connection, "job.finished", job=number, state="failed", error={"code": "x", "message": "Late."})

    told: list[tuple[str, str]] = []
    with backend(serves(then)) as fake:
        session = session_with(fake.url, on_end=lambda record: told.append((record.key, record.state)))
        record = job(session, tmp_path / "out")
        until(session, lambda: bool(told))
        for deliver in session.take():
            deliver()
        assert told == [(record.key, "done")]


def test_after_the_end_nothing_can_be_asked(tmp_path: Path) -> None:
    with backend(serves(lambda connection, number: None)) as fake:
        session = session_with(fake.url)
        record = job(session, tmp_path / "out")
        until(session, lambda: session.state.kind == "busy")
        session.close(1.0)
        assert record.state == "cancelled" and session.state.kind == "stopped"
        with pytest.raises(UserError, match="closing"):
            session.submit(record.request)


def test_a_download_goes_on_when_the_file_is_closed(tmp_path: Path) -> None:
    def behave(connection: Any, request: dict[str, Any]) -> None:
        taken = {"job": f"j{request['id']}", "state": "queued", "key": None}
        answer(connection, request, {"have": True} if request["method"] == "upload.begin" else taken)

    with backend(behave) as fake:
        session = session_with(fake.url)
        source = tmp_path / "anna.png"
        source.write_bytes(b"")
        portrait = session.submit(Asked(source, tmp_path / "anna"))
        models = session.submit(Asked(source, tmp_path / "logs", method="models.download"))
        until(session, lambda: all(each.job is not None and each.job.number for each in session.jobs))
        session.detach()
        assert portrait.job is not None and portrait.job.cancelled
        assert models.job is not None and not models.job.cancelled and not models.ended
