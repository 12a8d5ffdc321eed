# SPDX-License-Identifier: GPL-3.0-or-later
"""Weights that mean nothing and cost the same as the released ones, for timing where those are not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from backend.models import catalogue

from .appearance import AppearanceFeatureExtractor
from .checkpoints import fill, load_state
from .generator import SpadeGenerator
from .motion import MotionExtractor
from .retargeting import SIZES, Perceptron
from .warping import WarpingModule

WARP, DRAW = "warping_module", "spade_generator"

KINDS: Mapping[str, Callable[[], nn.Module]] = {
    "appearance_feature_extractor": AppearanceFeatureExtractor,
    "motion_extractor": MotionExtractor,
    WARP: WarpingModule,
    DRAW: SpadeGenerator,
}


def write_random(folder: Path) -> dict[str, Path]:
    """Such weights in the released layout: files by the catalogue's names."""
    torch.manual_seed(0)
    paths = {}
    for file in catalogue.FILES:
        if file.layout is None:
            continue
        path = paths[file.name] = folder / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        if file.name in KINDS:
            torch.save(_random_state(KINDS[file.name]()), path)
        else:
            torch.save({part: Perceptron(sizes).state_dict() for part, sizes in SIZES.items()}, path)
    return paths


def _random_state(network: nn.Module) -> dict[str, Tensor]:
    """PyTorch's own start values; singular vectors, which start as nothing, at random."""
    state = dict(network.state_dict())
    for key, value in state.items():
        if key.endswith(("weight_u", "weight_v")):
            vector = torch.randn_like(value)
            state[key] = vector / vector.norm()
    return state


def loaded(files: Mapping[str, Path], name: str) -> Any:
    """A network with its weights."""
    return fill(KINDS[name](), load_state(files[name]), name)
