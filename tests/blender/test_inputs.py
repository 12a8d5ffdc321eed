# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever is chosen as source or driving becomes a file with the pixels that Blender shows."""

from __future__ import annotations

from pathlib import Path

import bpy
import numpy as np
import pytest

from liveportrait_blender.names import UserError
from tests.blender.frames import look_at, picture, read_png, rendered, write_frames, write_png


def chosen():
    from liveportrait_blender import inputs

    return inputs.source(bpy.context)


def choose_image(image) -> None:
    settings = bpy.context.scene.liveportrait
    settings.source_kind, settings.source_image = "IMAGE", image


def cache(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "user-folder" / "cache" / "pictures").glob("*"))


def srgb(linear: np.ndarray) -> np.ndarray:
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def generated(pixels: np.ndarray, is_float: bool = False, alpha: bool = True):
    """An image without a file. (h,w,4) values from 0 on, top row first."""
    image = bpy.data.images.new("made", pixels.shape[1], pixels.shape[0], alpha=alpha, float_buffer=is_float)
    image.pixels.foreach_set(pixels[::-1].astype(np.float32).ravel())
    image.update()
    return image


def test_a_file(addon, tmp_path: Path) -> None:
    from liveportrait_blender import inputs

    settings = bpy.context.scene.liveportrait
    assert inputs.source_missing(bpy.context) == "Choose a portrait first"
    with pytest.raises(UserError, match="No portrait is chosen"):
        chosen()
    path = write_png(tmp_path / "Ünï 猫.png", picture(1))
    settings.source_path = str(path)
    assert (chosen().value, chosen().label) == (path, "Ünï 猫.png") and not inputs.source_missing(bpy.context)
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "film.blend"))
    settings.source_path = "//Ünï 猫.png"
    assert chosen().value == path
    settings.source_path = "//none.png"
    with pytest.raises(UserError, match="is not there: .*none.png"):
        chosen()


def test_an_image_with_its_file_is_that_file(addon, tmp_path: Path) -> None:
    path = write_png(tmp_path / "anna.png", picture(1))
    choose_image(bpy.data.images.load(str(path)))
    assert chosen().value == path and not cache(tmp_path)
    path.unlink()
    with pytest.raises(UserError, match='file of the image "anna.png" is not there'):
        chosen()


def test_painted_and_not_saved(addon, tmp_path: Path) -> None:
    pixels = picture(1, channels=4)
    path = write_png(tmp_path / "anna.png", pixels)
    image = bpy.data.images.load(str(path))
    choose_image(image)
    image.pixels[0:4] = (0.2, 0.4, 0.6, 1.0)  # the first pixel of the lowest row
    assert image.is_dirty
    found = chosen().value
    assert found != path
    wanted = pixels.copy()
    wanted[-1, 0] = (51, 102, 153, 255)
    assert np.array_equal(read_png(found), wanted)
    assert image.is_dirty and np.array_equal(read_png(path), pixels)  # neither is touched


def test_packed_it_needs_no_file(addon, tmp_path: Path) -> None:
    pixels = picture(1)
    path = write_png(tmp_path / "anna.png", pixels)
    image = bpy.data.images.load(str(path))
    image.pack()
    data = path.read_bytes()
    path.unlink()
    choose_image(image)
    assert chosen().value.read_bytes() == data  # as it was packed, nothing is encoded anew
    again = chosen().value
    assert again == chosen().value and len(cache(tmp_path)) == 1


def test_a_generated_byte_image_keeps_its_levels_and_alpha(addon, tmp_path: Path) -> None:
    pixels = picture(3, channels=4)
    choose_image(generated(pixels / 255))
    assert np.array_equal(read_png(chosen().value), pixels)
    before = chosen().value
    bpy.data.images["made"].pixels[0] = 0.123
    assert chosen().value != before  # another picture is another file


def test_a_float_image_comes_as_it_is_shown(addon, tmp_path: Path) -> None:
    linear = np.random.default_rng(5).uniform(0, 1.3, (6, 8, 4))
    linear[..., 3] = 1
    choose_image(generated(linear, is_float=True))
    wanted = np.rint(srgb(np.clip(linear[..., :3], 0, 1)) * 255)
    assert np.abs(read_png(chosen().value)[..., :3] - wanted).max() <= 1


def test_a_float_images_alpha_is_straight_in_the_file(addon, tmp_path: Path) -> None:
    """Blender's own picture of half-transparent linear 0.5 is the yardstick: as it renders on a plane."""
    colour = np.zeros((4, 4, 4))
    colour[...] = (0.25, 0.1, 0.05, 0.5)  # multiplied by its alpha: 0.5, 0.2, 0.1
    choose_image(generated(colour, is_float=True))
    found = read_png(chosen().value)[0, 0]
    wanted = np.rint([*(srgb(np.array([0.5, 0.2, 0.1])) * 255), 127.5])
    assert np.abs(found - wanted).max() <= 1


def test_a_file_that_the_backend_does_not_read_is_written_anew(addon, tmp_path: Path) -> None:
    linear = np.random.default_rng(5).uniform(0, 1, (6, 8, 4))
    linear[..., 3] = 1
    made = generated(linear, is_float=True)
    made.file_format, made.filepath_raw = "OPEN_EXR", str(tmp_path / "anna.exr")
    made.save()
    image = bpy.data.images.load(str(tmp_path / "anna.exr"))
    choose_image(image)
    assert chosen().value.suffix == ".png"
    shown = np.array(image.pixels[:]).reshape(6, 8, 4)[::-1, :, :3]  # some versions encode when they save
    assert np.abs(read_png(chosen().value)[..., :3] - np.rint(srgb(shown) * 255)).max() <= 1


def test_the_render_result(addon, tmp_path: Path) -> None:
    from tests.blender.frames import landed

    frames = write_frames(tmp_path / "a", 1, (16, 16))
    made = landed(tmp_path / "a")
    scene = bpy.context.scene
    look_at(made.owner, scene, (16, 16))
    rendered(scene, 1, tmp_path / "r.png")
    scene.render.image_settings.file_format = "OPEN_EXR"
    choose_image(bpy.data.images["Render Result"])
    found = read_png(chosen().value)
    assert np.abs(found[..., :3].astype(int) - frames[0]).max() <= 1
    assert scene.render.image_settings.file_format == "OPEN_EXR"


def test_sequences_and_movies_of_images_are_clip_sources(addon, tmp_path: Path) -> None:
    write_frames(tmp_path / "shots", 3)
    image = bpy.data.images.load(str(tmp_path / "shots" / "000000.png"))
    image.source = "SEQUENCE"
    choose_image(image)
    assert chosen().value == tmp_path / "shots"


def material_on(owner, *links: tuple[str, str]):
    """A material with image nodes, linked to inputs of its Principled BSDF; by (image name, input or "")."""
    from liveportrait_blender import compat

    material = bpy.data.materials.new("skin")
    compat.enable_nodes(material)
    tree = material.node_tree
    shader = next(node for node in tree.nodes if node.type == "BSDF_PRINCIPLED")
    for name, socket in links:
        node = tree.nodes.new("ShaderNodeTexImage")
        node.image = bpy.data.images.get(name) or bpy.data.images.new(name, 4, 4)
        if socket:
            tree.links.new(node.outputs["Color"], shader.inputs[socket])
    tree.nodes.active = shader
    owner.data.materials.append(material)
    return tree


@pytest.mark.parametrize(
    ("links", "wanted"),
    [
        ([("bump", "Roughness"), ("skin", "Base Color")], "skin"),
        ([("bump", "Roughness"), ("glow", "Emission Color")], "glow"),
        ([("loose", "")], "loose"),
        ([], None),
    ],
)
def test_the_texture_of_an_object(addon, links, wanted) -> None:
    from liveportrait_blender import inputs

    bpy.ops.mesh.primitive_plane_add()
    owner = bpy.context.object
    bpy.context.scene.liveportrait.source_kind = "OBJECT"
    material_on(owner, *links)
    found = inputs.texture_of(owner)
    assert (found.name if found else None) == wanted
    assert bool(inputs.source_missing(bpy.context)) == (wanted is None)
    if wanted is None:
        with pytest.raises(UserError, match="has no image in its material"):
            chosen()
    else:
        assert chosen().label == wanted


def test_the_active_image_node_comes_first(addon) -> None:
    from liveportrait_blender import inputs

    bpy.ops.mesh.primitive_plane_add()
    tree = material_on(bpy.context.object, ("skin", "Base Color"), ("chosen", ""))
    nodes = [node for node in tree.nodes if node.type == "TEX_IMAGE"]
    tree.nodes.active = next(node for node in nodes if node.image.name == "chosen")
    assert inputs.texture_of(bpy.context.object).name == "chosen"


def test_no_object_and_no_clipboard_are_said(addon) -> None:
    from liveportrait_blender import inputs

    settings = bpy.context.scene.liveportrait
    settings.source_kind = "OBJECT"
    assert inputs.source_missing(bpy.context) == "Select the object whose texture is the portrait"
    settings.source_kind = "CLIPBOARD"
    assert "clipboard" in inputs.source_missing(bpy.context)
    with pytest.raises(UserError, match="no clipboard in background"):
        chosen()


# --- driving ------------------------------------------------------------------------------------------------


def driven():
    from liveportrait_blender import inputs

    return inputs.driving(bpy.context)


@pytest.fixture
def movie(shared_data: Path) -> Path:
    return shared_data / "driving" / "d0.mp4"  # 78 pictures, 25 a second


@pytest.mark.parametrize("name", ["talk.npz", "wink.pkl", "d9.jpg", "clip.mp4"])
def test_driving_files(addon, name: str, tmp_path: Path) -> None:
    from liveportrait_blender import inputs

    settings = bpy.context.scene.liveportrait
    assert inputs.driving_missing(bpy.context) == "Choose a driving clip first"
    (tmp_path / name).write_bytes(b"x")
    settings.driving_path = str(tmp_path / name)
    assert (driven().value, driven().frames) == (tmp_path / name, None)
    assert not inputs.driving_missing(bpy.context)


def test_the_library(addon) -> None:
    settings = bpy.context.scene.liveportrait
    settings.driving_kind = "LIBRARY"
    assert driven().value == {"library": settings.driving_library}


def test_a_movie_clip_begins_at_its_offset(addon, tmp_path: Path) -> None:
    from liveportrait_blender import inputs

    settings = bpy.context.scene.liveportrait
    settings.driving_kind = "CLIP"
    assert inputs.driving_missing(bpy.context) == "Choose a movie clip as driving first"
    write_frames(tmp_path / "shots", 5)
    clip = bpy.data.movieclips.load(str(tmp_path / "shots" / "000000.png"))
    settings.driving_clip = clip
    assert (driven().value, driven().frames) == (tmp_path / "shots", None)
    clip.frame_offset = 2
    assert driven().frames == (2, None)


def strips():
    from liveportrait_blender import compat

    scene = bpy.context.scene
    return compat.strips(scene.sequence_editor or scene.sequence_editor_create())


def trim(strip, before: int, after: int) -> None:
    if bpy.app.version >= (5, 2, 0):
        strip.left_handle_offset, strip.right_handle_offset = before, after
    else:
        strip.frame_offset_start, strip.frame_offset_end = before, after


def test_a_strip_of_pictures_gives_the_part_between_its_handles(addon, tmp_path: Path) -> None:
    from liveportrait_blender import inputs

    settings = bpy.context.scene.liveportrait
    settings.driving_kind = "STRIP"
    assert inputs.driving_missing(bpy.context) == "No strip of the sequencer is chosen"
    write_frames(tmp_path / "shots", 10)
    strip = strips().new_image("shots", str(tmp_path / "shots" / "000000.png"), 1, 20)
    for index in range(1, 10):
        strip.elements.append(f"{index:06d}.png")
    settings.driving_strip = strip.name
    assert (driven().value, driven().frames) == (tmp_path / "shots", None)
    trim(strip, 2, 3)
    assert driven().frames == (2, 7)
    strip.name = "another"
    assert inputs.driving_missing(bpy.context) == 'There is no strip "shots" in the sequencer'


def test_a_movie_strip_in_its_own_frames_whatever_the_scenes_rate(addon, movie: Path) -> None:
    settings = bpy.context.scene.liveportrait
    settings.driving_kind = "STRIP"
    bpy.context.scene.render.fps = 50
    strip = strips().new_movie("talk", str(movie), 1, 20)
    settings.driving_strip = "talk"
    assert (driven().value, driven().frames) == (movie.resolve(), None)
    trim(strip, 8, 10)
    assert driven().frames == (8, 68)
    strip.use_reverse_frames = True
    with pytest.raises(UserError, match="plays backwards"):
        driven()


def test_other_strips_are_refused(addon) -> None:
    settings = bpy.context.scene.liveportrait
    settings.driving_kind = "STRIP"
    from liveportrait_blender import inputs

    if bpy.app.version >= (5, 0, 0):
        strip = strips().new_effect("sky", "COLOR", 1, 1, length=9)
    else:
        strip = strips().new_effect("sky", "COLOR", 1, 1, frame_end=9)
    settings.driving_strip = strip.name
    with pytest.raises(UserError, match="has no pictures"):
        inputs.driving(bpy.context)


@pytest.mark.parametrize("how", ["plain", "quoted", "address"])
def test_a_files_path_on_the_clipboard(addon, tmp_path: Path, how: str) -> None:
    from liveportrait_blender import pictures

    file = tmp_path / "Änne & Co 100%.png"
    file.write_bytes(b"")
    text = {"plain": str(file), "quoted": f'"{file}"', "address": file.as_uri()}[how]
    assert pictures.path_in(text + "\n") == file
    assert pictures.path_in("one\ntwo") is None and pictures.path_in("") is None
    assert pictures.path_in("x" * 100_000) is None


def test_a_path_that_leads_nowhere_is_called_a_missing_file(addon, tmp_path: Path) -> None:
    """And a name that is no motion lists those there are, unless a portrait is asked for."""
    from liveportrait_blender import requests

    for text in (str(tmp_path / "gone.mp4"), str(tmp_path / "gone"), "gone.mp4"):
        with pytest.raises(UserError, match="no file .*gone") as told:
            requests.from_text(text)
        assert "library" not in str(told.value)
    with pytest.raises(UserError, match="library motion \"grinning\".*smile"):
        requests.from_text("grinning")
    assert requests.from_text("smile").value == {"library": "smile"}
    with pytest.raises(UserError, match="no file .*anna"):
        requests.from_text("anna", library=False)
