#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fit the map from implicit keypoints to ARKit's 52 blendshapes, and print how well it meets clips left out.

    python scripts/fit_blendshapes.py --data DIR [--cache FOLDER]

DIR holds driving/, portraits/, templates/ and models/face_landmarker_v2_with_blendshapes.task. Writes
backend/data/blendshapes.json and blendshapes_inverse.json and their copies in liveportrait_blender/data, and
prints the tables that docs/blendshapes.md keeps. The same material gives the same numbers.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from backend.blendshape_names import CHANNELS, mirrored  # noqa: E402
from scripts.blendshape_fit import forward, inverse  # noqa: E402
from scripts.blendshape_fit.forward import INPUTS, Map, Sample  # noqa: E402
from scripts.blendshape_fit.material import read  # noqa: E402

FOLDERS = (ROOT / "backend/data", ROOT / "liveportrait_blender/data")
#: A channel is known when at least so many clips (mirror images counted) move it and the mean of their
#: left-out correlations, each weighted by how far the clip moves the channel, is at least this.
KNOWN_CLIPS, KNOWN_CORRELATION = 3, 0.6
NOT_MOVED = "too few of the clips it was fitted on move it"
NOT_TOLD = "what keypoints say about it does not hold on clips left out of the fit"
NOT_SCORED = "it was not measured on the clips"

#: What the bounds are about.
JUDGED = ("jawOpen", "eyeBlink", "browDown", "mouthSmile", "mouthUpperUp", "mouthLowerDown")
#: (clip, engine, mirrored, channel) -> correlation, standard deviation of the score, its range (2 to 98 %)
Correlations = dict[tuple[str, str, bool, int], tuple[float, float, float]]


def candidates() -> list[int]:
    return [i for i, name in enumerate(CHANNELS) if len(forward.columns_of(name))]


def left_out(samples: Sequence[Sample], channels: Sequence[int]) -> Correlations:
    """Every recording met by a map that was fitted without its clip, where it moves a channel."""
    found: Correlations = {}
    for clip in sorted({s.clip for s in samples}):
        others = [s for s in samples if s.clip != clip]
        mine = [s for s in samples if s.clip == clip]
        # All of them, since the neutral that is found depends on all.
        fitted = forward.fit(others, channels)
        for s in mine:
            values = fitted.values(s.x, fitted.own_neutral(s.x))
            for c in channels:
                if s.moves(c):
                    score = s.scores[:, c]
                    r = np.corrcoef(values[:, c], score)[0, 1] if values[:, c].std() > 1e-6 else 0.0
                    low, high = np.percentile(score, (2, 98))
                    found[s.clip, s.engine, s.mirrored, c] = float(r), float(score.std()), float(high - low)
    return found


def verdict(found: Correlations, channel: int) -> str:
    """Why a channel cannot be told, or an empty text. Both sides of a pair share one verdict."""
    pair = {channel, CHANNELS.index(mirrored(CHANNELS[channel]))}
    own = {k: v for k, v in found.items() if k[3] in pair}
    if len({(k[0], k[2]) for k in own}) < KNOWN_CLIPS * len(pair):
        return NOT_MOVED
    r, weight, _ = np.array(list(own.values())).T
    return "" if float(r @ weight / weight.sum()) >= KNOWN_CORRELATION else NOT_TOLD


def mean_of(found: Correlations, channel: int, engine: str) -> float | None:
    own = [v[0] for k, v in found.items() if k[3] == channel and k[1] == engine and not k[2]]
    return float(np.mean(own)) if own else None


def table(fitted: Map, found: Correlations, why: Sequence[str]) -> str:
    """The shared table as JSON text, a line a channel."""
    rows = []
    for i, name in enumerate(CHANNELS):
        terms = [
            {"input": INPUTS[j], "coefficient": _round(fitted.coefficients[i, j])}
            for j in np.flatnonzero(fitted.coefficients[i])
            if not why[i]
        ]
        row = {
            "name": name,
            "known": not why[i],
            "why_not": why[i],
            "bias": 0.0,
            "terms": terms,
            "clamp": [0.0, 1.0],
            "left_out_correlation": {
                engine: None if (r := mean_of(found, i, engine)) is None else round(r, 3)
                for engine in ("liveportrait", "mesh")
            },
        }
        rows.append("  " + json.dumps(row))
    used = np.flatnonzero(fitted.coefficients[[not w for w in why]].any(axis=0))
    neutral = {INPUTS[j]: _round(fitted.neutral[j]) for j in used}
    about = (
        "ARKit channel = clamp(bias + sum of coefficient * (input - neutral)). kp_NN.axis is delta of that "
        "implicit keypoint, LivePortrait units and axes; eye_ratio_left is the image-left eye's, that is the "
        "subject's right; channel names mean the subject's sides. neutral is an average neutral face's; a "
        "performer's own gives better values. Written by scripts/fit_blendshapes.py."
    )
    return (
        "{\n"
        f' "format": "liveportrait-blendshapes/1",\n "about": {json.dumps(about)},\n'
        f' "neutral": {json.dumps(neutral)},\n'
        ' "channels": [\n' + ",\n".join(rows) + "\n ]\n}\n"
    )


def inverse_table(matrix: np.ndarray, neutral: np.ndarray, spread: np.ndarray) -> str:
    """The way back as JSON text, a line an output."""
    rows = []
    for j, name in enumerate(inverse.OUTPUTS):
        effects = {CHANNELS[i]: _round(matrix[i, j]) for i in np.flatnonzero(matrix[:, j])}
        rest, moves = (_round(neutral[j]), _round(spread[j])) if j < len(neutral) else (0.0, 0.0)
        rows.append("  " + json.dumps({"name": name, "neutral": rest, "spread": moves, "effects": effects}))
    about = (
        "output = neutral + sum of effect * ARKit channel (0 to 1). kp_NN.axis is delta of that implicit "
        "keypoint, what is not named is 0; gaze is in eye widths, from a face that looks straight ahead. "
        "spread is how far an output usually moves within a clip, 0 for gaze. "
        "Indices left and right are image sides, channel names the subject's. "
        "Written by scripts/fit_blendshapes.py."
    )
    head = f' "format": "liveportrait-blendshapes-inverse/1",\n "about": {json.dumps(about)},\n'
    return "{\n" + head + ' "outputs": [\n' + ",\n".join(rows) + "\n ]\n}\n"


def print_inverse(samples: Sequence[Sample], channels: Sequence[int]) -> None:
    """On clips left out: the share of delta's movement that the scores bring back, how well the channels read
    from that agree with the scores they were made from, and how far the clip's own channels are from
    themselves when they have gone back and are read again (mean, most)."""
    live = slice(0, len(inverse.INPUTS) - 3)
    print("| back, clip left out | delta explained, liveportrait | mesh | channels come back, r | own |")
    print("|---|---|---|---|---|")
    for clip in sorted({s.clip for s in samples}):
        others = [s for s in samples if s.clip != clip]
        fitted = forward.fit(others, channels)
        matrix, spread = inverse.fit(others, fitted.coefficients), forward.spread_of(others)
        cells = {"liveportrait": "", "mesh": ""}
        again: list[float] = []
        own = np.zeros((1, 1))
        for s in samples:
            if s.clip != clip or s.mirrored:
                continue
            scores = np.clip(s.scores / inverse.full_scores(), 0.0, 1.0)
            made = inverse.back(scores, matrix, fitted, spread)
            truth = s.x[:, live] - s.x[:, live].mean(axis=0)
            error = made[:, live] - made[:, live].mean(axis=0) - truth
            cells[s.engine] = f"{1 - (error**2).sum() / (truth**2).sum():.2f}"
            if s.engine == "mesh":
                values = fitted.values(made, fitted.neutral)
                again = [
                    float(np.corrcoef(values[:, c], scores[:, c])[0, 1])
                    for c in channels
                    if s.moves(c) and values[:, c].std() > 1e-6
                ]
                values = fitted.values(s.x, fitted.own_neutral(s.x))
                twice = fitted.values(inverse.back(values, matrix, fitted, spread), fitted.neutral)
                own = np.abs(twice - values)[:, channels]
        print(
            f"| {clip} | {cells['liveportrait']} | {cells['mesh']} | {np.mean(again):.2f} "
            f"| {own.mean():.3f} ({own.max():.2f}) |"
        )


def _round(value: float) -> float:
    return float(f"{value:.5g}")


def print_table(found: Correlations) -> None:
    for engine in ("liveportrait", "mesh"):
        clips = sorted({k[0] for k in found if k[1] == engine})
        print(f"| {engine} | " + " | ".join(clips) + " | mean |")
        print("|" + "---|" * (len(clips) + 2))
        for i, name in enumerate(CHANNELS):
            cells = [found.get((clip, engine, False, i)) for clip in clips]
            here = [cell[0] for cell in cells if cell is not None]
            if here:
                text = " | ".join("" if cell is None else f"{cell[0]:.2f} ({cell[2]:.2f})" for cell in cells)
                print(f"| {name} | {text} | {np.mean(here):.2f} |")
        judged = [
            cell[0]
            for key, cell in found.items()
            if key[1] == engine and not key[2] and CHANNELS[key[3]].startswith(JUDGED)
        ]
        low = sum(r < 0.6 for r in judged)
        print(
            f"judged: mean {np.mean(judged):.3f}, least {min(judged):.2f}, {low} of {len(judged)} under 0.6"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", type=Path, help="a folder that keeps what MediaPipe measured between runs")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        samples = [Sample.of(r) for r in read(options.data, options.cache or Path(temporary))]
    first = left_out(samples, candidates())
    why = [
        verdict(first, i) if i in candidates() else (NOT_SCORED if name == "tongueOut" else NOT_MOVED)
        for i, name in enumerate(CHANNELS)
    ]
    known = [i for i in range(len(CHANNELS)) if not why[i]]
    # Once more without the channels that cannot be told, whose noise would disturb the neutral.
    found = first | left_out(samples, known)
    print_table(found)
    fitted = forward.fit(samples, known)
    text = table(fitted, found, why)
    back = inverse_table(
        inverse.fit(samples, fitted.coefficients), fitted.neutral, forward.spread_of(samples)
    )
    for folder in FOLDERS:
        (folder / "blendshapes.json").write_text(text, encoding="utf-8")
        (folder / "blendshapes_inverse.json").write_text(back, encoding="utf-8")
    print_inverse(samples, known)
    terms = [int((row != 0).sum()) for row, w in zip(fitted.coefficients, why, strict=True) if not w]
    print(f"{len(terms)} channels known, {sum(terms)} terms, {max(terms)} at most")
    print("cannot be told: " + ", ".join(n for n, w in zip(CHANNELS, why, strict=True) if w))
    return 0


if __name__ == "__main__":
    sys.exit(main())
