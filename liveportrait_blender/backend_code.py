# SPDX-License-Identifier: GPL-3.0-or-later
"""The backend's code, copied out of the installed extension. Imports no bpy.

Nothing is run or written inside an installed extension: an update replaces it, and Windows cannot replace
what runs. So its `backend/` is copied to `<user folder>/backend-<version>/backend/` and runs there.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
from pathlib import Path

from .own_files import NotOurs, is_alive, remove_inside

MARKER = ".liveportrait-code"  # in a copy, so that nothing else is ever taken for one
IN_USE = ".in-use-"  # and the number of a process that runs from it
_LEFT_OUT = ("__pycache__",)


def version_of(code: Path) -> str:
    """The backend's version, read from its text. Raises OSError, ValueError."""
    text = (code / "backend" / "__init__.py").read_text(encoding="utf-8")
    found = re.search(r'^__version__ = "([0-9A-Za-z.+-]{1,40})"', text, re.MULTILINE)
    if found is None:
        raise ValueError("The backend's version is missing; reinstall the extension.")
    return found[1]


def fingerprint(code: Path) -> str:
    """Of the names and contents of all files of `code`/backend, what Python itself writes left out."""
    top = code / "backend"
    digest = hashlib.sha256()
    for path in sorted(top.rglob("*"), key=lambda path: path.relative_to(top).as_posix()):
        name = path.relative_to(top)
        if path.is_file() and not any(part in _LEFT_OUT for part in name.parts):
            digest.update(name.as_posix().encode() + b"\0")
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def placed(code: Path, folder: Path) -> Path:
    """The folder to run the backend from: a whole copy of `code`/backend below `folder`, made if need be.

    The copy appears whole or not at all; one that differs is replaced. Where that cannot be, because a
    process of another Blender holds it (Windows), the copy gets a name of its own.

    Raises:
        OSError: it cannot be read or written.
        ValueError: the code is not whole.
    """
    wanted = fingerprint(code)
    target = folder / f"backend-{version_of(code)}"
    for place in (target, target.with_name(f"{target.name}-{wanted[:8]}")):
        if _is_copy(place) and fingerprint(place) == wanted:
            return place
        fresh = folder / f".{place.name}.{os.getpid()}.part"
        with contextlib.suppress(FileNotFoundError):
            remove_inside(folder, fresh)
        shutil.copytree(code / "backend", fresh / "backend", ignore=shutil.ignore_patterns(*_LEFT_OUT))
        (fresh / MARKER).write_text(wanted + "\n", encoding="ascii")
        if _put(fresh, place, folder):
            return place
    raise OSError(f"{target} cannot be replaced; close the other Blenders and try again")


def _put(fresh: Path, place: Path, folder: Path) -> bool:
    """Move a copy to its place; what was there goes, if it was a copy."""
    try:
        if place.exists():
            if not _is_copy(place) and any(place.iterdir()):
                raise OSError(f"{place} is in the way and is none of the add-on's; move it elsewhere")
            old = folder / f".{place.name}.{os.getpid()}.old"
            place.replace(old)
            fresh.replace(place)
            with contextlib.suppress(OSError):
                remove_inside(folder, old)
        else:
            fresh.replace(place)
    except PermissionError:
        remove_inside(folder, fresh)
        return False
    return True


def _is_copy(place: Path) -> bool:
    return (place / MARKER).is_file() and (place / "backend" / "__init__.py").is_file()


def note_use(place: Path, pid: int) -> None:
    """Write down that a process runs from a copy."""
    if (place / MARKER).is_file():
        with contextlib.suppress(OSError):
            (place / f"{IN_USE}{pid}").touch()


def forget_use(place: Path, pid: int) -> None:
    with contextlib.suppress(OSError):
        (place / f"{IN_USE}{pid}").unlink()


def in_use(place: Path) -> bool:
    """Whether a process runs from a copy; notes of processes that are gone are cleared."""
    used = False
    for note in place.glob(f"{IN_USE}*"):
        number = note.name[len(IN_USE) :]
        if number.isdigit() and is_alive(int(number)):
            used = True
        else:
            with contextlib.suppress(OSError):
                note.unlink()
    return used


def remove_others(folder: Path, keep: Path | None) -> list[Path]:
    """Remove the copies below `folder` that nothing runs from, but not `keep`. What goes is given."""
    gone = []
    for place in [*folder.glob("backend-*"), *folder.glob(".backend-*.old"), *folder.glob(".backend-*.part")]:
        half = place.name.endswith((".part", ".old"))
        owner = place.suffixes[-2][1:] if half and len(place.suffixes) > 1 else ""
        if half and owner.isdigit() and int(owner) != os.getpid() and is_alive(int(owner)):
            continue  # another Blender is at it
        if place == keep or place.is_symlink() or not (half or _is_copy(place)) or in_use(place):
            continue
        with contextlib.suppress(OSError, NotOurs):
            remove_inside(folder, place)
            gone.append(place)
    return gone


def where_it_lies(code: Path) -> dict[str, str]:
    """The variables with which Python runs the code of `code` from another folder and leaves it as it is.

    For short commands, which need no copy: Windows neither moves nor removes a folder that a process is in,
    and Blender may want to replace the extension meanwhile.
    """
    return {"PYTHONPATH": str(code), "PYTHONSAFEPATH": "1", "PYTHONDONTWRITEBYTECODE": "1"}
