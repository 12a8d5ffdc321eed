# SPDX-License-Identifier: GPL-3.0-or-later
"""Fetches the released weights: first a plan that can be shown (what, how large, from where), then the files.

Nothing here runs unless somebody asks for it, and a folder that has everything is never asked about.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from backend.errors import DownloadError, InputError, OutputError, WeightsError
from backend.models import catalogue, hub, store, transfer
from backend.models.catalogue import REPOSITORY, ModelFile
from backend.models.weight_files import check_structure

SPARE = 16 << 20  # bytes of disk that stay free


@dataclass(frozen=True)
class Item:
    """One file of a plan: kept as it lies at `path`, or to be fetched there; `have` bytes are there."""

    file: ModelFile
    path: Path
    size: int
    have: int
    fetch: bool


@dataclass(frozen=True)
class Plan:
    """What a download will do; `listing` is None where nothing has to be fetched."""

    folder: Path
    items: tuple[Item, ...]
    listing: hub.Listing | None = None

    @property
    def bytes_to_fetch(self) -> int:
        return sum(item.size - item.have for item in self.items if item.fetch)


@dataclass(frozen=True)
class Transferred:
    """Progress: `done` of `size` bytes of a file, `all_done` of `all_size` bytes of everything to fetch."""

    name: str
    done: int
    size: int
    all_done: int
    all_size: int


def make_plan(
    folder: Path,
    revision: str | None = None,
    replacing: bool = False,
    offline: bool = False,
    files: Sequence[ModelFile] | None = None,
) -> Plan:
    """Look at the folder and, if anything is missing or damaged, at the hub. Nothing is fetched or written.

    Without `revision` it is the hub's newest, and what it offers has to be the released files that the
    catalogue knows by SHA-256; whoever names a revision trusts its checksums. `replacing` fetches what is
    sound but not the same, too. Raises DownloadError or InputError.
    """
    files = catalogue.FILES if files is None else files
    found = {file.name: _sound(folder, file) for file in files}
    if not replacing and revision is None and all(found.values()):
        kept = ((file, path) for file in files if (path := found[file.name]) is not None)
        return Plan(folder, tuple(_kept(file, path) for file, path in kept))
    reason = "--offline" if offline else hub.offline_because()
    if reason is not None:
        raise hub.offline(reason)
    listing = hub.look_up(revision or "main", hub.endpoint())
    items = []
    for file in files:
        path = found[file.name]
        if path is not None and not replacing:
            items.append(_kept(file, path))
            continue
        offered = _offered(listing, file, revision)
        if path is not None and sha256_of(path) == offered.sha256:
            items.append(_kept(file, path))
            continue
        part = transfer.part_of(folder, offered.sha256)
        have = min(part.stat().st_size, offered.size) if part.is_file() else 0
        wanted = replace(file, sha256=offered.sha256)
        items.append(Item(wanted, store.target(folder, file), offered.size, have, True))
    return Plan(folder, tuple(items), listing)


def _sound(folder: Path, file: ModelFile) -> Path | None:
    """The file's path if it is there and its structure is right."""
    path = store.locate(folder, file)
    if path is None:
        return None
    try:
        check_structure(file, path)
    except WeightsError:
        return None
    return path


def _kept(file: ModelFile, path: Path) -> Item:
    size = path.stat().st_size
    return Item(file, path, size, size, False)


def _offered(listing: hub.Listing, file: ModelFile, revision: str | None) -> hub.HubFile:
    offered = listing.files.get(file.path)
    if offered is None:
        raise DownloadError(
            f"{listing.endpoint} has no {file.path}, or gives no checksum for it.",
            "Check HF_ENDPOINT and --revision.",
        )
    if revision is None and (offered.sha256, offered.size) != (file.sha256, file.size):
        raise DownloadError(
            f"{listing.endpoint} now offers another {file.path} than the released one.",
            f"Check the mirror, or trust this one with --revision {listing.revision}.",
            f"SHA-256 {offered.sha256} instead of {file.sha256}",
        )
    return offered


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal. Raises InputError."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}).", "Make it readable.") from error


def carry_out(
    plan: Plan,
    progress: Callable[[Transferred], None] | None = None,
    cancel: threading.Event | None = None,
) -> None:
    """Fetch what the plan says, one file after the other, each checked before it is put in place.

    Raises DownloadError, OutputError or Cancelled; files that are whole stay, and the next call goes on.
    """
    listing = plan.listing
    if listing is None or not any(item.fetch for item in plan.items):
        return
    with store.writing(plan.folder):
        plan.folder.mkdir(parents=True, exist_ok=True)
    with _alone(plan.folder), hub.new_client() as client:
        _check_room(plan)
        record = store.read_record(plan.folder)
        record.repository, record.endpoint = REPOSITORY, listing.endpoint
        all_size = sum(item.size for item in plan.items if item.fetch)
        before = 0
        for item in plan.items:
            if not item.fetch:
                continue
            url = transfer.file_url(listing, REPOSITORY, item.file.path)
            wanted = transfer.Wanted(item.path.name, url, item.size, item.file.sha256, item.path)

            def report(done: int, item: Item = item, before: int = before) -> None:
                if progress is not None:
                    progress(Transferred(item.path.name, done, item.size, before + done, all_size))

            transfer.fetch(client, wanted, plan.folder, report, cancel)
            record.files[item.file.name] = store.Fetched(item.size, item.file.sha256, listing.revision)
            store.write_record(plan.folder, record)
            before += item.size


def _check_room(plan: Plan) -> None:
    free = shutil.disk_usage(plan.folder).free
    if plan.bytes_to_fetch + SPARE > free:
        raise OutputError(
            f"{plan.folder} has {free / 1e6:.0f} MB of room, {plan.bytes_to_fetch / 1e6:.0f} MB are to come.",
            "Make room, or name another folder with --models DIR.",
        )


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keeps a second download out of the folder, and leaves no empty workshop behind."""
    import filelock

    parts = folder / transfer.PARTS
    with store.writing(parts):
        parts.mkdir(exist_ok=True)
    lock = filelock.FileLock(parts / "lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout as error:
        raise DownloadError(
            f"Another download into {folder} is running.", "Wait for it to end, or stop it."
        ) from error
    try:
        yield
    finally:
        lock.release()
        with contextlib.suppress(OSError):  # somebody else has it now, or parts of unfinished files are there
            (parts / "lock").unlink()
            parts.rmdir()
