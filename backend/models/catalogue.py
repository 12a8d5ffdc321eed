# SPDX-License-Identifier: GPL-3.0-or-later
"""The files that LivePortrait's authors released: what each is, its size, its SHA-256, its licence, and the
tensors in it.

Sizes and SHA-256 are those of the LFS objects in the Hugging Face repository KwaiVGI/LivePortrait (renamed
KlingTeam/LivePortrait, the old name leads there), commit 82a4fa6735ca58432b6ce39301b4b9ee066dea47, as several
public programs that fetch them list them. Code and weights are under the MIT licence, landmark.onnx included;
the repository's InsightFace and X-Pose models, which are for non-commercial use only, are never fetched.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

REPOSITORY = "KwaiVGI/LivePortrait"

Layout = Mapping[str, Mapping[str, tuple[int, ...]]]  # part -> key -> shape; "" where there is one part


@dataclass(frozen=True)
class ModelFile:
    """One released file; `path` is relative to the repository, `size` in bytes."""

    name: str
    path: str
    size: int
    sha256: str
    what: str
    licence: str = "MIT"
    required: bool = True

    @property
    def stem(self) -> str:
        """The path without folder and ending; repackaged files keep it."""
        return Path(self.path).stem

    @property
    def layout(self) -> Layout | None:
        """The tensors that have to be in it; None for a file that is not a set of tensors."""
        return weights_layout().get(self.name)


FILES = (
    ModelFile(
        "appearance_feature_extractor",
        "liveportrait/base_models/appearance_feature_extractor.pth",
        3_387_959,
        "5279bb8654293dbdf327030b397f107237dd9212fb11dd75b83dfb635211ceb5",
        "the look of the source",
    ),
    ModelFile(
        "motion_extractor",
        "liveportrait/base_models/motion_extractor.pth",
        112_545_506,
        "251e6a94ad667a1d0c69526d292677165110ef7f0cf0f6d199f0e414e8aa0ca5",
        "head pose and expression",
    ),
    ModelFile(
        "warping_module",
        "liveportrait/base_models/warping_module.pth",
        182_180_086,
        "2f61a6f265fe344f14132364859a78bdbbc2068577170693da57fb96d636e282",
        "moves the look",
    ),
    ModelFile(
        "spade_generator",
        "liveportrait/base_models/spade_generator.pth",
        221_813_590,
        "4780afc7909a9f84e24c01d73b31a555ef651521a1fe3b2429bd04534d992aee",
        "paints the picture",
    ),
    ModelFile(
        "stitching_retargeting_module",
        "liveportrait/retargeting_models/stitching_retargeting_module.pth",
        2_393_098,
        "3652d5a3f95099141a56986aaddec92fadf0a73c87a20fac9a2c07c32b28b611",
        "shoulders, eyes and lips",
    ),
    ModelFile(
        "landmark",
        "liveportrait/landmark.onnx",
        114_666_491,
        "31d22a5041326c31f19b78886939a634a5aedcaa5ab8b9b951a1167595d147db",
        "203 face landmarks (optional)",
        required=False,
    ),
)


@cache
def weights_layout() -> Mapping[str, Layout]:
    """File -> part -> key -> shape of every tensor; made by scripts/make_weights_layout.py."""
    table = Path(__file__).resolve().parents[1] / "data" / "weights_layout.json"
    return {
        name: {part: {key: tuple(shape) for key, shape in keys.items()} for part, keys in parts.items()}
        for name, parts in json.loads(table.read_text(encoding="utf-8")).items()
    }
