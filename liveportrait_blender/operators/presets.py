# SPDX-License-Identifier: GPL-3.0-or-later
"""Presets of the options and of the expression controls: those that come with the add-on, and the user's."""

from typing import Any

import bpy
from bl_operators.presets import AddPresetBase
from bl_ui.utils import PresetPanel
from bpy.types import Operator, Panel

from ..paths import HERE
from ..properties import controls, options

# The groups of what belongs to a shot and a machine, and not to a way of animating.
NOT_IN_PRESETS = {"engine", "choice"}
BUT = {"compatibility"}


def option_properties() -> list[str]:
    """The properties of the options that a preset holds."""
    names = []
    for name, row in options.rows().items():
        if row["group"] not in NOT_IN_PRESETS or name in BUT:
            names += [beside, name] if (beside := options.companion(row)) else [name]
    return names


def control_properties() -> list[str]:
    """The properties of the expression controls."""
    names = []
    for name, row in controls.rows().items():
        names += [beside, name] if (beside := controls.switch(row)) else [name]
    return names


class LIVEPORTRAIT_PT_option_presets(PresetPanel, Panel):
    bl_label = "Option Presets"
    preset_subdir = "liveportrait/options"
    preset_operator = "script.execute_preset"
    preset_add_operator = "liveportrait.add_option_preset"

    @staticmethod
    def reset_cb(context: Any, _filepath: str) -> None:
        """A preset says what differs from the defaults."""
        for name in option_properties():
            context.scene.liveportrait.options.property_unset(name)


class LIVEPORTRAIT_PT_expression_presets(PresetPanel, Panel):
    bl_label = "Expression Presets"
    preset_subdir = "liveportrait/expressions"
    preset_operator = "script.execute_preset"
    preset_add_operator = "liveportrait.add_expression_preset"

    @staticmethod
    def reset_cb(context: Any, _filepath: str) -> None:
        """A preset says what differs from rest."""
        context.scene.liveportrait.controls.set_controls({})


class LIVEPORTRAIT_OT_add_option_preset(AddPresetBase, Operator):
    bl_idname = "liveportrait.add_option_preset"
    bl_label = "Add Option Preset"
    bl_description = "Keep these options under a name, or remove a preset"
    preset_menu = "LIVEPORTRAIT_PT_option_presets"
    preset_subdir = "liveportrait/options"
    preset_defines = ["options = bpy.context.scene.liveportrait.options"]
    preset_values = [f"options.{name}" for name in option_properties()]


class LIVEPORTRAIT_OT_add_expression_preset(AddPresetBase, Operator):
    bl_idname = "liveportrait.add_expression_preset"
    bl_label = "Add Expression Preset"
    bl_description = "Keep this expression under a name, or remove a preset"
    preset_menu = "LIVEPORTRAIT_PT_expression_presets"
    preset_subdir = "liveportrait/expressions"
    preset_defines = ["controls = bpy.context.scene.liveportrait.controls"]
    preset_values = [f"controls.{name}" for name in control_properties()]


class LIVEPORTRAIT_OT_reset_options(Operator):
    bl_idname = "liveportrait.reset_options"
    bl_label = "Reset Options"
    bl_description = "Set all options to their defaults"
    bl_options = {"REGISTER", "UNDO"}

    def execute(self, context: Any) -> set[str]:
        context.scene.liveportrait.options.set_options({})
        return {"FINISHED"}


class LIVEPORTRAIT_OT_reset_controls(Operator):
    bl_idname = "liveportrait.reset_controls"
    bl_label = "Reset Expression"
    bl_description = "Bring all expression controls to rest; their keyframes stay"
    bl_options = {"REGISTER", "UNDO"}

    def execute(self, context: Any) -> set[str]:
        context.scene.liveportrait.controls.set_controls({})
        return {"FINISHED"}


class LIVEPORTRAIT_OT_key_controls(Operator):
    bl_idname = "liveportrait.key_controls"
    bl_label = "Key Expression"
    bl_description = "Insert a keyframe for every expression control at the current frame"
    bl_options = {"REGISTER", "UNDO"}

    def execute(self, context: Any) -> set[str]:
        settings = context.scene.liveportrait.controls
        for name in control_properties():
            settings.keyframe_insert(name, group="Expression Controls")
        return {"FINISHED"}


CLASSES = (
    LIVEPORTRAIT_PT_option_presets,
    LIVEPORTRAIT_PT_expression_presets,
    LIVEPORTRAIT_OT_add_option_preset,
    LIVEPORTRAIT_OT_add_expression_preset,
    LIVEPORTRAIT_OT_reset_options,
    LIVEPORTRAIT_OT_reset_controls,
    LIVEPORTRAIT_OT_key_controls,
)


def register() -> None:
    # The preset menus also look into <this folder>/presets; nothing is copied to the user's.
    bpy.utils.register_preset_path(str(HERE))


def unregister() -> None:
    bpy.utils.unregister_preset_path(str(HERE))
