# SPDX-License-Identifier: GPL-3.0-or-later
"""Every method, by the add-on's client against the real server."""

from __future__ import annotations

import hashlib
import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from backend.media import ClipWriter, read_picture
from backend.motion_files import load_motion
from backend.options import Options
from backend.pipeline import animate
from liveportrait_blender.client import BackendError, Client
from tests.contract.serving import PATIENCE, Raw, Running

FRAMES = {"frames": [0, 6]}


def code_of(answer: dict[str, Any]) -> str:
    return str(answer["error"]["data"]["code"])


def frames_in(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(folder.glob("[0-9]*.png"))]


@pytest.fixture(scope="module")
def expected(portrait: Path, tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """The frames that the command line makes."""
    folder = tmp_path_factory.mktemp("expected") / "result"
    animate(portrait, "talk", folder, Options(frames=(0, 6)))
    return frames_in(folder)


def test_hello_tells_who_is_there(client: Client, server: Running) -> None:
    told = client.welcome
    assert told["protocol"] == 1 and told["pid"] == server.process.pid == server.ready["pid"]
    assert told["engines"]["mesh"]["available"] is True
    assert told["limits"]["nesting"] == 16
    assert client.local


def test_the_nonce_is_for_its_owner_alone_and_gone_after_use(server: Running) -> None:
    with Raw(server) as raw:
        path = Path(raw.hello()["result"]["nonce_file"])
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.parent.stat().st_mode & 0o777 == 0o700
        assert raw.ask("prove", {"nonce": path.read_text()})["result"] == {"local": True}
        assert not path.exists()
        assert raw.error("prove", {"nonce": "again"}) == (-32000, "forbidden")


def test_animate_gives_the_frames_of_the_command_line(
    client: Client, portrait: Path, expected: list[bytes], tmp_path: Path
) -> None:
    job = client.start_job(
        "animate", tmp_path, source=portrait, driving={"library": "talk"}, options=FRAMES, motion=True
    )
    result = job.wait(PATIENCE)
    assert frames_in(tmp_path) == expected
    assert result["frames"] == 6 and result["engine"] == "mesh" and result["complete"] is True
    assert len(load_motion(tmp_path / "motion.npz")) == 6
    assert list(tmp_path.glob(".*")) == []


def test_frames_come_raw_in_order_and_from_where_they_are_wanted(
    server: Running, portrait: Path, expected: list[bytes]
) -> None:
    with Raw(server) as raw:
        raw.hello(prove=True)
        asked = {"source": {"path": str(portrait)}, "driving": {"library": "talk"}, "options": FRAMES}
        raw.send("animate", {**asked, "format": "raw", "first_frame": 2})
        seen = []
        while True:
            message = raw.socket.recv(timeout=PATIENCE)
            if isinstance(message, str):
                if json.loads(message).get("method") == "job.finished":
                    break
                continue
            length = int.from_bytes(message[:4], "big")
            header = json.loads(message[4 : 4 + length])
            shape = (header["height"], header["width"], header["channels"])
            pixels = np.frombuffer(message[4 + length :], np.uint8).reshape(shape)
            whole = cv2.imdecode(np.frombuffer(expected[header["index"]], np.uint8), cv2.IMREAD_COLOR_RGB)
            assert np.array_equal(pixels, whole)
            seen.append(header["index"])
        assert seen == [2, 3, 4, 5]


def test_a_far_client_uploads_once(
    far_client: Client, portrait: Path, expected: list[bytes], tmp_path: Path
) -> None:
    assert not far_client.local
    first = far_client.upload(portrait)
    assert first == hashlib.sha256(portrait.read_bytes()).hexdigest()
    asked = {"sha256": first, "size": portrait.stat().st_size, "name": "p.png"}
    assert far_client.call("upload.begin", asked) == {"have": True}
    job = far_client.start_job(
        "animate", tmp_path, source=portrait, driving={"library": "talk"}, options=FRAMES
    )
    job.wait(PATIENCE)
    assert frames_in(tmp_path) == expected


def test_capture_then_render(client: Client, portrait: Path, tmp_path: Path) -> None:
    captured = client.start_job("motion.capture", tmp_path / "a", driving=portrait)
    told = captured.wait(PATIENCE)
    file = tmp_path / "a" / "motion.npz"
    assert hashlib.sha256(file.read_bytes()).hexdigest() == told["sha256"]
    assert len(load_motion(file)) == told["frames"] == 1
    # What was captured needs no upload.
    job = client.start_job(
        "render",
        tmp_path / "b",
        source=portrait,
        motion={"sha256": told["sha256"]},
        options={"relative": False},
        with_motion=True,
    )
    assert job.wait(PATIENCE)["frames"] == 1
    assert (tmp_path / "b" / "000000.png").is_file() and (tmp_path / "b" / "motion.npz").is_file()


def test_render_does_not_capture(client: Client, portrait: Path, tmp_path: Path) -> None:
    job = client.start_job("render", tmp_path, source=portrait, motion=portrait)
    with pytest.raises(BackendError, match="not a motion") as caught:
        job.wait(PATIENCE)
    assert caught.value.code == "bad-input"


def test_a_clip_comes_as_one_file(client: Client, portrait: Path, tmp_path: Path) -> None:
    job = client.start_job(
        "animate", tmp_path, source=portrait, driving={"library": "wink"}, options=FRAMES, output="mp4"
    )
    job.wait(PATIENCE)
    clip = cv2.VideoCapture(str(tmp_path / "result.mp4"))
    assert clip.get(cv2.CAP_PROP_FRAME_COUNT) == 6
    clip.release()


def test_previews(client: Client, portrait: Path) -> None:
    source = client.call("source.open", {"source": {"path": str(portrait)}})
    assert (source["width"], source["height"]) == (320, 320)
    named = {"source": source["source"], "format": "raw"}
    _, plain = client.preview(**named)
    _, smiling = client.preview(**named, options={"controls": {"smile": 1.0}})
    _, moved = client.preview(**named, motion={"library": "talk"}, frame=40)
    _, still = client.preview(**named, keypoints=source["keypoints"])
    assert len(plain) == len(smiling) == len(moved) == len(still) == 3 * 320 * 320
    assert plain != smiling and plain != moved
    header, png = client.preview(source=source["source"])
    assert header["format"] == "png"
    decoded = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR_RGB)
    assert np.array_equal(decoded.ravel(), np.frombuffer(plain, np.uint8))
    client.call("source.close", {"source": source["source"]})
    with pytest.raises(BackendError) as caught:
        client.preview(**named)
    assert caught.value.code == "not-found"


def test_a_clip_is_previewed_by_its_first_picture(client: Client, portrait: Path, tmp_path: Path) -> None:
    picture = read_picture(portrait).rgb
    with ClipWriter(tmp_path / "clip.mp4", Fraction(25), 320, 320) as writer:
        for _ in range(3):
            writer.write(picture)
    source = client.call("source.open", {"source": {"path": str(tmp_path / "clip.mp4")}})
    header, _ = client.preview(source=source["source"], format="raw")
    assert (header["width"], header["height"]) == (320, 320)


def test_the_newest_preview_wins(raw: Raw, server: Running, portrait: Path) -> None:
    with Raw(server) as near:
        near.hello(prove=True)
        source = near.ask("source.open", {"source": {"path": str(portrait)}})["result"]["source"]
        numbers = [near.send("preview", {"source": source}) for _ in range(20)]
        told: dict[int, dict[str, object]] = {}
        while len(told) < len(numbers):
            message = near.socket.recv(timeout=PATIENCE)
            if isinstance(message, str) and "id" in (answer := json.loads(message)):
                told[answer["id"]] = answer
        errors = {code_of(told[number]) for number in numbers if "error" in told[number]}
        assert "result" in told[numbers[-1]]
        assert errors == {"superseded"}


def test_status_and_lists(client: Client) -> None:
    told = client.call("status")
    assert told["connections"] >= 1 and told["uptime"] >= 0
    assert isinstance(client.call("job.list")["jobs"], list)
    listed = client.call("models.list")
    assert {"folder", "repository", "files"} <= listed.keys()


def test_a_download_is_a_job(client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing answers in a test, so it fails; it fails as a job."""
    job = client.start_job("models.download", tmp_path, models=str(tmp_path / "models"), revision="\u00e4/..")
    with pytest.raises(BackendError) as caught:
        job.wait(PATIENCE)
    assert caught.value.code in ("download", "bad-input")


def test_unload_and_go_on(client: Client, portrait: Path, tmp_path: Path) -> None:
    source = client.call("source.open", {"source": {"path": str(portrait)}})
    assert client.call("status")["worker"]["running"]
    assert client.call("unload") == {"unloaded": True}
    assert not client.call("status")["worker"]["running"]
    _, pixels = client.preview(source=source["source"], format="raw")
    assert len(pixels) == 3 * 320 * 320
