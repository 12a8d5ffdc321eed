# SPDX-License-Identifier: GPL-3.0-or-later
"""Fit what templates may lack: eye and lip ratios from the expression, and the mean canonical keypoints.

    python scripts/fit_ratio_maps.py --data DIR

DIR/templates holds LivePortrait's templates. Writes backend/data/ratio_maps.json and canonical_keypoints.json
and prints how well each clip is met by maps fitted without it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from backend.motion import Motion  # noqa: E402
from backend.motion_files import load_template  # noqa: E402
from backend.pickles import read_pickle  # noqa: E402

CLIPS = ("d0", "d1", "d2", "d5", "d7")
STILLS = ("image_d9", "image_d12")
WITH_CANONICAL = ("d0", "image_d9", "image_d12")
Y = 1
# (keypoint, axis) of the own upper and lower lid, then the other eye's: image-left and image-right share one
# set of coefficients, since a face and its mirror image obey one law; left-out clips then stay above 0.94.
EYES = (((11, Y), (13, Y), (15, Y), (16, Y)), ((15, Y), (16, Y), (11, Y), (13, Y)))
# Lower and upper lip. More keypoints fit the two clips that speak better and the left-out ones worse.
LIPS = ((19, Y), (20, Y))


def rows(expression: np.ndarray, terms: tuple[tuple[int, int], ...]) -> np.ndarray:
    return np.column_stack([np.ones(len(expression)), *(expression[:, k, a] for k, a in terms)])


def solve(parts: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Least squares in which every clip counts the same, however long it is."""
    a = np.concatenate([x / np.sqrt(len(x)) for x, _ in parts])
    b = np.concatenate([y / np.sqrt(len(y)) for _, y in parts])
    return np.linalg.lstsq(a, b, rcond=None)[0]


def fit(motions: list[Motion]) -> tuple[np.ndarray, np.ndarray]:
    eyes = [(rows(m.expression, EYES[i]), m.eye_ratio[:, i]) for m in motions for i in (0, 1)]
    return solve(eyes), solve([(rows(m.expression, LIPS), m.lip_ratio) for m in motions])


def report(motions: dict[str, Motion]) -> None:
    print("left out      eye left r    rms    eye right r    rms         lips r    rms   lips move by")
    for clip in CLIPS:
        eye, lip = fit([m for name, m in motions.items() if name != clip])
        left_out = motions[clip]
        cells = []
        for weights, terms, truth in (
            (eye, EYES[0], left_out.eye_ratio[:, 0]),
            (eye, EYES[1], left_out.eye_ratio[:, 1]),
            (lip, LIPS, left_out.lip_ratio),
        ):
            guess = rows(left_out.expression, terms) @ weights
            correlation = np.corrcoef(guess, truth)[0, 1]
            cells.append(f"{correlation:10.3f}  {np.sqrt(np.mean((guess - truth) ** 2)):.3f}")
        print(f"{clip:14}{'   '.join(cells)}   {np.ptp(left_out.lip_ratio):8.3f}")


def term_list(weights: np.ndarray, terms: tuple[tuple[int, int], ...]) -> dict[str, object]:
    return {
        "intercept": round(float(weights[0]), 5),
        "terms": [[k, a, round(float(w), 4)] for (k, a), w in zip(terms, weights[1:])],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with templates/")
    parser.add_argument("--output", type=Path, default=ROOT / "backend" / "data", help="where the numbers go")
    arguments = parser.parse_args()
    folder = arguments.data / "templates"

    # Read without the maps that this script is about to write.
    canonical = np.zeros((21, 3))
    for name in WITH_CANONICAL:
        frames = read_pickle((folder / f"{name}.pkl").read_bytes())["motion"]
        canonical += np.mean([frame["kp"][0] for frame in frames], axis=0) / len(WITH_CANONICAL)
    keypoints = {
        "about": "mean canonical keypoints x_c (21 x 3) of faces measured by LivePortrait's motion extractor",
        "keypoints": [[round(float(v), 6) for v in point] for point in canonical],
    }
    arguments.output.mkdir(parents=True, exist_ok=True)
    write(arguments.output / "canonical_keypoints.json", keypoints)

    motions = {name: load_template(folder / f"{name}.pkl") for name in (*CLIPS, *STILLS)}
    report(motions)
    eye, lip = fit(list(motions.values()))
    maps = {
        "about": "ratio = intercept + sum of coefficient * delta[keypoint][axis]; eyes image-left first",
        "eye_ratio": [term_list(eye, terms) for terms in EYES],
        "lip_ratio": term_list(lip, LIPS),
    }
    write(arguments.output / "ratio_maps.json", maps)


def write(path: Path, table: Mapping[str, object]) -> None:
    lines = ",\n".join(f" {json.dumps(key)}: {json.dumps(value)}" for key, value in table.items())
    path.write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
