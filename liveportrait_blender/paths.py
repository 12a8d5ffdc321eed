# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the add-on's own files lie, and where it may write."""

from __future__ import annotations

import os
from pathlib import Path

from .names import ROOT_PACKAGE

HERE = Path(__file__).resolve().parent


def user_folder(*parts: str) -> Path:
    """A folder that belongs to the extension, made if need be; it outlives updates of the extension.

    LIVEPORTRAIT_USER_FOLDER overrides it. A checkout, which is no extension, has one beside Blender's
    configuration.
    """
    folder = Path(os.environ.get("LIVEPORTRAIT_USER_FOLDER") or _extension_folder()).joinpath(*parts)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _extension_folder() -> str:
    import bpy

    try:
        return str(bpy.utils.extension_path_user(ROOT_PACKAGE, create=True))
    except ValueError:  # imported from a source tree
        return str(Path(bpy.utils.user_resource("CONFIG", create=True)) / "liveportrait")


def backend_code() -> Path:
    """The folder that holds `backend/`: this package's own in an installed extension, else the checkout.

    The one place that decides it. Nothing is ever run or written inside an installed extension: the
    supervisor copies the code out first.

    Raises:
        FileNotFoundError: the backend's code is missing from this copy.
    """
    for folder in (HERE, HERE.parent):
        if (folder / "backend" / "__main__.py").is_file():
            return folder
    raise FileNotFoundError("The backend's code is missing; reinstall the extension.")


def is_checkout() -> bool:
    """Whether this runs from a source tree, and not as an installed extension."""
    return backend_code() != HERE


def data_file(name: str) -> Path:
    """One of the tables that the add-on ships."""
    return HERE / "data" / name
