# SPDX-License-Identifier: GPL-3.0-or-later
"""The service: latency of previews, bytes over the socket both ways, and a soak that looks for leaks.

The client here masks what it sends in pure Python, as the add-on's bundled wheel does.
"""

from __future__ import annotations

import json
import os
import secrets
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from websockets import frames, utils

from backend.bench import wire
from backend.bench.material import Material
from backend.bench.report import Report
from backend.errors import LivePortraitError
from backend.server.remote import CHUNK, Remote

GROUP = "server"
PREVIEWS = 100
LARGE = 2048  # pixels across a frame for the throughput
FRAMES = 12
UPLOAD_BYTES = 192 << 20
CLIENTS, JOBS = 8, 1000
GROWTH = {  # that the soak allows
    "memory": 30.0,
    "files": 8.0,
    "threads": 2.0,
    "connections": 0.0,
    "the worker's memory": 60.0,
    "the worker's files": 8.0,
    "the worker's threads": 2.0,
}
TOKEN = secrets.token_hex(16)


def measure(report: Report, material: Material, scratch: Path, quick: bool) -> None:
    """Everything, against a server of its own."""
    frames.apply_mask = utils.apply_mask  # type: ignore[assignment,unused-ignore]
    with _server(scratch / "store") as (url, pid):
        with _connected(url) as remote:
            _previews(report, remote, material, quick)
            _cancel(report, remote, material)
            _upload(report, remote, scratch, quick)
            _download(report, remote, material, scratch, quick)
        _soak(report, url, pid, material, scratch, quick)


@contextmanager
def _server(cache: Path) -> Iterator[tuple[str, int]]:
    cache.mkdir()
    environment = {**os.environ, "LIVEPORTRAIT_TOKEN": TOKEN, "XDG_STATE_HOME": str(cache / "state")}
    command = [sys.executable, "-m", "backend", "serve", "--cache", str(cache), "--limit", "queue=100000"]
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise LivePortraitError("The server did not start.", "Run: python -m backend serve")
        yield json.loads(line)["url"], process.pid
    finally:
        process.terminate()
        process.communicate(timeout=30)


@contextmanager
def _connected(url: str) -> Iterator[Remote]:
    from websockets.sync.client import connect

    with connect(url, compression=None, proxy=None, max_size=None) as socket:
        remote = Remote(socket)
        remote.hello(TOKEN)
        yield remote


def _previews(report: Report, remote: Remote, material: Material, quick: bool) -> None:
    opened = remote.ask("source.open", {"source": remote.input(material.portrait(512))})
    times = []
    for number in range(PREVIEWS // 5 if quick else PREVIEWS):
        sliders = {"smile": (number % 20) / 20, "yaw": number % 15}
        asked = {"source": opened["source"], "options": {"controls": sliders}, "format": "raw"}
        began = time.perf_counter()
        remote.ask("preview", asked)
        times.append(1000 * (time.perf_counter() - began))
    report.add(GROUP, "preview, 512 px, median", statistics.median(times), "ms", at_most=60)
    report.add(GROUP, "preview, 512 px, slowest of 20", statistics.quantiles(times, n=20)[-1], "ms")


def _cancel(report: Report, remote: Remote, material: Material) -> None:
    """From the request to the end of a job that renders."""
    times = []
    for number in range(5):
        options = {"multiplier": 1 + number / 100}
        asked = {"source": remote.input(material.portrait(512)), "driving": {"library": "talk"}}
        job = remote.ask("animate", {**asked, "options": options, "format": "none"})["job"]
        time.sleep(1.0)
        began = time.perf_counter()
        remote.ask("job.cancel", {"job": job})
        times.append(1000 * (time.perf_counter() - began))
    report.add(GROUP, "cancel, slowest of 5", max(times), "ms", at_most=200)


def _upload(report: Report, remote: Remote, scratch: Path, quick: bool) -> None:
    size = UPLOAD_BYTES // 4 if quick else UPLOAD_BYTES
    file, rates = scratch / "upload.bin", []
    for _ in range(3):
        file.write_bytes(os.urandom(1 << 20) * (size >> 20))
        began = time.perf_counter()
        remote.upload(file)
        rates.append(size / (time.perf_counter() - began) / 1e6)
    report.add(GROUP, "upload, checked twice", max(rates), "MB/s", at_least=120)
    bare = wire.upload_rate(CHUNK, size // CHUNK)
    report.add(GROUP, "the same bytes up over a bare websocket, unchecked", bare, "MB/s")
    began = time.perf_counter()
    remote.upload(file)
    report.add(GROUP, "the same upload again", time.perf_counter() - began, "s")


def _download(report: Report, remote: Remote, material: Material, scratch: Path, quick: bool) -> None:
    """A finished job is delivered again, so that nothing but delivery is measured.

    In the same run the same bytes go without the backend: how far it is from what the machine can do now.
    """
    picture = cv2.imread(str(material.portrait(512)))
    assert picture is not None
    noise = np.random.default_rng(1).integers(0, 256, (LARGE, LARGE, 3), np.uint8)
    noise[LARGE // 4 : LARGE // 4 + 512, LARGE // 4 : LARGE // 4 + 512] = picture
    source = scratch / "noise.png"
    cv2.imwrite(str(source), noise)
    count = 4 if quick else FRAMES
    asked = {
        "source": remote.input(source),
        "driving": {"library": "talk"},
        "options": {"frames": [0, count]},
    }
    job = remote.ask("animate", asked)["job"]
    size = remote.drain(job)
    rates = []
    for _ in range(4):
        remote.ask("job.resume", {"job": job})
        began = time.perf_counter()
        remote.drain(job)
        rates.append(size / (time.perf_counter() - began) / 1e6)
    report.add(GROUP, f"PNG frames of {LARGE} px to the client", max(rates), "MB/s", at_least=400)
    for kind in ("websockets", "socket"):
        name = f"the same bytes over a bare {kind.removesuffix('s')}"
        report.add(GROUP, name, wire.rate(kind, size // count, count), "MB/s")


def _soak(report: Report, url: str, pid: int, material: Material, scratch: Path, quick: bool) -> None:
    """Clients that come, ask for small jobs, some of them cancelled, and go."""
    portrait = material.portrait(256)
    jobs = JOBS // 20 if quick else JOBS
    failures: list[str] = []

    def client(number: int, count: int) -> None:
        for first in range(0, count, 5):  # a connection for five jobs
            try:
                with _connected(url) as remote:
                    for which in range(first, min(first + 5, count)):
                        _one_job(remote, portrait, number, which)
            except Exception as error:  # noqa: BLE001 - counted, whatever it was
                failures.append(repr(error))

    def run(count: int) -> None:
        threads = [threading.Thread(target=client, args=(number, count)) for number in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    run(max(jobs // CLIENTS // 5, 1))  # what is made once is made
    before = _resources(pid, url)
    began = time.perf_counter()
    run(jobs // CLIENTS)
    seconds = time.perf_counter() - began
    time.sleep(2)
    after = _resources(pid, url)
    report.add(GROUP, f"soak: {jobs} jobs of {CLIENTS} clients", jobs / seconds, "jobs/s")
    report.add(GROUP, "soak: failures", len(failures), "", at_most=0)
    for name, most in GROWTH.items():
        unit = "MB" if name.endswith("memory") else ""
        report.add(GROUP, f"soak: growth of {name}", after[name] - before[name], unit, at_most=most)
    report.notes.extend(failures[:3])


def _one_job(remote: Remote, portrait: Path, client: int, which: int) -> None:
    options = {"frames": [0, 2], "multiplier": 1 + client / 100 + (which % 25) / 10_000}
    asked = {"source": remote.input(portrait), "driving": {"library": "nod"}, "options": options}
    job = remote.ask("animate", asked)["job"]
    if which % 10 == 9:
        remote.ask("job.cancel", {"job": job})
        return
    remote.drain(job)


def _resources(pid: int, url: str) -> dict[str, float]:
    """Of the server and its worker."""
    with _connected(url) as remote:
        told = remote.ask("status", {})
    resources = {"connections": float(told["connections"]), **_of_process(pid)}
    worker = _of_process(told["worker"]["pid"])
    return resources | {f"the worker's {name}": value for name, value in worker.items()}


def _of_process(pid: int | None) -> dict[str, float]:
    """What cannot be known here is NaN."""
    status = Path(f"/proc/{pid}/status")
    if not status.is_file():
        return {"memory": np.nan, "files": np.nan, "threads": np.nan}
    told: dict[str, Any] = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return {
        "memory": int(told["VmRSS"].split()[0]) / 1024,
        "files": float(len(list(Path(f"/proc/{pid}/fd").iterdir()))),
        "threads": float(told["Threads"]),
    }
