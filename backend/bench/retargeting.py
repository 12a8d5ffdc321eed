# SPDX-License-Identifier: GPL-3.0-or-later
"""What retargeting costs a frame, how much smoothing steadies, and the pace of editing a clip."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from backend.bench.material import Material
from backend.bench.report import Report
from backend.bench.speed import Arrivals
from backend.driving import open_driving
from backend.engines import Engine
from backend.motion import Motion
from backend.options import Options
from backend.pipeline import animate, capture
from backend.retargeting import retarget
from backend.rotations import euler_from_rotation
from backend.source import open_source
from backend.timeline import frames_of, take

COST = "retargeting, milliseconds a frame on one core"
JITTER = "jitter, mean second difference a frame"
PACE = "clip as source, frames a second"
FRAMES = 10_000
MOST = 0.2  # ms
REPEATS = 3


def measure(report: Report, material: Material, scratch: Path, engine: Engine, quick: bool) -> None:
    """The figures of the retargeting suite."""
    _cost(report, material, engine)
    for clip in material.clips()[: 2 if quick else None]:
        _jitter(report, clip, engine)
    _pace(report, material, scratch, engine, quick)


def _cost(report: Report, material: Material, engine: Engine) -> None:
    """A motion of 10,000 frames with a still and with a clip of as many as source."""
    some = material.motion()
    motion = take(some, frames_of(len(some), np.arange(FRAMES), "mirror"))
    source = open_source(material.portrait(512), Options(), engine).motion
    clip = replace(motion, rotation=motion.rotation.copy())
    everything = Options(
        eye_retargeting=True, lip_retargeting=True, normalize_lips=True, controls={"smile": 0.3, "yaw": 5.0}
    )
    steady = Options(smoothing=1.0, source_smoothing=1.0, steady_source_eyes=True)
    for name, given, options in (
        ("still, relative", source, Options()),
        ("still, absolute", source, Options(relative=False)),
        ("still, eyes, lips, controls", source, everything),
        ("still, smoothed", source, Options(smoothing=1.0)),
        ("still, upstream", source, Options(compatibility="upstream")),
        ("clip, relative", clip, Options()),
        ("clip, smoothed, eyes steadied", clip, steady),
        ("clip, upstream", clip, Options(compatibility="upstream")),
    ):
        best = min(_seconds(given, motion, options, engine) for _ in range(REPEATS))
        report.add(COST, name, 1000 * best / FRAMES, "ms", at_most=MOST)


def _seconds(source: Motion, motion: Motion, options: Options, engine: Engine) -> float:
    began = time.process_time()  # of all threads, so that a second core is no help
    retarget(source, motion, options, engine)
    return time.process_time() - began


def _jitter(report: Report, clip: Path, engine: Engine) -> None:
    motion = capture(open_driving(clip), Options(), engine)
    for name, steadied in (
        ("measured", motion),
        ("smoothing auto", motion.smooth("auto")),
        ("smoothing 1", motion.smooth(1.0)),
    ):
        report.add(JITTER, f"{clip.stem}, head, {name}", pose_jitter(steadied), "deg")
        report.add(JITTER, f"{clip.stem}, keypoints, {name}", keypoint_jitter(steadied), "/1000 of the crop")


def pose_jitter(motion: Motion) -> float:
    """Mean size of the second difference of the head's angles, degrees; 0 below three frames."""
    angles = np.unwrap(np.stack(euler_from_rotation(motion.rotation), axis=1), axis=0, period=360)
    return _second_difference(angles)


def keypoint_jitter(motion: Motion) -> float:
    """Mean size of the second difference of the 21 keypoints, thousandths of the crop's side."""
    return _second_difference(motion.keypoints()) * 1000 / 2


def _second_difference(values: np.ndarray) -> float:
    """Mean length of the second difference over frames of (n, ..., k)."""
    if len(values) < 3:
        return 0.0
    return float(np.linalg.norm(np.diff(values, n=2, axis=0), axis=-1).mean())


def _pace(report: Report, material: Material, scratch: Path, engine: Engine, quick: bool) -> None:
    """A 512 px clip that performs another one's motion, to MP4: the second pass, and both together."""
    frames = 40 if quick else 150
    clip = material.clip(512, frames)
    seen = Arrivals()
    began = time.perf_counter()
    animate(
        clip, "talk", scratch / "edited.mp4", Options(length_policy="cycle"), engine=engine, progress=seen
    )
    whole = time.perf_counter() - began
    report.add(
        PACE, "512 px to MP4, measured already", (len(seen.times) - 1) / (seen.times[-1] - seen.times[0])
    )
    report.add(PACE, "512 px to MP4, whole way", len(seen.times) / whole)
