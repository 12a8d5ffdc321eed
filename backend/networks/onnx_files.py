# SPDX-License-Identifier: GPL-3.0-or-later
"""The networks as ONNX files: which there are, where they lie, and from which weights each was made.

They lie in the folder `onnx` beside the weights, with a record that names the weights' SHA-256, so that files
made from other weights are never run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backend.errors import EngineError

FOLDER = "onnx"
RECORD = "onnx.json"
FORMAT = "liveportrait-onnx/1"
OPSET = 20  # the first whose GridSample samples volumes
_EXPORT = "Write it again: python -m backend models export --onnx."


@dataclass(frozen=True)
class OnnxFile:
    """One network: its inputs and outputs by name, all of which lead with a batch of any size, and the
    released files (by the catalogue's names) whose weights are in it.
    """

    name: str
    inputs: Mapping[str, tuple[int, ...]]
    outputs: tuple[str, ...]
    weights: tuple[str, ...]


_VOLUME, _KEYPOINTS, _FEATURES = (32, 16, 64, 64), (21, 3), (256, 64, 64)
_WARPING = {"volume": _VOLUME, "source": _KEYPOINTS, "driving": _KEYPOINTS}
_HEADS = ("kp", "scale", "pitch", "yaw", "roll", "t", "exp")
_SMALL = ("stitching_retargeting_module",)

FILES = {
    file.name: file
    for file in (
        OnnxFile(
            "appearance_feature_extractor",
            {"picture": (3, 256, 256)},
            ("volume",),
            ("appearance_feature_extractor",),
        ),
        OnnxFile("motion_extractor", {"picture": (3, 256, 256)}, _HEADS, ("motion_extractor",)),
        OnnxFile("warping_module", _WARPING, ("features",), ("warping_module",)),
        OnnxFile("spade_generator", {"features": _FEATURES}, ("picture",), ("spade_generator",)),
        OnnxFile("stitching", {"features": (126,)}, ("change",), _SMALL),
        OnnxFile("retargeting_eye", {"features": (66,)}, ("change",), _SMALL),
        OnnxFile("retargeting_lip", {"features": (65,)}, ("change",), _SMALL),
    )
}

FUSED = OnnxFile("warping_spade", _WARPING, ("picture",), ("warping_module", "spade_generator"))
"""W and G in one file, for other programs; here they are two, since one may be faster elsewhere."""


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_record(folder: Path) -> dict[str, Any]:
    """What is written down of the files in a folder: name -> {"size", "weights": {name: SHA-256}}; {} where
    there is nothing, or nothing that can be read.
    """
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        files = record["files"] if record["format"] == FORMAT else {}
        return dict(files)
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def write_record(folder: Path, files: Mapping[str, Any], made_with: str) -> None:
    """Write down what is in a folder. OSError."""
    content = {"format": FORMAT, "opset": OPSET, "made_with": made_with, "files": files}
    part = folder / f".{RECORD}.part"
    part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    part.replace(folder / RECORD)


def find(folder: Path, names: Iterable[str], weights: Mapping[str, Path]) -> dict[str, Path]:
    """Those of `names` (of FILES) that are whole in a folder and were made from these weights.

    Hashing the weights takes about half a second.
    """
    record = read_record(folder)
    hashes: dict[Path, str] = {}
    found = {}
    for name in names:
        if _is_whole(folder, name, record) and _is_of(record[name]["weights"], name, weights, hashes):
            found[name] = folder / f"{name}.onnx"
    return found


def require(folder: Path, names: Iterable[str], weights: Mapping[str, Path]) -> dict[str, Path]:
    """As `find`, but all of them. EngineError that names the first that is missing, and why."""
    names = tuple(names)
    found = find(folder, names, weights)
    for name in names:
        if name not in found:
            whole = _is_whole(folder, name, read_record(folder))
            why = "was made from other weights" if whole else f"is not in {folder}, or not whole"
            raise EngineError(f"The network {name}.onnx {why}.", _EXPORT)
    return found


def _is_whole(folder: Path, name: str, record: Mapping[str, Any]) -> bool:
    try:
        return bool((folder / f"{name}.onnx").stat().st_size == record[name]["size"])
    except (OSError, KeyError, TypeError):
        return False


def _is_of(recorded: Any, name: str, weights: Mapping[str, Path], hashes: dict[Path, str]) -> bool:
    """Whether a file was made from these weights."""
    for one in FILES[name].weights:
        path = weights[one]
        if path not in hashes:
            hashes[path] = sha256_of(path)
        if not isinstance(recorded, dict) or recorded.get(one) != hashes[path]:
            return False
    return True
