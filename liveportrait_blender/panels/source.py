# SPDX-License-Identifier: GPL-3.0-or-later
"""The portrait: where it comes from, how it looks, which of its faces."""

from typing import Any

from bpy.types import Panel

from .. import inputs, picture_size, thumbnails
from . import faces
from .layout import Subpanel, blocked

THUMBNAIL = 5.0  # height of a picture in rows


class LIVEPORTRAIT_PT_source(Subpanel, Panel):
    bl_label = "Source"
    bl_order = 10

    def draw(self, context: Any) -> None:
        layout, settings = self.layout, context.scene.liveportrait
        layout.prop(settings, "source_kind", text="")
        {"FILE": _file, "IMAGE": _image, "OBJECT": _object, "CLIPBOARD": _clipboard}[settings.source_kind](
            layout, context, settings
        )
        if settings.source_kind != "CLIPBOARD" and not inputs.source_missing(context):
            faces.draw(layout, context, "source")


def _file(layout: Any, context: Any, settings: Any) -> None:
    if not settings.source_path:
        big = layout.row()
        big.scale_y = 1.5
        big.operator("liveportrait.open_source", icon="FILE_FOLDER")
        layout.label(text="or drop one into the viewport", icon="BLANK1")
        return
    layout.prop(settings, "source_path", text="")
    if thumbnails.missing(settings.source_path):
        blocked(layout, context, "The file of the portrait is not there", "liveportrait.open_source")
    else:
        picture(layout, thumbnails.icon(settings.source_path))
        cost(layout, context, settings, thumbnails.size(settings.source_path))


def _image(layout: Any, context: Any, settings: Any) -> None:
    layout.template_ID(settings, "source_image", open="image.open")
    picture(layout, thumbnails.icon_of_image(settings.source_image))
    image = settings.source_image
    if image is not None and image.has_data:  # else its size would be read from the disk
        cost(layout, context, settings, tuple(image.size))


def _object(layout: Any, context: Any, _settings: Any) -> None:
    reason = inputs.source_missing(context)
    if reason:
        blocked(layout, context, reason)
        return
    image = inputs.texture_of(context.active_object)
    layout.label(text=f"{context.active_object.name}: {image.name}", icon="OBJECT_DATA")
    picture(layout, thumbnails.icon_of_image(image))
    layout.operator("liveportrait.use_object_texture", text="Keep This Image", icon="PINNED")


def _clipboard(layout: Any, context: Any, _settings: Any) -> None:
    blocked(layout, context, "Copy a picture; it is read when the work starts")
    layout.operator("liveportrait.paste_source", text="Paste It Now", icon="PASTEDOWN")


def cost(layout: Any, context: Any, settings: Any, size: tuple[int, int]) -> None:
    """What a very large picture costs, before the work begins."""
    told = picture_size.cost_of(*size)
    if told and settings.options.paste_back:
        blocked(layout, context, told)


def picture(layout: Any, icon: int) -> None:
    """A small picture, if there is one."""
    if icon:
        layout.template_icon(icon_value=icon, scale=THUMBNAIL)


CLASSES = (LIVEPORTRAIT_PT_source,)
