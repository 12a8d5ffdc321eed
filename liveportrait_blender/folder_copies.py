# SPDX-License-Identifier: GPL-3.0-or-later
"""Folders of results copied beside a .blend on a thread. Imports no bpy.

Nothing is taken away here: whatever happens meanwhile, a quit included, the originals and the file that shows
them are as they were.
"""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

log = logging.getLogger(__name__)


@dataclass
class Copying:
    """root: what the copies lie in. make: a new folder in it of about a name. files: what of a folder goes.

    `copies` are (original, copy), whole ones alone; `error` is a sentence, "" while all is well. `made_root`:
    whether there was no root before.
    """

    folders: Sequence[Path]
    root: Path
    make: Callable[[Path, str], Path]
    files: Callable[[Path], list[Path]]
    copies: list[tuple[Path, Path]] = field(default_factory=list)
    error: str = ""
    done: int = 0  # bytes
    total: int = 0
    target: Path | None = None  # that is being written
    made_root: bool = False
    _cancel: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="liveportrait-copy", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        if self._thread is not None:
            self._thread.join()

    def cancel(self) -> None:
        """End soon; `discard` is up to the caller."""
        self._cancel.set()

    @property
    def cancelled(self) -> bool:
        return self._cancel.is_set()

    @property
    def ended(self) -> bool:
        return self._thread is not None and not self._thread.is_alive()

    @property
    def factor(self) -> float:
        return min(self.done / self.total, 1.0) if self.total else 0.0

    @property
    def targets(self) -> list[Path]:
        """All that was made, the unfinished one too."""
        return [copy for _, copy in self.copies] + ([self.target] if self.target is not None else [])

    def _run(self) -> None:
        try:
            self._copy()
        except OSError as error:
            log.warning("Results cannot be copied", exc_info=True)
            self.error = f"The frames cannot be brought to {self.root}: {error.strerror or error}."
        except Exception as error:  # a thread has nobody else to tell
            log.exception("Results cannot be copied")
            self.error = f"The frames cannot be brought to {self.root}: {error}."

    def _copy(self) -> None:
        found = [(folder, self.files(folder)) for folder in self.folders]
        self.total = sum(path.stat().st_size for _, files in found for path in files)
        self.made_root = not self.root.exists()
        self.root.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.root).free
        if self.total > free:
            self.error = (
                f"The frames take {self.total / 1e6:.0f} MB, and {self.root} has room for {free / 1e6:.0f}."
            )
            return
        for folder, files in found:
            self.target = self.make(self.root, folder.name)
            for path in files:
                if self._cancel.is_set():
                    return
                shutil.copy2(path, self.target / path.name)
                self.done += path.stat().st_size
            self.copies.append((folder, self.target))
            self.target = None
