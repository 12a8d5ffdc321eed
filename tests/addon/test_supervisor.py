# SPDX-License-Identifier: GPL-3.0-or-later
"""The supervisor with the real backend, and with executables that misbehave in its place."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from liveportrait_blender import own_files
from liveportrait_blender.client import Client
from liveportrait_blender.supervisor import Launch, Supervisor, clean_environment, command

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 60.0  # seconds; a busy machine is slow, not wrong

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the stand-ins are scripts with a #! line")


@pytest.fixture
def launch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Launch:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return Launch(Path(sys.executable), ROOT, tmp_path / "cache", tmp_path / "logs" / "backend.log")


@pytest.fixture
def stand_in(launch: Launch, tmp_path: Path) -> Iterator[Callable[..., Supervisor]]:
    """Makes a supervisor of a Python script that is started instead of the backend."""
    made: list[Supervisor] = []

    def make(script: str, **named: float) -> Supervisor:
        path = tmp_path / "stand-in"
        path.write_text(f"#!{sys.executable}\nimport json, os, sys, time\n{script}\n")
        path.chmod(0o700)
        made.append(Supervisor(replace(launch, python=path), **named))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for supervisor in made:
        supervisor.stop(1.0)


READY = "print(json.dumps({'event': 'ready', 'protocol': 1, 'url': 'ws://127.0.0.1:9'}), flush=True)\n"


def wait_for(supervisor: Supervisor, *kinds: str) -> None:
    until(lambda: supervisor.watch().kind in kinds)


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it has not come to that"
        time.sleep(0.02)


def is_gone(pid: int) -> bool:
    with contextlib.suppress(OSError):
        if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX":
            return True
    return not own_files.is_alive(pid)


def test_the_real_backend_starts_answers_and_stops(launch: Launch) -> None:
    supervisor = Supervisor(launch)
    assert supervisor.state.kind == "stopped" and supervisor.address is None
    supervisor.start()
    assert supervisor.state.kind == "starting"
    wait_for(supervisor, "ready", "failed")
    assert supervisor.address is not None, supervisor.state
    url, token = supervisor.address
    with Client(url, token, attempts=1) as client:
        assert client.wait_ready(PATIENCE)["pid"] == supervisor.pid
        assert client.local
    assert token not in launch.log.read_text()
    pid = supervisor.pid
    assert pid is not None
    supervisor.stop(PATIENCE)
    assert is_gone(pid) and supervisor.state.kind == "stopped" and supervisor.address is None
    assert "standard input ended" in launch.log.read_text()  # in order, not by force
    supervisor.stop()  # once more does no harm


def test_a_backend_that_dies_at_work_is_started_again(launch: Launch) -> None:
    supervisor = Supervisor(launch)
    supervisor.start()
    wait_for(supervisor, "ready")
    first, address, generation = supervisor.pid, supervisor.address, supervisor.generation
    assert first is not None
    os.kill(first, signal.SIGKILL)
    until(lambda: supervisor.watch().kind == "starting")
    assert "killed" in supervisor.state.sentence and "started again" in supervisor.state.sentence
    wait_for(supervisor, "ready")
    assert supervisor.pid != first and supervisor.generation == generation + 1
    assert supervisor.address is not None and address is not None
    assert supervisor.address[1] != address[1]  # a token serves one start
    supervisor.stop(PATIENCE)


def test_nothing_stays_behind_when_the_parent_is_killed(launch: Launch, tmp_path: Path) -> None:
    code = f"""
import sys, time
from pathlib import Path
sys.path.insert(0, {str(ROOT)!r})
from liveportrait_blender.supervisor import Launch, Supervisor
supervisor = Supervisor(Launch(Path({sys.executable!r}), Path({str(ROOT)!r}), Path({str(launch.cache)!r}),
                               Path({str(launch.log)!r})))
supervisor.start()
while supervisor.watch().kind == "starting":
    time.sleep(0.02)
print(supervisor.state.kind, supervisor.pid, flush=True)
time.sleep(600)
"""
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert parent.stdout is not None
        kind, pid = parent.stdout.readline().split()
        assert kind == "ready"
    finally:
        parent.kill()
        parent.communicate()
    until(lambda: is_gone(int(pid)))


def test_a_ctrl_c_for_blender_does_not_reach_it(launch: Launch) -> None:
    supervisor = Supervisor(launch)
    supervisor.start()
    try:
        assert supervisor.pid is not None
        assert os.getpgid(supervisor.pid) != os.getpgid(0)
    finally:
        supervisor.stop(PATIENCE)


def test_one_that_hangs_at_its_start_is_ended(stand_in: Callable[..., Supervisor]) -> None:
    supervisor = stand_in("print('loading things', flush=True); time.sleep(600)", ready_within=0.5)
    supervisor.start()
    pid = supervisor.pid
    wait_for(supervisor, "failed")
    assert "did not become ready" in supervisor.state.sentence
    assert "loading things" in supervisor.state.sentence
    assert pid is not None and is_gone(pid)
    assert supervisor.state.fix == "liveportrait.show_log"


def test_one_that_ignores_its_stop_is_ended_by_force(stand_in: Callable[..., Supervisor]) -> None:
    stubborn = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + READY + "time.sleep(600)"
    supervisor = stand_in(stubborn)
    supervisor.start()
    wait_for(supervisor, "ready")
    pid = supervisor.pid
    supervisor.stop(0.5)
    assert pid is not None and is_gone(pid)
    assert supervisor.state.kind == "stopped"


@pytest.mark.parametrize(
    ("script", "said", "fix"),
    [
        ("sys.stderr.write('error: There is no token.\\n'); sys.exit(2)", "There is no token.", "show_log"),
        ("import nothing_like_this", "nothing_like_this is missing", "repair_backend"),
        ("raise OSError(28, 'No space left on device')", "the disk is full", ""),
        ("raise MemoryError", "not enough memory", ""),
        ("os.kill(os.getpid(), 4)", "this processor lacks", "show_log"),
        ("sys.exit(7)", "exit code 7", "show_log"),
        ("print('Hello there'); print('[1, 2')", "exit code 0", "show_log"),
        (
            "sys.exit('ImportError: libGL.so.1: cannot open shared object file: No such file')",
            "this machine lacks libGL.so.1",
            "",
        ),
    ],
)
def test_an_early_death_says_why_and_is_not_repeated(
    stand_in: Callable[..., Supervisor], script: str, said: str, fix: str
) -> None:
    supervisor = stand_in(script)
    supervisor.start()
    wait_for(supervisor, "failed", "stopped")
    state = supervisor.state
    assert state.kind == "failed" and "could not start" in state.sentence
    assert said in state.sentence and "\n" not in state.sentence
    assert state.fix.endswith(fix) and bool(fix) == bool(state.fix)
    assert state.log.is_file()
    assert supervisor.watch() == state and supervisor.generation == 1


def test_a_missing_python_is_one_sentence(launch: Launch, tmp_path: Path) -> None:
    supervisor = Supervisor(replace(launch, python=tmp_path / "gone" / "python"))
    supervisor.start()
    assert supervisor.state.kind == "failed" and "is not there" in supervisor.state.sentence
    assert supervisor.state.fix == "liveportrait.set_up_backend"
    unrunnable = tmp_path / "python"
    unrunnable.write_text("no program")
    supervisor = Supervisor(replace(launch, python=unrunnable))
    supervisor.start()
    assert "cannot be run" in supervisor.state.sentence and supervisor.pid is None


@pytest.mark.parametrize(("protocol", "update"), [(2, "Update the add-on."), (0, "Repair the backend.")])
def test_another_protocol_says_which_side_to_update(
    stand_in: Callable[..., Supervisor], protocol: int, update: str
) -> None:
    supervisor = stand_in(READY.replace("1,", f"{protocol},", 1) + "time.sleep(600)")
    supervisor.start()
    pid = supervisor.pid
    wait_for(supervisor, "failed", "ready")
    assert supervisor.state.kind == "failed" and supervisor.state.hint == update
    assert pid is not None and is_gone(pid)


def test_an_address_elsewhere_is_refused(stand_in: Callable[..., Supervisor]) -> None:
    supervisor = stand_in(READY.replace("127.0.0.1", "203.0.113.5") + "time.sleep(600)")
    supervisor.start()
    wait_for(supervisor, "failed", "ready")
    assert "not on this machine" in supervisor.state.sentence and supervisor.address is None


def test_a_backend_that_keeps_dying_is_given_up_until_asked(stand_in: Callable[..., Supervisor]) -> None:
    supervisor = stand_in(READY + "sys.stdout.close(); os._exit(3)")
    supervisor.start()
    wait_for(supervisor, "failed")
    assert supervisor.generation == 3 and "3 times" in supervisor.state.sentence
    assert supervisor.watch().kind == "failed" and supervisor.pid is None
    supervisor.start()
    assert supervisor.generation == 4
    wait_for(supervisor, "failed")


def test_one_that_was_asked_to_end_is_not_started_again(stand_in: Callable[..., Supervisor]) -> None:
    supervisor = stand_in(READY + "time.sleep(0.2)")
    supervisor.start()
    wait_for(supervisor, "stopped", "failed")
    assert supervisor.state.kind == "stopped" and supervisor.generation == 1


def test_a_hanging_one_is_restarted_at_once(stand_in: Callable[..., Supervisor]) -> None:
    supervisor = stand_in(READY + "time.sleep(600)")
    supervisor.start()
    wait_for(supervisor, "ready")
    first = supervisor.pid
    supervisor.restart()
    assert first is not None and is_gone(first)
    wait_for(supervisor, "ready")
    assert supervisor.pid != first


def test_output_without_end_does_not_block_it(stand_in: Callable[..., Supervisor], tmp_path: Path) -> None:
    done = tmp_path / "done"
    much = "sys.stdout.write('x' * (4 << 20)); sys.stdout.flush();"
    supervisor = stand_in(f"{READY}{much} open({str(done)!r}, 'w'); time.sleep(600)")
    supervisor.start()
    until(done.exists)


def test_what_it_gets(
    stand_in: Callable[..., Supervisor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = tmp_path / "seen.json"
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    monkeypatch.setenv("PYTHONHOME", "/elsewhere")
    monkeypatch.setenv("VIRTUAL_ENV", "/elsewhere")
    supervisor = stand_in(
        f"open({str(seen)!r}, 'w').write(json.dumps([sys.argv, dict(os.environ), os.getcwd()]));" + READY
    )
    supervisor.launch = replace(supervisor.launch, models=tmp_path / "models", port=1234)
    supervisor.start()
    wait_for(supervisor, "stopped", "failed")
    arguments, variables, folder = json.loads(seen.read_text())
    assert arguments[1:] == command(supervisor.launch, os.getpid())[1:]
    assert arguments[1:4] == ["-m", "backend", "serve"] and "--watch-stdin" in arguments
    assert arguments[arguments.index("--port") + 1] == "1234"
    assert folder == str(ROOT)
    assert len(variables["LIVEPORTRAIT_TOKEN"]) >= 32
    assert variables["LIVEPORTRAIT_TOKEN"] not in " ".join(arguments)
    assert variables["LIVEPORTRAIT_MODELS"] == str(tmp_path / "models")
    assert {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"}.isdisjoint(variables)
    assert variables["PATH"] == os.environ["PATH"]
    assert "LIVEPORTRAIT_TOKEN" not in clean_environment()
