# SPDX-License-Identifier: GPL-3.0-or-later
"""Files of tensors, read without running anything that they bring along."""

from __future__ import annotations

import json
import pickle
import struct
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_UNREADABLE = (
    OSError, RuntimeError, ValueError, TypeError, LookupError, AttributeError, AssertionError, EOFError,
    MemoryError, RecursionError, OverflowError, struct.error, pickle.UnpicklingError,
)  # fmt: skip
_TYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
          "I64": torch.int64, "I32": torch.int32}  # fmt: skip
_LARGEST_HEADER = 100_000_000  # bytes, as in the format's own reader


class TensorFileError(Exception):
    """A file that is damaged, or that holds something else than tensors and plain containers."""


def read_tensor_file(path: Path) -> Any:
    """What torch.save or safetensors wrote, on the CPU. TensorFileError for everything else."""
    try:
        if path.suffix == ".safetensors":
            return _read_safetensors(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        raise TensorFileError(str(error)) from error


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    """Eight bytes with the header's length, the header in JSON (name -> type, shape, bytes from and to), the
    numbers; all little-endian (the format's own description, huggingface/safetensors README).
    """
    data = path.read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    if length > _LARGEST_HEADER:
        raise ValueError("the header is too long")
    header = json.loads(data[8 : 8 + length].decode("utf-8"))
    body = bytearray(data[8 + length :])
    return {
        name: _tensor(body, entry["dtype"], entry["shape"], *entry["data_offsets"])
        for name, entry in header.items()
        if name != "__metadata__"
    }


def _tensor(body: bytearray, kind: str, shape: list[int], first: int, stop: int) -> Tensor:
    if not 0 <= first <= stop <= len(body):
        raise ValueError("numbers are missing")
    values = torch.empty(0, dtype=_TYPES[kind])
    if stop > first:
        values = torch.frombuffer(
            body, dtype=_TYPES[kind], offset=first, count=(stop - first) // values.itemsize
        )
    return values.reshape(shape)
