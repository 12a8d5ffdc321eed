# SPDX-License-Identifier: GPL-3.0-or-later
"""Weights through the server, from a hub on this machine."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from backend.models import catalogue
from liveportrait_blender.client import BackendError, Client
from tests.backend.fake_hub import FakeHub
from tests.backend.fake_hub import serving as serving_hub
from tests.backend.weight_writers import write_weights
from tests.contract.serving import PATIENCE, serving

pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")

NAMES = ("stitching_retargeting_module", "landmark")
UNSET = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "HF_TOKEN", "HF_HUB_OFFLINE", "LIVEPORTRAIT_OFFLINE")


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Two small files of the right kinds, by their paths in the repository."""
    folder = tmp_path_factory.mktemp("released")
    files = [file for file in catalogue.FILES if file.name in NAMES]
    return {file.path: write_weights(file, folder / file.path).read_bytes() for file in files}


@pytest.fixture(scope="module")
def hub(released: dict[str, bytes]) -> Iterator[FakeHub]:
    with serving_hub(dict(released)) as running:
        yield running


@pytest.fixture(scope="module")
def downloader(
    hub: FakeHub, released: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Client]:
    """A client of a server that knows these weights, and this hub."""
    folder = tmp_path_factory.mktemp("downloader")
    known = {
        path: {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for path, content in released.items()
    }
    (folder / "catalogue.json").write_text(json.dumps(known))
    module = ("tests.contract.server_with_catalogue", str(folder / "catalogue.json"))
    more = {"HF_ENDPOINT": hub.address, "NO_PROXY": "127.0.0.1"}
    more |= {name: "" for each in UNSET for name in (each, each.lower())}
    with serving(folder, module=module, more=more) as running, running.client() as client:
        yield client


def test_models_download(
    downloader: Client, hub: FakeHub, released: dict[str, bytes], tmp_path: Path
) -> None:
    models = str(tmp_path / "models")
    listed = downloader.call("models.list", {"models": models})["files"]
    assert {file["state"] for file in listed} == {"missing"}
    job = downloader.start_job("models.download", tmp_path / "job", models=models)
    told = job.wait(PATIENCE)
    assert told["folder"] == models and sorted(told["fetched"]) == sorted(NAMES)
    for path, content in released.items():
        assert (tmp_path / "models" / path).read_bytes() == content
    steps = [event.facts for event in downloader.drain(1) if event.kind == "progress" and event.job is job]
    size = sum(map(len, released.values()))
    assert steps and {step["stage"] for step in steps} == {"download"}
    assert all(0 <= step["done"] <= step["total"] == size for step in steps)
    listed = downloader.call("models.list", {"models": models})["files"]
    assert {file["state"] for file in listed} <= {"good", "note"}
    # Once more fetches nothing.
    hub.requests.clear()
    again = downloader.start_job("models.download", tmp_path / "job", models=models)
    assert again.wait(PATIENCE)["fetched"] == [] and hub.requests == []


def test_a_download_is_cancelled_and_goes_on(
    downloader: Client, hub: FakeHub, released: dict[str, bytes], tmp_path: Path
) -> None:
    place = max(released, key=lambda path: len(released[path]))
    hub.faults[place] = [("hang", 0)]
    models = str(tmp_path / "models")
    job = downloader.start_job("models.download", tmp_path / "job", models=models)
    while not any(asked == f"/content/{place}" for _, asked, _ in list(hub.requests)):
        assert not job.ended()
    downloader.cancel(job)
    with pytest.raises(BackendError) as caught:
        job.wait(PATIENCE)
    assert caught.value.code == "cancelled" and not caught.value.hint  # there are no frames to speak of
    hub.released.set()
    again = downloader.start_job("models.download", tmp_path / "job", models=models)
    again.wait(PATIENCE)
    assert (tmp_path / "models" / place).read_bytes() == released[place]


def test_a_damaged_download_is_a_failed_job(
    downloader: Client, hub: FakeHub, released: dict[str, bytes], tmp_path: Path
) -> None:
    place = next(iter(released))
    hub.faults[place] = [("wrong", 0)] * 5
    job = downloader.start_job("models.download", tmp_path / "job", models=str(tmp_path / "models"))
    with pytest.raises(BackendError) as caught:
        job.wait(PATIENCE)
    assert caught.value.code == "download" and caught.value.hint
    assert not (tmp_path / "models" / place).exists()
    hub.faults.clear()
