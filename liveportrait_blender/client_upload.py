# SPDX-License-Identifier: GPL-3.0-or-later
"""How files become inputs, and come to a backend on another machine. Imports no bpy."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .client_jobs import BackendError

CHUNK = 256 << 10  # bytes a message; masking in Python slows down with what does not fit into the cache


def has_files(params: Mapping[str, Any]) -> bool:
    """Whether with_inputs has anything to do."""
    faces = params.get("faces")
    values = [*params.values(), *(faces.values() if isinstance(faces, Mapping) else ())]
    return any(isinstance(value, Path) for value in values)


def with_inputs(params: Mapping[str, Any], prepare: Callable[[Path], Any]) -> dict[str, Any]:
    """Parameters of a request with every Path made an input by `prepare`, those of `faces` as well."""

    def made(value: Any) -> Any:
        return prepare(value) if isinstance(value, Path) else value

    given = {name: made(value) for name, value in params.items()}
    if isinstance(given.get("faces"), Mapping):
        given["faces"] = {str(number): made(each) for number, each in given["faces"].items()}
    return given


def upload(path: Path, call: Callable[..., Any], send: Callable[[Any, bytes], None], patience: float) -> str:
    """Bring a file there unless it is there: its SHA-256. An earlier attempt is gone on with.

    call: asks and waits. send: sends a binary message. patience: seconds for the check at the end. Raises
    BackendError.
    """
    if path.is_dir():
        what = f"{path.name} is a folder, which cannot be sent."
        raise BackendError("bad-input", what, "Make a clip of it.")
    try:
        with path.open("rb") as stream:
            sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
            size = stream.seek(0, os.SEEK_END)
            begun = call("upload.begin", {"sha256": sha256, "size": size, "name": path.name})
            if begun.get("have"):
                return sha256
            offset = stream.seek(begun["offset"])
            while block := stream.read(min(begun["chunk"], CHUNK)):
                send({"type": "upload", "upload": begun["upload"], "offset": offset}, block)
                offset += len(block)
    except OSError as error:
        raise BackendError("bad-input", f"{path.name} cannot be read: {error.strerror}.") from error
    call("upload.finish", {"upload": begun["upload"]}, timeout=patience)
    return sha256
