# SPDX-License-Identifier: GPL-3.0-or-later
"""What the released networks computed with the weights of generated_weights.py, and on what.

tests/data/networks_oracle.npz: F is kept at every third channel-depth and fifth pixel, W and G at every fifth
pixel, deformations at every third voxel, items 1 and 2 of F and W at rest at every second channel.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from backend.networks.appearance import AppearanceFeatureExtractor
from backend.networks.checkpoints import fill
from backend.networks.generator import SpadeGenerator
from backend.networks.motion import MotionExtractor
from backend.networks.warping import WarpingModule
from tests.backend import generated_weights as weights

ORACLE = np.load(Path(__file__).parents[1] / "data" / "networks_oracle.npz", allow_pickle=False)
NETWORKS: dict[str, type[nn.Module]] = {
    "appearance_feature_extractor": AppearanceFeatureExtractor,
    "motion_extractor": MotionExtractor,
    "warping_module": WarpingModule,
    "spade_generator": SpadeGenerator,
}


@cache
def network(name: str) -> Any:
    """A network filled with the generated weights."""
    state = {key: torch.from_numpy(value) for key, value in weights.module_state(name).items()}
    return fill(NETWORKS[name](), state, name).eval().requires_grad_(False)


def smooth_noise(name: str, shape: tuple[int, ...], axes: tuple[int, ...]) -> np.ndarray:
    """Noise whose neighbours along `axes` are alike."""
    x = weights.noise(name, int(np.prod(shape))).reshape(shape)
    for axis in axes * 2:
        x = (x + np.roll(x, 1, axis)) * np.sqrt(0.5)
    return x


def warping_input(item: int) -> tuple[Tensor, Tensor, Tensor]:
    """Volume and keypoints of source and driving; those of item 1 leave the volume."""
    volume = smooth_noise("W.feature", (2, 32, 16, 64, 64), (2, 3, 4))
    source = 0.35 * weights.noise("W.kp_source", 126).reshape(2, 21, 3)
    change = weights.noise("W.kp_delta", 126).reshape(2, 21, 3) * np.array([0.12, 0.6])[:, None, None]
    parts = (x[item : item + 1].astype(np.float32) for x in (volume, source, source + change))
    first, second, third = map(torch.from_numpy, parts)
    return first, second, third


def generator_input() -> Tensor:
    return torch.from_numpy((0.7 * smooth_noise("G.seg", (1, 256, 64, 64), (2, 3))).astype(np.float32))


def pictures() -> Tensor:
    return torch.from_numpy(ORACLE["img"]).permute(0, 3, 1, 2).float() / 255


def error(got: Tensor, want: np.ndarray | Tensor) -> float:
    """Largest difference, in standard deviations of what is wanted (in its size, where it is one number)."""
    wanted = np.asarray(want, np.float64)
    assert tuple(got.shape) == wanted.shape
    return float(np.abs(got.double().numpy() - wanted).max() / (wanted.std() or np.abs(wanted).max()))
