# SPDX-License-Identifier: GPL-3.0-or-later
"""Shape keys are known by their names, as the programs write them that make heads."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from liveportrait_blender import rig_channels
from liveportrait_blender.shape_key_matching import Report, match, same_name, table
from tests.blender import heads

CHANNELS = rig_channels.names()


def sources(*names: str) -> dict[str, dict[str, float]]:
    """{shape key: {channel: gain}}"""
    found: dict[str, dict[str, float]] = {}
    for source in match(names).sources:
        found.setdefault(source.shape_key, {})[source.channel] = source.gain
    return found


def sided(name: str) -> tuple[str, str]:
    side = next((side for side in ("Left", "Right") if name.endswith(side)), "")
    return name.removesuffix(side), side


def snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)


@pytest.mark.parametrize(
    "spell",
    [
        lambda name: name,
        lambda name: name[0].upper() + name[1:],
        snake,
        lambda name: snake(name).upper(),
        lambda name: "bs_" + name,
        lambda name: "blendShape1." + name,
        lambda name: "blendShape1." + "_".join(filter(None, (sided(name)[0], sided(name)[1][:1]))),
        lambda name: ".".join(filter(None, (sided(name)[0], sided(name)[1][:1]))),
        lambda name: sided(name)[0] + sided(name)[1][:1],
        lambda name: "_".join(filter(None, (sided(name)[1].lower(), snake(sided(name)[0])))),
        lambda name: f"A07_{snake(name).title()}",
        lambda name: f"AK_09_{name[0].upper()}{name[1:]}",
        lambda name: f"facs_bs_{name[0].upper()}{name[1:]}_div2",
        lambda name: f"head_lod0_mesh__{name}",
        lambda name: name + ".001",
    ],
)
def test_arkits_names_in_every_spelling(spell) -> None:
    spelled = [spell(name) for name in CHANNELS]
    report = match(spelled)
    assert [source.channel for source in report.sources] == list(CHANNELS)
    assert [source.shape_key for source in report.sources] == spelled
    assert not report.unmatched and not report.left_out and not report.absent
    assert len(report.unknown) == len(rig_channels.unknown())


def test_icts_names() -> None:
    if not heads.ICT.is_file():
        pytest.skip(f"the ICT head is absent: {heads.ICT}")
    with np.load(heads.ICT) as data:
        names = [str(name) for name in data["shape_names"]]
    report = match(names)
    assert report.unmatched == ["PupilDilate_L", "PupilDilate_R", "cheekRaiser_L", "cheekRaiser_R"]
    assert len(report.matched) == 53 and not report.left_out and not report.absent
    found = sources(*names)
    assert found["eyeBlink_R"] == {"eyeBlinkRight": 1} and found["eyeBlink_L"] == {"eyeBlinkLeft": 1}
    assert found["browInnerUp_L"] == found["browInnerUp_R"] == {"browInnerUp": 1}
    assert found["jawLeft"] == {"jawLeft": 1} and found["mouthRight"] == {"mouthRight": 1}


@pytest.mark.parametrize(
    "name, channel",
    [
        ("Eye_Blink_R", "eyeBlinkRight"),
        ("Eye_L_Look_L", "eyeLookOutLeft"),
        ("Eye_R_Look_L", "eyeLookInRight"),
        ("Eye_R_Look_Down", "eyeLookDownRight"),
        ("Brow_Drop_L", "browDownLeft"),
        ("Mouth_Up_Upper_R", "mouthUpperUpRight"),
        ("Mouth_L", "mouthLeft"),
        ("Jaw_R", "jawRight"),
        ("Mouth_Funnel_Down_L", "mouthFunnel"),
        ("CTRL_expressions_eyeBlinkR", "eyeBlinkRight"),
        ("CTRL_expressions_mouthCornerPullL", "mouthSmileLeft"),
        ("CTRL_expressions_eyeLookRightL", "eyeLookInLeft"),
        ("CTRL_expressions_mouthLowerLipDepressR", "mouthLowerDownRight"),
        ("facs_jnt_EyesWideLeft", "eyeWideLeft"),
        ("facs_ctrl_BrowInnerUp", "browInnerUp"),
        ("Genesis8Female__eCTRLEyesClosedR", "eyeBlinkRight"),
        ("head.eCTRLMouthSmileSimpleL", "mouthSmileLeft"),
        ("eye-left-closure", "eyeBlinkLeft"),
        ("eyebrows-right-inner-up", "browInnerUp"),
        ("mouth-open", "jawOpen"),
        ("Fcl_EYE_Close_R", "eyeBlinkRight"),
        ("blinkLeft", "eyeBlinkLeft"),
        ("Blink_R", "eyeBlinkRight"),
        ("vrc.blink_left", "eyeBlinkLeft"),
        ("Fcl_MTH_U", "mouthPucker"),
        ("oh", "mouthFunnel"),
        ("V_Open", "jawOpen"),
    ],
)
def test_names_of_other_programs(name: str, channel: str) -> None:
    assert sources(name) == {name: {channel: 1.0}}


def test_dials_that_go_the_other_way_have_a_negative_gain_and_range() -> None:
    (source,) = match(["eCTRLLipBottomUp-DownL"]).sources
    assert (source.channel, source.gain, source.minimum, source.maximum) == ("mouthLowerDownLeft", -1, -1, 0)


def test_a_key_for_both_sides_follows_the_mean_of_both() -> None:
    for name in ("blink", "Blink", "Fcl_EYE_Close", "eyesClosed", "Eye_Blink", "まばたき"):
        assert sources(name) == {name: {"eyeBlinkLeft": 0.5, "eyeBlinkRight": 0.5}}, name
    assert sources("mouth-corner-puller")["mouth-corner-puller"] == {
        "mouthSmileLeft": 0.5,
        "mouthSmileRight": 0.5,
    }
    assert sources("lookLeft")["lookLeft"] == {"eyeLookOutLeft": 0.5, "eyeLookInRight": 0.5}


@pytest.mark.parametrize("name", ["aa", "A", "Fcl_MTH_A", "viseme_aa", "vrc.v_aa", "eCTRLvAA", "あ"])
def test_an_open_vowel_opens_the_jaw_less_where_the_lips_are_round(name: str) -> None:
    assert sources(name) == {name: {"jawOpen": 1.0, "mouthFunnel": -0.5, "mouthPucker": -0.5}}


def test_coarse_keys_are_left_alone_where_there_are_finer_ones() -> None:
    report = match(
        ["eyeBlinkLeft", "eyeBlinkRight", "jawOpen", "eyesClosed", "mouthOpen", "viseme_aa", "viseme_U"]
    )
    assert report.left_out == ["eyesClosed", "mouthOpen", "viseme_aa"]
    assert report.matched == ["eyeBlinkLeft", "eyeBlinkRight", "jawOpen", "viseme_U"]
    daz = match(["eCTRLMouthSmile", "eCTRLMouthSmileSimpleL", "eCTRLMouthSmileSimpleR"])
    assert daz.left_out == ["eCTRLMouthSmile"]
    vroid = match(["Fcl_ALL_Joy", "Fcl_MTH_Fun", "Fcl_EYE_Close", "Fcl_EYE_Close_L", "Fcl_EYE_Close_R"])
    assert vroid.left_out == ["Fcl_ALL_Joy", "Fcl_EYE_Close"]


def test_what_means_nothing_is_said_and_not_guessed() -> None:
    names = ["Key 1", "hair_L", "R", "jawline", "fat", "", "...", "eyeBlinkMiddle", "viseme_sil", "neutral"]
    report = match(names)
    assert not report.sources and report.unmatched == names
    assert len(report.absent) == len(CHANNELS) - len(rig_channels.unknown())
    assert match([]).sentences() == ["0 shape keys matched.", *match([]).sentences()[1:]]


def test_the_report_says_what_matters() -> None:
    report: Report = match(["eyeBlinkLeft", "tongueOut", "fat"])
    said = " ".join(report.sentences())
    assert "2 shape keys matched" in said and "No channel for fat" in said
    assert "stay still: tongueOut" in said and "No shape key for" in said
    assert report.unknown == ["tongueOut"]


def test_the_table_names_channels_that_exist() -> None:
    for family in table()["families"]:
        for name, value in family["keys"].items():
            for channel, gain in [[value, 1.0]] if isinstance(value, str) else value:
                for side in ("Left", "Right"):
                    assert channel.replace("*", side) in CHANNELS, (family["id"], name)
                assert 0 < abs(gain) <= 1
                assert ("*" in channel) <= ("*" in name)


def test_shipped_presets_are_whole() -> None:
    from liveportrait_blender import shape_key_presets

    found = shape_key_presets.shipped()
    assert {"Faceshift", "MikuMikuDance"} <= set(found)
    for path in found.values():
        rows = shape_key_presets.read(Path(path), CHANNELS)
        assert rows and json.loads(path.read_text(encoding="utf-8"))["name"] == path.stem


@pytest.mark.parametrize(
    ("shape_key", "channel", "same"),
    [
        ("browDown_L", "browDownLeft", True),
        ("BROW_DOWN.Left", "browDownLeft", True),
        ("Jaw_Open", "jawOpen", True),
        ("cheekPuff_L", "cheekPuff", False),
        ("browDown_L", "browDownRight", False),
        ("Ah", "jawOpen", False),
    ],
)
def test_a_key_that_is_called_as_its_channel_needs_one_name(shape_key: str, channel: str, same: bool) -> None:
    assert same_name(shape_key, channel) == same
