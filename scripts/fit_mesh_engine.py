#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fit the mesh engine's maps to motion that the released LivePortrait model measured.

    python scripts/fit_mesh_engine.py --data DIR [--cache FILE.npz] [--output FILE.npz]

DIR/driving holds clips and DIR/templates the motion templates made from some of them, frame by frame. Writes
backend/data/mesh_maps.npz and prints how well each paired clip is met by maps fitted without it. The same
material gives the same numbers.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from backend.engines.mesh_maps import DATA, LANDMARKS, LIVE, MeshMaps, features  # noqa: E402
from backend.rotations import geodesic_degrees, rotation_vector  # noqa: E402
from scripts.mesh_fit import decoder, encoder, ratios, shapes  # noqa: E402
from scripts.mesh_fit.material import SIZE, Clip, Material, read  # noqa: E402

DEPTH_WEIGHT = 0.3  # of squared errors in MediaPipe's depth against those in x and y, in the head pose
CANONICAL = ("d0", "d9", "d12")  # whose templates hold x_c
#: Standard deviation that the measured ratios are given when delta is drawn towards them: eyes, lips, gaze
#: x, y. Less would be obeyed more closely and cost explained variance.
RATIO_NOISE = np.array([0.06, 0.06, 0.07, 0.1, 0.3, 0.1, 0.3])


@dataclass(frozen=True)
class Reading:
    """A clip in the head frame: geometric pose, landmarks there (n,478,3), the encoder's inputs."""

    pose: tuple[np.ndarray, np.ndarray, np.ndarray]
    points: np.ndarray
    head: np.ndarray
    features: np.ndarray


class Fit:
    """Maps fitted on some clips. `numbers` is what MeshMaps reads."""

    def __init__(
        self, paired: Sequence[Clip], material: Material, free: Sequence[Clip], partner: np.ndarray
    ) -> None:
        left_out = {clip.name for clip in material.paired} - {clip.name for clip in paired}
        expressions = [e for name, e in material.expressions.items() if name not in left_out]
        variance = encoder.pooled_variance(expressions)
        plain, depth_scale = shapes.canonical_landmarks([*paired, *material.pictures])
        rest = shapes.symmetric(plain, partner)
        holders = [c for c in (*paired, *material.pictures) if c.name in CANONICAL and c.motion is not None]
        self.numbers: dict[str, np.ndarray] = {
            "canonical_keypoints": np.mean([_motion(c).canonical.mean(axis=0) for c in holders], axis=0),
            "canonical_landmarks": rest,
            "rigid_weights": shapes.rigid_weights(),
            "depth_scale": np.array(depth_scale),
            "depth_weight": np.array(DEPTH_WEIGHT),
        }
        readings = {clip.name: self.read(clip.landmarks) for clip in paired}
        samples = [_sample(clip, readings[clip.name]) for clip in paired]
        ratio_samples = [_ratio_sample(clip, readings[clip.name]) for clip in paired]
        matrix, bias = encoder.fit_encoder(samples, variance)
        self.numbers["ratio_decoder"] = ratio_decoder = ratios.fit_ratio_decoder(ratio_samples)
        scale, offset = ratios.fit_calibration(ratio_samples)
        self.numbers |= {"ratio_scale": scale, "ratio_offset": offset}
        # delta + (measured - delta @ ratio_decoder) @ gain is linear in the same inputs, so it goes into the
        # encoder.
        gain = ratios.consistency(ratio_decoder, variance, RATIO_NOISE)
        live = slice(0, len(LIVE))
        keep = np.eye(len(LIVE)) - ratio_decoder @ gain
        matrix[:, live], bias[live] = matrix[:, live] @ keep, bias[live] @ keep
        opening, gaze = encoder.BLOCKS["eye_opening"], encoder.BLOCKS["gaze"]
        lips = encoder.BLOCKS["lip_opening"]
        matrix[np.concatenate([opening, lips]), live] += scale[:, None] * gain[:3]
        matrix[gaze, live] += gain[3:]
        bias[live] += offset @ gain[:3]
        # Whose face it is shifts the ratios, so the mean is put back.
        mean = np.mean([r.features.mean(axis=0) for r in readings.values()], axis=0) @ matrix[:, live]
        bias[live] = np.mean([s.delta.mean(axis=0) for s in samples], axis=0) - mean
        self.numbers |= {"encoder": matrix, "encoder_bias": bias}

        self.real = [_real_pair(clip, readings[clip.name]) for clip in paired]
        clips = [clip.landmarks for clip in (*paired, *free)]
        own = [self.own_pair(points) for points in (*clips, *(_mirrored(c, partner) for c in clips))]
        self.numbers["decoder"] = decoder.fit_decoder(self.real, own, rest)
        self.numbers["live_limit"] = decoder.live_limits(expressions)
        self.numbers["residual_limit"] = decoder.limits([*self.real, *own])
        self.maps = self._maps()

    def _maps(self) -> MeshMaps:
        empty = {
            "encoder": np.zeros((encoder.FEATURES, len(LIVE) + 6)),
            "encoder_bias": np.zeros(len(LIVE) + 6),
            "ratio_scale": np.ones(3),
            "ratio_offset": np.zeros(3),
            "ratio_decoder": np.zeros((len(LIVE), ratios.COLUMNS)),
            "decoder": np.zeros((len(LIVE), LANDMARKS * 3)),
            "live_limit": np.ones(len(LIVE)),
            "residual_limit": np.ones(LANDMARKS),
        }
        return MeshMaps({**empty, **self.numbers})

    def read(self, landmarks: np.ndarray) -> Reading:
        scale, rotation, translation, points = self._maps().pose(landmarks, SIZE)
        head = ((points - translation[:, None]) / scale[:, None, None]) @ rotation.transpose(0, 2, 1)
        pose = (scale, rotation, translation)
        return Reading(pose, points, head, features(head, pose, self.numbers["canonical_landmarks"]))

    def own_pair(self, landmarks: np.ndarray) -> decoder.Pair:
        """delta and head-frame landmarks as this engine's own measuring sees them."""
        maps = self._maps()
        found = maps.measure(landmarks, SIZE)
        points = maps.pose(landmarks, SIZE)[3]
        return found.expression.reshape(-1, 63)[:, LIVE].astype(np.float64), _to_head(points, found)

    def compact(self) -> dict[str, np.ndarray]:
        """The numbers as they are shipped."""
        return {name: np.asarray(value, dtype=np.float32) for name, value in self.numbers.items()}


def _motion(clip: Clip):
    assert clip.motion is not None
    return clip.motion


def _to_head(points: np.ndarray, motion) -> np.ndarray:
    rotation = motion.rotation.astype(np.float64)
    centred = points - motion.translation.astype(np.float64)[:, None]
    return (centred / motion.scale.astype(np.float64)[:, None, None]) @ rotation.transpose(0, 2, 1)


def _mirrored(landmarks: np.ndarray, partner: np.ndarray) -> np.ndarray:
    return landmarks[:, partner] * (-1.0, 1.0, 1.0) + (SIZE, 0.0, 0.0)


def _live(clip: Clip) -> np.ndarray:
    return _motion(clip).expression.reshape(-1, 63)[:, LIVE].astype(np.float64)


def _sample(clip: Clip, reading: Reading) -> encoder.Sample:
    motion = _motion(clip)
    scale, rotation, translation = reading.pose
    turn = rotation_vector(rotation.transpose(0, 2, 1) @ motion.rotation.astype(np.float64))
    shift = (motion.translation - translation)[:, :2] / scale[:, None]
    correction = np.column_stack([turn, np.log(motion.scale / scale), shift])
    return encoder.Sample(clip.name, reading.features, _live(clip), correction)


def _ratio_sample(clip: Clip, reading: Reading) -> ratios.RatioSample:
    motion = _motion(clip)
    f, blocks = reading.features, encoder.BLOCKS
    openings = f[:, np.concatenate([blocks["eye_opening"], blocks["lip_opening"]])]
    gaze = f[:, blocks["gaze"]].reshape(-1, 2, 2)
    eye, lip = motion.eye_ratio.astype(np.float64), motion.lip_ratio.astype(np.float64)
    return ratios.RatioSample(_live(clip), eye, lip, openings, gaze)


def _real_pair(clip: Clip, reading: Reading) -> decoder.Pair:
    return _live(clip), _to_head(reading.points, _motion(clip))


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a, b)[0, 1])


def _explained(found: np.ndarray, truth: np.ndarray) -> float:
    return float(1.0 - ((found - truth) ** 2).sum() / (truth**2).sum())


def judge(maps: MeshMaps, clip: Clip) -> dict[str, float]:
    """How well the maps meet a paired clip, everything relative to its frame 0."""
    truth, found = _motion(clip), maps.measure(clip.landmarks, SIZE)

    def turned(rotation: np.ndarray) -> np.ndarray:
        return rotation[:1].transpose(0, 2, 1).astype(np.float64) @ rotation.astype(np.float64)

    still = np.broadcast_to(np.eye(3), truth.rotation.shape)
    delta, found_delta = truth.expression, found.expression
    points = _to_head(maps.pose(clip.landmarks, SIZE)[3], truth)[..., :2]
    shown = maps.decode(delta - delta[:1]).residual[..., :2]
    lips = list(encoder.LIPS)
    return {
        "head angle error": float(geodesic_degrees(turned(found.rotation), turned(truth.rotation)).mean()),
        "(standing still)": float(geodesic_degrees(turned(truth.rotation), still).mean()),
        "delta explained": _explained(found_delta - found_delta[:1], delta - delta[:1]),
        "eye left r": _correlation(found.eye_ratio[:, 0], truth.eye_ratio[:, 0]),
        "eye right r": _correlation(found.eye_ratio[:, 1], truth.eye_ratio[:, 1]),
        "lip r": _correlation(found.lip_ratio, truth.lip_ratio),
        "lips move by": float(np.ptp(truth.lip_ratio)),
        "landmarks of delta explained": _explained(shown, points - points[:1]),
        "lips of delta explained": _explained(shown[:, lips], (points - points[:1])[:, lips]),
    }


def print_table(rows: dict[str, dict[str, float]]) -> None:
    names = list(next(iter(rows.values())))
    mean = {name: float(np.mean([row[name] for row in rows.values()])) for name in names}
    print("| " + " | ".join(["clip left out", *names]) + " |")
    print("|" + "---|" * (len(names) + 1))
    for clip, row in {**rows, "mean": mean}.items():
        print("| " + " | ".join([clip, *(f"{row[name]:.3f}" for name in names)]) + " |")


def left_out(material: Material, partner: np.ndarray) -> dict[str, dict[str, float]]:
    """How each paired clip is met by maps fitted without it, by name; see `judge`."""
    rows = {}
    for clip in material.paired:
        others = [other for other in material.paired if other is not clip]
        rows[clip.name] = judge(Fit(others, material, material.free, partner).maps, clip)
    return rows


def mirrored_landmarks(material: Material) -> np.ndarray:
    """The partner of each landmark on the other side of the face, (478,)."""
    plain, _ = shapes.canonical_landmarks([*material.paired, *material.pictures])
    return shapes.mirror_pairs(plain)[0]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True, help="folder with driving/ and templates/")
    parser.add_argument("--cache", type=Path, help="keeps the tracked landmarks between runs (.npz)")
    parser.add_argument("--output", type=Path, default=DATA)
    options = parser.parse_args(arguments)
    material = read(options.data, options.cache)
    partner = mirrored_landmarks(material)
    print_table(left_out(material, partner))
    fit = Fit(material.paired, material, material.free, partner)
    np.savez_compressed(options.output, **fit.compact())
    print(f"wrote {options.output} ({options.output.stat().st_size / 1000:.0f} kB)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
