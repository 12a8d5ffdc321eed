# SPDX-License-Identifier: GPL-3.0-or-later
"""How a server begins and ends."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from backend.server.lifecycle import is_alive
from liveportrait_blender.client import BackendError, Client, Event
from tests.contract.serving import PATIENCE, TOKEN, Raw, Running, serving, spawn


def ended(running: Running) -> int:
    return running.process.wait(PATIENCE)


def gone(pid: int) -> bool:
    end = time.monotonic() + PATIENCE
    while is_alive(pid):
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def test_the_ready_line(server: Running) -> None:
    assert server.ready["event"] == "ready" and server.ready["protocol"] == 1
    assert server.ready["host"] == "127.0.0.1" and server.ready["pid"] == server.process.pid
    assert Path(server.ready["log"]).is_file()


def test_a_second_server_on_the_same_port_says_so(server: Running, tmp_path: Path) -> None:
    process = spawn(tmp_path, "--port", str(server.port))
    assert process.communicate(timeout=PATIENCE)[0] == ""
    assert process.returncode == 2
    (line,) = (tmp_path / "stderr.txt").read_text().splitlines()
    assert line.startswith("error: ") and "in use" in line


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_it_in_order(tmp_path: Path, portrait: Path, number: signal.Signals) -> None:
    with serving(tmp_path) as running, running.client(attempts=1) as client:
        job = client.start_job("animate", tmp_path / "out", source=portrait, driving={"library": "talk"})
        while not list((tmp_path / "out").glob("0*.png")):
            time.sleep(0.01)
        worker = client.call("status")["worker"]["pid"]
        running.process.send_signal(number)
        assert ended(running) == 0
        assert gone(worker)
        with pytest.raises(BackendError):
            job.wait(PATIENCE)
        kinds = [event.kind for event in client.drain(5)]
        assert "closing" in kinds
        assert list((tmp_path / "store").glob("work/*/frames/000000.png"))


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="processes cannot be stopped on this system")
def test_nothing_new_begins_at_the_end(tmp_path: Path, portrait: Path) -> None:
    """A worker that does not end by itself gives the time to ask."""
    with serving(tmp_path) as running, Raw(running) as raw:
        raw.hello(prove=True)
        raw.ask("source.open", {"source": {"path": str(portrait)}})
        worker = raw.ask("status")["result"]["worker"]["pid"]
        os.kill(worker, signal.SIGSTOP)
        running.process.terminate()
        while json.loads(raw.socket.recv(timeout=PATIENCE)).get("method") != "server.closing":
            pass
        asked = {"source": {"path": str(portrait)}, "driving": {"library": "talk"}}
        assert raw.error("animate", asked) == (-32000, "closing")
        assert ended(running) == 0 and gone(worker)


def test_shutdown(tmp_path: Path) -> None:
    with serving(tmp_path) as running, Raw(running) as raw:
        nonces = Path(raw.hello(prove=True)["result"]["nonce_file"]).parent
        assert raw.ask("shutdown")["result"] == {"closing": True}
        assert ended(running) == 0
        assert not nonces.exists()


def test_what_killed_servers_left_is_removed(tmp_path: Path) -> None:
    """Their nonces go at the next start; what is not theirs, or belongs to one that runs, stays."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    more = {"TMPDIR": str(temporary), "TEMP": str(temporary), "TMP": str(temporary)}
    with serving(tmp_path, more=more) as killed, Raw(killed) as raw:
        left = Path(raw.hello()["result"]["nonce_file"])
        assert left.parent.parent == temporary
        killed.kill()
    assert left.is_file()
    dead = left.parent.name.rpartition("-")[0]
    (temporary / f"{dead}-other").mkdir()
    (temporary / f"{dead}-other" / "letter.txt").write_text("somebody's")
    (temporary / "liveportrait-nonces-mine").mkdir()
    (temporary / f"{dead}-file").write_text("somebody's")
    with serving(tmp_path, more=more) as running, Raw(running) as raw:
        assert not left.parent.exists()
        own = Path(raw.hello()["result"]["nonce_file"])
        with serving(tmp_path, more=more):
            assert own.is_file()
        kept = {path.name for path in temporary.iterdir()} - {own.parent.name}
    assert kept == {f"{dead}-other", "liveportrait-nonces-mine", f"{dead}-file"}
    assert (temporary / f"{dead}-other" / "letter.txt").read_text() == "somebody's"


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="processes cannot be stopped on this system")
def test_the_client_closes_though_the_server_hangs(tmp_path: Path) -> None:
    """While an upload is stuck half way, too: that is what Blender's exit must never wait for."""
    with serving(tmp_path) as running:
        client = running.client(local=False)
        running.process.send_signal(signal.SIGSTOP)
        try:
            reply = client.request("status")
            fill = threading.Thread(target=fill_up, args=(client,), daemon=True)
            fill.start()
            fill.join(1.0)  # nothing takes the bytes, so it hangs in sending
            assert fill.is_alive()
            client.close(4.0)
            fill.join(PATIENCE)
            assert not fill.is_alive()
            with pytest.raises(BackendError):
                reply.result(PATIENCE)
        finally:
            running.process.send_signal(signal.SIGCONT)


def fill_up(client: Client) -> None:
    """Send without end."""
    with contextlib.suppress(BackendError):
        while True:
            client._send_binary({"type": "upload", "upload": "u1", "offset": 0}, bytes(1 << 20))


def test_it_ends_with_standard_input(tmp_path: Path) -> None:
    with serving(tmp_path, "--watch-stdin", stdin=subprocess.PIPE) as running:
        assert running.process.stdin is not None
        running.process.stdin.write("more\n")
        running.process.stdin.flush()
        with Raw(running) as raw:
            raw.hello()
        running.process.stdin.close()
        assert ended(running) == 0


def test_the_token_comes_by_standard_input(tmp_path: Path) -> None:
    process = spawn(tmp_path, "--token-stdin", "--watch-stdin", token=None, stdin=subprocess.PIPE)
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(TOKEN + "\n")
    process.stdin.flush()

    running = Running(process, json.loads(process.stdout.readline()))
    with Raw(running) as raw:
        assert "result" in raw.hello()
    process.stdin.close()
    assert ended(running) == 0
    process.stdout.close()


def test_it_ends_with_its_parent(tmp_path: Path) -> None:
    parent = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    with serving(tmp_path, "--parent-pid", str(parent.pid)) as running:
        with Raw(running) as raw:
            raw.hello()
        parent.communicate(b"\n", timeout=PATIENCE)
        assert ended(running) == 0


def test_the_worker_ends_with_a_killed_server(tmp_path: Path, portrait: Path) -> None:
    with serving(tmp_path) as running, running.client(attempts=1) as client:
        client.call("source.open", {"source": {"path": str(portrait)}})
        worker = client.call("status")["worker"]["pid"]
        running.kill()
        assert gone(worker)


def test_an_idle_server_unloads_by_itself(tmp_path: Path, portrait: Path) -> None:
    with serving(tmp_path, "--unload-after", "0.5") as running, running.client() as client:
        client.call("source.open", {"source": {"path": str(portrait)}})
        end = time.monotonic() + PATIENCE
        while (told := client.call("status")["worker"])["running"] and time.monotonic() < end:
            time.sleep(0.1)
        assert told == {"running": False, "pid": None, "restarts": 0}


def test_the_worker_does_not_know_the_token(tmp_path: Path, portrait: Path) -> None:
    with serving(tmp_path) as running, running.client() as client:
        client.call("source.open", {"source": {"path": str(portrait)}})
        environment = Path(f"/proc/{client.call('status')['worker']['pid']}/environ")
        if not environment.exists():
            pytest.skip("there is no /proc here")
        assert TOKEN.encode() not in environment.read_bytes()


def test_the_client_knows_when_it_is_not_welcome(server: Running) -> None:
    client = Client(server.url, "x" * 20)
    client.start()
    with pytest.raises(BackendError) as caught:
        client.wait_ready(PATIENCE)
    assert caught.value.code == "unauthorized"
    client.close()


def test_the_client_finds_a_server_that_comes_late(tmp_path: Path) -> None:
    with serving(tmp_path) as first:
        port = first.port
    client = Client(f"ws://127.0.0.1:{port}", TOKEN)
    client.start()
    with pytest.raises(BackendError) as caught:
        client.call("status")
    assert caught.value.code == "lost"
    with serving(tmp_path, "--port", str(port)):
        client.wait_ready(PATIENCE)
        assert client.call("status")["jobs"] == {"running": 0, "queued": 0}
        assert [event.kind for event in client.drain()] == [Event("connected").kind]
        client.close()
