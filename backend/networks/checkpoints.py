# SPDX-License-Identifier: GPL-3.0-or-later
"""The released weights: how they are read, and what is said when they cannot be used.

Reading runs no code that a file brings along. Every fault is one line: a WeightsError, or an
EngineError where there is no file.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from backend.errors import EngineError, WeightsError
from backend.models import key_in_part
from backend.networks.tensor_files import TensorFileError, read_tensor_file

PARTS = ("retarget_shoulder", "retarget_mouth", "retarget_eye")
"""What the file stitching_retargeting_module holds: the state dicts of S, R_lip and R_eye."""

_COUNTER = "num_batches_tracked"
_DOWNLOAD = "Fetch the weights again: python -m backend models download."
Network = TypeVar("Network", bound=nn.Module)


def load_state(path: Path) -> dict[str, Tensor]:
    """The state dict in a file: key -> tensor on the CPU. WeightsError for anything else or damage."""
    return _tensors(_read(path), path)


def read_parts(path: Path) -> dict[str, dict[str, Tensor]]:
    """The state dicts of S, R_lip and R_eye by the names in PARTS, with the networks' own keys.

    A .safetensors file knows no dicts in a dict, so there the part's name leads each key. WeightsError.
    """
    content = _read(path)
    if path.suffix == ".safetensors":
        content = {part: {k: v for k, v in content.items() if k.startswith(part)} for part in PARTS}
    parts = {}
    for part in PARTS:
        if not isinstance(content, Mapping) or not isinstance(content.get(part), Mapping):
            raise WeightsError(f"{path.name} lacks the part {part}.", _DOWNLOAD)
        renamed = {
            key_in_part(part, key) if isinstance(key, str) else key: value
            for key, value in content[part].items()
        }
        parts[part] = _tensors(renamed, path)
    return parts


def fill(network: Network, state: Mapping[str, Tensor], name: str) -> Network:
    """Copy a state dict into a network, strictly: every key, of its shape, and no other. WeightsError.

    Only the counters of training steps may be absent, as in files of older PyTorch; inference reads none.
    """
    wanted = network.state_dict()
    counters = {key: torch.zeros((), dtype=torch.int64) for key in wanted if key.endswith(_COUNTER)}
    state = {**counters, **state}
    missing = [key for key in wanted if key not in state]
    strange = [key for key in state if key not in wanted]
    wrong = [key for key in wanted if key in state and state[key].shape != wanted[key].shape]
    for keys, what in ((missing, "lack"), (strange, "have the unknown"), (wrong, "have another shape in")):
        if keys:
            more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
            raise WeightsError(f"The weights of {name} {what} {keys[0]}{more}.", _DOWNLOAD)
    for key, value in state.items():
        if value.is_floating_point() != wanted[key].is_floating_point():
            raise WeightsError(f"The weights of {name} have another type in {key}.", _DOWNLOAD)
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise WeightsError(f"The weights of {name} are not finite in {key}.", _DOWNLOAD)
    network.load_state_dict(state)
    return network.requires_grad_(False).eval()


def _read(path: Path) -> Any:
    """What a file holds, tensors and plain containers alone."""
    if not path.is_file():
        raise EngineError(f"There is no file {path}.", _DOWNLOAD)
    try:
        return read_tensor_file(path)
    except TensorFileError as error:
        raise WeightsError(
            f"{path.name} is damaged or holds something else than weights; nothing in it was run.",
            _DOWNLOAD,
            str(error),
        ) from error


def _tensors(content: Any, path: Path) -> dict[str, Tensor]:
    """`content` if it is a state dict."""
    if not isinstance(content, Mapping) or not content:
        raise WeightsError(f"{path.name} holds no weights.", _DOWNLOAD)
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, Tensor) or value.layout is not torch.strided:
            raise WeightsError(f"{path.name} holds something else than weights.", _DOWNLOAD)
    return dict(content)
