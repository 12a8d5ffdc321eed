# SPDX-License-Identifier: GPL-3.0-or-later
# ruff: noqa: T201  (a bench talks to people)
"""How long a performance of 10,000 frames takes in Blender; run by the Python of a Blender environment.

    .venv-bpy-5.0.1/bin/python -m tests.blender.bench_rig [--frames 10000]

Prints one line a step: seconds, or milliseconds a frame. Each is the best of three runs.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bpy

from liveportrait_blender import keypoint_rig, motion_file, rig_sampling

CLIP = Path(__file__).resolve().parents[2] / "backend" / "data" / "library" / "talk.npz"


def best(work: Callable[[], Any]) -> float:
    """Seconds of the fastest of three runs."""
    found = []
    for _ in range(3):
        begin = time.perf_counter()
        work()
        found.append(time.perf_counter() - begin)
    return min(found)


def long_motion(frames: int) -> motion_file.Motion:
    """The library's clip over and over, with noise, so that no curve is constant."""
    import numpy as np

    clip = motion_file.read(CLIP)
    motion = clip.take(np.arange(frames) % len(clip))
    noise = np.random.default_rng(0).normal(0, 1e-3, motion.expression.shape)
    motion.expression = (motion.expression + noise).astype(np.float32)
    return motion


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--frames", type=int, default=10_000)
    count = parser.parse_args().frames
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=True)
    scene = bpy.context.scene
    scene.render.fps = 30
    motion = long_motion(count)
    rig = keypoint_rig.build(bpy.context, motion.take(slice(0, 2)), "Bench", first_frame=1)
    print(f"Blender {bpy.app.version_string}, {count} frames")
    with tempfile.TemporaryDirectory() as folder:
        path = motion_file.write(Path(folder) / "motion.npz", motion)
        print(f"  motion file read      {best(lambda: motion_file.read(path)):8.3f} s")
    write = best(lambda: keypoint_rig.to_action(rig, motion, scene=scene, first_frame=1))
    print(f"  action written        {write:8.3f} s")
    frames = range(1, count + 1)
    print(f"  sampled, by curves    {best(lambda: keypoint_rig.sample(rig, frames)):8.3f} s")
    rig["smile"], rig["blink_left"] = 0.5, -3.0
    print(f"  with two controls     {best(lambda: keypoint_rig.sample(rig, frames)):8.3f} s")
    begin = time.perf_counter()
    rig_sampling.sample(rig, frames, stepwise=True)
    print(f"  sampled, step by step {time.perf_counter() - begin:8.3f} s")
    steps = []
    for frame in range(1, min(count, 500)):
        begin = time.perf_counter()
        scene.frame_set(frame)
        steps.append(time.perf_counter() - begin)
    playback = 1000 * statistics.median(steps)
    print(f"  playback              {playback:8.3f} ms a frame, with 52 channels and all controls")


if __name__ == "__main__":
    main()
