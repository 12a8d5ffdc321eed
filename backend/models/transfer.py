# SPDX-License-Identifier: GPL-3.0-or-later
"""Brings one file from the hub: in several tries if need be, checked, and put in place when it is whole.

huggingface_hub's own download throws away what has come when it fails (2.4.0, file_download.py), so that a
bad line never gets 200 MB; here a part is kept under the name of its SHA-256 and the next try goes on from
its end.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from backend.errors import Cancelled, DownloadError
from backend.models import hub
from backend.models.store import writing

PAUSES = (1.0, 2.0, 4.0)  # seconds before each new try while nothing comes
PIECE = 1 << 18  # bytes
PARTS = ".partial"

_PASSING = {408, 425, 429, 500, 502, 503, 504}  # statuses after which trying again is worth while


@dataclass(frozen=True)
class Wanted:
    """A file to fetch: its path in the repository at a commit, and what it has to be."""

    name: str
    url: str
    size: int
    sha256: str
    destination: Path


class _Broken(Exception):
    """This try is over, the next may do better."""

    def __init__(self, error: DownloadError) -> None:
        super().__init__(str(error))
        self.error = error


def file_url(listing: hub.Listing, repository: str, path: str) -> str:
    """The address of a file's content at the listing's commit."""
    return f"{listing.endpoint}/{repository}/resolve/{quote(listing.revision, safe='')}/{quote(path)}"


def part_of(folder: Path, sha256: str) -> Path:
    """Where the beginning of a file is kept until it is whole."""
    return folder / PARTS / f"{sha256}.part"


def fetch(
    client: Any,
    wanted: Wanted,
    folder: Path,
    report: Callable[[int], None],
    cancel: threading.Event | None = None,
) -> None:
    """Fetch a file to its destination; `report` is told the number of bytes that are there.

    Raises DownloadError, OutputError (disk full) or Cancelled; what has come stays for the next call.
    """
    part = part_of(folder, wanted.sha256)
    with writing(part):
        part.parent.mkdir(parents=True, exist_ok=True)
        had = part.stat().st_size if part.exists() else 0
        if had > wanted.size:
            part.unlink()
    digest = _receive_all(client, wanted, part, report, cancel)
    if digest != wanted.sha256 and had:
        # What an earlier run left may be what is wrong; nothing is lost by starting once more.
        _remove(part)
        digest = _receive_all(client, wanted, part, report, cancel)
    if digest != wanted.sha256:
        _remove(part)
        raise DownloadError(
            f"{wanted.name} arrived with a wrong checksum and was thrown away.",
            "Try again; if it happens again, check proxy and mirror (HF_ENDPOINT).",
            f"SHA-256 {digest} instead of {wanted.sha256}",
        )
    with writing(wanted.destination):
        wanted.destination.parent.mkdir(parents=True, exist_ok=True)
        part.replace(wanted.destination)


def _remove(part: Path) -> None:
    with writing(part):
        part.unlink(missing_ok=True)


def _receive_all(
    client: Any, wanted: Wanted, part: Path, report: Callable[[int], None], cancel: threading.Event | None
) -> str:
    """Fill the part to the wanted size, in as many tries as bring something; gives its SHA-256."""
    digest = hashlib.sha256()
    with writing(part), part.open("ab+") as file:
        file.seek(0)
        while piece := file.read(PIECE):
            digest.update(piece)
        have = file.tell()
        report(have)
        failures = 0
        while have < wanted.size:
            before = have
            try:
                for piece in _pieces(client, wanted, have):
                    if not piece:  # the server ignores ranges and begins anew
                        file.truncate(0)
                        digest, have = hashlib.sha256(), 0
                        continue
                    have += len(piece)
                    if have > wanted.size:
                        file.truncate(0)
                        raise DownloadError(
                            f"{wanted.name} is longer than the hub says.",
                            "Check proxy and mirror (HF_ENDPOINT).",
                        )
                    file.write(piece)
                    digest.update(piece)
                    report(have)
                    _stop_if(cancel)
            except _Broken as broken:
                file.flush()
                failures = 0 if have > before else failures + 1
                if failures > len(PAUSES):
                    raise broken.error from broken
                _wait(PAUSES[max(failures - 1, 0)], cancel)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def _pieces(client: Any, wanted: Wanted, have: int) -> Iterator[bytes]:
    """The content from byte `have` on; an empty piece first if it comes from the beginning after all."""
    from huggingface_hub.utils import httpx

    hub_address = "/".join(wanted.url.split("/", 3)[:3])
    headers = hub.headers()
    if have:
        headers["Range"] = f"bytes={have}-"
    try:
        with client.stream("GET", wanted.url, headers=headers) as response:
            status = response.status_code
            if status in _PASSING:
                raise _Broken(hub.explain_status(status, wanted.name, hub_address))
            if status == 416:
                raise _Broken(_short(wanted, have))
            if status not in (200, 206):
                raise hub.explain_status(status, wanted.name, hub_address)
            if status == 206 and not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
                raise _Broken(_short(wanted, have))
            if have and status == 200:
                yield b""
                have = 0
            for piece in response.iter_raw():  # as it comes: filling pieces up would lose their beginnings
                have += len(piece)
                yield piece
    except (httpx.TransportError, httpx.StreamError) as error:
        raise _Broken(_one_line(hub.explain(error, wanted.name, hub_address))) from error
    except httpx.HTTPError as error:
        raise hub.explain(error, wanted.name, hub_address) from error
    if have < wanted.size:
        raise _Broken(_short(wanted, have))


def _short(wanted: Wanted, have: int) -> DownloadError:
    return DownloadError(
        f"{wanted.name} ends after {have} of {wanted.size} bytes at the hub.",
        "Try again later, or check proxy and mirror (HF_ENDPOINT); what has come so far is kept.",
    )


def _one_line(error: Exception) -> DownloadError:
    return error if isinstance(error, DownloadError) else DownloadError(str(error))


def _wait(seconds: float, cancel: threading.Event | None) -> None:
    (cancel or threading.Event()).wait(seconds)
    _stop_if(cancel)


def _stop_if(cancel: threading.Event | None) -> None:
    if cancel is not None and cancel.is_set():
        raise Cancelled(
            "The download was stopped.", "What has come is kept; the same command goes on from there."
        )
