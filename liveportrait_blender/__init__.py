# SPDX-License-Identifier: GPL-3.0-or-later
"""LivePortrait for Blender: the add-on."""
