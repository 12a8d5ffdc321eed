# SPDX-License-Identifier: GPL-3.0-or-later
"""Stand-in weights for the networks: a function of each tensor's name and shape alone.

The released weights are not at hand everywhere, and a network is checked as well by others: the released
implementation was run with these, and what it computed is in tests/data. A tensor `key` of a module is

    value[i] = offset + spread * n[i],    n[i] = sqrt(3) (2 u[i] - 1),    u[i] in [0, 1) by splitmix64

seeded with crc32("module/key") (Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators").
Nothing but numpy is needed for them, and the numbers are the same on every machine.

    python -m tests.backend.generated_weights DIR     writes .pth files in the released layout (needs torch)
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import sys
import zlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np

from backend.models import catalogue

KEYS = Path(__file__).parents[1] / "data" / "released_keys.json"
PARTS = ("retarget_shoulder", "retarget_mouth", "retarget_eye")  # of the file stitching_retargeting_module
POWER_STEPS = 5  # too few on purpose: a spectral norm computed anew would differ by some per cent

# Where the usual spread would make a network explode, die out or leave its working range. Pattern on
# "module/key" -> (spread, offset); a spread below is divided by the root of the fan-in unless it is absolute.
_SCALED = {
    r"appearance_feature_extractor/second\.weight": 1.0,
    r"appearance_feature_extractor/resblocks_3d\..*\.conv2\.weight": 0.5,
    r"motion_extractor/detector\.fc_(kp|scale)\.weight": 0.2,
    r"motion_extractor/detector\.fc_exp\.weight": 0.04,
    r"motion_extractor/detector\.fc_t\.weight": 0.1,
    r"motion_extractor/detector\.fc_(pitch|yaw|roll)\.weight": 1.2,
    r"motion_extractor/detector\.downsample_layers\.0\.0\.weight": 3.0,
    r"warping_module/dense_motion_network\.mask\.weight": 8.0,
    r"warping_module/dense_motion_network\.occlusion\.weight": 3.0,
    r"warping_module/third\.conv\.weight": 1.4,
    r"warping_module/fourth\.weight": 1.0,
    r"spade_generator/fc\.weight": 1.0,
    r"spade_generator/.*\.mlp_(gamma|beta)\.weight": 0.5,
    r"spade_generator/conv_img\.0\.weight": 2.0,
    r"retarget_(shoulder|mouth)/mlp\.6\.weight": 0.05,
    r"retarget_eye/mlp\.10\.weight": 0.05,
}
_ABSOLUTE = {
    r"motion_extractor/detector\.fc_kp\.bias": (0.15, 0.0),
    r"motion_extractor/detector\.fc_exp\.bias": (0.01, 0.0),
    r"motion_extractor/detector\.fc_scale\.bias": (0.0, 1.45),
    r"motion_extractor/detector\.fc_t\.bias": (0.05, 0.0),
    r"motion_extractor/detector\.stages\..*\.grn\.(gamma|beta)": (0.5, 0.0),
    r"retarget_(shoulder|mouth)/mlp\.6\.bias": (0.005, 0.0),
    r"retarget_eye/mlp\.10\.bias": (0.005, 0.0),
}

State = dict[str, np.ndarray]


def noise(name: str, count: int) -> np.ndarray:
    """`count` float64 of mean 0 and variance 1, evenly spread over +- sqrt 3."""
    mask = (1 << 64) - 1
    start = (zlib.crc32(name.encode()) * 0x9E3779B97F4A7C15 + 0x9E3779B97F4A7C15) & mask
    with np.errstate(over="ignore"):
        z = np.arange(count, dtype=np.uint64) * np.uint64(0xD1342543DE82EF95) + np.uint64(start)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    u = (z >> np.uint64(40)).astype(np.float64) / (1 << 24)
    return math.sqrt(3.0) * (2.0 * u - 1.0)


@cache
def released_keys() -> dict[str, dict[str, tuple[int, ...]]]:
    """Module -> key -> shape of the released state dicts, without the prefix that S's parts may carry."""
    modules = json.loads(KEYS.read_text(encoding="utf-8"))["modules"]
    return {name: {key: tuple(shape) for key, shape in keys.items()} for name, keys in modules.items()}


def module_state(module: str, shapes: Mapping[str, tuple[int, ...]] | None = None) -> State:
    """The state dict of a module (a name of `released_keys`), for its released keys or for `shapes`."""
    shapes = shapes or released_keys()[module]
    state: State = {}
    for key, shape in shapes.items():
        count = math.prod(shape)
        if key.endswith("num_batches_tracked"):
            state[key] = np.ones(shape, np.int64)
        elif not key.endswith(("weight_u", "weight_v")):
            spread, offset = _distribution(module, key, shape)
            state[key] = (offset + spread * noise(f"{module}/{key}", count)).astype(np.float32).reshape(shape)
    for key in [key for key in shapes if key.endswith("weight_orig")]:
        base = key.removesuffix("weight_orig")
        state[base + "weight_u"], state[base + "weight_v"] = _power_iteration(module, base, state[key])
    return {key: state[key] for key in shapes}


def _distribution(module: str, key: str, shape: tuple[int, ...]) -> tuple[float, float]:
    """Spread and offset of a tensor's values."""
    name = f"{module}/{key}"
    fan_in = math.prod(shape[1:]) if len(shape) > 1 else 1
    for pattern, fixed in _ABSOLUTE.items():
        if re.fullmatch(pattern, name):
            return fixed
    for pattern, gain in _SCALED.items():
        if re.fullmatch(pattern, name):
            return gain / math.sqrt(fan_in), 0.0
    if key.endswith("running_mean"):
        return 0.2, 0.0
    if key.endswith("running_var"):
        return 0.2, 1.0
    if key.endswith("bias"):
        return 0.05, 0.0
    if len(shape) == 1 and key.endswith("weight"):  # the scale of a normalisation
        return 0.15, 1.0
    if key.endswith("weight_orig") or module == "motion_extractor":
        return 1.0 / math.sqrt(fan_in), 0.0
    return math.sqrt(2.0 / fan_in), 0.0


def _power_iteration(module: str, base: str, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The singular vectors that come with a spectrally normalised weight, in steps of 2^-20."""
    matrix = weight.reshape(len(weight), -1).astype(np.float64)
    u = noise(f"{module}/{base}weight_u", len(matrix))
    u /= np.sqrt((u * u).sum())
    v = np.empty(0)
    for _ in range(POWER_STEPS):
        v = matrix.T @ u
        v /= np.sqrt((v * v).sum())
        u = matrix @ v
        u /= np.sqrt((u * u).sum())
    steps = float(1 << 20)
    return (np.rint(u * steps) / steps).astype(np.float32), (np.rint(v * steps) / steps).astype(np.float32)


def digest(state: Mapping[str, np.ndarray]) -> str:
    """16 digits of SHA-256 over the keys and bytes in order of key."""
    total = hashlib.sha256()
    for key in sorted(state):
        total.update(key.encode())
        total.update(np.ascontiguousarray(state[key]).tobytes())
    return total.hexdigest()[:16]


def write(folder: Path, modules: tuple[str, ...] | None = None) -> None:
    """Write .pth files in the released layout below `folder`: all, or the files named."""
    import torch

    for name in modules or tuple(file.name for file in catalogue.FILES if file.layout):
        path = weights_path(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        if name == "stitching_retargeting_module":
            torch.save({part: _tensors(module_state(part), "module.") for part in PARTS}, path)
        else:
            torch.save(_tensors(module_state(name)), path)


def weights_path(folder: Path, name: str) -> Path:
    """Where `write` puts a file."""
    return next(folder / file.path for file in catalogue.FILES if file.name == name)


def _tensors(state: State, prefix: str = "") -> dict[str, object]:
    import torch

    return {prefix + key: torch.from_numpy(value) for key, value in state.items()}


if __name__ == "__main__":
    write(Path(sys.argv[1]))
