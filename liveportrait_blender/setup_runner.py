# SPDX-License-Identifier: GPL-3.0-or-later
"""Carries out a set-up on a thread: commands, progress, log, cancel. Imports no bpy.

    runner = Runner(Job("mesh", folder, requirements, code))
    runner.start()
    runner.progress                       # cheap; whenever it is to be shown
    runner.cancel()

An environment is built beside the one that is there and takes its place once it works. Whatever goes wrong,
the old one stays, and what was downloaded is kept for the next try.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import logging
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from . import environments, offline_file, pythons, setup_failures
from .own_files import NotOurs
from .setup_plan import PROFILES, Places, Plan, PlanError, Request, Step, make_plan, read_pins, uv_settings
from .supervisor import apart, clean_environment

logger = logging.getLogger(__name__)
LINES = 400  # of output that are kept in memory
LAST = 40  # of them that a failure is read from
SPARE = 200_000_000  # bytes of disk that are left free

# Settings for other installations than this one.
_ELSEWHERE = ("PIP_PREFIX", "PIP_PYTHON", "PIP_ROOT", "PIP_TARGET", "PIP_NO_INDEX", "PIP_CONSTRAINT")
_UV_KEPT = re.compile(
    r"UV_(DEFAULT_INDEX|INDEX.*|EXTRA_INDEX_URL|FIND_LINKS|HTTP_TIMEOUT|INSECURE_HOST|.*_MIRROR)"
)


@dataclass(frozen=True)
class Job:
    """What to set up.

    folder: the extension's own. requirements: the folder of the lists. code: the folder that holds
    `backend/`. offline: an offline file to take the packages from. python: an interpreter to build with.
    again: build anew even if all of it is there.
    """

    profile: str
    folder: Path
    requirements: Path
    code: Path
    offline: Path | None = None
    python: Path | None = None
    again: bool = False


@dataclass(frozen=True)
class Progress:
    """How far it is. state: idle, running, done, failed or cancelled. factor: 0 to 1."""

    state: str = "idle"
    label: str = ""
    text: str = ""
    factor: float = 0.0
    sentence: str = ""
    hint: str = ""

    @property
    def ended(self) -> bool:
        return self.state in ("done", "failed", "cancelled")


class _Stop(Exception):
    """The set-up ends here."""

    def __init__(self, sentence: str, hint: str = "") -> None:
        super().__init__(sentence)
        self.sentence, self.hint = sentence, hint


class _Cancelled(Exception):
    """The user does not want it any more."""


class Runner:
    """One set-up."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.places = Places(job.folder)
        self.lines: collections.deque[str] = collections.deque(maxlen=LINES)
        self.plan: Plan | None = None
        self._cancel = threading.Event()
        self._child: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()
        self._progress = Progress()
        self._step: Step | None = None
        self._before = self._seen = 0.0  # shares of steps that are done; packages that have come
        self._thread = threading.Thread(target=self._run, name="liveportrait-set-up", daemon=True)

    # --- for the caller -------------------------------------------------------------------------------------

    def start(self) -> None:
        self._progress = Progress("running", "Starting")
        self._thread.start()

    def cancel(self) -> None:
        """End it soon. What has been downloaded is kept."""
        self._cancel.set()
        with self._lock:
            if self._child is not None:
                _kill(self._child)

    def wait(self, timeout: float | None = None) -> Progress:
        """Wait for its end, or for so many seconds."""
        self._thread.join(timeout)
        return self.progress

    @property
    def progress(self) -> Progress:
        """As of now. Looks into one folder while packages are installed."""
        now, step, plan = self._progress, self._step, self.plan
        if now.state != "running" or step is None or plan is None:
            return now
        total = sum(one.share for one in plan.steps)
        part = 0.0
        if step.expects:
            come = min(self._seen / step.expects, 1.0)
            there = min(_installed(plan.building) / step.expects, 1.0) if step.name == "install" else come
            part = 0.6 * come + 0.4 * there
        factor = min((self._before + part * step.share) / total, 0.99)
        return dataclasses.replace(now, factor=factor)

    # --- the thread -----------------------------------------------------------------------------------------

    def _run(self) -> None:
        places = self.places
        try:
            places.log.parent.mkdir(parents=True, exist_ok=True)
            with places.log.open("a", encoding="utf-8") as log, environments.only_one(places.lock) as alone:
                self._say(log, f"--- {time.strftime('%Y-%m-%d %H:%M:%S')} {self.job.profile}")
                if not alone:
                    raise _Stop("Another Blender is setting up the backend.", "Wait until it has finished.")
                try:
                    self._set_up(log)
                except (_Stop, PlanError, offline_file.OfflineError) as error:
                    self._say(log, f"failed: {error.sentence} {error.hint}")
                    raise
        except _Cancelled:
            sentence = "The set-up was cancelled. What has been downloaded is kept."
            self._end("cancelled", sentence, "Set up again to go on.")
        except (_Stop, PlanError, offline_file.OfflineError) as error:
            self._end("failed", error.sentence, error.hint)
        except (OSError, NotOurs) as error:
            of = error if isinstance(error, OSError) else OSError(0, str(error))
            self._end("failed", *setup_failures.of_os(of, "The set-up"))
        except Exception as error:  # whatever it is: a set-up that never ends could not be begun again
            logger.exception("A fault in the set-up")
            self._end("failed", f"A fault in the set-up: {type(error).__name__}.", "The log says more.")

    def _end(self, state: str, sentence: str, hint: str = "") -> None:
        if state != "done":
            with contextlib.suppress(OSError, NotOurs):
                environments.clear(self.job.folder, self.places.building)
        factor = 1.0 if state == "done" else 0.0
        self._progress = Progress(state, "", "", factor, sentence, hint)

    def _set_up(self, log: TextIO) -> None:
        job, places = self.job, self.places
        environments.recover(job.folder)
        profile = PROFILES[job.profile]
        pins = read_pins(job.requirements, profile.pins)
        found = environments.look(job.folder)
        current = found.kind == "whole" and found.made is not None and found.made.profile == job.profile
        if current and found.is_current(pins) and not job.again:
            self._end("done", "The backend is set up already.")
            return
        manifest = None
        if job.offline is not None:
            manifest = offline_file.look_into(job.offline)
            if manifest.profile != job.profile:
                raise _Stop(
                    f"The offline file is for {manifest.profile}.", f"Choose that, not {job.profile}."
                )
            offline_file.check(manifest, pins)
        self._check_room(profile.disk + (0 if job.offline else profile.download))
        environments.clear(job.folder, places.building)
        host, base = self._choose_python(None if manifest is None else manifest.python)
        wheels = None
        if job.offline is not None:
            self._show("Unpacking the offline file")
            wheels = places.downloads / "offline"
            environments.clear(job.folder, wheels)
            offline_file.unpack(job.offline, wheels, self._cancel.is_set)
            self._stop_if_cancelled()
        request = Request(job.profile, job.folder, job.requirements, job.code, host, base, wheels)
        if profile.torch or base is None or not base.fills:
            request = dataclasses.replace(request, index=self._pip_settings(host or base))
        self.plan = plan = make_plan(request)
        for step in plan.steps:
            self._carry_out(step, log)
            self._before += step.share
        self._step = None
        made = environments.Made(
            job.profile,
            plan.pins,
            ".".join(map(str, base.version)) if base else "fetched",
            base.prefix if base else str(places.python),
            job.offline is not None,
        )
        self._show("Finishing")
        environments.finish(job.folder, made)
        self._say(log, "done")
        self._end("done", f"The backend is set up: {profile.label}.")

    def _check_room(self, needed: int) -> None:
        free = shutil.disk_usage(self.job.folder).free
        if free < needed + SPARE:
            lacking = (needed + SPARE - free) / 1e9
            where = f"{needed / 1e9:.1f} GB are needed in {self.job.folder}"
            raise _Stop(
                f"There is not enough room on the disk: {where}.",
                f"Free {max(lacking, 0.1):.1f} GB, then set up again.",
            )

    def _choose_python(
        self, version: tuple[int, int] | None
    ) -> tuple[pythons.Python | None, pythons.Python | None]:
        """The Python that runs this, and the one to build with; None for one that has to be fetched."""
        self._show("Looking for a Python")
        host = pythons.running()
        self._stop_if_cancelled()
        if self.job.python is not None:
            base, why_not = pythons.from_path(self.job.python)
            if why_not or base is None:
                raise _Stop(why_not, "Choose another Python in the preferences, or none.")
            return host, base
        base = pythons.find(host, cancelled=self._cancel.is_set, version=version)
        self._stop_if_cancelled()
        if base is None and version is not None:
            number = ".".join(map(str, version))
            raise _Stop(
                f"The offline file is for Python {number}, and there is none on this machine.",
                f"Install Python {number}, or use a Blender that brings it (4.2 to 5.0).",
            )
        return host, base

    def _pip_settings(self, python: pythons.Python | None) -> Mapping[str, str]:
        """What the user's pip is told about indexes, for uv."""
        if python is None or not python.pip:
            return {}
        line = [python.executable, "-I", "-m", "pip", "config", "list"]
        try:
            answer = subprocess.run(
                line, capture_output=True, stdin=subprocess.DEVNULL, timeout=60, env=_variables({}), **apart()
            )
        except (OSError, subprocess.TimeoutExpired):
            return {}
        return uv_settings(answer.stdout.decode("utf-8", "replace"))

    # --- commands -------------------------------------------------------------------------------------------

    def _carry_out(self, step: Step, log: TextIO) -> None:
        """Run one command to its end. Raises _Stop, _Cancelled."""
        self._stop_if_cancelled()
        self._step, self._seen = step, 0.0
        self._show(step.label)
        self._say(log, f"$ {subprocess.list2cmdline(step.line)}")
        lines: collections.deque[str] = collections.deque(maxlen=LAST)
        try:
            child = subprocess.Popen(
                step.line,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                encoding="utf-8",
                errors="replace",
                cwd=self.job.folder,
                env=_variables(step.environment),
                **apart(),
            )
        except OSError as error:
            raise _Stop(*setup_failures.of_os(error, step.label)) from error
        with self._lock:
            self._child = child
        if self._cancel.is_set():
            _kill(child)
        assert child.stdout is not None
        with child.stdout:
            for line in child.stdout:
                lines.append(line.rstrip())
                self._say(log, line.rstrip())
                self._note(step, line)
        code = child.wait()
        with self._lock:
            self._child = None
        self._stop_if_cancelled()
        if code != 0:
            told = list(lines)
            raise _Stop(
                *(
                    setup_failures.of_doctor(told)
                    if step.name == "check"
                    else setup_failures.why(step.label, code, told)
                )
            )

    def _note(self, step: Step, line: str) -> None:
        spoken, counts = _spoken(line)
        self._seen += counts
        if spoken:
            self._show(step.label, spoken)

    def _show(self, label: str, text: str = "") -> None:
        self._progress = Progress("running", label, text)

    def _say(self, log: TextIO, line: str) -> None:
        self.lines.append(line)
        log.write(line + "\n")
        log.flush()

    def _stop_if_cancelled(self) -> None:
        if self._cancel.is_set():
            raise _Cancelled


def _spoken(line: str) -> tuple[str, int]:
    """What a line of pip or uv says to people, "" for nothing; and whether a package more has come."""
    line = line.strip()
    if found := re.match(r"(Downloading|Using cached|Downloaded) (\S+)(?: \(([\d.]+ ?[kKMG]i?B)\))?", line):
        name = re.split(r"-\d", found[2].rpartition("/")[2])[0]
        size = f" ({found[3]})" if found[3] else ""
        return ("" if found[1] == "Using cached" else f"{found[1]} {name}{size}"), 0
    if found := re.match(r"(?:Collecting|Processing|\+) (\S+)", line):
        return "", 1
    if re.match(r"Installing collected packages|Prepared \d+ packages", line):
        return "Unpacking", 0
    return "", 0


def _installed(environment: Path) -> int:
    """How many packages are in an environment."""
    inner = "Lib/site-packages" if os.name == "nt" else "lib/python*/site-packages"
    return sum(1 for _ in environment.glob(f"{inner}/*.dist-info"))


def _variables(more: Mapping[str, str]) -> dict[str, str]:
    """The user's variables for Python, pip and uv, without those for other installations."""
    kept = {
        name: value
        for name, value in clean_environment().items()
        if name not in _ELSEWHERE and (not name.startswith("UV_") or _UV_KEPT.fullmatch(name))
    }
    return {**kept, **more}


def _kill(child: subprocess.Popen[str]) -> None:
    """End a command and what it has started, by force: what it built is thrown away."""
    if child.poll() is not None:
        return
    with contextlib.suppress(OSError):
        if os.name == "nt":
            line: Sequence[str] = ("taskkill", "/T", "/F", "/PID", str(child.pid))
            subprocess.run(line, capture_output=True, timeout=10, **apart())
        else:
            os.killpg(child.pid, signal.SIGKILL)  # a group of its own: see apart()
    with contextlib.suppress(OSError):
        child.kill()
