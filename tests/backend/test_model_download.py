# SPDX-License-Identifier: GPL-3.0-or-later
"""Weights are fetched whole or not at all, whatever the network, the hub or the disk do."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backend.errors import Cancelled, DownloadError, InputError, LivePortraitError, OutputError
from backend.models import catalogue, download, hub, store, transfer
from backend.models.download import carry_out, make_plan
from tests.backend.fake_hub import REVISION, FakeHub, serving
from tests.backend.weight_writers import write_weights

pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")

NAMES = ("stitching_retargeting_module", "landmark")
STITCHING = "liveportrait/retargeting_models/stitching_retargeting_module.pth"
LANDMARK = "liveportrait/landmark.onnx"
SETTINGS = (
    "HF_TOKEN",
    "HF_HUB_OFFLINE",
    "LIVEPORTRAIT_OFFLINE",
    "LIVEPORTRAIT_MODELS",
    "HF_HUB_DOWNLOAD_TIMEOUT",
)
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


@pytest.fixture(scope="session")
def released(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Two small files of the right kinds, by their paths in the repository."""
    folder = tmp_path_factory.mktemp("released")
    files = [file for file in catalogue.FILES if file.name in NAMES]
    return {file.path: write_weights(file, folder / file.path).read_bytes() for file in files}


@pytest.fixture
def the_hub(released: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A hub that serves them, a catalogue of them, no waiting, and nothing set that would interfere."""
    for name in (*SETTINGS, *PROXIES, *map(str.lower, PROXIES)):
        monkeypatch.delenv(name, raising=False)
    known = tuple(
        replace(
            file,
            size=len(released[file.path]),
            sha256=hashlib.sha256(released[file.path]).hexdigest(),
        )
        for file in catalogue.FILES
        if file.name in NAMES
    )
    monkeypatch.setattr(catalogue, "FILES", known)
    monkeypatch.setattr(transfer, "PAUSES", (0.0, 0.0))
    with serving(dict(released)) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.address)
        yield server


def fetch(folder: Path, **options: Any) -> None:
    carry_out(make_plan(folder, **options))


def failing(folder: Path, kind: type[LivePortraitError] = DownloadError, **options: Any) -> LivePortraitError:
    """The one line of a download that fails."""
    with pytest.raises(kind) as caught:
        fetch(folder, **options)
    assert "\n" not in str(caught.value)
    assert caught.value.hint
    return caught.value


def content_of(folder: Path) -> dict[str, bytes]:
    """Every file in the folder by its path, the record apart."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != store.RECORD)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_everything_is_fetched_checked_and_remembered(the_hub: FakeHub, released, tmp_path: Path) -> None:
    plan = make_plan(tmp_path)
    assert plan.bytes_to_fetch == sum(map(len, released.values()))
    assert not the_hub.ranges(STITCHING) and not content_of(tmp_path)  # a plan fetches and writes nothing
    told: list[download.Transferred] = []
    carry_out(plan, told.append)
    assert content_of(tmp_path) == released
    assert told[-1].all_done == told[-1].all_size == plan.bytes_to_fetch
    assert [step.all_done for step in told] == sorted(step.all_done for step in told)
    record = store.read_record(tmp_path)
    assert record.revision == REVISION
    assert record.endpoint == the_hub.address
    assert {file.name: file.sha256 for file in catalogue.FILES} == {
        name: entry.sha256 for name, entry in record.files.items()
    }
    assert json.loads((tmp_path / store.RECORD).read_text())["format"] == store.RECORD_FORMAT


def test_a_full_folder_asks_nobody(the_hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetch(tmp_path)
    the_hub.requests.clear()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    fetch(tmp_path)
    assert the_hub.requests == []


def test_only_what_is_missing_or_damaged_is_fetched(the_hub: FakeHub, released, tmp_path: Path) -> None:
    fetch(tmp_path)
    (tmp_path / LANDMARK).write_bytes(released[LANDMARK][:-1])
    the_hub.requests.clear()
    fetch(tmp_path)
    assert content_of(tmp_path) == released
    assert the_hub.ranges(STITCHING) == []


def test_sound_files_of_other_content_stay_unless_replacing(
    the_hub: FakeHub, released, tmp_path: Path
) -> None:
    from tests.backend.weight_writers import onnx

    mine = tmp_path / LANDMARK
    mine.parent.mkdir(parents=True)
    mine.write_bytes(onnx(b"my own"))
    fetch(tmp_path)
    assert mine.read_bytes() == onnx(b"my own")
    the_hub.requests.clear()
    fetch(tmp_path, replacing=True)
    assert mine.read_bytes() == released[LANDMARK]
    assert the_hub.ranges(STITCHING) == []  # the same already


def test_a_broken_connection_goes_on_from_where_it_broke(the_hub: FakeHub, released, tmp_path: Path) -> None:
    half = len(released[STITCHING]) // 2
    the_hub.faults[STITCHING] = [("break", half), ("break", 1000)]
    fetch(tmp_path)
    assert content_of(tmp_path) == released
    first, second, third = the_hub.ranges(STITCHING)
    assert (first, second, third) == (None, f"bytes={half}-", f"bytes={half + 1000}-")


def test_the_next_run_goes_on_from_where_the_last_one_ended(
    the_hub: FakeHub, released, tmp_path: Path
) -> None:
    half = len(released[STITCHING]) // 2
    the_hub.faults[STITCHING] = [("break", half), 503, 503, 503]
    error = failing(tmp_path)
    assert "503" in error.message and "kept" in error.hint
    assert not (tmp_path / STITCHING).exists()  # never half a file where a whole one belongs
    plan = make_plan(tmp_path)
    assert plan.items[0].have == half
    the_hub.requests.clear()
    carry_out(plan)
    assert the_hub.ranges(STITCHING) == [f"bytes={half}-"]
    assert content_of(tmp_path) == released


@pytest.mark.parametrize("fault", ["ignore-range", "wrong-range"])
def test_servers_that_know_no_ranges_are_borne(fault, the_hub: FakeHub, released, tmp_path: Path) -> None:
    the_hub.faults[STITCHING] = [("break", 1000), fault]
    fetch(tmp_path)
    assert content_of(tmp_path) == released


def test_a_wrong_checksum_leaves_nothing(the_hub: FakeHub, released, tmp_path: Path) -> None:
    the_hub.faults[STITCHING] = [("wrong", 0)]
    assert "wrong checksum" in failing(tmp_path).message
    assert content_of(tmp_path) == {}
    fetch(tmp_path)
    assert content_of(tmp_path) == released


def test_a_spoilt_beginning_is_fetched_again(the_hub: FakeHub, released, tmp_path: Path) -> None:
    part = transfer.part_of(tmp_path, catalogue.FILES[0].sha256)
    part.parent.mkdir(parents=True)
    for spoilt in (b"x" * 1000, b"x" * len(released[STITCHING]), b"x" * (len(released[STITCHING]) + 1)):
        part.parent.mkdir(exist_ok=True)
        part.write_bytes(spoilt)
        fetch(tmp_path)
        assert content_of(tmp_path) == released
        (tmp_path / STITCHING).unlink()


@pytest.mark.parametrize("ends", [0, 5, 1000])
def test_a_file_that_is_too_short_at_the_hub(ends: int, the_hub: FakeHub, tmp_path: Path) -> None:
    the_hub.faults[STITCHING] = [("short", ends)] * 9
    assert f"ends after {ends} of" in failing(tmp_path).message
    assert not (tmp_path / STITCHING).exists()


def test_a_file_that_is_too_long_is_thrown_away(the_hub: FakeHub, released, tmp_path: Path) -> None:
    the_hub.files[STITCHING] += b"and more"
    the_hub.listed[STITCHING] = {
        "size": len(released[STITCHING]),
        "sha256": hashlib.sha256(released[STITCHING]).hexdigest(),
    }
    assert "longer than the hub says" in failing(tmp_path).message
    assert all(content == b"" for content in content_of(tmp_path).values())


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (401, "refuses access"),
        (403, "refuses access"),
        (404, "has no"),
        (429, "too many requests"),
        (500, "HTTP 500"),
    ],
)
def test_refusals_say_what_was_refused(status: int, said: str, the_hub: FakeHub, tmp_path: Path) -> None:
    the_hub.api_status = status
    error = failing(tmp_path / "a")
    assert said in error.message and "KwaiVGI/LivePortrait" in error.message
    the_hub.api_status = 200
    the_hub.faults[LANDMARK] = [status] * 9
    error = failing(tmp_path / "b")
    assert said in error.message
    assert (tmp_path / "b" / STITCHING).is_file()  # what came before stays
    assert not (tmp_path / "b" / LANDMARK).exists()


def test_a_silent_server_is_left_after_the_time_limit(the_hub, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HF_HUB_DOWNLOAD_TIMEOUT", "0.2")
    the_hub.faults[STITCHING] = [("hang", 0)] * 9
    assert "did not answer in time" in failing(tmp_path).message


def test_a_hub_that_is_not_there(the_hub: FakeHub, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert "cannot be reached" in failing(tmp_path).message
    monkeypatch.setenv("HF_ENDPOINT", "ftp://hub")
    assert "no web address" in failing(tmp_path, InputError).message


@pytest.mark.parametrize("body", [b"<html>please log in</html>", b"{}", b'{"siblings": 3}', b"[1]", b""])
def test_login_pages_are_not_taken_for_a_hub(body: bytes, the_hub: FakeHub, tmp_path: Path) -> None:
    the_hub.api_body = body
    failing(tmp_path)
    assert not (tmp_path / STITCHING).exists()


def test_another_release_is_taken_only_by_name(the_hub: FakeHub, tmp_path: Path) -> None:
    from tests.backend.weight_writers import onnx

    the_hub.files[LANDMARK] = onnx(b"a newer graph")
    error = failing(tmp_path)
    assert "another liveportrait/landmark.onnx" in error.message and REVISION in error.hint
    fetch(tmp_path, revision=REVISION)
    assert (tmp_path / LANDMARK).read_bytes() == onnx(b"a newer graph")
    del the_hub.files[LANDMARK]
    assert "has no liveportrait/landmark.onnx" in failing(tmp_path / "b").message


def test_an_unknown_revision_is_bad_input(the_hub: FakeHub, tmp_path: Path) -> None:
    assert "at v9" in failing(tmp_path, InputError, revision="v9").message


@pytest.mark.parametrize("variable", hub.OFFLINE_VARIABLES)
def test_offline_nothing_is_asked(variable: str, the_hub: FakeHub, tmp_path, monkeypatch) -> None:
    assert "--offline" in failing(tmp_path, offline=True).message
    monkeypatch.setenv(variable, "1")
    assert variable in failing(tmp_path).message
    assert the_hub.requests == []


def test_proxies_of_the_environment_are_used(the_hub: FakeHub, released, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", the_hub.address)
    monkeypatch.setenv("HF_ENDPOINT", "http://hub.example")
    fetch(tmp_path)
    assert content_of(tmp_path) == released
    assert all(asked.startswith("http://hub.example/") for asked, _, _ in the_hub.requests)
    monkeypatch.setenv("HTTP_PROXY", "socks5://127.0.0.1:9")
    assert "proxy" in failing(tmp_path / "b").message


def test_nothing_personal_is_sent_but_a_token_that_was_given(the_hub, tmp_path, monkeypatch) -> None:
    fetch(tmp_path / "a")
    assert all("authorization" not in headers for _, _, headers in the_hub.requests)
    assert all(
        headers["user-agent"].startswith("liveportrait-blender/") and "torch" not in headers["user-agent"]
        for _, _, headers in the_hub.requests
    )
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    fetch(tmp_path / "b")
    assert the_hub.requests[-1][2]["authorization"] == "Bearer hf_secret"


def test_stopping_keeps_what_has_come(the_hub: FakeHub, released, tmp_path: Path) -> None:
    stop = threading.Event()
    plan = make_plan(tmp_path)
    with pytest.raises(Cancelled):
        carry_out(plan, lambda moved: stop.set() if moved.done else None, stop)
    have = make_plan(tmp_path).items[0].have
    assert 0 < have <= len(released[STITCHING])
    fetch(tmp_path)
    assert content_of(tmp_path) == released


def test_a_disk_without_room_is_seen_before(the_hub: FakeHub, tmp_path, monkeypatch) -> None:
    class Usage:
        free = 1000

    monkeypatch.setattr(download.shutil, "disk_usage", lambda path: Usage)
    assert "MB of room" in failing(tmp_path, OutputError).message
    assert the_hub.ranges(STITCHING) == []


def test_a_disk_that_fills_up_keeps_what_fits(the_hub: FakeHub, released, tmp_path, monkeypatch) -> None:
    def full(number: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(transfer.os, "fsync", full)
        error = failing(tmp_path, OutputError)
    assert "No space left" in error.message and "Make room" in error.hint
    assert not (tmp_path / STITCHING).exists()
    fetch(tmp_path)
    assert content_of(tmp_path) == released


def program(folder: Path, before: str = "") -> subprocess.Popen[str]:
    """`models download` into the folder in a process of its own, with this test's catalogue."""
    text = (
        f"{before}\nimport json, sys; from dataclasses import replace\n"
        "from backend.cli import main; from backend.models import catalogue\n"
        "known = json.loads(sys.argv[2])\n"
        "catalogue.FILES = tuple(replace(f, **known[f.name]) for f in catalogue.FILES if f.name in known)\n"
        "sys.exit(main(['models', 'download', '--models', sys.argv[1]]))\n"
    )
    known = {file.name: {"size": file.size, "sha256": file.sha256} for file in catalogue.FILES}
    command = [sys.executable, "-c", text, str(folder), json.dumps(known)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on the size of files")
def test_a_limit_on_the_size_of_files_ends_in_one_line(the_hub: FakeHub, released, tmp_path: Path) -> None:
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))"
    running = program(tmp_path, limit)
    said = running.communicate(timeout=60)[1]
    assert running.returncode == 1
    assert "cannot be written (File too large)" in said and said.count("\n") == 1
    assert not (tmp_path / STITCHING).exists()
    fetch(tmp_path)
    assert content_of(tmp_path) == released


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends Ctrl-C to whole consoles")
def test_ctrl_c_ends_in_one_line_and_keeps_what_has_come(the_hub: FakeHub, released, tmp_path: Path) -> None:
    the_hub.faults[STITCHING] = [("break", 1000), ("hang", 0)]
    running = program(tmp_path)
    while len(the_hub.ranges(STITCHING)) < 2 and running.poll() is None:
        time.sleep(0.02)
    running.send_signal(signal.SIGINT)
    said = running.communicate(timeout=60)[1]
    assert running.returncode == 130
    assert said.startswith("error: Interrupted.") and said.count("\n") == 1
    assert make_plan(tmp_path).items[0].have == 1000
    fetch(tmp_path)
    assert content_of(tmp_path) == released


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="needs a folder it may not write to")
def test_a_folder_that_may_not_be_written(the_hub: FakeHub, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert "cannot be written" in failing(tmp_path / "models", OutputError).message


def test_a_file_where_the_folder_should_be(the_hub: FakeHub, tmp_path: Path) -> None:
    (tmp_path / "models").write_text("a note")
    assert "cannot be written" in failing(tmp_path / "models", OutputError).message


def test_two_downloads_into_one_folder_do_not_meet(the_hub: FakeHub, tmp_path: Path) -> None:
    import filelock

    plan = make_plan(tmp_path)
    (tmp_path / transfer.PARTS).mkdir()
    with filelock.FileLock(tmp_path / transfer.PARTS / "lock"), pytest.raises(DownloadError, match="Another"):
        carry_out(plan)
    carry_out(plan)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["liveportrait", store.RECORD]
