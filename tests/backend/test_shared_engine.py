# SPDX-License-Identifier: GPL-3.0-or-later
"""The engine that a job and a preview share: nothing of it runs for both at once, and options keep theirs."""

from __future__ import annotations

import inspect
import threading
from dataclasses import replace
from typing import Any

import pytest

from backend.engines import Choice, Engine, PastingEngine
from backend.options import Options
from backend.server import work
from backend.server.turnstile import CALLS, SharedEngine, Turnstile
from tests.backend.fakes import FakeEngine


def test_every_call_of_an_engine_passes_the_turnstile() -> None:
    methods = {
        name
        for name, member in (*vars(Engine).items(), *vars(PastingEngine).items())
        if inspect.isfunction(member) and not name.startswith("_")
    }
    assert methods == set(CALLS)


def test_a_call_waits_while_another_is_inside() -> None:
    entered, leave = threading.Event(), threading.Event()

    class Slow(FakeEngine):
        def stitch(self, source: Any, driving: Any) -> Any:
            entered.set()
            assert leave.wait(10)
            order.append("stitch")
            return driving

        def refine(self, picture: Any, landmarks: Any) -> Any:
            order.append("refine")
            return landmarks

    order: list[str] = []
    turnstile, engine = Turnstile(), Slow()
    job, preview = (SharedEngine(engine, turnstile, urgent) for urgent in (False, True))
    first = threading.Thread(target=lambda: job.stitch(None, None))
    first.start()
    assert entered.wait(10)
    second = threading.Thread(target=lambda: preview.refine(None, None))
    second.start()
    leave.set()
    first.join(10)
    second.join(10)
    assert order == ["stitch", "refine"]


def test_engines_of_other_options_are_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, "choose", lambda options: Choice(FakeEngine(), options.runtime))
    worker = object.__new__(work.Work)
    worker._engines, worker._turnstile = {}, Turnstile()
    worker._lock = threading.Lock()
    plain = Options(engine="neural")
    by_torch, by_onnx = (worker._choice(replace(plain, runtime=runtime)) for runtime in ("torch", "onnx"))
    assert (by_torch.why, by_onnx.why) == ("torch", "onnx")
    assert worker._choice(replace(plain, runtime="torch")) is by_torch
