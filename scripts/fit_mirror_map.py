# SPDX-License-Identifier: GPL-3.0-or-later
"""Fit what a mirror does to LivePortrait's expression delta, and write data/mirror.json for both sides.

Every clip and its mirror image are measured by the mesh engine; the map takes the one's change of delta to
the other's. It is drawn to the plain exchange (the lids' keypoints change places, x changes its sign) where
the clips say little, and made an involution: what is mirrored twice is as it was.

    python -m scripts.fit_mirror_map --data DIR [--cache DIR]

DIR holds driving/*.mp4, portraits/*.mp4, templates/*.pkl and models/; the cache is that of fit_blendshapes.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Collection
from pathlib import Path

import numpy as np

from backend.engines.mesh_maps import LIVE
from scripts.blendshape_fit.forward import PARTNERS
from scripts.blendshape_fit.material import Recording, read

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = (ROOT / "backend" / "data", ROOT / "liveportrait_blender" / "data")
WEIGHT = 0.1  # of the plain exchange
FITTED = ((1, 2), (0, 3, 4, 5, 7, 10, 14, 17, 19, 20))  # keypoints of the brows; of all but eyes and brows
Pairs = dict[str, tuple[np.ndarray, np.ndarray]]


def pairs_of(recordings: Collection[Recording]) -> Pairs:
    """Clip -> changes of delta from the clip's mean, (n,36) each: of the clip and of its mirror image."""
    found: dict[tuple[str, bool], np.ndarray] = {}
    for recording in recordings:
        if recording.engine == "mesh":
            live = recording.motion.expression.reshape(len(recording.motion), 63)[:, LIVE].astype(np.float64)
            found[recording.clip, recording.mirrored] = live - live.mean(axis=0)
    return {clip: (found[clip, False], found[clip, True]) for clip, mirrored in found if mirrored}


def exchange() -> np.ndarray:
    """(36,36): the lids' keypoints change places, x changes its sign."""
    live = list(LIVE)
    plain = np.zeros((len(live), len(live)))
    for column, number in enumerate(live):
        keypoint, axis = divmod(int(number), 3)
        plain[live.index(3 * PARTNERS.get(keypoint, keypoint) + axis), column] = -1.0 if axis == 0 else 1.0
    return plain


def fit(pairs: Pairs) -> np.ndarray:
    """(36,36): the change of delta of a face -> that of its mirror image.

    Part by part: in few clips do brows move without lids and lids without the mouth, and a map that took one
    for a sign of the other would move what does not move. The lids are exchanged as they are, since no clip
    but a wink tells the two eyes apart.
    """
    matrix = exchange()
    keypoints = np.asarray(LIVE) // 3
    for part in FITTED:
        places = np.flatnonzero(np.isin(keypoints, part))
        within = {clip: (own[:, places], image[:, places]) for clip, (own, image) in pairs.items()}
        matrix[np.ix_(places, places)] = _fit_part(within, matrix[np.ix_(places, places)])
    return matrix


def _fit_part(pairs: Pairs, plain: np.ndarray) -> np.ndarray:
    """(m,m) from changes (n,m), drawn to the plain exchange."""
    weights = {clip: 1 / np.sqrt(len(both[0])) for clip, both in pairs.items()}
    x = np.concatenate([weights[clip] * np.concatenate(both) for clip, both in pairs.items()])
    y = np.concatenate([weights[clip] * np.concatenate(both[::-1]) for clip, both in pairs.items()])
    spread = np.sqrt((x**2).mean(axis=0)) + 2e-5
    x, y = x / spread, y / spread
    prior = plain * spread / spread[:, None]
    strength = WEIGHT * (x**2).sum(axis=1).mean()
    more = np.linalg.solve(x.T @ x + strength * np.eye(len(spread)), x.T @ (y - x @ prior.T)).T
    return involution((prior + more) * spread[:, None] / spread)


def involution(matrix: np.ndarray) -> np.ndarray:
    """The matrix that is its own inverse near `matrix`: its matrix sign, by Newton's iteration."""
    for _ in range(60):
        matrix = 0.5 * (matrix + np.linalg.inv(matrix))
    return matrix


def explained(matrix: np.ndarray, pair: tuple[np.ndarray, np.ndarray]) -> float:
    return float(1 - ((pair[0] @ matrix.T - pair[1]) ** 2).sum() / (pair[1] ** 2).sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", type=Path, help="keeps what MediaPipe measured")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        pairs = pairs_of(read(given.data, given.cache or Path(temporary)))
    print("clip left out: share of delta's variance explained, beside the plain exchange")
    for clip, pair in pairs.items():
        rest = {name: both for name, both in pairs.items() if name != clip}
        print(f"{clip:>6} {explained(fit(rest), pair):6.2f} {explained(exchange(), pair):6.2f}")
    matrix = np.round(fit(pairs), 8)
    inputs = json.dumps([list(divmod(int(number), 3)) for number in LIVE])
    rows = ",\n  ".join(json.dumps(row) for row in matrix.tolist())
    text = (
        '{"format": "liveportrait-mirror/1",\n "about": "scripts/fit_mirror_map.py. A mirror image\'s change '
        'of delta is matrix times the change of delta; both in the order of inputs, [keypoint, axis].",\n '
        f'"inputs": {inputs},\n "matrix": [\n  {rows}\n ]}}\n'
    )
    json.loads(text)
    for folder in FOLDERS:
        (folder / "mirror.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
