# SPDX-License-Identifier: GPL-3.0-or-later
"""Taking away what lies in the extension's own folder, and nothing else. Imports no bpy."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any


class NotOurs(Exception):
    """Something outside the extension's own folder was to be removed."""


def remove_inside(root: Path, path: Path) -> None:
    """Remove a file or folder strictly below `root`. A link is removed, never what it leads to.

    Raises:
        NotOurs: it is not below `root`; nothing was touched.
        OSError: some of it could not be removed.
    """
    place = path.parent.resolve() / path.name
    own = root.resolve()
    if own not in place.parents or ".." in path.parts:
        raise NotOurs(f"{path} is not below {root}")
    if place.is_symlink() or _is_junction(place) or place.is_file():
        place.unlink()
    elif place.is_dir():
        shutil.rmtree(place, onerror=_writable_first)


def size_of(path: Path) -> int:
    """Bytes below a folder, links not followed; what cannot be read counts nothing."""
    total = 0
    for folder, _, names in os.walk(path, onerror=None):
        for name in names:
            try:
                total += (Path(folder) / name).lstat().st_size
            except OSError:
                continue
    return total


def is_alive(pid: int) -> bool:
    """Whether a process runs. In doubt, yes."""
    if os.name != "nt":
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        except (PermissionError, OverflowError):
            return True
        return True
    import ctypes

    kernel = ctypes.WinDLL("kernel32", use_last_error=True)  # type: ignore[attr-defined,unused-ignore]
    kernel.OpenProcess.restype = ctypes.c_void_p
    kernel.WaitForSingleObject.argtypes = ctypes.c_void_p, ctypes.c_uint32
    kernel.CloseHandle.argtypes = (ctypes.c_void_p,)
    process = kernel.OpenProcess(0x00100000, False, pid)  # SYNCHRONIZE
    if not process:
        nobody = 87  # ERROR_INVALID_PARAMETER; anything else is somebody else's process
        return bool(ctypes.get_last_error() != nobody)  # type: ignore[attr-defined,unused-ignore]
    try:
        return bool(kernel.WaitForSingleObject(process, 0) != 0)
    finally:
        kernel.CloseHandle(process)


def _is_junction(path: Path) -> bool:
    try:
        attributes = getattr(path.lstat(), "st_reparse_tag", 0)
    except OSError:
        return False
    return bool(attributes == getattr(stat, "IO_REPARSE_TAG_MOUNT_POINT", -1))


def _writable_first(function: Callable[..., Any], path: str, _: object) -> None:
    """Once more after making it writable: Windows keeps read-only files, and so do read-only folders."""
    parent = Path(path).parent
    for target in (parent, Path(path)):
        if not target.is_symlink():
            target.chmod(target.stat().st_mode | stat.S_IWUSR | (stat.S_IXUSR if target.is_dir() else 0))
    function(path)
