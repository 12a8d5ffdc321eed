# SPDX-License-Identifier: GPL-3.0-or-later
"""What a panel asks for beside rendering: faces to choose from, library names, motion files of both kinds."""

from __future__ import annotations

import hashlib
import threading
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from backend.blendshape_names import CHANNELS
from backend.blendshapes import channels
from backend.library import library_file, library_names
from backend.media import ClipWriter
from backend.motion_files import load_motion, save_curves, save_template
from liveportrait_blender.client import BackendError, Client, Reply
from tests.contract.serving import PATIENCE, Raw, Running

MOTION = ("rotation", "expression", "scale", "translation", "canonical")


@pytest.fixture(scope="module")
def couple(portrait: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture with a small face on the left and a large one on the right."""
    large = cv2.imread(str(portrait))
    assert large is not None
    canvas = np.full((320, 600, 3), 128, np.uint8)
    canvas[40:240, 20:220] = cv2.resize(large, (200, 200), interpolation=cv2.INTER_AREA)
    canvas[:, 280:] = large
    path = tmp_path_factory.mktemp("couple") / "couple.png"
    cv2.imwrite(str(path), canvas)
    return path


def test_the_faces_of_a_picture(client: Client, couple: Path) -> None:
    told = client.call("source.faces", {"source": {"path": str(couple)}})
    assert (told["width"], told["height"]) == (600, 320)
    large, small = told["faces"]
    assert [large["number"], small["number"]] == [0, 1]
    assert large["x"] > 280 and small["x"] + small["width"] < 220
    assert large["size"] > 1.3 * small["size"]
    assert large["width"] == pytest.approx(1.6 * small["width"], rel=0.1)
    order = {"options": {"face_order": "left-right"}}
    first = client.call("source.faces", {"source": {"path": str(couple)}, **order})["faces"][0]
    assert first["x"] == pytest.approx(small["x"], abs=1)


def test_the_numbers_are_those_of_the_option_face(client: Client, couple: Path) -> None:
    faces = client.call("source.faces", {"source": {"path": str(couple)}})["faces"]
    for face in faces:
        options = {"face": face["number"], "paste_back": False}
        source = client.call("source.open", {"source": {"path": str(couple)}, "options": options})
        assert source["width"] == pytest.approx(2.3 * face["size"], rel=0.25)  # the crop alone
        client.call("source.close", {"source": source["source"]})


def test_thumbnails(client: Client, couple: Path, tmp_path: Path) -> None:
    reply = client.request("source.faces", {"source": couple, "thumbnail": 64})
    faces = reply.result(PATIENCE)["faces"]
    assert [header["number"] for header, _ in reply.pictures] == [0, 1] == [face["number"] for face in faces]
    whole = cv2.imread(str(couple))
    assert whole is not None
    for (header, content), face in zip(reply.pictures, faces, strict=True):
        assert (header["type"], header["format"], header["width"]) == ("thumbnail", "png", 64)
        small = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
        assert small is not None and small.shape == (64, 64, 3)
        # Its middle is what lies in the middle of the box.
        x, y = face["x"] + face["width"] / 2, face["y"] + face["height"] / 2
        r = face["size"] / 4
        part = whole[round(y - r) : round(y + r), round(x - r) : round(x + r)].mean(axis=(0, 1))
        edge = round(64 * (0.5 - 0.25 / 1.6))
        assert np.abs(small[edge : 64 - edge, edge : 64 - edge].mean(axis=(0, 1)) - part).max() < 8


def test_faces_of_clips_and_of_nothing(client: Client, couple: Path, tmp_path: Path) -> None:
    rgb = cv2.cvtColor(cv2.imread(str(couple)), cv2.COLOR_BGR2RGB)
    with ClipWriter(tmp_path / "clip.mp4", Fraction(25), 600, 320) as writer:
        for _ in range(3):
            writer.write(rgb)
    assert len(client.call("source.faces", {"source": {"path": str(tmp_path / "clip.mp4")}})["faces"]) == 2
    cv2.imwrite(str(tmp_path / "grey.png"), np.full((200, 300, 3), 90, np.uint8))
    told = client.call("source.faces", {"source": {"path": str(tmp_path / "grey.png")}, "thumbnail": 32})
    assert told == {"width": 300, "height": 200, "faces": []}


def test_faces_of_what_is_uploaded(far_client: Client, couple: Path) -> None:
    reply = far_client.request("source.faces", {"source": couple, "thumbnail": 32})
    assert len(reply.result(PATIENCE)["faces"]) == len(reply.pictures) == 2


@pytest.mark.parametrize("thumbnail", [-1, 513, "64", True])
def test_thumbnails_that_cannot_be(raw: Raw, thumbnail: Any) -> None:
    asked = {"source": {"sha256": "0" * 64}, "thumbnail": thumbnail}
    assert raw.error("source.faces", asked)[1] in ("bad-params", "not-found")


def test_the_library(client: Client) -> None:
    told = client.call("library.list")["motions"]
    assert [motion["name"] for motion in told] == library_names()
    for motion in told[:3]:
        there = load_motion(library_file(motion["name"]))
        assert motion["frames"] == len(there) and motion["fps"] == float(there.fps)


def test_a_motion_becomes_a_template_and_back(client: Client, tmp_path: Path) -> None:
    job = client.start_job("motion.convert", tmp_path / "a", motion={"library": "talk"}, format="pkl")
    told = job.wait(PATIENCE)
    template = tmp_path / "a" / "motion.pkl"
    assert told["sha256"] == hashlib.sha256(template.read_bytes()).hexdigest()
    back = client.start_job("motion.convert", tmp_path / "b", motion=template)
    assert back.wait(PATIENCE)["frames"] == told["frames"]
    was, now = load_motion(library_file("talk")), load_motion(tmp_path / "b" / "motion.npz")
    for name in MOTION:
        np.testing.assert_allclose(getattr(now, name), getattr(was, name), atol=1e-6)
    # What was converted is content that can drive, without being sent.
    asked: dict[str, Any] = {"motion": {"sha256": told["sha256"]}, "format": "npz"}
    assert client.start_job("motion.convert", tmp_path / "c", **asked).wait(PATIENCE)["frames"] == len(was)


@pytest.mark.parametrize("local", [True, False])
def test_capture_of_a_template_gives_a_motion_file(server: Running, tmp_path: Path, local: bool) -> None:
    motion = load_motion(library_file("nod"))
    save_template(motion, tmp_path / "nod.pkl")
    with server.client(local=local) as client:
        job = client.start_job("motion.capture", tmp_path / "out", driving=tmp_path / "nod.pkl")
        assert job.wait(PATIENCE)["frames"] == len(motion)
    there = load_motion(tmp_path / "out" / "motion.npz")
    for name in MOTION:
        np.testing.assert_allclose(getattr(there, name), getattr(motion, name), atol=1e-6)


@pytest.mark.parametrize("suffix", [".csv", ".json"])
def test_curves_become_a_motion(client: Client, tmp_path: Path, suffix: str) -> None:
    """What the add-on's import of Live Link Face's files asks for."""
    motion = load_motion(library_file("smile"))
    path = save_curves(motion, tmp_path / f"smile{suffix}")
    told = client.start_job("motion.convert", tmp_path / "out", motion=path, format="npz").wait(PATIENCE)
    assert (told["frames"], told["fps"]) == (len(motion), float(motion.fps))
    made = load_motion(tmp_path / "out" / "motion.npz")
    smiles = [channels(m, "average")[:, CHANNELS.index("mouthSmileLeft")] for m in (motion, made)]
    assert np.corrcoef(smiles)[0, 1] > 0.95 and smiles[1].max() > 0.5


def test_only_motions_are_converted(client: Client, portrait: Path, tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="not a motion"):
        client.start_job("motion.convert", tmp_path, motion=portrait).wait(PATIENCE)
    (tmp_path / "bad.pkl").write_bytes(b"\x80\x04cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(BackendError) as caught:
        client.start_job("motion.convert", tmp_path, motion=tmp_path / "bad.pkl").wait(PATIENCE)
    assert caught.value.code in ("unsafe-pickle", "bad-motion")


def test_controls_alone_are_something_to_perform(client: Client, portrait: Path, tmp_path: Path) -> None:
    """A value a frame says how many frames there are, at the rate that is asked for."""
    options = {"controls": {"smile": [0.0, 0.4, 0.9], "yaw": 5}, "fps": 24}
    result = client.start_job("animate", tmp_path, source=portrait, options=options).wait(PATIENCE)
    assert result["frames"] == 3 and result["fps"] == 24
    frames = [path.read_bytes() for path in sorted(tmp_path.glob("0*.png"))]
    assert len(set(frames)) == 3
    with pytest.raises(BackendError) as caught:
        client.start_job("animate", tmp_path / "none", source=portrait).wait(PATIENCE)
    assert caught.value.code == "bad-params"


@pytest.mark.parametrize("local", [True, False])
def test_faces_with_drivings_of_their_own(
    server: Running, couple: Path, tmp_path: Path, local: bool
) -> None:
    """Paths in `faces` and a motion's path become inputs, with uploads where the backend is elsewhere."""
    motion = library_file("nod")
    with server.client(local=local) as client:
        named: dict[str, Any] = {"source": couple, "options": {"frames": [0, 13]}}
        faces = {1: motion, 0: {"library": "talk"}}
        both = client.start_job("animate", tmp_path / "both", **named, faces=faces)
        assert both.wait(PATIENCE)["frames"] == 13
        one = client.start_job("render", tmp_path / "one", **named, motion=motion)
        assert one.wait(PATIENCE)["frames"] == 13
        source = client.call("source.open", {"source": client.input(couple)})["source"]
        _, still = client.preview(source=source, format="raw")
        _, moved = client.preview(source=source, format="raw", motion=motion, frame=12)
        assert still != moved
    first, last = (cv2.imread(str(tmp_path / "both" / f"{number:06d}.png")) for number in (0, 12))
    assert first is not None and last is not None
    changed = np.abs(first.astype(int) - last).max(axis=(0, 2)) > 8
    assert changed[:240].any() and changed[280:].any()


def test_a_changed_motion_file_is_seen_by_previews(client: Client, portrait: Path, tmp_path: Path) -> None:
    source = client.call("source.open", {"source": {"path": str(portrait)}})["source"]
    path = tmp_path / "motion.npz"
    shown = []
    for name in ("nod", "shake"):
        path.write_bytes(library_file(name).read_bytes())
        shown.append(client.preview(source=source, format="raw", motion=path, frame=10)[1])
    assert shown[0] != shown[1]


def test_replies_can_be_polled(client: Client) -> None:
    reply = client.request("status")
    with pytest.raises(BackendError) as caught:
        Reply().result(0)
    assert caught.value.code == "timeout"
    woken = threading.Event()
    while not reply.done():
        woken.wait(0.005)
    assert reply.result(0)["pid"] > 0
    bad = client.request("job.cancel", {"job": "j999"})
    while not bad.done():
        woken.wait(0.005)
    with pytest.raises(BackendError) as caught:
        bad.result(0)
    assert caught.value.code == "not-found"


@pytest.mark.parametrize("faces", [{"1": "nod"}, {"0": "wink", "1": "nod"}])
def test_every_face_has_its_own_driving_and_motion(
    client: Client, couple: Path, tmp_path: Path, faces: dict[str, str]
) -> None:
    drivings = {number: {"library": name} for number, name in faces.items()}
    options = {"frames": [0, 5]}
    job = client.start_job("animate", tmp_path, source=couple, faces=drivings, options=options, motion=True)
    frames = job.wait(PATIENCE)["frames"]
    pictures = [cv2.imread(str(path)) for path in sorted(tmp_path.glob("0*.png"))]
    assert len(pictures) == frames == 5
    changed = np.abs(np.diff(np.stack(pictures).astype(int), axis=0)).max(axis=(0, 1, 3))
    assert (changed[290:].max() > 0) == ("0" in faces) and changed[:220].max() > 0
    names = {"motion.npz"} if len(faces) == 1 else {"motion_0.npz", "motion_1.npz"}
    assert {path.name for path in tmp_path.iterdir() if path.suffix != ".png"} == names
    assert all(len(load_motion(tmp_path / name).scale) == 5 for name in names)
