# SPDX-License-Identifier: GPL-3.0-or-later
"""How a performance lies in an armature: names of bones, properties and curves. Imports no bpy.

Bone `head` holds t (location), s (uniform scale) and the head's turn (XYZ Euler: pitch, yaw, roll in
radians). Its children `kp_00` .. `kp_20` rest at the canonical keypoints x_c, and their location is delta,
verbatim. All bones rest with LivePortrait's axes: x = +X, y = -Z, z = +Y of the armature, so the face looks
along -Y. One unit is half the width of the crop; a face is about 0.8 wide. "Left" and "right" are the
subject's.
"""

from __future__ import annotations

from typing import NamedTuple

HEAD = "head"
KEYPOINTS = 21
BONES = tuple(f"kp_{k:02d}" for k in range(KEYPOINTS))

# Which part of the face each keypoint moves most: the displacement that the fitted map from delta to
# landmarks gives for each keypoint's usual motion, and the published controls that use it. 6, 8, 9, 12 and
# 18 carry no expression in the released model, 5 is the neck, 10 has no part of its own.
GROUPS: dict[str, tuple[int, ...]] = {
    "Eyes": (11, 13, 15, 16),
    "Lips": (14, 17, 19, 20),
    "Brows": (1, 2),
    "Jaw and Cheeks": (0, 3, 4, 7),
    "Other": (5, 6, 8, 9, 10, 12, 18),
}
STILL = frozenset((6, 8, 9, 12, 18))  # keypoints without expression, which are drawn small


class Channel(NamedTuple):
    """A keyed custom property of the armature object."""

    name: str
    label: str
    default: float | int | bool
    minimum: float
    maximum: float
    description: str


CHANNELS: tuple[Channel, ...] = (
    Channel("eye_ratio_left", "Eye Ratio Left", 0.3, 0.0, 1.0, "Lid distance over eye width"),
    Channel("eye_ratio_right", "Eye Ratio Right", 0.3, 0.0, 1.0, "Lid distance over eye width"),
    Channel("lip_ratio", "Lip Ratio", 0.0, 0.0, 2.0, "Distance of the inner lips over mouth width"),
    Channel("gaze_left_x", "Gaze Left X", 0.0, -1.0, 1.0, "Iris offset in eye widths, image right"),
    Channel("gaze_left_y", "Gaze Left Y", 0.0, -1.0, 1.0, "Iris offset in eye widths, downwards"),
    Channel("gaze_right_x", "Gaze Right X", 0.0, -1.0, 1.0, "Iris offset in eye widths, image right"),
    Channel("gaze_right_y", "Gaze Right Y", 0.0, -1.0, 1.0, "Iris offset in eye widths, downwards"),
    Channel("gaze_left_known", "Gaze Left Known", False, 0, 1, "The left gaze was measured"),
    Channel("gaze_right_known", "Gaze Right Known", False, 0, 1, "The right gaze was measured"),
    Channel("valid", "Face Found", True, 0, 1, "A face was found; elsewhere the motion is interpolated"),
    Channel("shot", "Shot", 0, 0, 1_000_000, "Number of the shot; nothing is blended over a cut"),
)
RATIOS = ("eye_ratio_left", "eye_ratio_right", "lip_ratio")
# Motion has the image-left eye first, which is the subject's right.
SIDES = ("right", "left")

# What ratios and gaze are with the expression controls added, for drivers to read.
TOTALS: dict[str, str] = {
    "eye_ratio_left": "eye_opening_left",
    "eye_ratio_right": "eye_opening_right",
    "lip_ratio": "lip_opening",
    "gaze_left_x": "look_left_x",
    "gaze_left_y": "look_left_y",
    "gaze_right_x": "look_right_x",
    "gaze_right_y": "look_right_y",
}
# The order of the columns in data/openings.json: image-left first.
DECODED = (
    "eye_ratio_right",
    "eye_ratio_left",
    "lip_ratio",
    "gaze_right_x",
    "gaze_right_y",
    "gaze_left_x",
    "gaze_left_y",
)

ACTION_KEY = "liveportrait"  # the Action's custom property that describes the motion
NEUTRAL_KEY = "liveportrait_neutral"  # the armature data's, if the user has chosen a neutral frame
RIG_KEY = "liveportrait_rig"  # the armature data's: it is a keypoint rig, and which
NEUTRAL_INPUTS_KEY = "liveportrait_channel_neutral"  # the same: what the ARKit channels are relative to


def bone_path(bone: str, what: str) -> str:
    """The data path of a pose bone's transform, from the armature object."""
    return f'pose.bones["{bone}"].{what}'


def property_path(name: str) -> str:
    """The data path of a custom property of the armature object."""
    return f'["{name}"]'


def group_of(data_path: str) -> str:
    """The group that a curve belongs to: its bone's name, or one for the properties."""
    return data_path.split('"')[1] if data_path.startswith("pose.") else "Measured"
