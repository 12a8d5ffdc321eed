# SPDX-License-Identifier: GPL-3.0-or-later
# What the product does by itself, with the tremble of the driving taken out.
import bpy

options = bpy.context.scene.liveportrait.options
options.smoothing_mode = "auto"
