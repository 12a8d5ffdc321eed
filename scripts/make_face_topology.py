# SPDX-License-Identifier: GPL-3.0-or-later
"""Write backend/data/face_topology.json: the triangles and loops of MediaPipe's 478-point face mesh.

MediaPipe ships the mesh only as a set of edges; the triangles are its 3-cycles, less two that bridge the
nostrils.

    python scripts/make_face_topology.py
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path

from mediapipe.python.solutions import face_mesh_connections as connections

TARGET = Path(__file__).resolve().parents[1] / "backend" / "data" / "face_topology.json"
FALSE_TRIANGLES = {(49, 64, 129), (279, 294, 358)}
INNER_LIPS = {78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 191, 80, 81, 82, 13, 312, 311, 310, 415}


def triangles() -> list[list[int]]:
    neighbours: dict[int, set[int]] = {}
    for a, b in connections.FACEMESH_TESSELATION:
        neighbours.setdefault(a, set()).add(b)
        neighbours.setdefault(b, set()).add(a)
    found = {
        tuple(sorted((a, b, c)))
        for a in neighbours
        for b, c in itertools.combinations(neighbours[a], 2)
        if c in neighbours[b]
    }
    return [list(t) for t in sorted(found - FALSE_TRIANGLES)]


def loop(edges: set[tuple[int, int]], start: int) -> list[int]:
    """Order the edges of one closed loop."""
    neighbours: dict[int, list[int]] = {}
    for a, b in edges:
        neighbours.setdefault(a, []).append(b)
        neighbours.setdefault(b, []).append(a)
    ordered = [start]
    previous, current = -1, start
    while True:
        following = next(n for n in neighbours[current] if n != previous)
        if following == start:
            return ordered
        ordered.append(following)
        previous, current = current, following


def main() -> None:
    lips = {(a, b) for a, b in connections.FACEMESH_LIPS if a in INNER_LIPS and b in INNER_LIPS}
    data = {
        "triangles": triangles(),
        "oval": loop(set(connections.FACEMESH_FACE_OVAL), 10),
        "eye_image_left": loop(set(connections.FACEMESH_RIGHT_EYE), 33),
        "eye_image_right": loop(set(connections.FACEMESH_LEFT_EYE), 263),
        "inner_lips": loop(lips, 78),
    }
    TARGET.write_text(json.dumps(data) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
