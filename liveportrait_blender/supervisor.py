# SPDX-License-Identifier: GPL-3.0-or-later
"""Starts the local backend, watches it, starts it again when it dies, and stops it. Imports no bpy.

    supervisor = Supervisor(launch)
    supervisor.start()                    # at once
    state = supervisor.watch()            # every so often, from the same thread; cheap
    url, token = supervisor.address       # once state.kind is "ready"
    supervisor.stop()

One backend a supervisor. It ends with its standard input and with this process, so nothing stays behind
when Blender is killed. The only thread reads its standard output.
"""

from __future__ import annotations

import collections
import contextlib
import json
import logging
import os
import secrets
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from . import backend_code, backend_deaths

PROTOCOL = 1
READY_WITHIN = 90.0  # seconds; a first start reads its libraries from a cold disk, past a virus scanner
DEATHS, WITHIN = 3, 60.0  # so many unexpected ends in so many seconds, and it is not started again
LOG_BYTES = 2 << 20  # a longer log is put aside before a start
LINE = 64 << 10  # the longest line of output that is looked at
_FOREIGN = {"VIRTUAL_ENV", "VIRTUAL_ENV_PROMPT", "CONDA_PREFIX", "__PYVENV_LAUNCHER__"}
_FOREIGN |= {"LIVEPORTRAIT_TOKEN", "LIVEPORTRAIT_REMOTE_TOKEN"}

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Launch:
    """What to start.

    python: the interpreter of the backend's environment. code: the folder that holds `backend/`.
    cache: its work folder. log: the file that takes what it writes. models: the folder of the weights,
    None for its own default. unload_after: seconds without work after which memory is freed, 0 for never.
    copy_to: where the code is copied to before it runs, None to run it where it lies (a checkout).
    port: 0 for a free one. cache_bytes: what the work folder may hold, None for its own default.
    log_level: "debug", "info", "warning" or "error".
    """

    python: Path
    code: Path
    cache: Path
    log: Path
    models: Path | None = None
    unload_after: float = 600.0
    copy_to: Path | None = None
    port: int = 0
    cache_bytes: int | None = None
    log_level: str = "info"


@dataclass(frozen=True)
class State:
    """How the backend is. fix: the id of an operator that helps, or ""."""

    kind: str  # stopped, starting, ready, failed
    sentence: str
    hint: str
    log: Path
    fix: str = ""


@dataclass(frozen=True)
class BackendSettings:
    """Which backend the preferences name: a local one, or a remote one where `remote_url` is not empty.

    why_not: why there is none, or "". fix: the id of an operator that helps, or "".
    """

    local: Launch | None = None
    remote_url: str = ""
    remote_token: str = ""
    remote_certificate: Path | None = None
    why_not: str = ""
    fix: str = ""


def clean_environment(**more: str) -> dict[str, str]:
    """This process's variables, without those that would mix another Python's packages in, and `more`."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name.upper() not in _FOREIGN and not name.upper().startswith("PYTHON")
    }
    return {**kept, "PYTHONUTF8": "1", "PYTHONUNBUFFERED": "1", "PYTHONNOUSERSITE": "1", **more}


def apart() -> dict[str, Any]:
    """Arguments of Popen: no console window, and not hit by a Ctrl-C that is meant for Blender."""
    if os.name != "nt":
        return {"start_new_session": True}
    flags = ("CREATE_NO_WINDOW", "CREATE_NEW_PROCESS_GROUP")
    return {"creationflags": sum(getattr(subprocess, name) for name in flags)}


def command(launch: Launch, parent: int) -> list[str]:
    """The backend's command line. The token is not in it."""
    line = [str(launch.python), "-m", "backend", "serve", "--watch-stdin", "--parent-pid", str(parent)]
    line += ["--cache", str(launch.cache), "--unload-after", f"{launch.unload_after:g}"]
    line += ["--port", str(launch.port)] if launch.port else []
    line += ["--limit", f"store_bytes={launch.cache_bytes}"] if launch.cache_bytes else []
    return line


class _Process:
    """A backend that runs, and what it has said on its standard output."""

    def __init__(self, process: subprocess.Popen[bytes], code: Path) -> None:
        self.process, self.code = process, code
        self.began = time.monotonic()
        self.ready: dict[str, Any] | None = None
        self.rubbish = ""  # the first line that is no ready line
        assert process.stdout is not None
        self._thread = threading.Thread(
            target=self._read, args=(process.stdout,), name="liveportrait-backend", daemon=True
        )
        self._thread.start()

    def _read(self, stream: IO[bytes]) -> None:
        with stream, contextlib.suppress(OSError):
            while line := stream.readline(LINE):
                if self.ready is not None:
                    continue  # nothing is awaited any more; the pipe must not fill
                told = _as_ready(line)
                if told is not None:
                    self.ready = told
                elif not self.rubbish:
                    self.rubbish = line.decode("utf-8", "replace").strip()[:200]

    def has_said_all(self) -> None:
        """Wait a moment for the last line of a process that has ended."""
        self._thread.join(0.2)

    def close(self) -> None:
        """Close its standard input. The thread closes the output: a child of its own may hold it longer."""
        if self.process.stdin is not None:
            with contextlib.suppress(OSError):
                self.process.stdin.close()


def _as_ready(line: bytes) -> dict[str, Any] | None:
    try:
        told = json.loads(line)
    except ValueError:
        return None
    return told if isinstance(told, dict) and told.get("event") == "ready" else None


class Supervisor:
    """One local backend. start, stop and watch may be called from several threads; they wait in turn."""

    def __init__(
        self,
        launch: Launch,
        *,
        ready_within: float = READY_WITHIN,
        parent: int | None = None,
    ) -> None:
        """ready_within: seconds that a start may take. parent: the process it ends with; this one."""
        self.launch = launch
        self.generation = 0  # grows with every start; a connection belongs to one
        self._ready_within, self._parent = ready_within, parent or os.getpid()
        self._lock = threading.RLock()
        self._running: _Process | None = None
        self._token = ""
        self._log_start = 0
        self._deaths: collections.deque[float] = collections.deque(maxlen=DEATHS)
        self._state = self._as("stopped", "The backend is not running.")

    # --- for the caller -------------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """As of the last call of start, stop or watch."""
        return self._state

    @property
    def address(self) -> tuple[str, str] | None:
        """(url, token) while it is ready."""
        running = self._running
        if self._state.kind != "ready" or running is None or running.ready is None:
            return None
        return str(running.ready["url"]), self._token

    @property
    def pid(self) -> int | None:
        running = self._running
        return running.process.pid if running is not None else None

    def start(self) -> None:
        """Start it unless it runs; returns at once. Earlier deaths are forgotten: somebody asked for it.

        Whatever goes wrong is told by `state`.
        """
        with self._lock:
            self.watch()
            if self._running is None:
                self._deaths.clear()
                self._start()

    def restart(self) -> None:
        """End it at once, whatever it does (it may hang), and start it again."""
        with self._lock:
            self._end(0.0)
            self.start()

    def stop(self, timeout: float = 5.0) -> None:
        """End it in order, within so many seconds; then by force."""
        with self._lock:
            self._end(timeout)
            self._state = self._as("stopped", "The backend is not running.")

    def watch(self) -> State:
        """Look how it is. One that died at work is started again, but not for ever.

        Never waits: while another thread starts or stops it, the last state holds.
        """
        if not self._lock.acquire(blocking=False):
            return self._state
        try:
            running = self._running
            if running is None:
                return self._state
            code = running.process.poll()
            if code is not None:
                self._died(running, code)
            elif self._state.kind == "starting":
                self._look_whether_ready(running)
            return self._state
        finally:
            self._lock.release()

    # --- starting -------------------------------------------------------------------------------------------

    def _start(self) -> None:
        launch = self.launch
        self._token = secrets.token_urlsafe(32)
        try:
            code = launch.code
            if launch.copy_to is not None:
                launch.copy_to.mkdir(parents=True, exist_ok=True)
                code = backend_code.placed(launch.code, launch.copy_to)
            if not launch.python.is_file():
                raise FileNotFoundError(2, "No such file", str(launch.python))
            self._running = _Process(self._open(code), code)
        except (OSError, ValueError) as error:
            log.warning("The backend could not be started: %s", error)
            self._state = self._not_started(error)
            return
        self.generation += 1
        backend_code.note_use(code, self._running.process.pid)
        if launch.copy_to is not None:
            backend_code.remove_others(launch.copy_to, code)
        self._state = self._as("starting", "The backend is starting.")

    def _open(self, code: Path) -> subprocess.Popen[bytes]:
        launch = self.launch
        more = {"LIVEPORTRAIT_TOKEN": self._token, "LIVEPORTRAIT_LOG_LEVEL": launch.log_level}
        if launch.models is not None:
            more["LIVEPORTRAIT_MODELS"] = str(launch.models)
        launch.cache.mkdir(parents=True, exist_ok=True)
        launch.log.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(OSError):
            if launch.log.stat().st_size > LOG_BYTES:
                launch.log.replace(launch.log.with_name(f"{launch.log.name}.1"))
        line = command(launch, self._parent)
        with launch.log.open("ab") as stream:
            stream.write(f"--- {time.strftime('%Y-%m-%d %H:%M:%S')} {' '.join(line)}\n".encode())
            stream.flush()
            self._log_start = stream.tell()
            return subprocess.Popen(
                line,
                cwd=code,
                env=clean_environment(**more),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stream,
                **apart(),
            )

    def _not_started(self, error: OSError | ValueError) -> State:
        python = self.launch.python
        if not isinstance(error, OSError):
            return self._as("failed", "The backend's code is not whole.", "Reinstall the extension.")
        if not python.is_file():
            sentence = f"The backend's Python is not there: {python}."
            return self._as("failed", sentence, "Set up the backend again.", backend_deaths.SET_UP)
        if error.errno == 28:
            return self._as("failed", "The disk is full.", "Make room, then start the backend again.")
        if error.filename and Path(os.fsdecode(error.filename)) == python:
            sentence = f"The backend's Python cannot be run: {python} ({error.strerror})."
            return self._as("failed", sentence, "Repair the backend.", backend_deaths.REPAIR)
        hint = "Look at the folders in the add-on's preferences."
        return self._as("failed", f"The backend could not be started: {error}.", hint)

    # --- watching -------------------------------------------------------------------------------------------

    def _look_whether_ready(self, running: _Process) -> None:
        told = running.ready
        if told is None:
            if time.monotonic() - running.began > self._ready_within:
                said = f" It said: {running.rubbish}" if running.rubbish else ""
                self._end(0.0)
                sentence = f"The backend did not become ready within {self._ready_within:g} seconds.{said}"
                hint = "Start it again; the log says more."
                self._state = self._as("failed", sentence, hint, backend_deaths.LOG)
            return
        if told.get("protocol") != PROTOCOL:
            self._end(0.0)
            newer = isinstance(told.get("protocol"), int) and told["protocol"] > PROTOCOL
            sentence = f"The backend speaks protocol {told.get('protocol')}, and this add-on {PROTOCOL}."
            hint = "Update the add-on." if newer else "Repair the backend."
            self._state = self._as("failed", sentence, hint, "" if newer else backend_deaths.REPAIR)
        elif not _is_local(str(told.get("url", ""))):
            self._end(0.0)
            sentence = "The backend gave an address that is not on this machine."
            self._state = self._as("failed", sentence, "Repair the backend.", backend_deaths.REPAIR)
        else:
            self._state = self._as("ready", "The backend is ready.")

    def _died(self, running: _Process, code: int) -> None:
        running.has_said_all()
        was_ready = self._state.kind == "ready" or running.ready is not None
        said = backend_deaths.tail(self.launch.log, self._log_start)
        self._forget(running)
        if code == 0 and was_ready:
            self._state = self._as("stopped", "The backend has ended.", "Start it again when you need it.")
            return
        sentence, hint, fix = backend_deaths.why(code, said, was_ready)
        log.warning("%s (exit code %s; %s)", sentence, code, self.launch.log)
        now = time.monotonic()
        self._deaths.append(now)
        if not was_ready:  # it would fail the same way again
            self._state = self._as("failed", sentence, hint, fix)
        elif len(self._deaths) == DEATHS and now - self._deaths[0] < WITHIN:
            sentence = f"{sentence} It has ended {DEATHS} times in a minute and is not started again."
            self._state = self._as("failed", sentence, hint, fix)
        else:
            self._start()
            if self._state.kind == "starting":
                self._state = self._as("starting", f"{sentence} It is being started again.")

    # --- ending ---------------------------------------------------------------------------------------------

    def _end(self, timeout: float) -> None:
        """End the process: its standard input first, then a signal, then by force."""
        running = self._running
        if running is None:
            return
        process = running.process
        if process.stdin is not None:
            with contextlib.suppress(OSError):
                process.stdin.close()
        if timeout <= 0 or not _ends(process, timeout * 0.7):
            if timeout > 0:
                process.terminate()
            if timeout <= 0 or not _ends(process, timeout * 0.3):
                process.kill()
                process.wait()  # a killed process ends; on no system does it take long
        self._forget(running)

    def _forget(self, running: _Process) -> None:
        running.close()
        backend_code.forget_use(running.code, running.process.pid)
        self._running = None

    def _as(self, kind: str, sentence: str, hint: str = "", fix: str = "") -> State:
        return State(kind, sentence, hint, self.launch.log, fix)


def _ends(process: subprocess.Popen[bytes], seconds: float) -> bool:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def _is_local(url: str) -> bool:
    try:
        parts = urlsplit(url)
        here = parts.hostname in ("127.0.0.1", "::1", "localhost")
        return parts.scheme == "ws" and here and bool(parts.port)
    except ValueError:
        return False
