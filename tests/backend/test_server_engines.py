# SPDX-License-Identifier: GPL-3.0-or-later
"""Which engine the server keeps results under: the one that makes them, also where "auto" falls back."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backend import engines
from backend.engines import Choice
from backend.models import FoundModels, NotAvailable
from backend.options import Options
from backend.progress import Silent
from backend.server import inputs, work
from backend.server.work import Work

pytest.importorskip("torch", reason="PyTorch is not installed")

from backend.engines.mesh import MeshEngine
from backend.errors import WeightsError


class Here:
    """The worker process, in this one."""

    def __init__(self) -> None:
        self.work = Work(0)
        self.asked = 0

    async def run(
        self, lane: str, task: Mapping[str, Any], told: Any, cancel: asyncio.Event
    ) -> tuple[dict[str, Any], bytes]:
        self.asked += 1
        answer = self.work.tasks()[task["do"]](task, Silent(), threading.Event())
        return dict(answer.result), answer.payload


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Weights that look right from outside, on a machine with a GPU."""
    path = tmp_path / "appearance_feature_extractor.pth"
    path.write_bytes(b"damaged")
    found = FoundModels(tmp_path, {"appearance_feature_extractor": path}, "cuda")
    for module in (inputs, work, engines):
        monkeypatch.setattr(module, "find", lambda options: found)

    class Neural(MeshEngine):
        name = "neural"

        def __init__(self, *_: Any, **__: Any) -> None:
            super().__init__()

        def load(self) -> None:
            if path.read_bytes() == b"damaged":
                raise WeightsError("The weights are damaged.", "Fetch them again.")

    monkeypatch.setattr("backend.engines.neural.NeuralEngine", Neural)
    return path


def resolved(worker: Any, given: Mapping[str, Any]) -> str:
    return asyncio.run(inputs.resolved_engine(Options(**given), given, worker))


def test_auto_that_falls_back_is_the_engine_that_it_falls_back_to(weights: Path) -> None:
    assert resolved(Here(), {}) == "mesh"


def test_auto_is_chosen_anew_when_the_weights_are_mended(weights: Path) -> None:
    worker = Here()
    assert resolved(worker, {}) == "mesh"
    weights.write_bytes(b"as released")
    assert resolved(worker, {}) == "neural"


def test_auto_that_had_no_weights_uses_those_that_came(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights.write_bytes(b"as released")
    worker, there = Here(), inputs.find
    for module in (work, engines):
        monkeypatch.setattr(module, "find", lambda options: NotAvailable("no-weights", "there are none", ""))
    assert worker.work.engine({"options": {}}, Silent(), threading.Event()).result["engine"] == "mesh"
    for module in (work, engines):
        monkeypatch.setattr(module, "find", there)
    assert resolved(worker, {}) == "neural"


def test_no_worker_is_asked_where_the_answer_is_known(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = Here()
    assert [resolved(worker, {"engine": name}) for name in ("mesh", "neural")] == ["mesh", "neural"]
    monkeypatch.setattr(inputs, "find", lambda options: None)
    assert resolved(worker, {}) == "mesh"
    assert worker.asked == 0


def test_what_is_kept_as_one_engines_is_made_by_that_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker may have been started again since "auto" was asked about, and choose otherwise."""

    class Neural(MeshEngine):
        name = "neural"

    monkeypatch.setattr(
        work,
        "choose",
        lambda options: Choice(MeshEngine() if options.engine == "mesh" else Neural(), options.engine),
    )
    worker = Work(0)
    engine, choice = worker._engine({"engine": "mesh"}, replace(Options(), engine="auto"), urgent=False)
    assert (engine.name, choice.why) == ("mesh", "mesh")
