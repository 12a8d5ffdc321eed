# SPDX-License-Identifier: GPL-3.0-or-later
"""`--server URL`: the command line's animate, render and capture by a server that runs already."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI
from websockets.sync.client import ClientConnection, connect

from backend import errors
from backend.capture import Cancel
from backend.errors import InputError, LivePortraitError, OutputError
from backend.library import library_names
from backend.options import Options
from backend.progress import Progress
from backend.results import check_writable, make_folder, open_result, options_as_json, write_atomically
from backend.server.messages import PROTOCOL, binary

TOKEN = "LIVEPORTRAIT_TOKEN"
LOOK = 0.1  # seconds between two looks at whether the job is still wanted
ANSWER = 60.0
CHUNK = 256 << 10  # bytes a message; masking in Python slows down with what does not fit into the cache


class Remote:
    """A connection of one command."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._number = 0
        self._local = False

    def hello(self, token: str) -> None:
        """Raises LivePortraitError."""
        try:
            told = self.ask(
                "hello", {"token": token, "protocol": PROTOCOL, "client": {"name": "command line"}}
            )
        except ConnectionClosed as error:
            raise InputError("The server refused the token.", f"Set {TOKEN} to the server's.") from error
        with contextlib.suppress(OSError, ValueError, LivePortraitError):
            self.ask("prove", {"nonce": Path(told["nonce_file"]).read_text("ascii")})
            self._local = True

    def ask(self, method: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """Raises the error that the server tells."""
        self._number += 1
        request = {"jsonrpc": "2.0", "id": self._number, "method": method, "params": params}
        self._socket.send(json.dumps(request))
        while True:
            try:
                message = self._socket.recv(timeout=ANSWER)
            except TimeoutError:
                raise LivePortraitError("The server does not answer.", "See its log.") from None
            if isinstance(message, bytes) or (answer := json.loads(message)).get("id") != self._number:
                continue
            if "error" in answer:
                raise _error({**answer["error"].get("data", {}), "message": answer["error"]["message"]})
            return dict(answer["result"])

    def input(self, what: str | Path) -> dict[str, str]:
        """An INPUT of the protocol: a path, an upload, or a name of the library."""
        path = Path(what)
        if not path.exists():
            if str(what) in library_names():
                return {"library": str(what)}
            raise InputError(f"There is no file or library motion called {str(what)!r}.", "Check the name.")
        if self._local:
            return {"path": str(path.absolute())}
        if path.is_dir():
            raise InputError(f"{path.name} is a folder, which cannot be sent.", "Make a clip of it.")
        return {"sha256": self.upload(path)}

    def upload(self, path: Path) -> str:
        """Bring a file's content to the server unless it is there: its SHA-256."""
        with path.open("rb") as stream:
            sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
            size = stream.seek(0, os.SEEK_END)
            begun = self.ask("upload.begin", {"sha256": sha256, "size": size, "name": path.name})
            if begun.get("have"):
                return sha256
            offset = stream.seek(begun["offset"])
            while block := stream.read(min(begun["chunk"], CHUNK)):
                self._socket.send(
                    binary({"type": "upload", "upload": begun["upload"], "offset": offset}, block)
                )
                offset += len(block)
        self.ask("upload.finish", {"upload": begun["upload"]})
        return sha256

    def drain(self, job: str) -> int:
        """Wait for a job's end without keeping anything: how many bytes came. Raises its error."""
        size = 0
        while True:
            message = self._socket.recv(timeout=ANSWER)
            if isinstance(message, bytes):
                size += len(message)
                continue
            params = json.loads(message).get("params", {})
            if params.get("job") == job and "state" in params:
                if "error" in params:
                    raise _error(params["error"])
                return size

    def carry_out(
        self, job: str, folder: Path, names: Mapping[str, Path], progress: Progress, cancel: Cancel | None
    ) -> dict[str, Any]:
        """Follow a job to its end: frames to `folder`, files to where `names` says. Raises its error."""
        asked = False
        while True:
            try:
                message = self._socket.recv(timeout=LOOK)
            except TimeoutError:
                message = None
            if not asked and cancel is not None and cancel.is_set():
                asked = True
                request = {"jsonrpc": "2.0", "id": "cancel", "method": "job.cancel", "params": {"job": job}}
                self._socket.send(json.dumps(request))
            if isinstance(message, bytes):
                _keep(message, folder, names)
            elif message is not None:
                told = json.loads(message)
                method, params = told.get("method"), told.get("params", {})
                if params.get("job") != job:
                    continue
                if method == "job.progress":
                    progress.update(params["stage"], params["done"], params["total"])
                elif method == "job.warning":
                    progress.warn(params["message"])
                elif method == "job.finished":
                    if "error" in params:
                        raise _error(params["error"])
                    return dict(params["result"])


@contextlib.contextmanager
def connected(url: str) -> Iterator[Remote]:
    """A server that has been greeted. Raises LivePortraitError for what goes wrong with the connection."""
    token = os.environ.get(TOKEN, "")
    if not token:
        raise InputError("There is no token for the server.", f"Set {TOKEN}.")
    certificate = os.environ.get("SSL_CERT_FILE")
    context = ssl.create_default_context(cafile=certificate) if url.startswith("wss:") else None
    try:
        with connect(url, ssl=context, compression=None, proxy=None, max_size=None) as socket:
            remote = Remote(socket)
            remote.hello(token)
            yield remote
    except ConnectionClosed as error:
        raise LivePortraitError("The server ended the connection.", "See its log, then try again.") from error
    except (InvalidURI, InvalidHandshake, ssl.SSLError, ConnectionError, TimeoutError) as error:
        raise InputError(f"Cannot talk to {url}: {error}.", "Check the address and that it runs.") from error


def animate(
    url: str,
    source: Path,
    driving: str | None,
    faces: Mapping[int, str],
    output: Path,
    options: Options,
    progress: Progress,
    cancel: Cancel | None,
) -> dict[str, Any]:
    """As pipeline.animate: the same output. Returns what result.json holds."""
    result = open_result(output)
    result.check([path for path in (source, *map(Path, [driving or "", *faces.values()])) if path.is_file()])
    clip = output.suffix.lower() == ".mp4"
    with connected(url) as remote:
        asked: dict[str, Any] = {
            "source": remote.input(source),
            "options": _options(options),
            "output": "mp4" if clip else "frames",
            "motion": not clip,
        }
        if driving is not None:
            asked["driving"] = remote.input(driving)
        if faces:
            asked["faces"] = {str(number): remote.input(each) for number, each in faces.items()}
        make_folder(output.parent if clip else output)
        job = remote.ask("animate", asked)["job"]
        motions = ("motion.npz", *(f"motion_{number}.npz" for number in {*faces, options.face or 0}))
        names = {"result.mp4": output, **{name: output / name for name in motions}}
        told = remote.carry_out(job, output, names, progress, cancel)
    if not clip:
        write_atomically(output / "result.json", json.dumps(told, indent=1, ensure_ascii=False))
    return told


def capture(
    url: str,
    driving: str,
    output: Path,
    options: Options,
    keep_mouth: bool,
    progress: Progress,
    cancel: Cancel | None,
) -> dict[str, Any]:
    """As pipeline.capture_to_file."""
    form = output.suffix.lower().removeprefix(".")
    if form not in ("npz", "pkl"):
        raise InputError(
            f"Cannot write {output.name}.", "Give a name that ends in .npz, or .pkl for a template."
        )
    check_writable(output.parent)
    with connected(url) as remote:
        asked = {"driving": remote.input(driving), "options": _options(options), "keep_mouth": keep_mouth}
        make_folder(output.parent)
        job = remote.ask("motion.capture", asked)["job"]
        names = {f"motion.{form}": output}
        told = remote.carry_out(job, output.parent, names, progress, cancel)
        if form == "pkl":
            asked = {"motion": {"sha256": told["sha256"]}, "format": "pkl"}
            job = remote.ask("motion.convert", asked)["job"]
            remote.carry_out(job, output.parent, names, progress, cancel)
        return told


def _options(options: Options) -> dict[str, Any]:
    """Those that are not as always."""
    told, usual = options_as_json(options), options_as_json(Options())
    if options.models is not None:
        told["models"] = str(options.models.absolute())
    names = [entry.name for entry in fields(Options)]
    return {name: told[name] for name in names if told[name] != usual[name]}


def _keep(message: bytes, folder: Path, names: Mapping[str, Path]) -> None:
    """Write a frame or a part of a file."""
    length = int.from_bytes(message[:4], "big")
    header, payload = json.loads(message[4 : 4 + length]), memoryview(message)[4 + length :]
    try:
        if header["type"] == "frame":
            target = folder / f"{int(header['index']):06d}.png"
            temporary = target.with_name(f".{target.name}.tmp")
            temporary.write_bytes(payload)
            temporary.replace(target)
        elif header["type"] == "file" and header["name"] in names:
            target = names[header["name"]]
            temporary = target.with_name(f".{target.name}.part")
            with temporary.open("r+b" if header["offset"] else "wb") as stream:
                stream.seek(header["offset"])
                stream.write(payload)
            if header["offset"] + len(payload) >= header["size"]:
                temporary.replace(target)
    except OSError as error:
        raise OutputError(f"Cannot write in {folder}: {error.strerror}.", "Free some space.") from error


def _error(told: Mapping[str, Any]) -> LivePortraitError:
    """The server's error as one of ours, so that the exit code is the same."""
    kinds = {
        kind.code: kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, LivePortraitError)
    }
    kind = kinds.get(str(told.get("code")), LivePortraitError)
    if told.get("code") in ("bad-params", "forbidden", "not-found", "too-many"):
        kind = InputError
    return kind(str(told.get("message", "")), str(told.get("hint", "")), str(told.get("details", "")))
