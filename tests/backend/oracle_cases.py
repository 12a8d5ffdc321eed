# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs option combinations of the released program through the project's own retargeting.

tests/data/pipeline_oracle.json describes such combinations, and pipeline_oracle.npz holds what went into them
and what came out: landmarks, templates, what M measured in each picture (`M.<checksum of the picture>.*`),
x_s and x_d. Any further combination made from the same kinds of options runs in the same way.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from backend.motion import Motion
from backend.options import Options
from backend.ratios import eye_ratio, lip_ratio
from backend.retargeting import retarget
from backend.retargeting_case import Retargeter
from backend.rotations import rotation_from_euler
from tests.backend import generated_weights as weights

CLIPS = (".mp4", ".mov", ".avi", ".webm")
REGIONS = {"exp": "expression", "lip": "lips"}  # the others have one name in both programs


def run_case(combo: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Keypoints of source and animation, x_s and x_d (n, 21, 3) float32, in upstream compatibility.

    combo: one of the entries "combos" of the description; arrays: the recorded numbers.
    """
    clip_source = combo["source"].endswith(CLIPS)
    pictures = list(combo["M_inputs"])
    # The driving is measured before the source, and of a clip source only the frames that are used.
    of_driving = len(pictures) - (combo["n_frames"] if clip_source else 1)
    driving = _driving(combo["driving"], pictures[:of_driving], arrays)
    source = _measured(pictures[of_driving:], _source_landmarks(combo, arrays), arrays)
    clip_driving = len(driving) > 1 or combo["driving"].endswith(CLIPS)
    done = retarget(
        source,
        driving,
        _options(combo["effective"]),
        networks(),
        reference=driving[0] if clip_driving else None,
        source_is_clip=clip_source,
    )
    return {"x_s": done.source, "x_d": done.driving}


def _options(effective: Mapping[str, Any]) -> Options:
    return Options(
        compatibility="upstream",
        driving_option=effective["driving_option"],
        relative=effective["flag_relative_motion"],
        stitch=effective["flag_stitching"],
        region=REGIONS.get(effective["animation_region"], effective["animation_region"]),
        multiplier=effective["driving_multiplier"],
        normalize_lips=effective["flag_normalize_lip"],
        eye_retargeting=effective["flag_eye_retargeting"],
        lip_retargeting=effective["flag_lip_retargeting"],
        steady_source_eyes=effective["flag_source_video_eye_retargeting"],
        observation_variance=effective["driving_smooth_observation_variance"],
    )


def _driving(name: str, pictures: list[str], arrays: Mapping[str, np.ndarray]) -> Motion:
    if not name.startswith("template "):
        return _measured(pictures, arrays[f"lmk203.{_key(name)}"], arrays)
    template = {
        part: arrays[f"tpl.{name.removeprefix('template ')}.{part}"]
        for part in ("R", "exp", "scale", "t", "c_eyes", "c_lip")
    }
    return Motion(
        rotation=template["R"][:, 0],
        expression=template["exp"][:, 0],
        scale=template["scale"].ravel(),
        translation=template["t"][:, 0],
        canonical=np.zeros((21, 3)),
        eye_ratio=template["c_eyes"][:, 0],
        lip_ratio=template["c_lip"].ravel(),
    )


def _source_landmarks(combo: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    key = f"lmk203.{_key(combo['source'])}"
    if combo["open_lip_landmarks"]:  # with another mouth, which was recorded for one picture
        for opened in (f"{key.rpartition('.')[0]}_open", "lmk203.source_s9_open"):
            if opened in arrays and not combo["source"].endswith(CLIPS):
                return arrays[opened]
    return arrays[key]


def _key(path: str) -> str:
    """folder/file as landmarks are named: folder_file."""
    return path.replace("/", "_")


def _measured(pictures: list[str], landmarks: np.ndarray, arrays: Mapping[str, np.ndarray]) -> Motion:
    """What M measured in the pictures, a frame each; landmarks (203, 2), or (k, 203, 2) of frames 0 to k."""
    points = landmarks.reshape(-1, 203, 2)[: len(pictures)]
    value = {
        name: np.concatenate([arrays[f"M.{picture}.{name}"] for picture in pictures])
        for name in ("pitch", "yaw", "roll", "t", "exp", "scale", "kp")
    }
    return Motion(
        rotation=rotation_from_euler(value["pitch"][:, 0], value["yaw"][:, 0], value["roll"][:, 0]),
        expression=value["exp"],
        scale=value["scale"][:, 0],
        translation=value["t"],
        canonical=value["kp"],
        eye_ratio=eye_ratio(points),
        lip_ratio=lip_ratio(points),
    )


@cache
def networks() -> Retargeter:
    """S, R_eye and R_lip with the weights that the numbers were recorded with."""
    import torch

    from backend.networks.retargeting import RetargetingNetworks

    states = {part: weights.module_state(part) for part in weights.PARTS}
    return RetargetingNetworks(
        {
            part: {key: torch.from_numpy(value) for key, value in state.items()}
            for part, state in states.items()
        }
    )


def recorded(folder: Path) -> tuple[list[dict[str, Any]], Mapping[str, np.ndarray]]:
    """The combinations and numbers in a folder, tests/data or another with the same two files."""
    import json

    text = next(folder.glob("pipeline*.json")).read_text(encoding="utf-8")
    return json.loads(text)["combos"], np.load(next(folder.glob("pipeline*.npz")), allow_pickle=False)
