# SPDX-License-Identifier: GPL-3.0-or-later
"""The faces of a picture, found by a backend that works, and the panels while it does."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import bpy
import numpy as np
import pytest

from tests.blender.frames import read_png, write_png
from tests.blender.layout_recorder import Drawn, draw
from tests.blender.working import folder_of, frames_of, ops, portrait, until, working  # noqa: F401


@pytest.fixture
def couple(portrait: Path, tmp_path: Path) -> Path:  # noqa: F811
    """The same face twice, the right one larger."""
    face = read_png(portrait)[:, :, :3]
    small = np.zeros_like(face)
    small[80:240, 80:240] = face[::2, ::2]
    return write_png(tmp_path / "couple.png", np.ascontiguousarray(np.hstack([small, face])))


def panel(name: str) -> Drawn:
    return draw(getattr(bpy.types, f"LIVEPORTRAIT_PT_{name}"))


def test_a_script_is_told_how_many_there_are(working: Any, couple: Path) -> None:  # noqa: F811
    from liveportrait_blender import faces

    settings = bpy.context.scene.liveportrait
    settings.source_path = str(couple)
    assert ops().find_faces(role="source") == {"FINISHED"}
    assert [face.number for face in faces.known(bpy.context, "source").faces] == [0, 1]
    settings.options.face_order = "left-right"
    assert faces.known(bpy.context, "source") is None  # they are numbered otherwise now


def test_from_the_panel_they_come_with_pictures(working: Any, couple: Path) -> None:  # noqa: F811
    from liveportrait_blender import faces, preferences

    settings = bpy.context.scene.liveportrait
    settings.source_path = str(couple)
    faces.ask(bpy.context, "source")  # what the button does; the backend starts only now
    assert "Looking for Faces" in panel("source").text
    until(lambda: not faces.known(bpy.context, "source").asking)
    found = faces.known(bpy.context, "source")
    assert not found.error and len(found.faces) == 2
    # In background mode icons have no number.
    kept = list((preferences.cache_folder() / "faces").glob("*.png"))
    assert [read_png(path).shape[:2] for path in kept] == [(faces.ACROSS, faces.ACROSS)] * 2
    drawn = panel("source")
    assert [button.given["number"] for name, button in drawn.operators if name.endswith("choose_face")] == [
        0, 1, -1,
    ]  # fmt: skip


def test_the_folder_of_faces_does_not_grow_for_ever(working: Any, couple: Path) -> None:  # noqa: F811
    from liveportrait_blender import faces, preferences

    folder = preferences.cache_folder() / "faces"
    folder.mkdir(parents=True)
    for index in range(faces.KEPT + 40):
        old = folder / f"{index}.png"
        old.write_bytes(b"from long ago")
        os.utime(old, (1000 + index, 1000 + index))
    (folder / "note.txt").write_text("somebody's")
    bpy.context.scene.liveportrait.source_path = str(couple)
    faces.ask(bpy.context, "source")
    until(lambda: not faces.known(bpy.context, "source").asking)
    kept = {path.name for path in folder.glob("*.png")}
    assert len(kept) == faces.KEPT and "41.png" not in kept and "42.png" in kept
    assert sum(path.stat().st_size > 1000 for path in folder.glob("*.png")) == 2  # those just found
    assert (folder / "note.txt").is_file()


def moved(pictures: list[np.ndarray], columns: slice) -> float:
    first = pictures[0][:, columns, :3].astype(int)
    return max(float(np.abs(picture[:, columns, :3].astype(int) - first).mean()) for picture in pictures)


def test_each_face_has_a_driving_of_its_own(
    working: Any, couple: Path, tmp_path: Path  # noqa: F811
) -> None:
    from liveportrait_blender import requests, results

    settings = bpy.context.scene.liveportrait
    settings.source_path, settings.driving_kind, settings.result_kind = str(couple), "LIBRARY", "IMAGES"
    settings.driving_library = "wink"
    with pytest.raises(RuntimeError, match="Look for the portrait's faces first"):
        ops().drive_faces()
    ops().find_faces(role="source")
    assert "liveportrait.drive_faces" in panel("source").ids
    ops().drive_faces()
    large, small = settings.face_drivings.faces
    assert (large.number, large.kind, small.number, small.kind) == (0, "MAIN", 1, "MAIN")
    drawn = panel("source")
    assert {"kind", "use"} <= drawn.names and "Face 0" in drawn.text

    large.kind, small.kind = "STILL", "FILE"
    assert requests.missing(bpy.context) == "Choose a driving for face 1"
    assert "liveportrait.open_face_driving" in panel("source").ids
    with pytest.raises(RuntimeError, match="does not exist"):
        ops().open_face_driving(number=1, filepath=str(tmp_path / "gone.npz"))
    (tmp_path / "gone.npz").touch()
    ops().open_face_driving(number=1, filepath=str(tmp_path / "gone.npz"))
    (tmp_path / "gone.npz").unlink()
    with pytest.raises(RuntimeError, match="driving of face 1 is not there"):
        ops().animate()
    small.kind, small.library = "LIBRARY", "talk"
    settings.driving_kind, settings.driving_path = "FILE", ""  # no face needs it
    assert requests.missing(bpy.context) == ""
    assert ops().animate(name="one", frames=(0, 15)) == {"FINISHED"}
    image = bpy.data.images["one"]
    pictures = [read_png(path) for path in frames_of(folder_of(image))]
    assert moved(pictures, slice(0, 320)) > 4 * moved(pictures, slice(320, None))  # the small one, left

    large.kind = "MAIN"
    assert requests.missing(bpy.context) == "Choose a driving clip first"
    settings.driving_kind = "LIBRARY"
    assert ops().animate(name="both", frames=(0, 15)) == {"FINISHED"}
    both = bpy.data.images["both"]
    told = {role: each["name"] for role, each in json.loads(both.liveportrait.summary)["inputs"].items()}
    assert told["face 0"] == "wink.npz" and told["face 1"] == "talk.npz"
    pictures = [read_png(path) for path in frames_of(folder_of(both))]
    assert moved(pictures, slice(320, None)) > 0.5

    settings.face_drivings.faces.clear()
    settings.face_drivings.use = False
    settings.source_path = "//another.png"
    bpy.data.images.remove(image)
    assert results.active(bpy.context) == both
    assert ops().load_recipe() == {"FINISHED"}
    assert settings.face_drivings.use and Path(settings.source_path) == couple
    again = [(face.number, face.kind, face.library) for face in settings.face_drivings.faces]
    assert again == [(0, "LIBRARY", "wink"), (1, "LIBRARY", "talk")]
    assert requests.missing(bpy.context) == ""
    assert "Face 1" in panel("source").text
    settings.source_path = str(tmp_path / "another.png")
    assert "Face 1" not in panel("source").text  # they were another portrait's


def test_a_driving_without_a_face_is_said(working: Any, tmp_path: Path) -> None:  # noqa: F811
    from liveportrait_blender import faces

    settings = bpy.context.scene.liveportrait
    settings.driving_path = str(write_png(tmp_path / "grey.png", np.full((200, 200, 3), 90, np.uint8)))
    faces.ask(bpy.context, "driving")
    until(lambda: not faces.known(bpy.context, "driving").asking)
    drawn = panel("driving")
    assert "face" in faces.known(bpy.context, "driving").error and "Look Again" in drawn.text


def test_what_has_no_pictures_is_refused(working: Any, tmp_path: Path) -> None:  # noqa: F811
    settings = bpy.context.scene.liveportrait
    settings.driving_kind = "LIBRARY"
    with pytest.raises(RuntimeError, match="no pictures"):
        ops().find_faces(role="driving")
    settings.source_path = str(tmp_path / "gone.png")
    with pytest.raises(RuntimeError, match="not there"):
        ops().find_faces(role="source")


def test_the_panel_follows_a_job(working: Any, portrait: Path) -> None:  # noqa: F811
    from liveportrait_blender import scene_jobs

    settings = bpy.context.scene.liveportrait
    settings.source_path, settings.driving_kind = str(portrait), "LIBRARY"
    assert "starts when it is needed" in panel("main").text
    record = scene_jobs.animate(bpy.context, name="Anna")
    until(lambda: record.frames >= 3)
    drawn = panel("animate")
    assert len(drawn.progress) == 1 and "Rendering" in drawn.text
    assert "Working: 1 job" in panel("main").text
    working.session.cancel(record.key)
    until(lambda: record.settled)
    assert not panel("animate").progress
    until(lambda: working.session.state.kind == "ready")
    assert "ready" in panel("main").text
