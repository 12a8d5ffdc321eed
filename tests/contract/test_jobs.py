# SPDX-License-Identifier: GPL-3.0-or-later
"""Queue, cancel, what clients see of each other, crashes, and going on after kill -9."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backend.options import Options
from backend.pipeline import animate
from liveportrait_blender.client import BackendError, Client, Event, Job
from tests.contract.serving import PATIENCE, Raw, Running, serving

MANY = 120
LONG = {"frames": [0, MANY]}


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Running]:
    """A server for this test alone."""
    with serving(tmp_path) as running:
        yield running


def until(client: Client, kind: str, job: Job, count: int = 1) -> list[Event]:
    """The events up to the `count`th of a kind of a job."""
    seen: list[Event] = []
    end = time.monotonic() + PATIENCE
    while sum(event.kind == kind and event.job is job for event in seen) < count:
        assert time.monotonic() < end, [event.kind for event in seen]
        seen.extend(client.drain())
        assert not any(event.kind == "finished" and event.job is job for event in seen) or kind == "finished"
        time.sleep(0.005)
    return seen


def long_job(client: Client, portrait: Path, folder: Path, **options: Any) -> Job:
    return client.start_job(
        "animate", folder, source=portrait, driving={"library": "talk"}, options={**LONG, **options}
    )


def whole(cache: Path) -> dict[str, int]:
    """The frames in the server's work folder and when each was written."""
    return {path.name: path.stat().st_mtime_ns for path in cache.glob("store/work/*/frames/0*.png")}


def firm(frames: dict[str, int]) -> dict[str, int]:
    """Without the last ones, among which a killed encoder may have left a gap."""
    return {name: frames[name] for name in sorted(frames)[:-8]}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("[0-9]*.png"))


def test_progress_is_told_and_not_too_often(client: Client, portrait: Path, tmp_path: Path) -> None:
    job = long_job(client, portrait, tmp_path, multiplier=0.9)
    seen = until(client, "finished", job)
    steps = [event.facts for event in seen if event.kind == "progress"]
    frames = [event.facts["index"] for event in seen if event.kind == "frame"]
    assert frames == list(range(MANY))
    assert {step["stage"] for step in steps} == {"render"}
    assert [step["done"] for step in steps] == sorted(step["done"] for step in steps)
    assert any(step["fps"] and step["eta"] is not None for step in steps)
    assert len(steps) <= 80  # of 120 frames that the worker told of
    kinds = [event.kind for event in seen if event.job is job]
    assert kinds[0] == "started" and kinds[-1] == "finished"
    # Results come while others are still being made.
    assert kinds.index("frame") < len(kinds) - 1 - kinds[::-1].index("progress")


def test_cancel_and_go_on(client: Client, portrait: Path, tmp_path: Path) -> None:
    job = long_job(client, portrait, tmp_path, multiplier=0.8)
    until(client, "frame", job, 3)
    client.cancel(job)
    with pytest.raises(BackendError) as caught:
        job.wait(PATIENCE)
    assert caught.value.code == "cancelled" and job.state == "cancelled"
    # The next job does not wait for anything, and the cancelled one goes on where it was.
    quick = client.start_job(
        "animate",
        tmp_path / "quick",
        source=portrait,
        driving={"library": "wink"},
        options={"frames": [0, 2]},
    )
    quick.wait(PATIENCE)
    again = long_job(client, portrait, tmp_path / "again", multiplier=0.8)
    seen = until(client, "finished", again)
    assert len(names(tmp_path / "again")) == MANY
    steps = [event.facts["done"] for event in seen if event.kind == "progress" and event.job is again]
    assert steps[0] > 1


def test_finished_frames_are_spoken_of_where_there_are_any(
    client: Client, portrait: Path, tmp_path: Path
) -> None:
    job = long_job(client, portrait, tmp_path / "some", multiplier=0.85)
    until(client, "frame", job, 2)
    client.cancel(job)
    with pytest.raises(BackendError) as some:
        job.wait(PATIENCE)
    assert "kept" in some.value.hint
    blocking = long_job(client, portrait, tmp_path / "first", multiplier=0.84)
    until(client, "started", blocking)
    waiting = long_job(client, portrait, tmp_path / "none", multiplier=0.83)
    while waiting.number is None:
        time.sleep(0.01)
    client.cancel(waiting)
    clip = client.start_job(
        "animate", tmp_path / "clip", source=portrait, driving={"library": "talk"}, output="mp4"
    )
    client.cancel(blocking)
    until(client, "progress", clip)
    client.cancel(clip)
    for job in (waiting, clip):
        with pytest.raises(BackendError) as none:
            job.wait(PATIENCE)
        assert none.value.code == "cancelled" and none.value.hint == ""


def test_large_frames_arrive_whole_and_a_cancel_between_does_no_harm(
    server: Running, portrait: Path, tmp_path: Path
) -> None:
    """Frames of many fragments, to a client that is behind when it cancels."""
    import cv2

    large = cv2.imread(str(portrait))
    assert large is not None
    cv2.imwrite(str(tmp_path / "large.png"), cv2.resize(large, (1600, 1600)))
    asked: dict[str, Any] = {
        "source": {"path": str(tmp_path / "large.png")},
        "driving": {"library": "nod"},
        "options": {"frames": [0, 12]},
        "format": "raw",
    }
    with Raw(server) as raw:
        raw.hello(prove=True)
        number = raw.ask("animate", asked)["result"]["job"]
        while isinstance(raw.socket.recv(timeout=PATIENCE), str):
            pass
        time.sleep(0.5)  # frames pile up on the way
        assert raw.ask("job.cancel", {"job": number})["result"] == {"state": "cancelled"}
        again = raw.ask("job.resume", {"job": number})["result"]["job"]
        indices = []
        while True:
            message = raw.socket.recv(timeout=PATIENCE)
            if isinstance(message, bytes):
                length = int.from_bytes(message[:4], "big")
                header = json.loads(message[4 : 4 + length])
                assert len(message) == 4 + length + 3 * 1600 * 1600
                indices.append(header["index"])
            elif json.loads(message).get("params", {}).get("state") == "done":
                break
        assert again == number and indices[-12:] == list(range(12))


def test_a_job_that_waits_is_cancelled(client: Client, portrait: Path, tmp_path: Path) -> None:
    first = long_job(client, portrait, tmp_path / "a", multiplier=0.7)
    until(client, "started", first)
    second = long_job(client, portrait, tmp_path / "b", multiplier=0.6)
    while second.number is None:
        time.sleep(0.01)
    client.cancel(second)
    with pytest.raises(BackendError):
        second.wait(PATIENCE)
    assert not first.ended()
    client.cancel(first)


def test_job_resume_delivers_again(client: Client, portrait: Path, tmp_path: Path) -> None:
    job = client.start_job(
        "animate", tmp_path, source=portrait, driving={"library": "wink"}, options={"frames": [0, 5]}
    )
    job.wait(PATIENCE)
    with pytest.raises(BackendError) as caught:
        client.call("job.resume", {"job": "j99"})
    assert caught.value.code == "not-found"
    assert client.call("job.resume", {"job": job.number, "first_frame": 2})["job"] == job.number


def test_clients_take_turns(server: Running, portrait: Path) -> None:
    """One with many jobs does not keep another waiting until all are done."""
    with Raw(server) as greedy, Raw(server) as modest:
        asked: dict[str, Any] = {
            "source": {"path": str(portrait)},
            "driving": {"library": "nod"},
            "format": "none",
        }
        greedy.hello(prove=True)
        modest.hello(prove=True)
        for number in range(6):
            options = {"frames": [0, 25], "multiplier": 0.5 + number / 100}
            greedy.ask("animate", {**asked, "options": options})
        modest.ask("animate", {**asked, "options": {"frames": [0, 2], "multiplier": 0.4}})
        while json.loads(modest.socket.recv(timeout=PATIENCE)).get("method") != "job.finished":
            pass
        states = [job["state"] for job in greedy.ask("job.list")["result"]["jobs"]]
        assert "queued" in states
        for job in greedy.ask("job.list")["result"]["jobs"]:
            greedy.ask("job.cancel", {"job": job["job"]})


def test_nobody_sees_the_jobs_of_others(server: Running, portrait: Path) -> None:
    with Raw(server) as one, Raw(server) as other:
        asked = {
            "source": {"path": str(portrait)},
            "driving": {"library": "nod"},
            "options": {"frames": [0, 40]},
        }
        one.hello(prove=True)
        other.hello(prove=True)
        number = one.ask("animate", {**asked, "format": "none"})["result"]["job"]
        source = one.ask("source.open", {"source": {"path": str(portrait)}})["result"]["source"]
        assert other.ask("job.list")["result"] == {"jobs": []}
        for method, params in (
            ("job.cancel", {"job": number}),
            ("job.resume", {"job": number}),
            ("preview", {"source": source}),
            ("source.close", {"source": source}),
        ):
            assert other.error(method, params) == (-32000, "not-found")


def test_a_session_in_use_is_nobody_elses(server: Running) -> None:
    with Raw(server) as owner, Raw(server) as other:
        session = owner.hello()["result"]["session"]
        told = other.hello(session=session)["result"]
        assert told["resumed"] is False and told["session"] != session


def test_previews_pass_a_running_job(client: Client, portrait: Path, tmp_path: Path) -> None:
    source = client.call("source.open", {"source": {"path": str(portrait)}})["source"]
    job = long_job(client, portrait, tmp_path, multiplier=0.55)
    until(client, "started", job)
    for _ in range(3):
        client.preview(source=source)
    assert not job.ended()
    client.cancel(job)


def test_a_crash_of_the_worker_is_one_jobs_failure(own: Running, portrait: Path, tmp_path: Path) -> None:
    with own.client() as client:
        job = long_job(client, portrait, tmp_path / "a")
        until(client, "frame", job, 15)
        worker = client.call("status")["worker"]["pid"]
        os.kill(worker, signal.SIGKILL)
        with pytest.raises(BackendError) as caught:
            job.wait(PATIENCE)
        assert caught.value.code == "worker-crashed" and "signal 9" in caught.value.message
        assert "kept" in caught.value.hint
        opened = client.call("source.open", {"source": {"path": str(portrait)}})
        assert opened["width"] == 320  # it is there again
        kept = whole(tmp_path)
        assert len(kept) >= 5
        long_job(client, portrait, tmp_path / "b").wait(PATIENCE)
        assert len(names(tmp_path / "b")) == MANY
        assert firm(kept).items() <= whole(tmp_path).items()  # rendered once
        told = client.call("status")["worker"]
        assert told["restarts"] == 1 and told["pid"] != worker


def test_after_kill_only_what_was_not_whole_is_rendered(portrait: Path, tmp_path: Path) -> None:
    with serving(tmp_path) as first, first.client(attempts=1) as client:
        job = long_job(client, portrait, tmp_path / "a")
        until(client, "frame", job, 20)
        first.kill()
        # The worker ends by itself once nobody is at the other end.
        kept: dict[str, int] = {}
        while kept != (kept := whole(tmp_path)):
            time.sleep(0.5)
    assert 20 <= len(kept) < MANY
    with serving(tmp_path) as second, second.client() as client:
        long_job(client, portrait, tmp_path / "b").wait(PATIENCE)
        # Once more: nothing is rendered at all.
        again = long_job(client, portrait, tmp_path / "c")
        seen = until(client, "finished", again)
        assert not any(event.kind == "progress" and event.job is again for event in seen)
    assert firm(kept).items() <= whole(tmp_path).items()
    animate(portrait, "talk", tmp_path / "expected", Options(frames=(0, MANY)))
    for name in names(tmp_path / "expected"):
        expected = (tmp_path / "expected" / name).read_bytes()
        assert (tmp_path / "b" / name).read_bytes() == expected
        assert (tmp_path / "c" / name).read_bytes() == expected
    assert not list((tmp_path / "store").rglob("*.tmp"))


@pytest.mark.slow
def test_the_client_goes_on_with_a_new_server(portrait: Path, tmp_path: Path) -> None:
    with serving(tmp_path) as first:
        client = Client(first.url, "a token for the contract tests", timeout=PATIENCE)
        client.start()
        client.wait_ready(PATIENCE)
        job = long_job(client, portrait, tmp_path / "a")
        until(client, "frame", job, 5)
        first.kill()
        with serving(tmp_path, "--port", str(first.port)):
            job.wait(PATIENCE)
            client.close()
    assert len(names(tmp_path / "a")) == MANY


def test_a_client_that_comes_back_has_its_jobs(server: Running, portrait: Path) -> None:
    asked = {
        "source": {"path": str(portrait)},
        "driving": {"library": "shake"},
        "options": {"frames": [0, 60]},
    }
    with Raw(server) as raw:
        session = raw.hello(prove=True)["result"]["session"]
        number = raw.ask("animate", asked)["result"]["job"]
    with Raw(server) as raw:
        assert raw.hello(session=session)["result"]["resumed"] is True
        assert [job["job"] for job in raw.ask("job.list")["result"]["jobs"]] == [number]
        raw.send("job.resume", {"job": number, "first_frame": 50})
        indices = []
        while True:
            message = raw.socket.recv(timeout=PATIENCE)
            if isinstance(message, bytes):
                length = int.from_bytes(message[:4], "big")
                indices.append(json.loads(message[4 : 4 + length])["index"])
            elif json.loads(message).get("method") == "job.finished":
                break
        assert indices == list(range(50, 60))


def test_a_new_connection_gets_only_what_it_asks_for(server: Running, portrait: Path) -> None:
    """Frames that were lost with the old one must not be followed by later ones before job.resume."""
    asked = {
        "source": {"path": str(portrait)},
        "driving": {"library": "look-around"},
        "options": {"frames": [0, 40], "multiplier": 0.77},
    }
    with Raw(server) as raw:
        session = raw.hello(prove=True)["result"]["session"]
        number = raw.ask("animate", asked)["result"]["job"]
        while isinstance(raw.socket.recv(timeout=PATIENCE), str):
            pass
    with Raw(server) as raw:
        assert raw.hello(session=session)["result"]["resumed"] is True
        done, end = 0, time.monotonic() + PATIENCE
        while done < 20 and time.monotonic() < end:  # it goes on meanwhile, and sends no frame
            asked_for = raw.send("job.list")
            while True:
                message = raw.socket.recv(timeout=PATIENCE)
                assert isinstance(message, str)
                if (told := json.loads(message)).get("id") == asked_for:
                    break
            done = told["result"]["jobs"][0]["done"]
        raw.send("job.resume", {"job": number, "first_frame": 1})
        seen: list[int] = []
        while seen[-1:] != [39]:
            message = raw.socket.recv(timeout=PATIENCE)
            if isinstance(message, bytes):
                length = int.from_bytes(message[:4], "big")
                seen.append(json.loads(message[4 : 4 + length])["index"])
        assert seen == list(range(1, 40))
