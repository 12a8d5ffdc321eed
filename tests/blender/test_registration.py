# SPDX-License-Identifier: GPL-3.0-or-later
"""Enabling and disabling the add-on: nothing is left behind whatever happens, and names keep to rules."""

from __future__ import annotations

import importlib
import re
import sys
import threading
from types import ModuleType, SimpleNamespace
from typing import Any

import bpy
import pytest

PREFIX = "LIVEPORTRAIT"
KINDS = {
    bpy.types.Operator: "OT",
    bpy.types.Panel: "PT",
    bpy.types.Menu: "MT",
    bpy.types.Header: "HT",
    bpy.types.UIList: "UL",
    bpy.types.PropertyGroup: "PG",
    bpy.types.FileHandler: "FH",
    bpy.types.AddonPreferences: "AP",
}
SMALL_WORDS = {"a", "an", "and", "as", "at", "by", "for", "from", "in", "of", "on", "or", "the", "to", "with"}


def footprint() -> dict[str, Any]:
    """What an add-on can leave in Blender: types, properties on them, menu entries, handlers, threads."""
    types = {name: getattr(bpy.types, name) for name in dir(bpy.types)}
    structs = {n: t for n, t in types.items() if isinstance(t, type) and hasattr(t, "bl_rna")}
    handlers = {n: getattr(bpy.app.handlers, n) for n in dir(bpy.app.handlers)}
    return {
        "types": set(types),
        "properties": {n: set(t.bl_rna.properties.keys()) for n, t in structs.items()},
        "attributes": {n: {a for a in vars(t) if "liveportrait" in a.lower()} for n, t in structs.items()},
        "drawn": {
            n: len(t.draw._draw_funcs)
            for n, t in structs.items()
            if hasattr(getattr(t, "draw", None), "_draw_funcs")
            and any("liveportrait" in f.__module__ for f in t.draw._draw_funcs)
        },
        "handlers": {n: list(h) for n, h in handlers.items() if isinstance(h, list)},
        "operators": set(dir(bpy.ops.liveportrait)),
        "threads": {t.name for t in threading.enumerate() if t is not threading.main_thread()},
    }


@pytest.fixture
def package(addon: ModuleType) -> ModuleType:
    """The add-on, imported whole but not enabled."""
    addon.unregister()
    return addon


def registered(addon: ModuleType) -> list[type]:
    registration = importlib.import_module(f"{addon.__name__}.registration")
    modules = [importlib.import_module(f"{addon.__name__}.{name}") for name in registration.MODULES]
    return [class_ for module in modules for class_ in getattr(module, "CLASSES", ())]


def test_twice_on_and_off_leaves_nothing(package: ModuleType) -> None:
    before = footprint()
    for _ in range(2):
        package.register()
        assert hasattr(bpy.types.Object, "liveportrait")
        assert footprint() != before
        package.unregister()
        assert footprint() == before


def test_enabling_what_is_enabled_and_disabling_what_is_not_change_nothing(package: ModuleType) -> None:
    before = footprint()
    package.unregister()
    assert footprint() == before
    package.register()
    enabled = footprint()
    package.register()
    assert footprint() == enabled
    package.unregister()


def failing_module(where: str) -> ModuleType:
    """A module of the add-on that fails while it is registered: at its second class, or after its classes."""

    class LIVEPORTRAIT_PG_fine(bpy.types.PropertyGroup):
        pass

    class LIVEPORTRAIT_OT_nameless(bpy.types.Operator):
        bl_idname = "no dot and spaces"
        bl_label = "Nameless"

    def register() -> None:
        if where == "function":
            raise RuntimeError("the disk is full")

    classes = (LIVEPORTRAIT_PG_fine, LIVEPORTRAIT_OT_nameless)[: 2 if where == "class" else 1]
    module: Any = SimpleNamespace(__name__="failing", CLASSES=classes, register=register)
    return module


@pytest.mark.parametrize("where", ["class", "function"])
def test_a_module_that_fails_takes_everything_back(
    package: ModuleType, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    registration = importlib.import_module(f"{package.__name__}.registration")
    monkeypatch.setitem(sys.modules, f"{package.__name__}.failing", failing_module(where))
    monkeypatch.setattr(registration, "MODULES", (*registration.MODULES, "failing"))
    before = footprint()
    with pytest.raises((RuntimeError, ValueError)):
        package.register()
    assert footprint() == before


def test_every_class_has_the_name_that_its_kind_has_in_blender(addon: ModuleType) -> None:
    classes = registered(addon)
    assert classes
    for class_ in classes:
        kind = next((short for base, short in KINDS.items() if issubclass(class_, base)), None)
        assert kind is not None, f"{class_} is no kind of class that this test knows"
        assert re.fullmatch(rf"{PREFIX}_{kind}_[a-z][a-z0-9_]*", class_.__name__), class_
        if kind == "OT":
            assert class_.bl_idname == f"liveportrait.{class_.__name__.partition('_OT_')[2]}"
            assert hasattr(bpy.ops.liveportrait, class_.bl_idname.partition(".")[2])
        elif kind in ("PT", "MT", "UL", "FH", "HT"):
            assert getattr(class_, "bl_idname", class_.__name__) == class_.__name__
        elif kind == "AP":
            assert class_.bl_idname == addon.__name__


def test_labels_are_title_case_and_descriptions_one_sentence(addon: ModuleType) -> None:
    for class_ in registered(addon):
        if issubclass(class_, bpy.types.Operator):
            words = re.findall(r"[^\W\d_][\w'-]*", class_.bl_label)
            assert words and class_.bl_label.strip() == class_.bl_label, class_
            assert [w for w in words[1:] if w[0].islower() and w not in SMALL_WORDS] == [], class_.bl_label
            assert words[0][0].isupper(), class_.bl_label
            described = getattr(class_, "bl_description", "") or (class_.__doc__ or "").strip()
            assert described and not described.endswith((".", "!", "?")), (class_, described)


def test_what_users_see_of_properties_is_described(addon: ModuleType) -> None:
    for class_ in registered(addon):
        if not issubclass(class_, bpy.types.PropertyGroup):
            continue
        for name, property_ in class_.bl_rna.properties.items():
            structure = name in ("rna_type", "name") or property_.type in ("POINTER", "COLLECTION")
            if structure or property_.is_hidden:
                continue
            assert property_.name, (class_, name)
            assert not property_.description.endswith((".", "!", "?")), (class_, name, property_.description)


def test_panels_sit_in_the_tab_and_below_each_other(addon: ModuleType) -> None:
    names = importlib.import_module(f"{addon.__name__}.names")
    panels = [class_ for class_ in registered(addon) if issubclass(class_, bpy.types.Panel)]
    known = {panel.__name__ for panel in panels}
    for panel in panels:
        parent = getattr(panel, "bl_parent_id", "")
        if parent.startswith(PREFIX):
            assert parent in known, panel
        if panel.bl_region_type == "UI":
            assert panel.bl_category == names.CATEGORY, panel
