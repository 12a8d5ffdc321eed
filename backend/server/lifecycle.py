# SPDX-License-Identifier: GPL-3.0-or-later
"""When the server ends: with the process that started it, or with its standard input."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

INTERVAL = 0.5  # seconds between two looks at the parent


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits to be collected does not."""
    if os.name == "nt":
        return _is_alive_windows(pid)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:
        state = Path(f"/proc/{pid}/stat").read_text("ascii", errors="replace").rpartition(")")[2].split()
    except OSError:
        return True
    return not state or state[0] not in ("Z", "X")


def _is_alive_windows(pid: int) -> bool:
    import ctypes

    kernel = ctypes.windll.kernel32  # type: ignore[attr-defined,unused-ignore]
    synchronize = 0x00100000
    process = kernel.OpenProcess(synchronize, False, pid)
    if not process:
        return False
    try:
        return bool(kernel.WaitForSingleObject(process, 0) != 0)
    finally:
        kernel.CloseHandle(process)


async def watch_parent(pid: int, close: Callable[[str], None]) -> None:
    """Call `close` once the process is gone."""
    while is_alive(pid):
        await asyncio.sleep(INTERVAL)
    close("the process that started it is gone")


def watch_stdin(loop: asyncio.AbstractEventLoop, close: Callable[[str], None]) -> None:
    """Call `close` once standard input ends, from a thread: there is no other way on every system."""

    def wait() -> None:
        try:
            while sys.stdin.buffer.read(1):
                pass
        except (OSError, ValueError):
            pass
        try:
            loop.call_soon_threadsafe(close, "standard input ended")
        except RuntimeError:
            return  # it has ended already

    threading.Thread(target=wait, name="stdin", daemon=True).start()
