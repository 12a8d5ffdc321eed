# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that only somebody on this machine, and only this user, can read: what they hold proves that."""

from __future__ import annotations

import logging
import os
import re
import secrets
import shutil
import stat
import tempfile
from pathlib import Path

from backend.server.lifecycle import is_alive

PREFIX = "liveportrait-nonces-"
FOLDER = re.compile(PREFIX + r"(\d{1,10})-\w+")
FILE = re.compile(r"[0-9a-f]{16}")

log = logging.getLogger("backend.server")


class Nonces:
    """A folder of them, 0700, for this process; its name says whose it is."""

    def __init__(self) -> None:
        remove_left()
        self.folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-"))

    def new(self) -> tuple[Path, str]:
        """A file, 0600, and what it holds."""
        path, nonce = self.folder / secrets.token_hex(8), secrets.token_hex(32)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as stream:
            stream.write(nonce)
        return path, nonce

    def close(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def remove_left() -> None:
    """Remove the folders of servers that were killed. What may be anything else stays: it has to have the
    name, belong to this user, hold nothing but nonces, and its process has to be gone.
    """
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        found = FOLDER.fullmatch(folder.name)
        try:
            if found is None or is_alive(int(found[1])) or not _is_ours(folder):
                continue
            for file in folder.iterdir():
                file.unlink()
            folder.rmdir()
        except OSError as error:
            log.debug("%s stays: %s", folder, error)


def _is_ours(folder: Path) -> bool:
    facts = folder.lstat()
    if not stat.S_ISDIR(facts.st_mode) or (hasattr(os, "getuid") and facts.st_uid != os.getuid()):
        return False
    return all(FILE.fullmatch(file.name) and file.lstat().st_size <= 64 for file in folder.iterdir())
