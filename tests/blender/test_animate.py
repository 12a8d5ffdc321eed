# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole way in Blender, through a backend that really works: from a portrait to frames on a plane."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import bpy
import numpy as np
import pytest

from tests.blender.frames import look_at, read_png, rendered
from tests.blender.working import animate, folder_of, frames_of, ops, portrait, working  # noqa: F401


def textures(image: Any) -> list[Any]:
    return [
        node
        for material in bpy.data.materials
        if material.node_tree
        for node in material.node_tree.nodes
        if node.type == "TEX_IMAGE" and node.image == image
    ]


def test_a_portrait_moves_on_a_plane(working: Any, portrait: Path, tmp_path: Path) -> None:  # noqa: F811
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "shot.blend"))
    image = animate(portrait, frames=(0, 30), start_frame=7, name="Anna")
    folder = folder_of(image)
    assert folder == tmp_path / "liveportrait" / "Anna" and image.filepath.startswith("//")
    # 30 frames of a motion at 30 a second are a second, which has 24 scene frames.
    files = frames_of(folder)
    assert [file.name for file in files] == [f"{index:06d}.png" for index in range(24)]
    assert (folder / "motion.npz").is_file()
    assert json.loads((folder / "result.json").read_text())["frames"] == 24
    assert not [file for file in folder.iterdir() if file.name.startswith(".")]
    (texture,) = textures(image)
    user = texture.image_user
    assert (user.frame_start, user.frame_duration, user.frame_offset) == (7, 24, -1)
    pictures = [read_png(file)[..., :3].astype(int) for file in files]
    source = read_png(portrait)[..., :3].astype(int)
    assert np.abs(pictures[0] - source).mean() < 3  # relative motion begins at rest
    assert max(np.abs(picture - pictures[0]).max() for picture in pictures) > 40  # and then it moves
    scene = bpy.context.scene
    look_at(bpy.data.objects["Anna"], scene, (128, 128))
    again = tmp_path / "out.png"
    shown = {frame: rendered(scene, frame, again)[..., :3].astype(int) for frame in (7, 20)}
    assert np.abs(shown[20] - shown[7]).max() > 20
    for frame, seen in shown.items():
        small = pictures[frame - 7].reshape(320, 320, 3)
        centre = small[158:162, 158:162].mean((0, 1))
        assert np.abs(seen[63:65, 63:65].mean((0, 1)) - centre).max() < 25, frame


RATES = [(24, 1.0), (24, 1.001), (25, 1.0), (30, 1.001), (30, 1.0), (60, 1.0)]


def performed(folder: Path) -> np.ndarray:
    """(n,66) float64: what the driver did in each frame of a result."""
    with np.load(folder / "motion.npz") as motion:
        parts = [motion["expression"].reshape(-1, 63), motion["translation"]]
    return np.concatenate(parts, axis=1).astype(float)


def test_every_scene_frame_has_its_picture_at_every_rate(working: Any, portrait: Path) -> None:  # noqa: F811
    scene = bpy.context.scene
    scene.render.fps, scene.render.fps_base = 30, 1.0  # the motion's own rate
    own = folder_of(animate(portrait, frames=(0, 30)))
    reference, pictures = performed(own), [file.read_bytes() for file in frames_of(own)]
    assert len(reference) == len(pictures) == 30
    for fps, base in RATES:
        scene.render.fps, scene.render.fps_base = fps, base
        rate = Fraction(fps) if base == 1.0 else Fraction(fps * 1000, 1001)
        image = animate(portrait, frames=(0, 30), start_frame=-5)
        files = frames_of(folder_of(image))
        at = [Fraction(k) / rate * 30 for k in range(len(files))]
        assert at[-1] < 30 <= len(files) / rate * 30, (fps, base, len(files))  # exactly the same second
        expected = np.array([np.interp([float(t) for t in at], range(30), row) for row in reference.T]).T
        assert np.abs(performed(folder_of(image)) - expected).max() < 1e-5, (fps, base)
        for place, file in zip(at, files, strict=True):
            if place.denominator == 1:
                assert file.read_bytes() == pictures[int(place)], (fps, base)
        user = textures(image)[0].image_user
        assert (user.frame_start, user.frame_duration) == (-5, len(files))


def test_options_go_by_their_names(working: Any, portrait: Path) -> None:  # noqa: F811
    image = animate(
        portrait, "wink", frames=(0, 3), relative=False, stitch=False, smoothing=0.5, region="eyes",
        driving_crop="off", options='{"multiplier": 0.5, "controls": {"smile": 0.3}}',
    )  # fmt: skip
    said = json.loads((folder_of(image) / "result.json").read_text())["options"]
    asked = {name: said[name] for name in ("relative", "stitch", "smoothing", "region", "driving_crop")}
    assert asked == {
        "relative": False, "stitch": False, "smoothing": 0.5, "region": "eyes", "driving_crop": False
    }  # fmt: skip
    assert said["multiplier"] == 0.5 and said["controls"] == {"smile": 0.3} and said["fps"] == "24"


def test_what_the_scene_says_is_asked(working: Any, portrait: Path) -> None:  # noqa: F811
    settings = bpy.context.scene.liveportrait
    settings.source_path, settings.driving_kind, settings.driving_library = str(portrait), "LIBRARY", "nod"
    settings.options.lip_gain, settings.result_name, settings.result_kind = 1.5, "Bea", "IMAGES"
    settings.options.use_frames, settings.options.frames = True, (0, 5)
    assert ops().animate() == {"FINISHED"}
    image = bpy.data.images["Bea"]
    said = json.loads((folder_of(image) / "result.json").read_text())
    assert said["options"]["lip_gain"] == 1.5 and said["frames"] == 4
    assert not bpy.data.objects


def test_animate_again_takes_the_place_of_the_result(working: Any, portrait: Path) -> None:  # noqa: F811
    first = animate(portrait, frames=(0, 5), start_frame=11, name="Anna")
    old = folder_of(first)
    (plane,) = bpy.data.objects
    assert ops().animate(source=str(portrait), driving="wink", frames=(0, 10), replace=True) == {"FINISHED"}
    assert list(bpy.data.objects) == [plane]
    (image,) = [one for one in bpy.data.images if one.liveportrait.is_result]
    assert image.name == "Anna" and image.liveportrait.frames == 8 and folder_of(image) != old
    assert image.liveportrait.start_frame == 11
    assert len(frames_of(old)) == 4  # for undo


@pytest.mark.parametrize("controls", [{"smile": 0.6}, {"smile": [0.0, 0.3, 0.6]}])
def test_a_result_of_controls_alone_is_made_again_of_them_alone(
    working: Any, portrait: Path, controls: dict[str, Any]  # noqa: F811
) -> None:
    """Whatever driving has been chosen meanwhile, and wherever the sliders are."""
    assert ops().animate(source=str(portrait), options=json.dumps({"controls": controls})) == {"FINISHED"}
    (first,) = [one for one in bpy.data.images if one.liveportrait.is_result]
    before = [read_png(file) for file in frames_of(folder_of(first))]
    settings = bpy.context.scene.liveportrait
    settings.driving_kind, settings.driving_library = "LIBRARY", "talk"
    settings.controls.brow = 10.0
    assert ops().animate_again() == {"FINISHED"}
    (again,) = [one for one in bpy.data.images if one.liveportrait.is_result]
    assert again.liveportrait.driving == ""
    after = [read_png(file) for file in frames_of(folder_of(again))]
    assert len(after) == len(before) and all((a == b).all() for a, b in zip(before, after, strict=True))


def test_the_first_two_seconds(working: Any, portrait: Path) -> None:  # noqa: F811
    settings = bpy.context.scene.liveportrait
    settings.source_path, settings.driving_kind, settings.driving_library = str(portrait), "LIBRARY", "talk"
    for frames, expected in (((0, 0), 48), ((10, 25), 12)):
        settings.options.use_frames, settings.options.frames = True, frames
        assert ops().preview_clip() == {"FINISHED"}
        (image,) = [one for one in bpy.data.images if one.liveportrait.is_result]
        assert image.liveportrait.frames == expected
        assert len(bpy.data.objects) == 1


def test_a_place_that_cannot_be_written_is_said_with_where_the_frames_are(
    working: Any, portrait: Path, tmp_path: Path  # noqa: F811
) -> None:
    from liveportrait_blender import pump
    from liveportrait_blender.panels import animate as panel
    from tests.blender.layout_recorder import draw

    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "shot.blend"))
    (tmp_path / "liveportrait").write_text("a file in the way")
    image = animate(portrait, "nod", frames=(0, 5))
    folder = folder_of(image)
    assert folder.is_relative_to(tmp_path / "user-folder")
    told = f"{tmp_path / 'liveportrait'} cannot be written, so the frames go to {folder}."
    (record,) = working.session.jobs
    assert record.warnings[0] == told
    pump.drain()
    drawn = draw(panel.LIVEPORTRAIT_PT_animate)
    assert told.replace(" ", "") in drawn.text.replace(" ", "")  # wrapped, paths too
    assert "liveportrait.remove_job" in drawn.ids


def test_two_seconds_go_by_the_rate_of_a_recording(
    working: Any, portrait: Path, tmp_path: Path  # noqa: F811
) -> None:
    rows = [f"00:00:{frame // 60:02d}:{frame % 60:02d}.000,{frame % 60 / 60}" for frame in range(300)]
    table = tmp_path / "take.csv"
    table.write_text("\n".join(["Timecode,JawOpen", *rows]))
    settings = bpy.context.scene.liveportrait
    settings.source_path, settings.driving_kind, settings.driving_path = str(portrait), "FILE", str(table)
    assert ops().preview_clip() == {"FINISHED"}
    (image,) = [one for one in bpy.data.images if one.liveportrait.is_result]
    assert image.liveportrait.frames == 48


def test_keyed_controls_are_rendered_frame_by_frame(working: Any, portrait: Path) -> None:  # noqa: F811
    scene = bpy.context.scene
    settings = scene.liveportrait
    settings.source_path = str(portrait)
    scene.frame_start, scene.frame_end = 3, 12
    scene.frame_current = 5
    for frame, value in ((3, 0.0), (12, 1.2)):
        settings.controls.smile = value
        settings.controls.keyframe_insert("smile", frame=frame)
    for frame, value in ((3, 0.0), (12, 0.2)):
        settings.controls.yaw = value
        settings.controls.keyframe_insert("yaw", frame=frame)
    assert ops().render_controls(name="Keys") == {"FINISHED"}
    image = bpy.data.images["Keys"]
    assert image.liveportrait.frames == 10 and image.liveportrait.start_frame == 3
    assert scene.frame_current == 5
    said = json.loads((folder_of(image) / "result.json").read_text())["options"]["controls"]
    smile = said["smile"]
    assert smile[0] == 0 and smile[-1] == pytest.approx(1.2, abs=1e-5) and sorted(smile) == smile
    assert said["yaw"][-1] == pytest.approx(np.degrees(0.2), abs=1e-4)
    pictures = [read_png(file).astype(int) for file in frames_of(folder_of(image))]
    assert np.abs(pictures[0][..., :3] - read_png(portrait)[..., :3]).mean() < 3
    moved = [np.abs(picture - pictures[0]).mean() for picture in pictures]
    assert moved == sorted(moved) and moved[-1] > 1


def test_driven_controls_are_what_blender_shows(working: Any, portrait: Path) -> None:  # noqa: F811
    from liveportrait_blender import control_curves

    scene = bpy.context.scene
    driver = scene.driver_add("liveportrait.controls.smile").driver
    driver.type, driver.expression = "SCRIPTED", "frame / 100"
    curves = control_curves.sample(scene, range(10, 14))
    assert curves == {"smile": pytest.approx([0.1, 0.11, 0.12, 0.13], abs=1e-6)}


def test_keyed_controls_go_with_a_driving_and_stay_at_their_end(
    working: Any, portrait: Path  # noqa: F811
) -> None:
    scene = bpy.context.scene
    scene.frame_end = 4
    for frame, value in ((1, 0.0), (4, 1.0)):
        scene.liveportrait.controls.smile = value
        scene.liveportrait.controls.keyframe_insert("smile", frame=frame)
    image = animate(portrait, "wink", frames=(0, 10), start_frame=1)
    assert image.liveportrait.frames == 8
    said = json.loads((folder_of(image) / "result.json").read_text())["options"]["controls"]["smile"]
    assert len(said) == 4 and said[-1] == 1.0


def test_a_captured_performance_renders_as_it_was_animated(
    working: Any, portrait: Path, tmp_path: Path  # noqa: F811
) -> None:
    image = animate(portrait, "nod", frames=(0, 10))
    assert ops().capture(driving="nod", options='{"frames": [0, 10]}') == {"FINISHED"}
    motion = working.session.jobs[-1].request.file
    assert motion.is_file()
    bpy.context.scene.liveportrait.source_path = str(portrait)
    assert ops().render_motion(motion=str(motion)) == {"FINISHED"}
    (other,) = [one for one in bpy.data.images if one.liveportrait.is_result and one != image]
    for one, two in zip(frames_of(folder_of(image)), frames_of(folder_of(other)), strict=True):
        assert one.read_bytes() == two.read_bytes()


def test_memory_is_given_back_on_request(working: Any, portrait: Path) -> None:  # noqa: F811
    animate(portrait, frames=(0, 2))
    assert working.session.call("status")["worker"]["running"]
    assert ops().free_gpu_memory() == {"FINISHED"}
    assert not working.session.call("status")["worker"]["running"]
    animate(portrait, "wink", frames=(0, 2))


def test_a_render_on_the_gpu_gets_the_memory_first(
    working: Any, portrait: Path, monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:
    from liveportrait_blender.operators import animate as operators

    animate(portrait, frames=(0, 2))
    scene = bpy.context.scene
    scene.render.engine = "CYCLES"
    assert not operators.renders_on_gpu(scene)  # this one renders on the processor
    operators.before_render(scene)
    assert working.session.call("status")["worker"]["running"]
    monkeypatch.setattr(operators, "renders_on_gpu", lambda scene: True)
    operators.before_render(scene)
    assert not working.session.call("status")["worker"]["running"]


def test_the_preview_follows_the_sliders(working: Any, portrait: Path) -> None:  # noqa: F811
    from liveportrait_blender import live_preview
    from tests.blender.working import until

    settings = bpy.context.scene.liveportrait
    settings.source_path = str(portrait)
    assert ops().start_live_preview() == {"FINISHED"}
    until(live_preview.is_current)
    image = bpy.data.images["LivePortrait Preview"]
    assert tuple(image.size) == (320, 320)

    def shown() -> np.ndarray:
        flat = np.empty(320 * 320 * 4, np.float32)
        image.pixels.foreach_get(flat)
        return np.rint(flat.reshape(320, 320, 4)[::-1] * 255).astype(int)

    rest = shown()
    assert np.abs(rest[..., :3] - read_png(portrait)[..., :3]).mean() < 3
    settings.controls.smile = 1.3
    until(live_preview.is_current)
    smiling = shown()
    assert np.abs(smiling - rest).max() > 30
    settings.controls.smile = 0.0
    until(live_preview.is_current)
    assert (shown() == rest).all()
    # As many moves as there are, the last one counts, and few pictures were asked for.
    before = live_preview.pictures()
    for step in range(200):
        settings.controls.smile = step / 200
    settings.controls.smile = 1.3
    until(live_preview.is_current)
    assert (shown() == smiling).all() and live_preview.pictures() - before <= 2
    assert ops().stop_live_preview() == {"FINISHED"}
    assert not live_preview.is_on() and bpy.data.images["LivePortrait Preview"]


def test_a_preview_of_something_without_a_face_says_so(working: Any, tmp_path: Path) -> None:  # noqa: F811
    from liveportrait_blender import live_preview
    from tests.blender.frames import write_png
    from tests.blender.working import until

    grey = np.full((64, 64, 3), 128, np.uint8)
    bpy.context.scene.liveportrait.source_path = str(write_png(tmp_path / "grey.png", grey))
    assert ops().start_live_preview() == {"FINISHED"}
    until(lambda: bool(live_preview.error()))
    assert "face" in live_preview.error()


def test_pixels_of_a_preview_are_made_ready_beside_blender(addon: Any) -> None:
    """8 and 16 bits, with and without alpha, larger than shown; what is no picture is refused."""
    import threading

    from liveportrait_blender import live_preview

    rows = np.random.default_rng(3).integers(0, 256, (600, 1100, 4), np.uint8)
    made: list[Any] = []
    for channels, bits in ((3, 8), (4, 8), (4, 16)):
        sent = rows[..., :channels]
        payload = sent.tobytes() if bits == 8 else (sent.astype("<u2") * 257).tobytes()
        header = {"width": 1100, "height": 600, "channels": channels, "bits": bits}
        given = (header, payload)
        thread = threading.Thread(target=lambda given=given: made.append(live_preview.converted(*given)))
        thread.start()
        thread.join()
        picture, small = made[-1]
        assert (picture.width, picture.height) == (367, 200) and max(small.width, small.height) <= 256
        image = live_preview.show(picture, small)
        shown = np.empty(367 * 200 * 4, np.float32)
        image.pixels.foreach_get(shown)
        shown = np.rint(shown.reshape(200, 367, 4)[::-1] * 255).astype(int)
        assert (shown[..., :channels] == sent[::3, ::3]).all()
        assert (shown[..., 3] == (sent[::3, ::3, 3] if channels == 4 else 255)).all()
    for wrong in ({"width": 1101}, {"bits": 12}, {"channels": 2}, {"height": -600}, {"width": 1.5}):
        with pytest.raises(ValueError):
            live_preview.converted({**header, **wrong}, payload)


def test_every_face_has_its_own_driving(working: Any, portrait: Path, tmp_path: Path) -> None:  # noqa: F811
    from tests.blender.frames import write_png

    one = read_png(portrait)[..., :3]
    couple = np.full((320, 660, 3), 128, np.uint8)
    couple[:, :320], couple[20:300, 380:] = one, one[20:300, 20:300]
    source = write_png(tmp_path / "couple.png", couple)
    motion = tmp_path / "nod.npz"
    record = working.session.submit(capture_request("nod", tmp_path / "nod"))
    assert record.method == "motion.capture"
    from liveportrait_blender import scene_jobs

    scene_jobs.wait(record)
    (tmp_path / "nod" / "motion.npz").rename(motion)
    bpy.context.scene.liveportrait.driving_kind = "LIBRARY"  # chosen, and not used
    bpy.context.scene.liveportrait.driving_library = "wink"
    made = ops().animate(source=str(source), faces=json.dumps({"1": str(motion)}), frames=(0, 12))
    assert made == {"FINISHED"}
    (image,) = [one for one in bpy.data.images if one.liveportrait.is_result]
    pictures = [read_png(file)[..., :3].astype(int) for file in frames_of(folder_of(image))]
    assert len(pictures) == len(frames_of(folder_of(image))) > 3
    changed = np.abs(np.stack(pictures) - pictures[0]).max(axis=(0, 1, 3))
    left, right = changed[:320], changed[380:]
    still, moved = (left, right) if left.max() < right.max() else (right, left)
    assert still.max() == 0 and moved.max() > 20  # the other face stays as it was
    assert json.loads(image.liveportrait.recipe)["faces"] == {"1": str(motion)}
    # Again, and both.
    bpy.context.view_layer.objects.active = bpy.data.objects[image.name]
    assert ops().animate_again() == {"FINISHED"}
    (again,) = [one for one in bpy.data.images if one.liveportrait.is_result]
    repeated = [read_png(file)[..., :3].astype(int) for file in frames_of(folder_of(again))]
    assert all((a == b).all() for a, b in zip(pictures, repeated, strict=True))
    faces = {"0": "wink", "1": str(motion)}
    assert ops().animate(source=str(source), faces=json.dumps(faces), frames=(0, 20)) == {"FINISHED"}
    both = [one for one in bpy.data.images if one.liveportrait.is_result and one != again][0]
    pictures = [read_png(file)[..., :3].astype(int) for file in frames_of(folder_of(both))]
    changed = np.abs(np.stack(pictures) - pictures[0]).max(axis=(0, 1, 3))
    assert changed[:320].max() > 20 and changed[380:].max() > 20


@pytest.mark.parametrize("faces", ["[]", "{", '{"x": "wink"}', '{"1": 2}', '{"1": "no"}', '{"-1": "wink"}'])
def test_what_is_no_choice_of_faces_is_refused(working: Any, portrait: Path, faces: str) -> None:  # noqa: F811
    with pytest.raises(RuntimeError, match="faces|face's driving|library motion"):
        ops().animate(source=str(portrait), faces=faces)
    assert not working.session.jobs


@pytest.mark.parametrize("driving", [False, True])
def test_a_folder_of_pictures_is_one_a_scene_frame(
    working: Any, portrait: Path, tmp_path: Path, driving: bool  # noqa: F811
) -> None:
    """As source and as driving, at a scene rate that is not theirs."""
    from tests.blender.frames import write_png

    bpy.context.scene.render.fps = 60
    (tmp_path / "shots").mkdir()
    picture = read_png(portrait)[..., :3]
    for number in range(6):
        shot = np.ascontiguousarray(picture)
        shot[:8, :8] = 20 * number
        write_png(tmp_path / "shots" / f"{number:03d}.png", shot)
    given = {"source": portrait, "driving": str(tmp_path / "shots")}
    if not driving:
        given = {"source": tmp_path / "shots", "driving": "talk"}
    image = animate(given.pop("source"), **given, length_policy="cut")
    files = frames_of(folder_of(image))
    assert len(files) == 6
    if not driving:
        corners = [int(read_png(file)[2, 2, 0]) for file in files]
        assert corners == [20 * number for number in range(6)]


def capture_request(name: str, folder: Path) -> Any:
    from liveportrait_blender import requests

    return requests.CaptureRequest({"library": name}, {}, folder, name)
