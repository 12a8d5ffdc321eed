# SPDX-License-Identifier: GPL-3.0-or-later
"""Everything that is bounded, in one place; PROTOCOL.md lists it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields

from backend.errors import InputError

MIB = 1 << 20


@dataclass(frozen=True)
class Limits:
    """Bytes, numbers and seconds; see PROTOCOL.md."""

    message_bytes: int = 16 * MIB
    text_bytes: int = 4 * MIB
    header_bytes: int = 4096
    nesting: int = 16
    connections: int = 32
    strangers: int = 8
    hello_seconds: int = 10
    requests: int = 64
    queue: int = 64
    queue_total: int = 512
    sessions: int = 64
    detached_seconds: int = 60
    open_sources: int = 64
    source_bytes: int = 1024 * MIB
    uploads: int = 4
    upload_bytes: int = 8192 * MIB
    store_bytes: int = 16384 * MIB

    @property
    def chunk(self) -> int:
        """Bytes of a file that a binary message should hold."""
        return max(min(4 * MIB, self.message_bytes - self.header_bytes - 4), 1)


def limits_from(settings: Iterable[str]) -> Limits:
    """Limits with NAME=VALUE applied. Raises InputError."""
    known = {entry.name for entry in fields(Limits)}
    values: dict[str, int] = {}
    for setting in settings:
        name, _, text = setting.partition("=")
        if name not in known or not (text.isascii() and text.isdigit()) or len(text) > 15:
            raise InputError(
                f"{setting!r} is no limit.", f"Write NAME=NUMBER with one of {', '.join(known)}."
            )
        values[name] = int(text)
    return Limits(**values)
