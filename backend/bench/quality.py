# SPDX-License-Identifier: GPL-3.0-or-later
"""How well a clip is shown again from its own first frame, and how well its motion is measured."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from backend import media
from backend.bench import measures
from backend.bench.material import Material
from backend.bench.report import Report
from backend.driving import open_driving
from backend.engines import Engine
from backend.faces import FaceTracker
from backend.motion import Motion
from backend.motion_files import load_template
from backend.options import Options
from backend.pipeline import capture, render
from backend.source import Source, open_source

SAMPLES = 24
MOVES_DEGREES = 2.0  # mean head angle against frame 0 above which a clip counts as one where the head moves


@dataclass(frozen=True)
class Likeness:
    """Means over the sampled frames: of the rendered ones, or of frame 0 repeated."""

    psnr: float
    ssim: float
    landmarks: float


def measure(report: Report, material: Material, scratch: Path, engine: Engine, quick: bool) -> None:
    """Self-reenactment, detection rate, steadiness, and agreement with templates of the same clips."""
    gains = []
    for clip in material.clips():
        motion = capture(clip, Options(), engine, keep_mouth=True)
        report.add(
            "face found, share of frames", clip.stem, 100 * float(motion.valid.mean()), "%", at_least=100
        )
        _steadiness(report, clip.stem, motion)
        shown, repeated = _reenact(clip, motion, scratch, engine, 8 if quick else SAMPLES)
        group = f"self-reenactment, {clip.stem}"
        moves = _head_moves(motion)
        report.add(group, "PSNR", shown.psnr, "dB", at_least=repeated.psnr if moves else None)
        report.add(group, "PSNR, frame 0 repeated", repeated.psnr, "dB")
        report.add(group, "SSIM", shown.ssim)
        report.add(group, "SSIM, frame 0 repeated", repeated.ssim)
        report.add(group, "landmark error", shown.landmarks, "eye distances", at_most=repeated.landmarks)
        report.add(group, "landmark error, frame 0 repeated", repeated.landmarks, "eye distances")
        gains.append(shown.psnr - repeated.psnr)
    report.add(
        "self-reenactment, mean", "PSNR gained over frame 0 repeated", float(np.mean(gains)), "dB", at_least=0
    )
    for clip, template in material.pairs():
        _agreement(report, clip, template, engine)


def _steadiness(report: Report, name: str, motion: Motion) -> None:
    group = "jitter, mean second difference: head degrees and keypoints x 1000"
    for label, chosen in ((name, motion), (f"{name}, smoothing auto", motion.smooth("auto"))):
        angles, keypoints = measures.jitter(chosen)
        report.add(group, f"{label}: head", angles, "degrees")
        report.add(group, f"{label}: keypoints", 1000 * keypoints)


def _head_moves(motion: Motion) -> bool:
    turned = motion.rotation @ motion.rotation[0].T
    angle = np.degrees(np.arccos(np.clip((np.trace(turned, axis1=1, axis2=2) - 1) / 2, -1, 1)))
    return float(angle.mean()) > MOVES_DEGREES


def _reenact(
    clip: Path, motion: Motion, scratch: Path, engine: Engine, samples: int
) -> tuple[Likeness, Likeness]:
    """Likeness of the rendered clip, and of frame 0 repeated, to the clip inside the source's window."""
    wanted = set(np.linspace(0, len(motion) - 1, min(samples + 1, len(motion))).astype(int)[1:].tolist())
    first = next(iter(media.Clip(clip).frames(stop_frame=1)))
    path = scratch / f"first-{clip.stem}.png"
    cv2.imwrite(str(path), cv2.cvtColor(first, cv2.COLOR_RGB2BGR))
    source = open_source(path, Options(), engine)
    shown: list[tuple[float, float, float]] = []
    repeated: list[tuple[float, float, float]] = []
    with FaceTracker() as real, FaceTracker() as made, FaceTracker() as kept:
        start = _landmarks(kept, first)
        frames = render(source, motion, Options(), engine)
        for number, (truth, frame) in enumerate(zip(media.Clip(clip).frames(), frames, strict=False)):
            if number not in wanted:
                continue
            points = _landmarks(real, truth)
            if points is None or start is None:
                continue
            found = _landmarks(made, frame)
            # A rendered face that is not even found is as wrong as not having moved.
            error = measures.landmark_error(start if found is None else found, points)
            shown.append((*_pictures(source, frame, truth), error))
            repeated.append((*_pictures(source, first, truth), measures.landmark_error(start, points)))
    return Likeness(*np.mean(shown, axis=0)), Likeness(*np.mean(repeated, axis=0))


def _pictures(source: Source, picture: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    x0, y0, x1, y1 = source.window
    part, real = picture[y0:y1, x0:x1], truth[y0:y1, x0:x1]
    return measures.psnr(part, real), measures.ssim(part, real)


def _landmarks(tracker: FaceTracker, frame: np.ndarray) -> np.ndarray | None:
    """Landmarks that have settled: sampled frames lie far apart, and tracking needs a look or two to
    converge.
    """
    face = None
    for _ in range(3):
        face = tracker.update(frame)
    return None if face is None else face.landmarks


def _agreement(report: Report, clip: Path, template: Path, engine: Engine) -> None:
    """The motion measured here against LivePortrait's own of the same clip, which the fit has seen."""
    truth = load_template(template)
    # The released program fed the whole frame.
    motion = capture(open_driving(clip), Options(driving_crop=False), engine)
    count = min(len(truth), len(motion))
    truth, motion = truth[:count], motion[:count]
    group = f"agreement with LivePortrait, {clip.stem}"
    report.add(group, "head angle error, mean", measures.angle_error(motion, truth), "degrees", at_most=2)
    report.add(
        group, "delta, explained variance (clip in the fit)", measures.explained_variance(motion, truth)
    )
    if not truth.ratios_estimated:
        report.add(group, "eye ratio, correlation", measures.correlation(motion.eye_ratio, truth.eye_ratio))
        report.add(group, "lip ratio, correlation", measures.correlation(motion.lip_ratio, truth.lip_ratio))
