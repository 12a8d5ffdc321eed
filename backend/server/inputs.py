# SPDX-License-Identifier: GPL-3.0-or-later
"""Inputs of requests, and what identifies a result: what is asked, of which content, by which version."""

from __future__ import annotations

import asyncio
import hashlib
import json
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backend import __version__
from backend.errors import InputError
from backend.library import library_file, library_names
from backend.models import FoundModels, find
from backend.options import Options
from backend.results import options_as_json
from backend.server.calls import ignore
from backend.server.messages import RequestError, bad_params
from backend.server.params import SHA256, Params
from backend.server.sessions import Input, Session
from backend.server.store import Store

if TYPE_CHECKING:
    from backend.server.worker_process import WorkerProcess

FORMAT = "1"  # of keys; changes when results of the same request do not fit together any more
OF_CAPTURE = (
    "engine",
    "models",
    "device",
    "driving_crop",
    "driving_crop_scale",
    "driving_crop_x",
    "driving_crop_y",
    "frames",
    "fps",
    "driving_face",
    "face_order",
    "compatibility",
)
OF_SOURCE = (
    "engine",
    "models",
    "device",
    "crop",
    "rotate",
    "crop_scale",
    "crop_x",
    "crop_y",
    "face",
    "face_order",
    "compatibility",
    "eye_retargeting",
    "lip_retargeting",
    "normalize_lips",
)


def input_of(given: Mapping[str, Any], session: Session, store: Store, *, library: bool) -> Input:
    """Check an INPUT. Raises RequestError, InputError."""
    params = Params(given)
    if len(given) != 1:
        raise bad_params("An input has one of path, sha256 and library.")
    if params.has("sha256"):
        sha256 = params.text("sha256")
        if not SHA256.fullmatch(sha256):
            raise bad_params("sha256 has to be 64 hexadecimal digits.")
        return Input(store.content(sha256), "", sha256)
    if params.has("library") and library:
        name = params.text("library", longest=80)
        if name not in library_names():
            raise InputError(
                f"There is no library motion {ascii(name)}.", f"One of: {', '.join(library_names())}."
            )
        return Input(None, name, store.fingerprint(library_file(name)))
    return Input(_local_file(params.text("path"), session), "", "")


def _local_file(text: str, session: Session) -> Path:
    if not session.local:
        raise RequestError(
            "forbidden", "Paths are for clients that proved to be on this machine.", "Upload the file."
        )
    path = Path(text)
    if not path.is_absolute():
        raise bad_params("path has to be absolute.")
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        raise InputError(f"There is no file {ascii(text)}.", "Check the path.") from None
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise InputError(f"{ascii(text)} is neither a file nor a folder.", "Give a file.")
    return path


def check_models(options: Options, session: Session) -> None:
    """`models` is a path, too. Raises RequestError."""
    if options.models is not None and not session.local:
        raise RequestError(
            "forbidden", "models is for clients that proved to be on this machine.", "Leave it out."
        )


async def resolved_engine(options: Options, given: Mapping[str, Any], worker: WorkerProcess) -> str:
    """Which engine "auto" is at the moment, so that no result is made by two.

    Weights that look right may still be damaged, or too large for the card; only the worker, which loads
    them, knows. Raises RequestError where it does not live.
    """
    if options.engine != "auto":
        return options.engine
    if not isinstance(await asyncio.to_thread(find, options), FoundModels):
        return "mesh"
    # Not to be cancelled: what waits for it is told at once, and the engine is needed by the next one too.
    told, _ = await worker.run("quick", {"do": "engine", "options": given}, ignore, asyncio.Event())
    return str(told["engine"])


def key_of(what: str, inputs: Mapping[str, str], asked: Mapping[str, Any]) -> str:
    """SHA-256 of what identifies a result."""
    told = {"format": FORMAT, "version": __version__, "what": what, "inputs": inputs, "asked": asked}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def some_options(options: Options, names: tuple[str, ...] | None = None) -> dict[str, Any]:
    """Those that matter, as JSON."""
    known = options_as_json(options)
    return {name: known[name] for name in (names or known) if name in known}


def sha256_of(file: Input, store: Store) -> str:
    """The content of an input; a file is read. Raises InputError."""
    if file.sha256:
        return file.sha256
    assert file.path is not None
    return store.fingerprint(file.path)
