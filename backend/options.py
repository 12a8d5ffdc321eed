# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of a job: the same words on the command line, in the protocol and in the panel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Literal

REGIONS = ("all", "expression", "pose", "lips", "eyes")
FACE_ORDERS = (
    "large-small",
    "small-large",
    "left-right",
    "right-left",
    "top-bottom",
    "bottom-top",
    "distance-from-center",
)


@dataclass(frozen=True)
class Options:
    """What to do with a source and a driving performance. Defaults are the product's.

    driving_crop None crops a driving clip only when it is not square. `frames` is half-open on the driving
    timeline. `source_smoothing` steadies the motion of a clip source; `observation_variance` is that of
    the released program's smoothing of clip sources, which upstream compatibility alone applies.
    `steady_source_eyes` brings every frame of a clip source to the eye opening of its first, `silence_lips`
    its lips to rest before the driving moves them; `length_policy` says what happens when source and driving
    differ in length. `face` is the source's, `driving_face` the driving's; both count in `face_order`, None
    is the largest. `audio` auto is the driving clip's sound, or else the source's. `controls` maps names of
    expression_controls.json to values in their published units.
    """

    engine: Literal["auto", "mesh", "neural"] = "auto"
    models: Path | None = None
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    runtime: Literal["auto", "torch", "onnx"] = "auto"
    relative: bool = True
    driving_option: Literal["expression-friendly", "pose-friendly"] = "expression-friendly"
    multiplier: float = 1.0
    region: Literal["all", "expression", "pose", "lips", "eyes"] = "all"
    stitch: bool = True
    crop: bool = True
    rotate: bool = True
    paste_back: bool = True
    driving_crop: bool | None = None
    normalize_lips: bool = False
    eye_retargeting: bool = False
    lip_retargeting: bool = False
    lock_scale: bool = False
    eye_gain: float = 1.0
    lip_gain: float = 1.0
    smoothing: float | Literal["off", "auto"] = "off"
    source_smoothing: float | Literal["off", "auto"] = "off"
    observation_variance: float = 3e-7
    steady_source_eyes: bool = False
    silence_lips: bool = False
    length_policy: Literal["cut", "constant", "cycle", "mirror"] = "cut"
    crop_scale: float = 2.3
    crop_x: float = 0.0
    crop_y: float = -0.125
    driving_crop_scale: float = 2.2
    driving_crop_x: float = 0.0
    driving_crop_y: float = -0.1
    reference_frame: int | Literal["auto"] = 0
    face: int | None = None
    driving_face: int | None = None
    face_order: str = "large-small"
    audio: Literal["auto", "driving", "source", "none"] = "auto"
    frames: tuple[int, int | None] | None = None
    fps: Fraction | None = None
    compatibility: Literal["product", "upstream"] = "product"
    controls: Mapping[str, float] = field(default_factory=dict)
