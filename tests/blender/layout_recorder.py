# SPDX-License-Identifier: GPL-3.0-or-later
"""A layout that draws nothing, notes everything, and refuses what Blender would not find."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import bpy

ICONS = set(bpy.types.UILayout.bl_rna.functions["label"].parameters["icon"].enum_items.keys())
NESTED = {"row", "column", "box", "split", "column_flow", "grid_flow"}
ATTRIBUTES = {
    "active", "alert", "enabled", "emboss", "scale_x", "scale_y", "alignment", "operator_context",
    "use_property_split", "use_property_decorate", "active_default", "direction", "ui_units_x", "ui_units_y",
}  # fmt: skip


@dataclass
class Drawn:
    """What was drawn: texts, (data, property name) and the ids of operators with what was set on them."""

    texts: list[str] = field(default_factory=list)
    properties: list[tuple[Any, str]] = field(default_factory=list)
    operators: list[tuple[str, Any]] = field(default_factory=list)
    progress: list[float] = field(default_factory=list)

    @property
    def names(self) -> set[str]:
        return {name for _, name in self.properties}

    @property
    def ids(self) -> set[str]:
        return {name for name, _ in self.operators}

    @property
    def text(self) -> str:
        return " ".join(self.texts)


class Button:
    """The properties of an operator's button: only those that the operator has can be set."""

    def __init__(self, idname: str) -> None:
        module, name = idname.split(".")
        object.__setattr__(self, "_rna", getattr(getattr(bpy.ops, module), name).get_rna_type())
        object.__setattr__(self, "given", {})

    def __setattr__(self, name: str, value: Any) -> None:
        assert name in self._rna.properties, f"{self._rna.identifier} has no property {name}"
        self.given[name] = value


class Recorder:
    """Stands for a UILayout."""

    def __init__(self, drawn: Drawn) -> None:
        object.__setattr__(self, "drawn", drawn)

    def __setattr__(self, name: str, value: Any) -> None:
        assert name in ATTRIBUTES, f"a layout has no attribute {name}"
        object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> Any:
        if name in NESTED:
            return self._nested
        if name in ATTRIBUTES:
            return True
        raise AttributeError(f"the recorder does not know layout.{name}")

    def _nested(self, *args: Any, heading: str = "", **_: Any) -> Recorder:
        self._say(heading)
        return Recorder(self.drawn)

    def _say(self, text: str | None, icon: str = "NONE") -> None:
        assert icon in ICONS, f"there is no icon {icon}"
        if text:
            self.drawn.texts.append(text)

    def label(self, *, text: str = "", icon: str = "NONE", icon_value: int = 0, **_: Any) -> None:
        self._say(text, icon)

    def separator(self, **_: Any) -> None:
        pass

    def prop(self, data: Any, name: str, *, text: str | None = None, icon: str = "NONE", **_: Any) -> None:
        if name.startswith('["'):  # a custom property
            assert name[2:-2] in data, f"{data.name} has no custom property {name}"
            self.drawn.properties.append((data, name))
            self._say(name[2:-2] if text is None else text, icon)
            return
        assert name in data.bl_rna.properties, f"{data.bl_rna.identifier} has no property {name}"
        self.drawn.properties.append((data, name))
        self._say(data.bl_rna.properties[name].name if text is None else text, icon)

    def prop_search(self, data: Any, name: str, owner: Any, collection: str, **words: Any) -> None:
        assert collection in owner.bl_rna.properties
        words.pop("text", None)
        self.prop(data, name, **words)

    def prop_menu_enum(self, data: Any, name: str, **words: Any) -> None:
        self.prop(data, name, **words)

    def operator(self, idname: str, *, text: str | None = None, icon: str = "NONE", **_: Any) -> Button:
        button = Button(idname)
        self.drawn.operators.append((idname, button))
        self._say(button._rna.name if text is None else text, icon)
        return button

    def operator_menu_enum(self, idname: str, name: str, **words: Any) -> Button:
        button = self.operator(idname, **words)
        assert name in button._rna.properties
        return button

    def menu(self, idname: str, *, text: str | None = None, icon: str = "NONE", **_: Any) -> None:
        assert hasattr(bpy.types, idname)
        self._say(text, icon)

    def popover(self, panel: str, *, text: str = "", icon: str = "NONE", **_: Any) -> None:
        assert hasattr(bpy.types, panel)
        self._say(text, icon)

    def progress(self, *, factor: float = 0.0, text: str = "", type: str = "BAR", **_: Any) -> None:
        assert 0.0 <= factor <= 1.0 and type in ("BAR", "RING")
        self.drawn.progress.append(factor)
        self._say(text)

    def template_icon(self, icon_value: int, scale: float = 1.0) -> None:
        assert icon_value > 0

    def template_ID(self, data: Any, name: str, **words: Any) -> None:
        for operator in (words.get("new"), words.get("open"), words.get("unlink")):
            if operator:
                Button(operator)
        self.prop(data, name, text="")

    def template_list(
        self, listtype: str, _name: str, data: Any, name: str, active: Any, index: str, **_: Any
    ) -> None:
        assert name in data.bl_rna.properties and index in active.bl_rna.properties
        list_type = getattr(bpy.types, listtype)
        for item in getattr(data, name):
            list_type.draw_item(
                SimpleNamespace(layout_type="DEFAULT"),
                bpy.context, self, data, item, 0, active, index,
            )  # fmt: skip


def draw(panel: type, context: Any = None) -> Drawn:
    """Draw a panel with its header and its list, whatever its poll says."""
    drawn = Drawn()
    for part in ("draw_header", "draw_header_preset", "draw"):
        function = getattr(panel, part, None)
        if function is not None:
            words = {name: value for base in reversed(panel.__mro__) for name, value in vars(base).items()}
            fake = SimpleNamespace(**{**words, "layout": Recorder(drawn)})
            function(fake, context or bpy.context)
    return drawn
