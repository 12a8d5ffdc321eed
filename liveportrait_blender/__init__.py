# SPDX-License-Identifier: GPL-3.0-or-later
"""LivePortrait for Blender: the add-on. Without Blender it can be imported, but not registered."""

from __future__ import annotations


def register() -> None:
    """Blender calls this when the add-on is enabled."""
    from . import registration

    registration.register()


def unregister() -> None:
    """Blender calls this when the add-on is disabled, and when Blender quits."""
    from . import registration

    registration.unregister()
