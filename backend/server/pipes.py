# SPDX-License-Identifier: GPL-3.0-or-later
"""Messages between the server and its worker process: two lengths, a JSON header, raw bytes. No pickles."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from typing import Any, BinaryIO

LENGTHS = 8


def packed(header: Mapping[str, Any], payload: bytes | memoryview = b"") -> bytes:
    head = json.dumps(header).encode()
    return b"".join((len(head).to_bytes(4, "big"), len(payload).to_bytes(4, "big"), head, payload))


def lengths(prefix: bytes) -> tuple[int, int]:
    """Of the header and the payload."""
    return int.from_bytes(prefix[:4], "big"), int.from_bytes(prefix[4:], "big")


class PipeEnd:
    """The worker's end: blocking; several threads may send."""

    def __init__(self, source: BinaryIO, target: BinaryIO) -> None:
        self._source, self._target = source, target
        self._lock = threading.Lock()

    def receive(self) -> tuple[dict[str, Any], bytes] | None:
        """The next message; None when the server is gone."""
        prefix = self._source.read(LENGTHS)
        if len(prefix) < LENGTHS:
            return None
        head, body = lengths(prefix)
        content = self._source.read(head + body)
        if len(content) < head + body:
            return None
        return json.loads(content[:head]), content[head:]

    def send(self, header: Mapping[str, Any], payload: bytes | memoryview = b"") -> None:
        """Raises OSError when the server is gone."""
        message = packed(header, payload)
        with self._lock:
            self._target.write(message)
            self._target.flush()
