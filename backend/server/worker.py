# SPDX-License-Identifier: GPL-3.0-or-later
"""The worker process: `python -m backend.server.worker`, started by the server, spoken to over its pipes.

It ends when the server's end of the pipe closes. A native crash ends this process alone.
"""

from __future__ import annotations

import logging
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from typing import Any

from backend.errors import LivePortraitError
from backend.server.pipes import PipeEnd

INTERVAL = 0.03  # seconds between two progress messages; the server thins them out further

log = logging.getLogger("backend.server.worker")


class Reporter:
    """Progress of one task, sent to the server."""

    def __init__(self, pipe: PipeEnd, number: int) -> None:
        self._pipe, self._number = pipe, number
        self._last = ("", 0.0)

    def update(self, stage: str, done: int, total: int | None) -> None:
        now = time.monotonic()
        if self._last[0] == stage and now - self._last[1] < INTERVAL and done != total:
            return
        self._last = (stage, now)
        self._pipe.send(
            {"event": "progress", "task": self._number, "stage": stage, "done": done, "total": total}
        )

    def warn(self, message: str) -> None:
        self._pipe.send({"event": "warning", "task": self._number, "message": message})


class Lane(threading.Thread):
    """Carries out tasks one after the other."""

    def __init__(self, name: str, pipe: PipeEnd, work: Any, cancels: dict[int, threading.Event]) -> None:
        super().__init__(name=name, daemon=True)
        self._pipe, self._tasks, self._cancels = pipe, work.tasks(), cancels
        self._waiting: queue.SimpleQueue[tuple[Mapping[str, Any], threading.Event]] = queue.SimpleQueue()

    def put(self, message: Mapping[str, Any], cancel: threading.Event) -> None:
        self._waiting.put((message, cancel))

    def run(self) -> None:
        while True:
            message, cancel = self._waiting.get()
            number = message["task"]
            try:
                answer = self._tasks[message["do"]](message, Reporter(self._pipe, number), cancel)
                self._pipe.send({"event": "done", "task": number, "result": answer.result}, answer.payload)
            except LivePortraitError as error:
                self._fail(number, error.code, error.message, error.hint, error.details)
            except OSError as error:
                self._fail(number, "fault", f"The system refused: {error}.", "", traceback.format_exc())
            except Exception as error:
                log.exception("A task failed")
                told = f"Unexpected fault: {type(error).__name__}: {error}."
                self._fail(number, "fault", told, "The server's log says more.", traceback.format_exc())
            finally:
                self._cancels.pop(number, None)

    def _fail(self, number: int, code: str, message: str, hint: str, details: str) -> None:
        error = {"code": code, "message": message, "hint": hint, "details": details}
        self._pipe.send({"event": "failed", "task": number, "error": error})


def main() -> int:
    """Until the server is gone."""
    logging.basicConfig(level="INFO", format="%(levelname)s worker %(name)s: %(message)s")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the server, which ends this process
    answers = os.dup(1)
    os.dup2(2, 1)  # what libraries print must not fall between the messages
    pipe = PipeEnd(sys.stdin.buffer, os.fdopen(answers, "wb"))
    first = pipe.receive()
    if first is None:
        return 0
    from backend.server.work import Work

    work = Work(int(first[0]["source_bytes"]))
    cancels: dict[int, threading.Event] = {}
    lanes = {name: Lane(name, pipe, work, cancels) for name in ("job", "quick")}
    for lane in lanes.values():
        lane.start()
    pipe.send({"event": "ready"})
    while (message := pipe.receive()) is not None:
        told = message[0]
        if told["do"] == "cancel":
            if (wanted := cancels.get(told["task"])) is not None:
                wanted.set()
            continue
        cancels[told["task"]] = threading.Event()
        lanes[told["lane"]].put(told, cancels[told["task"]])
    return 0


if __name__ == "__main__":
    code = main()
    # Frames appear whole or not at all, so nothing has to be waited for.
    sys.stderr.flush()
    os._exit(code)
