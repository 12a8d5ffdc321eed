# SPDX-License-Identifier: GPL-3.0-or-later
"""The bench of the networks: forms are timed in turn, and stand-in weights load like the released ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.bench import neural
from backend.bench.report import Report
from backend.errors import EngineError
from backend.models import FoundModels, find
from backend.options import Options

torch = pytest.importorskip("torch", reason="the networks need torch, which is not in this environment")

from backend.networks import timing  # noqa: E402


def test_forms_are_timed_in_turn_after_a_warm_up() -> None:
    called: list[str] = []
    forms = {"one": lambda: called.append("one"), "two": lambda: called.append("two")}
    taken = timing.time_side_by_side("network", forms, batch=4, device="cpu", repeats=3)
    assert called == ["one", "two"] * 4
    assert [one.form for one in taken] == ["one", "two"]
    assert all(one.median >= one.least > 0 and one.batch == 4 for one in taken)


def test_random_weights_are_found_and_load_strictly(tmp_path: Path) -> None:
    files = timing.write_random(tmp_path)
    found = find(Options(engine="neural", models=tmp_path, device="cpu"))
    assert isinstance(found, FoundModels)
    assert dict(found.files) == files
    for name in ("appearance_feature_extractor", "spade_generator"):
        network = timing.loaded(files, name)
        assert all(torch.isfinite(value).all() for value in network.state_dict().values())


def test_the_share_is_that_of_both_networks_together() -> None:
    report = Report("neural")
    medians = {
        (neural.WARP, timing.BASELINE, 1): 4.0,
        (neural.DRAW, timing.BASELINE, 1): 6.0,
        (neural.WARP, "float32", 1): 1.0,
        (neural.DRAW, "float32", 1): 4.0,
    }
    neural._compare(report, medians, "cpu", timing.BASELINE)
    (row,) = report.rows
    assert (row.value, row.target, row.reached) == (0.5, 0.6, True)


def test_a_folder_without_weights_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="cannot be measured: there are no weights in"):
        neural._weights(Report("neural"), neural.Wanted(models=tmp_path), tmp_path)


@pytest.mark.slow
def test_every_network_is_timed(tmp_path: Path) -> None:
    files = timing.write_random(tmp_path)
    taken = [one for several in timing.measure(files, "cpu", quick=True) for one in several]
    networks = {one.network for one in taken}
    assert networks == {*timing._KINDS, "retarget_shoulder", "retarget_eye", "retarget_mouth"}
