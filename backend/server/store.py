# SPDX-License-Identifier: GPL-3.0-or-later
"""The server's own folder: uploads by SHA-256, results by what was asked, and a bound on the whole.

uploads/<sha256>/<name>     content     parts/<sha256>     uploads that are not whole
work/<key>/                 frames/, result.json, ...      <key>.lock held while a server uses it
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from backend.driving import fingerprint
from backend.errors import InputError, OutputError
from backend.server.messages import RequestError, too_many

UNSAFE = re.compile(r"[^\w.\- ]")
NAME_LENGTH = 80
HASHES = 4096  # of files on this machine that are remembered
PART_AGE = 24 * 3600  # seconds that an unfinished upload is kept


@dataclass
class Upload:
    """A file that is arriving."""

    sha256: str
    size: int
    name: str
    stream: BinaryIO
    part: Path
    offset: int
    digest: Any  # hashlib's, of what has come

    def add(self, payload: memoryview) -> None:
        """The next bytes. Raises OSError."""
        self.stream.write(payload)
        self.digest.update(payload)
        self.offset += len(payload)

    def close(self) -> None:
        self.stream.close()


class Store:
    """Blocking: call it on a thread where it reads or removes much."""

    def __init__(self, root: Path, most_bytes: int) -> None:
        self.root, self._most = root, most_bytes
        self._hashes: dict[tuple[str, int, int], str] = {}
        try:
            for name in ("uploads", "parts", "work"):
                (root / name).mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise OutputError(
                f"Cannot make {root}: {error.strerror}.", "Choose another with --cache."
            ) from error

    # --- inputs ---------------------------------------------------------------------------------------------

    def content(self, sha256: str) -> Path:
        """The file with this content. Raises RequestError (not-found)."""
        folder = self.root / "uploads" / sha256
        found = sorted(folder.iterdir()) if folder.is_dir() else []
        if not found:
            raise RequestError("not-found", "The server does not have this content.", "Upload it.")
        with contextlib.suppress(OSError):
            os.utime(folder)
        return found[0]

    def has(self, sha256: str) -> bool:
        try:
            return bool(self.content(sha256))
        except RequestError:
            return False

    def keep(self, path: Path, sha256: str, name: str) -> Path:
        """Take a file of our own over as content."""
        target = self.root / "uploads" / sha256 / _safe(name)
        if not self.has(sha256):
            target.parent.mkdir(exist_ok=True)
            temporary = self.root / "parts" / f"{sha256}.{os.getpid()}.copy"
            shutil.copyfile(path, temporary)
            temporary.replace(target)
        return target

    def fingerprint(self, path: Path) -> str:
        """SHA-256 of an input; a file that has not changed is read once. Raises InputError."""
        try:
            facts = path.stat()
            known = (str(path), facts.st_mtime_ns, facts.st_size)
            if path.is_dir():
                return fingerprint(path)
            if known not in self._hashes:
                if len(self._hashes) >= HASHES:
                    self._hashes.clear()
                self._hashes[known] = fingerprint(path)
            return self._hashes[known]
        except OSError as error:
            raise InputError(
                f"Cannot read {path.name}: {error.strerror}.", "Check the file and its permissions."
            ) from error

    def begin(self, sha256: str, size: int, name: str) -> Upload:
        """Start an upload, or go on where an earlier one ended. Raises RequestError, OutputError."""
        if size > self._most or self.evict(size) > self._most:
            raise too_many("store_bytes", "The server has no room for this file.", "Try again in an hour.")
        free = shutil.disk_usage(self.root).free
        if size > free:
            raise OutputError("The server's disk has no room for this file.", "Free some space there.")
        # One writer a part: another connection that sends the same gets a part of its own.
        part = self.root / "parts" / sha256
        stream = part.open("ab")
        if not _locked(stream):
            stream.close()
            descriptor, path = tempfile.mkstemp(prefix=f"{sha256}.", dir=self.root / "parts")
            part, stream = Path(path), os.fdopen(descriptor, "ab")
        offset = stream.seek(0, os.SEEK_END)
        if offset > size:
            stream.truncate(0)
            offset = 0
        with part.open("rb") as before:
            digest = hashlib.file_digest(before, "sha256")
        return Upload(sha256, size, _safe(name), stream, part, offset, digest)

    def finish(self, upload: Upload) -> None:
        """Check what came and make it content. Raises RequestError (upload)."""
        upload.stream.flush()
        if upload.offset != upload.size or upload.digest.hexdigest() != upload.sha256:
            self.drop(upload)
            raise RequestError("upload", "What came is not what was announced.", "Send the file again.")
        target = self.root / "uploads" / upload.sha256 / upload.name
        if self.has(upload.sha256):
            self.drop(upload)
            return
        target.parent.mkdir(exist_ok=True)
        upload.part.replace(target)
        upload.close()

    def drop(self, upload: Upload) -> None:
        upload.part.unlink(missing_ok=True)
        upload.close()

    # --- results --------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def working(self, key: str) -> Iterator[Path]:
        """The folder of a result, ours alone. Where another server has it, one that is removed at the end."""
        folder = self.root / "work" / key
        with (self.root / "work" / f"{key}.lock").open("ab") as lock:
            if _locked(lock):
                folder.mkdir(exist_ok=True)
                os.utime(folder)
                yield folder
                return
        other = Path(tempfile.mkdtemp(prefix=f"{key}.", dir=self.root / "work"))
        try:
            yield other
        finally:
            shutil.rmtree(other, ignore_errors=True)

    def bytes_used(self) -> int:
        return sum(size for _, size, _ in self._entries())

    def evict(self, coming: int = 0) -> int:
        """Remove the longest unused until there is room; what a server uses stays.

        Returns the bytes that are then in use, with those that are `coming`.
        """
        entries = sorted(self._entries())
        used = sum(size for _, size, _ in entries) + coming
        for age, size, place in entries:
            stale = place.parent.name == "parts" and time.time() - age > PART_AGE
            if used <= self._most and not stale:
                continue
            if self._remove(place):
                used -= size
        return used

    def _entries(self) -> list[tuple[float, int, Path]]:
        """(time of last use, bytes, place)."""
        found = []
        for place in (*self.root.glob("uploads/*"), *self.root.glob("work/*"), *self.root.glob("parts/*")):
            if place.suffix == ".lock":
                continue
            with contextlib.suppress(OSError):
                inside = place.rglob("*") if place.is_dir() else [place]
                size = sum(child.stat().st_size for child in inside)
                found.append((place.stat().st_mtime, size, place))
        return found

    def _remove(self, place: Path) -> bool:
        if place.parent.name == "uploads":
            # A job may be reading it: what is younger than an hour stays.
            if time.time() - place.stat().st_mtime < 3600:
                return False
            shutil.rmtree(place, ignore_errors=True)
            return True
        lock = place if place.is_file() else place.with_name(f"{place.name.partition('.')[0]}.lock")
        with contextlib.suppress(OSError), lock.open("ab") as stream:
            if not _locked(stream):
                return False
            if place.is_dir():
                shutil.rmtree(place, ignore_errors=True)
            else:
                place.unlink(missing_ok=True)
            if lock != place:
                lock.unlink(missing_ok=True)
        return not place.exists()


def _safe(name: str) -> str:
    """A file name that means nothing to any file system."""
    plain = UNSAFE.sub("_", name).strip(" .")[-NAME_LENGTH:].lstrip(" .")
    return plain or "file"


def _locked(stream: BinaryIO) -> bool:
    """Take the lock of an open file; it goes when the file is closed or the process ends."""
    try:
        if os.name == "nt":
            import msvcrt

            stream.seek(0)
            msvcrt.locking(stream.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
        else:
            import fcntl

            fcntl.flock(stream.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
