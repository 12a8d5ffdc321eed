# SPDX-License-Identifier: GPL-3.0-or-later
"""LivePortrait for Blender: the local backend, which makes frames and curves of a portrait and a clip."""

__version__ = "0.1.0"
