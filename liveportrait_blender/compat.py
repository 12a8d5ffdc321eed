# SPDX-License-Identifier: GPL-3.0-or-later
"""Every branch on Blender's version, 4.2 to 5.2, and nothing else."""

from __future__ import annotations

import atexit
import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import bpy


def eevee_engine_id() -> str:
    """The id of EEVEE as a render engine: it has had its short name back since 5.0."""
    return "BLENDER_EEVEE" if bpy.app.version >= (5, 0, 0) else "BLENDER_EEVEE_NEXT"


def path_property_options() -> set[str]:
    """Options of a file path property: it may begin with // from 4.5 on only if it says so."""
    return {"PATH_SUPPORTS_BLEND_RELATIVE"} if bpy.app.version >= (4, 5, 0) else set()


def enable_nodes(material: Any) -> None:
    """Give a material its node tree; from 5.0 on every material has one."""
    if bpy.app.version < (5, 0, 0):
        material.use_nodes = True


def strips(sequence_editor: Any) -> Any:
    """The strips of a sequence editor."""
    return sequence_editor.strips if bpy.app.version >= (4, 4, 0) else sequence_editor.sequences


def install_exit_hook(function: Callable[[], None]) -> Callable[[], None]:
    """Have `function` called when Blender quits; gives what takes that back."""
    handlers = getattr(bpy.app.handlers, "exit_pre", None)  # from 5.2 on
    if handlers is None:
        atexit.register(function)
        return lambda: atexit.unregister(function)

    def before_exit(*_: Any) -> None:
        function()

    handlers.append(before_exit)
    return lambda: handlers.remove(before_exit) if before_exit in handlers else None


def action_slot(id_block: Any, action: Any, create: bool = False) -> Any:
    """The slot of `action` that animates `id_block`; None if there is none, and always before 4.4.

    The one that is assigned, else one that was made for it (by identifier), else with `create` a new one.
    """
    if bpy.app.version < (4, 4, 0):
        return None
    data = id_block.animation_data
    if data is not None and data.action == action and data.action_slot is not None:
        return data.action_slot
    for slot in action.slots:
        if slot.target_id_type == id_block.id_type and slot.name_display == id_block.name:
            return slot
    return action.slots.new(id_type=id_block.id_type, name=id_block.name) if create else None


def channelbag(id_block: Any, action: Any, create: bool = False) -> Any:
    """What has `.fcurves` and `.groups` for `id_block` in `action`, or None if nothing there animates it.

    Before 4.4 that is the action itself.
    """
    if bpy.app.version < (4, 4, 0):
        return action
    slot = action_slot(id_block, action, create)
    if slot is None:
        return None
    if not action.layers:
        if not create:
            return None
        action.layers.new("Layer")
    layer = action.layers[0]
    if not layer.strips:
        if not create:
            return None
        layer.strips.new(type="KEYFRAME")
    return layer.strips[0].channelbag(slot, ensure=create)


def assign_action(id_block: Any, action: Any) -> None:
    """Have `action` animate `id_block`, through the slot that is meant for it."""
    data = id_block.animation_data or id_block.animation_data_create()
    slot = action_slot(id_block, action, create=True)
    data.action = action
    if slot is not None:
        data.action_slot = slot


def all_strips(sequence_editor: Any) -> Any:
    """The strips of a sequence editor and of its meta strips."""
    return sequence_editor.strips_all if bpy.app.version >= (4, 4, 0) else sequence_editor.sequences_all


def strip_range(strip: Any) -> tuple[int, int, bool]:
    """(first, stop, whole): the half-open part of a strip's own pictures that its handles leave.

    A strip that is stretched to the scene's rate shows fewer or more scene frames than it has pictures.
    """
    if bpy.app.version >= (5, 2, 0):  # the names that 6.0 will have alone
        count, shown, skipped = strip.content_duration, strip.duration, strip.content_trim_start
        before, after = strip.left_handle_offset, strip.right_handle_offset
    else:
        count, shown = strip.frame_duration, strip.frame_final_duration
        before, after = strip.frame_offset_start, strip.frame_offset_end
        skipped = strip.animation_offset_start
    scale = count / max(before + shown + after, 1)
    first, stop = max(round(before * scale), 0), min(round(count - after * scale), count)
    whole = before <= 0 and after <= 0 and not skipped
    return first + skipped, max(stop, first + 1) + skipped, whole


@contextlib.contextmanager
def written_as_png(settings: Any) -> Iterator[None]:
    """For a moment, output settings that write an 8-bit PNG with alpha."""
    names = ["media_type"] if bpy.app.version >= (5, 0, 0) else []
    names += ["file_format", "color_mode", "color_depth"]
    before = {name: getattr(settings, name) for name in names}
    try:
        for name, value in zip(names, ["IMAGE", "PNG", "RGBA", "8"][4 - len(names) :], strict=True):
            setattr(settings, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(settings, name, value)


def content_length(strip: Any) -> int:
    """How many scene frames a strip's content would fill without its handles."""
    return strip.content_duration if bpy.app.version >= (5, 2, 0) else strip.frame_duration


def place_sound(strip: Any, start: int, frames: int, skipped: int) -> None:
    """Let a strip of sound begin at scene frame `start`, without its first `skipped` frames, for `frames`."""
    rest = max(content_length(strip) - skipped - frames, 0)
    if bpy.app.version >= (5, 2, 0):
        strip.content_start = start - skipped
        strip.left_handle_offset, strip.right_handle_offset = skipped, rest
    else:
        strip.frame_start = start - skipped
        strip.frame_offset_start, strip.frame_offset_end = skipped, rest


def rate(scene: Any) -> float:
    """A scene's frames a second."""
    return scene.render.fps / scene.render.fps_base


def set_constraint_action(constraint: Any, action: Any) -> None:
    """Give an Action constraint its action; from 4.4 on with the slot that animates objects.

    Before that an action without a root type is refused, silently.
    """
    if bpy.app.version < (4, 4, 0):
        action.id_root = "OBJECT"
    constraint.action = action
    if bpy.app.version >= (4, 4, 0):
        constraint.action_slot = next(slot for slot in action.slots if slot.target_id_type == "OBJECT")


def constraint_curves(constraint: Any) -> Any:
    """The F-curves that an Action constraint plays."""
    action = constraint.action
    if bpy.app.version < (4, 4, 0):
        return action.fcurves
    bag = action.layers[0].strips[0].channelbag(constraint.action_slot)
    return bag.fcurves if bag is not None else ()


def clear_driver_curve(curve: Any) -> None:
    """Empty the F-curve of a new driver, so that its values pass unchanged: 4.x puts a modifier there, 5.x
    two keys, which round."""
    while curve.modifiers:
        curve.modifiers.remove(curve.modifiers[0])
    curve.keyframe_points.clear()


def strips_property() -> str:
    """The name of a sequence editor's collection of strips."""
    return "strips" if bpy.app.version >= (4, 4, 0) else "sequences"


def add_strip(id_block: Any, action: Any, name: str) -> tuple[Any, Any]:
    """(track, strip): a new NLA track on top that plays `action` where its keys are."""
    slot = action_slot(id_block, action)
    if bpy.app.version < (4, 4, 0):
        action.id_root = id_block.id_type
    data = id_block.animation_data or id_block.animation_data_create()
    track = data.nla_tracks.new()
    track.name = name
    first, last = action.frame_range
    strip = track.strips.new(name, int(first), action)
    if slot is not None:
        strip.action_slot = slot
    strip.action_frame_start, strip.action_frame_end = first, last
    strip.frame_start, strip.frame_end = first, max(last, first + 1)
    strip.scale = 1.0
    return track, strip
