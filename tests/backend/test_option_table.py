# SPDX-License-Identifier: GPL-3.0-or-later
"""The table of options that the add-on's panel is made of says what the command line says."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from backend.options import Options
from scripts import make_option_table

ROOT = Path(__file__).resolve().parents[2]
SHARED_TABLES = ("options.json", "expression_controls.json", "canonical_keypoints.json")


def test_table_is_what_the_command_line_says() -> None:
    expected = make_option_table.text()
    for target in make_option_table.TARGETS:
        assert target.read_text(encoding="utf-8") == expected, "run scripts/make_option_table.py"


def test_every_option_is_in_the_table_with_its_default() -> None:
    default = Options()
    rows = {row["name"]: row for row in make_option_table.options()}
    assert rows.keys() == {field.name for field in fields(Options)} - {"controls"}
    for name, row in rows.items():
        assert row["default"] == getattr(default, name)
        assert row["description"] and not row["description"].endswith(".") and "[" not in row["description"]
        assert "--" not in row["description"]


def test_ranges_come_from_the_flags() -> None:
    rows = {row["name"]: row for row in make_option_table.options()}
    assert rows["crop_scale"]["minimum"] == 0 and rows["multiplier"]["minimum"] is None
    assert rows["smoothing"]["words"] == ["off", "auto"] and rows["smoothing"]["default"] == "off"
    assert [choice["name"] for choice in rows["region"]["choices"]] == [
        "all", "expression", "pose", "lips", "eyes",
    ]  # fmt: skip


def test_both_sides_have_the_same_tables() -> None:
    for name in SHARED_TABLES:
        backend, addon = (ROOT / side / "data" / name for side in ("backend", "liveportrait_blender"))
        assert backend.read_bytes() == addon.read_bytes(), name
