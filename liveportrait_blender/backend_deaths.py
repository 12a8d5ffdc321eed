# SPDX-License-Identifier: GPL-3.0-or-later
"""Why a backend has ended, as a sentence and what to do about it. Imports no bpy."""

from __future__ import annotations

import re
import signal
from pathlib import Path

SET_UP, REPAIR, LOG = (
    "liveportrait.set_up_backend",
    "liveportrait.repair_backend",
    "liveportrait.show_log",
)
TAIL = 16 << 10  # bytes of a log that are read

_WINDOWS = {
    0xC0000005: "it read memory that is not its own",
    0xC000001D: "this processor lacks an instruction that it needs",
    0xC0000135: "a library that it needs is missing",
    0xC0000142: "a library could not be started",
    0xC0000017: "there was not enough memory",
    0xC000013A: "it was interrupted",
}


def tail(log: Path, since: int = 0, limit: int = TAIL) -> str:
    """The last part of a log, from `since` bytes on. Empty where there is none."""
    try:
        with log.open("rb") as stream:
            end = stream.seek(0, 2)
            stream.seek(max(min(since, end), end - limit))
            return stream.read().decode("utf-8", "replace")
    except OSError:
        return ""


def why(code: int, said: str, ready: bool) -> tuple[str, str, str]:
    """(sentence, hint, fix) for an exit code and what was written to the log.

    ready: whether it had been ready, so that it died at work and not at its start.
    """
    when = "has ended unexpectedly" if ready else "could not start"
    if missing := re.findall(r"(?:ModuleNotFoundError|ImportError): No module named '([\w.]+)'", said):
        name = missing[-1].partition(".")[0]
        if name == "backend":
            return "The backend's code is missing.", "Reinstall the extension.", ""
        return f"The backend {when}: {name} is missing from its environment.", "Repair the backend.", REPAIR
    if library := re.findall(r"ImportError: ([\w.+-]+\.(?:so|dylib)[\w.]*): cannot open shared", said):
        return (
            f"The backend {when}: this machine lacks {library[-1]}.",
            "Install libgl1 and libglib2.0-0, or what your system calls them.",
            "",
        )
    if re.search(r"ImportError: DLL load failed", said):
        hint = "Install Microsoft's Visual C++ Redistributable (x64), or repair the backend."
        return f"The backend {when}: a library could not be loaded.", hint, REPAIR
    if "No space left on device" in said or "[Errno 28]" in said:
        return f"The backend {when}: the disk is full.", "Make room, then start it again.", ""
    if re.search(r"^(\w+\.)*MemoryError", said, re.MULTILINE):
        return f"The backend {when}: there was not enough memory.", "Close other programs.", ""
    if errors := re.findall(r"^error: (.+)$", said, re.MULTILINE):
        return f"The backend {when}: {errors[-1].strip()}", "Show the log for more.", LOG
    return f"The backend {when}: {_ending(code)}.", "Start it again; the log says more.", LOG


def _ending(code: int) -> str:
    """What an exit code says."""
    if code < 0:
        if -code == getattr(signal, "SIGKILL", 9):
            return "the system killed it, mostly for lack of memory"
        if -code == getattr(signal, "SIGILL", 4):
            return "this processor lacks an instruction that it needs"
        try:
            return f"a fault of its own ({signal.Signals(-code).name})"
        except ValueError:
            return f"signal {-code}"
    if (known := _WINDOWS.get(code & 0xFFFFFFFF)) is not None and code > 255:
        return known
    if code == 127:
        return "its Python cannot be run"
    return f"exit code {code}"
