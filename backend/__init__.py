# SPDX-License-Identifier: GPL-3.0-or-later
"""LivePortrait for Blender: the local backend that turns a portrait and a driving clip into pictures, curves."""

__version__ = "0.1.0"
