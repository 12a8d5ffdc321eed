# SPDX-License-Identifier: GPL-3.0-or-later
"""Expression controls that act in Blender itself: properties of the rig that add to its bones.

Each control has an Action with keys at -reach, 0 and +reach, and each bone that it moves an Action constraint
whose evaluation time a driver takes from the property; so two slopes are possible, and the artist may sculpt
a control by editing its Action. What moves the head goes through the bone `head_controls`, which the head
copies. Drivers are simple expressions: no Python runs, and nothing here needs the add-on once it is made.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import bpy

from . import compat, fcurves
from .rig_action import neutral
from .rig_control_table import ANGLES, RESTS, Control, controls
from .rig_layout import BONES, CHANNELS, HEAD, TOTALS, bone_path, property_path

HELPER = "head_controls"
PREFIX = "LivePortrait "  # of our constraints' names
ACTION_MARK = "liveportrait_control"  # custom property of a control's Action: which control
END = 100.0  # the Actions run from frame 0 to this; the middle is no change
HEAD_CONSTRAINTS = (PREFIX + "Move", PREFIX + "Turn", PREFIX + "Zoom")
SIMPLE_LENGTH = 255  # Blender cuts what is longer


def add(armature: Any) -> None:
    """Give a keypoint rig all expression controls; those that it has are made anew.

    The object has to be in object mode and active (a bone is made in edit mode).
    """
    remove(armature)
    for control in controls():
        _add_property(armature, control)
    for rest in RESTS.values():
        armature[rest] = 0.0
        _about(armature, rest, 0.0, 1.0, 0.0, "The opening that changes nothing")
    for name, total in TOTALS.items():
        armature[total] = 0.0
        channel = next(channel for channel in CHANNELS if channel.name == name)
        _about(armature, total, -2.0, 2.0, 0.0, f"{channel.description}, expression controls included")
    for control in controls():
        for keypoint in control.keypoints():
            _add_constraint(armature, control, BONES[keypoint])
    _add_helper(armature)
    for name, total in TOTALS.items():
        _drive(armature, property_path(total), -1, total_expression(name))


def remove(armature: Any) -> None:
    """Take the expression controls out of a rig: constraints, drivers, properties. Keys stay."""
    for driver in list(armature.animation_data.drivers) if armature.animation_data else ():
        if driver.data_path in our_driver_paths():
            armature.driver_remove(driver.data_path, driver.array_index if _is_vector(driver) else -1)
    for bone in armature.pose.bones:
        for constraint in list(bone.constraints):
            if constraint.name.startswith(PREFIX):
                bone.constraints.remove(constraint)
    for name in (*(control.name for control in controls()), *RESTS.values(), *TOTALS.values()):
        if name in armature:
            del armature[name]


def has_controls(armature: Any) -> bool:
    """Whether the rig has the expression controls."""
    return all(control.name in armature for control in controls())


def rest_from_neutral(armature: Any) -> None:
    """Let the openings of the neutral frame be those that change nothing; a control at rest stays at rest."""
    frame = neutral(armature)
    if frame is None or not has_controls(armature):
        return
    rests = {"eyes": float(frame.eye_ratio[0].mean()), "lips": float(frame.lip_ratio[0])}
    for control in controls():
        if not control.rest:
            continue
        part = next(part for part, name in RESTS.items() if name == control.rest)
        if armature[control.name] == armature[control.rest]:
            armature[control.name] = rests[part]
        armature[control.rest] = rests[part]
    armature.update_tag()


def reset(armature: Any) -> None:
    """Bring all controls to rest."""
    for control in controls():
        armature[control.name] = value_without_effect(armature, control)
    armature.update_tag()


def value_without_effect(armature: Any, control: Control) -> float:
    """The value at which a control changes nothing."""
    return float(armature[control.rest]) if control.rest else control.default


def our_driver_paths() -> frozenset[str]:
    """The data paths of all drivers that `add` makes."""
    paths = {
        bone_path(BONES[keypoint], f'constraints["{PREFIX}{control.label}"].eval_time')
        for control in controls()
        for keypoint in control.keypoints()
    }
    paths |= {bone_path(HELPER, what) for what in ("location", "rotation_euler", "scale")}
    return frozenset(paths | {property_path(total) for total in TOTALS.values()})


def eval_time_expression(control: Control) -> str:
    """The driver of a control's constraints: 0.5 where it changes nothing."""
    value = f"({control.name}-{control.rest})" if control.rest else control.name
    return f"0.5+{0.5 / control.reach:.9g}*{value}"


def total_expression(channel: str) -> str:
    """The driver of a ratio or gaze with the controls' shares added."""
    text = channel
    for control in controls():
        up, down = control.ratio_slopes().get(channel, (0.0, 0.0))
        value = f"({control.name}-{control.rest})" if control.rest else control.name
        if f"{up:.5g}" == f"{down:.5g}":
            text += f"{up:+.5g}*{value}" if f"{up:.5g}" != "0" else ""
        else:
            text += f"{up:+.5g}*max({value},0){down:+.5g}*min({value},0)"
    return text if channel.startswith("gaze") else f"max({text},0)"


def head_expression(what: str, index: int) -> str:
    """The driver of a channel of `head_controls`: "location", "rotation_euler" or "scale"."""
    by_head = {control.head: control for control in controls() if control.head}
    if what == "rotation_euler":
        control = by_head[ANGLES[index]]
        return f"{control.factor * 0.017453292519943295:.12g}*{control.name}"
    zoom = by_head["zoom"].name
    if what == "scale":
        return zoom
    if index == 2:
        return "0"
    # t counts in the picture, so that the way grows with the head.
    return f"{by_head['xy'[index]].factor:g}*{by_head['xy'[index]].name}*{zoom}*s"


Source = str | tuple[str, str]
"""What a word of a driver means: a data path of the armature, or (bone, "LOC_X") for a posed bone's own
transform, constraints included."""


def drive(armature: Any, path: str, index: int, expression: str, sources: Mapping[str, Source]) -> Any:
    """Drive `path` of `armature` by a simple expression; replaces a driver that is there.

    Returns the F-curve. Raises ValueError for text that Blender would have to run as Python.
    """
    armature.driver_remove(path, index)
    curve = armature.driver_add(path, index)
    compat.clear_driver_curve(curve)
    driver = curve.driver
    driver.type = "SCRIPTED"
    for word, source in sources.items():
        variable = driver.variables.new()
        variable.name = word
        if isinstance(source, str):
            variable.type = "SINGLE_PROP"
            variable.targets[0].id, variable.targets[0].data_path = armature, source
        else:
            variable.type = "TRANSFORMS"
            target = variable.targets[0]
            target.id, target.bone_target, target.transform_type = armature, *source
            target.transform_space, target.rotation_mode = "LOCAL_SPACE", "XYZ"
    driver.expression = expression
    if len(expression) > SIMPLE_LENGTH or driver.expression != expression or not driver.is_simple_expression:
        armature.driver_remove(path, index)
        raise ValueError(f"not a simple expression: {expression!r}")
    return curve


def control_action(armature: Any, control: Control) -> Any:
    """The Action of a control, shared by all rigs of the file; made if it is not there."""
    for action in bpy.data.actions:
        if action.get(ACTION_MARK) == control.name and action.library is None:
            return action
    action = bpy.data.actions.new(PREFIX + control.label)
    action[ACTION_MARK] = control.name
    frames = [0.0, END / 2, END]
    curves = {}
    for keypoint, axis in {**control.up, **control.down}:
        place = (keypoint, axis)
        ends = (control.down.get(place, 0.0) * control.reach, control.up.get(place, 0.0) * control.reach)
        curves[bone_path(BONES[keypoint], "location"), axis] = (frames, [ends[0], 0.0, ends[1]])
    fcurves.fill(armature, action, curves, lambda path: path.split('"')[1])
    return action


def _drive(armature: Any, path: str, index: int, expression: str) -> None:
    drive(armature, path, index, expression, _sources(expression))


def _sources(expression: str) -> dict[str, Source]:
    """The words of one of the expressions above: names of properties, and "s", the head bone's own scale."""
    known = {control.name for control in controls()} | {channel.name for channel in CHANNELS}
    known |= set(RESTS.values())
    words = dict.fromkeys(re.findall(r"[a-z_]+", expression))
    sources: dict[str, Source] = {word: property_path(word) for word in words if word in known}
    if "s" in words:
        sources["s"] = bone_path(HEAD, "scale[0]")
    return sources


def _is_vector(driver: Any) -> bool:
    return driver.data_path.endswith((".location", ".rotation_euler", ".scale"))


def _add_property(armature: Any, control: Control) -> None:
    armature[control.name] = control.default
    _about(
        armature,
        control.name,
        control.minimum,
        control.maximum,
        control.default,
        control.description,
    )


def _about(armature: Any, name: str, low: float, high: float, default: float, text: str) -> None:
    armature.id_properties_ui(name).update(min=low, max=high, default=default, description=text)
    armature.property_overridable_library_set(property_path(name), True)


def _add_constraint(armature: Any, control: Control, bone: str) -> None:
    constraint = armature.pose.bones[bone].constraints.new("ACTION")
    constraint.name = PREFIX + control.label
    constraint.use_eval_time = True
    constraint.frame_start, constraint.frame_end = 0, int(END)
    constraint.mix_mode = "AFTER_SPLIT"
    compat.set_constraint_action(constraint, control_action(armature, control))
    path = bone_path(bone, f'constraints["{constraint.name}"].eval_time')
    _drive(armature, path, -1, eval_time_expression(control))


def _add_helper(armature: Any) -> None:
    if HELPER not in armature.data.bones:
        bpy.ops.object.mode_set(mode="EDIT")
        try:
            head = armature.data.edit_bones[HEAD]
            bone = armature.data.edit_bones.new(HELPER)
            bone.head, bone.tail, bone.roll = head.head, head.tail, head.roll
            bone.use_deform = False
        finally:
            bpy.ops.object.mode_set(mode="OBJECT")
        collection = armature.data.collections.new("Controls")
        collection.assign(armature.data.bones[HELPER])
        collection.is_visible = False
    helper = armature.pose.bones[HELPER]
    helper.rotation_mode = "XYZ"
    for what in ("location", "rotation_euler", "scale"):
        for index in range(3):
            _drive(armature, bone_path(HELPER, what), index, head_expression(what, index))
    head = armature.pose.bones[HEAD]
    for name, kind in zip(HEAD_CONSTRAINTS, ("COPY_LOCATION", "COPY_ROTATION", "COPY_SCALE")):
        constraint = head.constraints.new(kind)
        constraint.name = name
        constraint.target, constraint.subtarget = armature, HELPER
        constraint.owner_space = constraint.target_space = "LOCAL"
        if kind == "COPY_ROTATION":
            constraint.mix_mode = "ADD"  # angles are added one by one, as the published program does
            constraint.euler_order = "XYZ"
        else:
            constraint.use_offset = True
