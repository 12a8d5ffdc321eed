# SPDX-License-Identifier: GPL-3.0-or-later
"""Every difference in how clips are treated is described; upstream compatibility turns all of them off."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from backend.clip_rules import ClipRules, clip_rules
from backend.face_search import ORDERS
from backend.options import FACE_ORDERS, Options


def test_every_flag_is_described() -> None:
    text = (Path(__file__).parents[2] / "docs" / "compatibility.md").read_text(encoding="utf-8")
    for flag in fields(ClipRules):
        assert f"| `{flag.name}` | " in text, flag.name


def test_upstream_turns_every_flag_off() -> None:
    off, on = clip_rules(Options(compatibility="upstream")), clip_rules(Options())
    assert not any(getattr(off, flag.name) for flag in fields(off))
    assert all(getattr(on, flag.name) for flag in fields(on))


def test_the_orders_of_faces_are_those_that_faces_can_be_sorted_in() -> None:
    assert FACE_ORDERS == ORDERS
