# SPDX-License-Identifier: GPL-3.0-or-later
"""Frames a second of the whole way and of its parts."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np

from backend.bench.material import Material
from backend.bench.report import Report
from backend.capture import capture_stream
from backend.driving import open_driving
from backend.engines import Engine
from backend.expressions import neutral_expression
from backend.motion import Motion
from backend.options import Options
from backend.pipeline import animate, render
from backend.retargeting import retarget
from backend.source import open_source

GROUP = "speed, frames a second"


class Arrivals:
    """Takes progress and remembers when each frame was there, so that the start can be told from the pace."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self._began = time.perf_counter()

    def update(self, stage: str, done: int, total: int | None) -> None:
        if stage == "render":
            self.times.append(time.perf_counter() - self._began)

    def warn(self, message: str) -> None:
        return None


def measure(report: Report, material: Material, scratch: Path, engine: Engine, quick: bool) -> None:
    """The throughput figures of the mesh suite."""
    clip = material.clip(512, 60 if quick else 300)
    small, large = material.portrait(512), material.portrait(2048)
    for name, source, target, least in (
        ("512 px clip to MP4, whole way", small, "a.mp4", 30.0),
        ("512 px clip to PNG folder, whole way", small, "frames", None),
        ("2048 px source to MP4, whole way", large, "b.mp4", 6.0),
    ):
        pace, start = _whole_way(source, clip, scratch / target, engine)
        report.add(GROUP, name, pace, at_least=least)
        report.add("start, seconds to the first frame", name, start, "s")
        shutil.rmtree(scratch / "frames", ignore_errors=True)
    options = Options()
    driving = open_driving(clip)
    with closing(capture_stream(driving, options, engine, mouths=True)) as stream:
        report.add(
            GROUP, "512 px capture alone (decode, landmarks, measure)", _pace(_frames_of(stream.chunks))
        )
    with closing(capture_stream(driving, options, engine, mouths=True)) as stream:
        motion = Motion.concatenate(list(stream.chunks))
    for size, path, least in ((512, small, None), (2048, large, 12.0)):
        opened = open_source(path, options, engine)
        frames = render(opened, motion[: 60 if size == 512 or not quick else 24], options, engine)
        report.add(GROUP, f"{size} px source, render and paste", _pace(frames), at_least=least)
    report.add("retargeting", "10,000 frames, a frame", _retargeting_time(engine), "ms", at_most=0.2)


def _whole_way(source: Path, clip: Path, output: Path, engine: Engine) -> tuple[float, float]:
    """(frames a second after the first frame, seconds until the first frame)."""
    arrivals = Arrivals()
    began = time.perf_counter()
    animate(source, clip, output, Options(), engine=engine, progress=arrivals)
    whole = time.perf_counter() - began
    # The end counts too: the last frames are still being encoded when they are handed over.
    return (len(arrivals.times) - 1) / max(whole - arrivals.times[0], 1e-9), arrivals.times[0]


def _frames_of(parts: Iterator[Motion]) -> Iterator[int]:
    for part in parts:
        yield from range(len(part))


def _pace(items: Iterator[object]) -> float:
    """Items a second, counted from the first one."""
    next(items)
    began = time.perf_counter()
    count = sum(1 for _ in items)
    return count / max(time.perf_counter() - began, 1e-9)


def _retargeting_time(engine: Engine) -> float:
    """Milliseconds a frame to retarget a performance of 10,000 frames; the best of three."""
    count = 10_000
    wave = np.sin(np.arange(count, dtype=np.float32) / 10)
    expression = neutral_expression()[None] * wave[:, None, None]
    still = Motion.still(canonical=_canonical())
    driving = Motion(
        rotation=np.repeat(still.rotation, count, axis=0),
        expression=expression,
        scale=np.ones(count, np.float32),
        translation=np.zeros((count, 3), np.float32),
        canonical=np.repeat(still.canonical, count, axis=0),
        eye_ratio=np.full((count, 2), 0.3, np.float32),
        lip_ratio=np.abs(wave) * 0.2,
    )
    return min(_seconds(lambda: retarget(still, driving, Options(), engine)) for _ in range(3)) / count * 1000


def _canonical() -> np.ndarray:
    from backend.engines.mesh_maps import MeshMaps

    return MeshMaps.load().canonical_keypoints


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
