# SPDX-License-Identifier: GPL-3.0-or-later
"""A small Hugging Face hub on 127.0.0.1, and a proxy, with the faults that networks have."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

REVISION = "0123456789abcdef0123456789abcdef01234567"


class FakeHub:
    """Serves `files` (path -> content) of one repository the way the hub does: API, then /resolve/, which
    leads to another address for the content.

    `faults[path]` is a list used up request by request: an int is a status; ("break", n) sends n bytes and
    hangs up; ("short", n) pretends that n bytes are all; ("hang", _) says nothing; ("wrong", _) sends other
    bytes; "ignore-range" and "wrong-range" answer from the beginning. `api_status` fails the API; `listed`
    replaces what it says of a file.
    """

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.faults: dict[str, list[Any]] = {}
        self.api_status = 200
        self.api_body: bytes | None = None
        self.listed: dict[str, dict[str, Any]] = {}
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.released = threading.Event()  # ends hanging answers
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                hub.answer(self)

            def log_message(self, *_: object) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def ranges(self, path: str) -> list[str | None]:
        """The Range headers with which a file's content was asked for."""
        return [headers.get("range") for _, asked, headers in self.requests if asked == f"/content/{path}"]

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path = unquote(urlsplit(request.path).path)
        self.requests.append((request.path, path, {k.lower(): v for k, v in request.headers.items()}))
        repository = "/KwaiVGI/LivePortrait"
        if path.startswith(f"/api/models{repository}/revision/"):
            # Renamed repositories lead on.
            send(request, 307, headers={"Location": path.replace("KwaiVGI", "KlingTeam") + "?blobs=True"})
        elif path.startswith("/api/models/KlingTeam/LivePortrait/revision/"):
            self.answer_api(request, path.rsplit("/", 1)[1])
        elif path.startswith(f"{repository}/resolve/{REVISION}/"):
            place = path.removeprefix(f"{repository}/resolve/{REVISION}/")
            send(request, 302, headers={"Location": f"/content/{place}"})
        elif path.startswith("/content/"):
            self.answer_content(request, path.removeprefix("/content/"))
        else:
            send(request, 404)

    def answer_api(self, request: BaseHTTPRequestHandler, revision: str) -> None:
        if self.api_status != 200:
            send(request, self.api_status)
            return
        if revision not in ("main", REVISION):
            send(request, 404, headers={"X-Error-Code": "RevisionNotFound"})
            return
        siblings = [{"rfilename": "README.md", "size": 5, "blobId": "0" * 40}]
        for path, content in self.files.items():
            lfs = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest(), "pointerSize": 134}
            siblings.append(
                {"rfilename": path, "size": len(content), "lfs": {**lfs, **self.listed.get(path, {})}}
            )
        body = json.dumps({"id": "KlingTeam/LivePortrait", "sha": REVISION, "siblings": siblings}).encode()
        send(request, 200, body if self.api_body is None else self.api_body)

    def answer_content(self, request: BaseHTTPRequestHandler, path: str) -> None:
        content = self.files.get(path)
        if content is None:
            send(request, 404)
            return
        waiting = self.faults.get(path, [])
        fault = waiting.pop(0) if waiting else None
        if isinstance(fault, int):
            send(request, fault)
            return
        kind, amount = fault if isinstance(fault, tuple) else (fault, 0)
        if kind == "hang":
            self.released.wait(20)
            request.close_connection = True
            return
        if kind == "wrong":
            content = bytes(len(content))
        if kind == "short":
            content = content[:amount]
        begin, status, headers = 0, 200, {}
        asked = request.headers.get("Range")
        if asked and kind != "ignore-range":
            begin = int(asked.removeprefix("bytes=").removesuffix("-"))
            if begin >= len(content):
                send(request, 416)
                return
            begin = 0 if kind == "wrong-range" else begin
            status, headers = 206, {"Content-Range": f"bytes {begin}-{len(content) - 1}/{len(content)}"}
        body = content[begin:]
        if kind == "break":
            headers["Content-Length"] = str(len(body))
            send(request, status, body[:amount], headers)
            request.close_connection = True
            return
        send(request, status, body, headers)


def send(
    request: BaseHTTPRequestHandler, status: int, body: bytes = b"", headers: dict[str, str] | None = None
) -> None:
    with contextlib.suppress(OSError):  # the client may have gone
        request.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(body)


@contextlib.contextmanager
def serving(files: dict[str, bytes]) -> Iterator[FakeHub]:
    """A hub that answers until the block ends."""
    hub = FakeHub(files)
    thread = threading.Thread(target=hub.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.released.set()
        hub.server.shutdown()
        hub.server.server_close()
        thread.join()
