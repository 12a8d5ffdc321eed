# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes backend/data/weights_layout.json: the tensors that LivePortrait's released files hold.

    python scripts/make_weights_layout.py --keys state_dict_keys.json

The input lists, for each file, the keys of the released modules with shape and type (as `state_dict()` of
the modules gives them); the stitching file has three parts. Only names and shapes are kept: file -> part ->
key -> shape, the part "" where a file holds one module. The prefix "module.", which training on several GPUs
leaves in the parts' keys, is taken away.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

TARGET = Path(__file__).resolve().parents[1] / "backend" / "data" / "weights_layout.json"


def layout_of(keys: dict[str, Any]) -> dict[str, dict[str, dict[str, list[int]]]]:
    """file -> part -> key -> shape, from the listing; entries whose names begin with _ are remarks."""
    files = {name: entry for name, entry in keys.items() if not name.startswith("_")}
    return {
        name: {
            part: {
                key.replace("module.", "") if part else key: list(tensor["shape"])
                for key, tensor in listing["keys"].items()
            }
            for part, listing in entry.get("parts", {"": entry}).items()
        }
        for name, entry in files.items()
    }


def as_text(layout: dict[str, dict[str, dict[str, list[int]]]]) -> str:
    """The layout as JSON, one tensor a line."""
    files = []
    for name, parts in layout.items():
        listings = []
        for part, tensors in parts.items():
            lines = [f"   {json.dumps(key)}: {json.dumps(shape)}" for key, shape in tensors.items()]
            listings.append(f"  {json.dumps(part)}: {{\n" + ",\n".join(lines) + "\n  }")
        files.append(f" {json.dumps(name)}: {{\n" + ",\n".join(listings) + "\n }")
    return "{\n" + ",\n".join(files) + "\n}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the table of the released weights' tensors.")
    parser.add_argument("--keys", type=Path, required=True, help="the listing of keys, shapes and types")
    given = parser.parse_args()
    layout = layout_of(json.loads(given.keys.read_text(encoding="utf-8")))
    TARGET.write_text(as_text(layout), encoding="utf-8")
    print(f"{TARGET}: {sum(len(part) for parts in layout.values() for part in parts.values())} tensors")


if __name__ == "__main__":
    main()
