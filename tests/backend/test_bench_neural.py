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
from backend.networks.random_weights import DRAW, KINDS, WARP, loaded, write_random  # noqa: E402
from backend.networks.timing_forms import AUTOCAST, BASELINE, WHOLE  # noqa: E402


def test_forms_are_timed_in_turn_after_a_warm_up() -> None:
    called: list[str] = []
    forms = {"one": lambda: called.append("one"), "two": lambda: called.append("two")}
    taken = timing.time_side_by_side("network", forms, batch=4, device="cpu", repeats=3)
    assert called == ["one", "two"] * 4
    assert [one.form for one in taken] == ["one", "two"]
    assert all(one.median >= one.least > 0 and one.batch == 4 for one in taken)


def test_random_weights_are_found_and_load_strictly(tmp_path: Path) -> None:
    files = write_random(tmp_path)
    found = find(Options(engine="neural", models=tmp_path, device="cpu"))
    assert isinstance(found, FoundModels)
    assert dict(found.files) == files
    for name in ("appearance_feature_extractor", "spade_generator"):
        network = loaded(files, name)
        assert all(torch.isfinite(value).all() for value in network.state_dict().values())


def test_the_share_is_that_of_both_networks_together() -> None:
    report = Report("neural")
    medians = {
        (WARP, BASELINE, 1): 4.0,
        (DRAW, BASELINE, 1): 6.0,
        (WARP, "float32", 1): 1.0,
        (DRAW, "float32", 1): 4.0,
    }
    neural._compare(report, medians, "cpu")
    (row,) = report.rows
    assert (row.value, row.target, row.reached) == (0.5, 0.6, True)


def test_a_gpu_is_judged_by_whole_frames_at_batch_eight() -> None:
    report = Report("neural")
    medians = {(network, BASELINE, 1): 50.0 for network in (WARP, DRAW)}
    medians |= {(WHOLE, AUTOCAST, 1): 20.0, (WHOLE, "float16, graphs", 8): 5.0, (WHOLE, "float16", 8): 8.0}
    neural._compare(report, medians, "cuda")
    assert [(row.name, row.value, row.target) for row in report.rows] == [
        ("float16, graphs, batch 8", 4.0, 2.0),
        ("float16, batch 8", 2.5, None),
    ]
    report = Report("neural")
    neural._against_arithmetic(report, medians, "cuda", (1.25e12, 500e12))  # 2.5 ms a frame
    judged = {row.name: row.value for row in report.rows if row.target is not None}
    assert judged == {"float16, graphs, batch 8": 2.0}


def test_the_operations_of_a_frame_are_counted() -> None:
    operations, rate = timing.arithmetic("cpu")
    assert 1.2e12 < operations < 1.3e12 and rate > 0  # 342 + 892 + 12 GFLOP


def test_a_folder_without_weights_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="cannot be measured: there are no weights in"):
        neural._weights(Report("neural"), neural.Wanted(models=tmp_path), tmp_path)


@pytest.mark.slow
def test_every_network_is_timed(tmp_path: Path) -> None:
    files = write_random(tmp_path)
    taken = [one for several in timing.measure(files, "cpu", quick=True) for one in several]
    networks = {one.network for one in taken}
    assert networks == {*KINDS, WHOLE, "retarget_shoulder", "retarget_eye", "retarget_mouth"}
