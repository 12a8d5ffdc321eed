# SPDX-License-Identifier: GPL-3.0-or-later
"""What is chosen in the panel is what is asked of the backend, in its words and units."""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any

import bpy
import pytest

from tests.blender.layout_recorder import draw


@pytest.fixture
def settings(addon: ModuleType) -> Any:
    return bpy.context.scene.liveportrait


OTHER = {
    "engine": "mesh",
    "runtime": "torch",
    "device": "cpu",
    "relative": False,
    "driving_option": "pose-friendly",
    "multiplier": 1.3,
    "region": "lips",
    "stitch": False,
    "crop": False,
    "rotate": False,
    "paste_back": False,
    "driving_crop": True,
    "normalize_lips": True,
    "eye_retargeting": True,
    "lip_retargeting": True,
    "lock_scale": True,
    "eye_gain": 0.7,
    "lip_gain": 1.9,
    "smoothing": "auto",
    "source_smoothing": 2.5,
    "observation_variance": 1e-6,
    "steady_source_eyes": True,
    "silence_lips": True,
    "length_policy": "mirror",
    "crop_scale": 2.6,
    "crop_x": 0.1,
    "crop_y": -0.2,
    "driving_crop_scale": 2.9,
    "driving_crop_x": -0.05,
    "driving_crop_y": 0.07,
    "reference_frame": "auto",
    "face": 2,
    "driving_face": 0,
    "face_order": "left-right",
    "audio": "source",
    "frames": [3, 40],
    "fps": "30000/1001",
    "compatibility": "upstream",
}


def test_defaults_ask_for_nothing(settings: Any) -> None:
    assert settings.options.as_options() == {}
    assert settings.controls.as_controls() == {}


def test_every_option_makes_the_round_trip(settings: Any, tmp_path: Any) -> None:
    from liveportrait_blender.properties import options

    given = {**OTHER, "models": str(tmp_path)}
    assert given.keys() == options.rows().keys()
    settings.options.set_options(given)
    assert settings.options.as_options() == given
    settings.options.set_options({})
    assert settings.options.as_options() == {}


@pytest.mark.parametrize("name", sorted(OTHER))
def test_an_option_alone_is_all_that_is_asked(settings: Any, name: str) -> None:
    settings.options.set_options({name: OTHER[name]})
    assert settings.options.as_options() == {name: OTHER[name]}


def test_an_open_range_and_a_typed_number(settings: Any) -> None:
    settings.options.use_frames, settings.options.frames = True, (12, 0)
    settings.options.smoothing_mode, settings.options.smoothing = "value", 0.1
    settings.options.driving_crop = "off"
    assert settings.options.as_options() == {"frames": [12, None], "smoothing": 0.1, "driving_crop": False}


@pytest.mark.parametrize(
    ("fps", "asked"),
    [(24.0, "24"), (23.976, "24000/1001"), (29.97, "30000/1001"), (59.94, "60000/1001"), (12.5, "12.5")],
)
def test_rates_of_television_are_exact(settings: Any, fps: float, asked: str) -> None:
    settings.options.use_fps, settings.options.fps = True, fps
    assert settings.options.as_options() == {"fps": asked}


def test_controls_are_asked_in_published_units(settings: Any) -> None:
    settings.controls.smile = 0.4
    settings.controls.yaw = math.radians(-25)
    settings.controls.zoom = 1.1
    settings.controls.use_eyes_open, settings.controls.eyes_open = True, 0.0
    assert settings.controls.as_controls() == {"smile": 0.4, "yaw": -25.0, "zoom": 1.1, "eyes_open": 0.0}


def test_no_control_leaves_its_published_range(settings: Any) -> None:
    from liveportrait_blender.properties import controls

    for extreme, bound in ((-1e6, "minimum"), (1e6, "maximum")):
        for name, row in controls.rows().items():
            if controls.switch(row):
                setattr(settings.controls, controls.switch(row), True)
            setattr(settings.controls, name, extreme)
            assert settings.controls.as_controls().get(name, row["default"]) == row[bound], name


def test_a_control_makes_the_round_trip(settings: Any) -> None:
    given = {"brow": -12.5, "pitch": 7.0, "lips_open_target": 0.3, "blink_left": -15.0}
    settings.controls.set_controls(given)
    assert settings.controls.as_controls() == given
    settings.controls.set_controls({})
    assert settings.controls.as_controls() == {}


def test_keyed_controls_follow_the_frame(settings: Any) -> None:
    scene, controls = bpy.context.scene, settings.controls
    for frame, smile in ((1, 0.0), (11, 1.0)):
        controls.smile = smile
        assert controls.keyframe_insert("smile", frame=frame)
    asked = []
    for frame in (1, 11):
        scene.frame_set(frame)
        asked.append(controls.as_controls())
    assert asked == [{}, {"smile": 1.0}]

    from liveportrait_blender.properties.controls import as_control_curves

    assert as_control_curves([{}, {"smile": 1.0, "eyes_open": 0.4}]) == {
        "smile": [0, 1.0],
        "eyes_open": [0, 0.4],
    }


def test_moving_a_control_is_noticed(settings: Any) -> None:
    from liveportrait_blender.properties.controls import revision

    before = revision()
    settings.controls.pout = 0.05
    assert revision() > before


def test_numbers_that_may_be_a_word_are_called_what_they_are(settings: Any) -> None:
    drawn = draw(bpy.types.LIVEPORTRAIT_PT_options_motion)
    assert "Chosen Frame" in enum_name(settings.options, "reference_frame_mode") and "Frame" in drawn.text
    assert "Strength" not in drawn.text  # smoothing is off
    settings.options.reference_frame_mode, settings.options.smoothing_mode = "auto", "value"
    assert enum_name(settings.options, "reference_frame_mode") == "Most Neutral Frame"
    assert enum_name(settings.options, "smoothing_mode") == "Chosen Strength"
    drawn = draw(bpy.types.LIVEPORTRAIT_PT_options_motion)
    assert "Strength" in drawn.text and "reference_frame" not in drawn.names


def enum_name(owner: Any, name: str) -> str:
    """What the chosen one of an enumeration is called."""
    return owner.bl_rna.properties[name].enum_items[getattr(owner, name)].name
