# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether this Blender allows the internet to be used. A backend on this machine does not need it."""

from __future__ import annotations

import bpy

FIX = "liveportrait.enable_online_access"


def missing() -> tuple[str, str]:
    """(why nothing may be downloaded, the id of an operator that helps); ("", "") if it may."""
    if bpy.app.online_access:
        return "", ""
    if bpy.app.online_access_override:
        return "Blender was started without internet access. Launch Blender without --offline-mode", ""
    return "Downloads need the internet. Enable online access in System preferences", FIX
