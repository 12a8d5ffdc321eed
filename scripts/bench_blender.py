# SPDX-License-Identifier: GPL-3.0-or-later
"""How fast the add-on is inside Blender: curves in bulk, the rig, baking, playback, the main thread.

    .venv-bpy-5.0.1/bin/python scripts/bench_blender.py [--output FILE.json] [--frames 10000] [--repeat 3]

Needs a Python with the bpy wheel. Playback takes ICT's head where the material lies beside the project, else
a tiny one. Prints a table, and writes it as JSON with the machine and Blender's version.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "liveportrait_blender"
EVENTS = 20_000
PLAYED = 60


@dataclass(frozen=True)
class Row:
    """A figure: `target` is the most it may be (the least with at_least), None where there is none."""

    name: str
    value: float
    unit: str = "s"
    target: float | None = None
    at_least: bool = False

    @property
    def reached(self) -> bool | None:
        """Whether it is as good as it has to be."""
        if self.target is None:
            return None
        return self.value >= self.target if self.at_least else self.value <= self.target


def main() -> int:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, help="also write the figures as JSON")
    parser.add_argument("--frames", type=int, default=10_000, help="frames of the performance [10000]")
    parser.add_argument("--repeat", type=int, default=3, help="the middle one of so many counts [3]")
    parsed = parser.parse_args()
    profile = Path(tempfile.mkdtemp(prefix="liveportrait-bench-"))
    os.environ["BLENDER_USER_RESOURCES"] = os.environ["LIVEPORTRAIT_USER_FOLDER"] = str(profile)
    sys.path.insert(0, str(ROOT))
    import bpy

    addon = importlib.import_module(PACKAGE)
    entry = bpy.context.preferences.addons.new()
    entry.module = PACKAGE
    addon.register()
    try:
        rows = [
            *curves(parsed.frames, parsed.repeat),
            *performing(parsed.frames, parsed.repeat),
            *playback(),
            *main_thread(),
        ]
    finally:
        addon.unregister()
        shutil.rmtree(profile, ignore_errors=True)
    about = {
        "format": "liveportrait-bench/1",
        "suite": "blender",
        "blender": bpy.app.version_string,
        "frames": parsed.frames,
        "machine": machine(),
    }
    print(f"Blender {about['blender']}, {about['machine']}")
    for row in rows:
        verdict = {None: "", True: "reached", False: "MISSED"}[row.reached]
        sign = ("≥ " if row.at_least else "≤ ") + f"{row.target:g}" if row.target is not None else ""
        print(f"{row.name:58} {row.value:10.4g} {row.unit:4} {sign:8} {verdict}")
    if parsed.output is not None:
        content = {**about, "rows": [{**asdict(row), "reached": row.reached} for row in rows]}
        parsed.output.parent.mkdir(parents=True, exist_ok=True)
        parsed.output.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    sys.stdout.flush()
    os._exit(0)  # bpy 5.2 now and then crashes while Python shuts down


def machine() -> dict[str, Any]:
    """What it ran on."""
    name = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        lines = info.read_text(encoding="utf-8").splitlines()
        name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), name)
    return {
        "processor": name,
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }


def curves(frames: int, repeat: int) -> list[Row]:
    """A performance in, sampled, and baked into 52 shape keys."""
    import bpy

    from liveportrait_blender import channel_samples, keypoint_rig, rig_channels, shape_key_bake
    from tests.blender.heads import small_head
    from tests.blender.performances import motion

    empty()
    bpy.context.scene.render.fps = 25
    long = motion(frames)
    rig = keypoint_rig.build(bpy.context, motion(5), "Bench", first_frame=1)
    scene = bpy.context.scene
    load = middle(lambda: keypoint_rig.to_action(rig, long, scene=scene, first_frame=1), repeat)
    every = range(1, frames + 1)
    sampling = middle(lambda: keypoint_rig.sample(rig, every), repeat)
    channels = middle(lambda: channel_samples.sample(rig, every), repeat)
    head = small_head("Head", rig_channels.names())
    follow(head, rig, rig_channels.names())

    def bake(tolerance: float) -> Callable[[], Any]:
        how = shape_key_bake.How(tolerance=tolerance)
        return lambda: shape_key_bake.bake([head], every, how)

    baked = middle(bake(0.0), repeat)
    keys = shape_key_bake.bake([head], every)[0].keys
    fewer = middle(bake(0.001), repeat)
    left = shape_key_bake.bake([head], every, shape_key_bake.How(tolerance=0.001))[0].keys
    text = f"{frames:,} frames"
    return [
        Row(f"motion to Action, {text}", load, target=1.0),
        Row(f"Action to motion, {text}", sampling),
        Row(f"Action to ARKit's 52 channels, {text}", channels),
        Row(f"52 shape keys baked, {text}, {keys:,} keys", baked, target=2.0),
        Row(f"the same within .001, {left:,} keys", fewer),
    ]


def performing(frames: int, repeat: int) -> list[Row]:
    """A rig that performs a motion file: read, sampled both ways, and played with channels and controls."""
    import bpy

    from liveportrait_blender import keypoint_rig, motion_file, rig_sampling
    from tests.blender.performances import motion

    empty()
    scene = bpy.context.scene
    scene.render.fps = 25
    with tempfile.TemporaryDirectory(prefix="liveportrait-bench-") as folder:
        path = motion_file.write(Path(folder) / "motion.npz", motion(frames))
        read = middle(lambda: motion_file.read(path), repeat)
    rig = keypoint_rig.build(bpy.context, motion(frames), "Bench", first_frame=1)
    every = range(1, frames + 1)
    rig["smile"], rig["blink_left"] = 0.5, -3.0
    controlled = middle(lambda: keypoint_rig.sample(rig, every), repeat)
    stepped = middle(lambda: rig_sampling.sample(rig, every, stepwise=True), 1)
    took = []
    for frame in every[: min(frames, 500)]:
        began = time.perf_counter()
        scene.frame_set(frame)
        took.append(time.perf_counter() - began)
    text = f"{frames:,} frames"
    return [
        Row(f"motion file read, {text}", read),
        Row(f"Action to motion with two controls, {text}", controlled),
        Row(f"the same step by step (NLA, constraints, drivers), {text}", stepped),
        Row("playback of the rig, a frame, all channels and controls", 1000 * statistics.median(took), "ms"),
    ]


def playback() -> list[Row]:
    """Frames a second of a head whose shape keys are driven, evaluated and not drawn."""
    import bpy

    from liveportrait_blender import keypoint_rig, rig_channels, shape_key_drivers, shape_key_mapping
    from tests.blender.heads import ICT, ict_head, small_head
    from tests.blender.performances import motion

    empty()
    rig = keypoint_rig.build(bpy.context, motion(PLAYED + 10), "Bench", first_frame=1)
    head = ict_head() if ICT.is_file() else small_head("Head", rig_channels.names())
    if ICT.is_file():
        shape_key_mapping.match(head)
        head.liveportrait.shape_keys.rig = rig
        drive(head)
    else:
        follow(head, rig, rig_channels.names())
    scene = bpy.context.scene
    scene.frame_set(1)
    took = []
    for frame in range(2, PLAYED + 2):
        began = time.perf_counter()
        scene.frame_set(frame)
        head.evaluated_get(bpy.context.evaluated_depsgraph_get())
        took.append(time.perf_counter() - began)
    points, keys = len(head.data.vertices), len(shape_key_drivers.driven(head))
    text = f"playback, {points:,} points with {keys} driven shape keys"
    return [Row(text, 1 / statistics.median(took), "fps")]


def main_thread() -> list[Row]:
    """The longest that the main thread is held while a backend tells of very much at once."""
    from liveportrait_blender import pump, runtime
    from liveportrait_blender.session import Session
    from liveportrait_blender.supervisor import BackendSettings
    from tests.addon.fake_backend import answer, backend, tell

    folder = Path(tempfile.mkdtemp(prefix="liveportrait-bench-"))
    told = threading.Event()

    def behave(connection: Any, request: dict[str, Any]) -> None:
        answer(connection, request, {"job": "1", "state": "running", "key": None})
        for k in range(EVENTS):
            tell(connection, "job.progress", job="1", done=k, total=EVENTS, stage="render", fps=25.0, eta=1.0)
        tell(connection, "job.finished", job="1", state="done", result={})
        told.set()

    before = runtime.session
    try:
        with backend(behave) as fake:
            settings = BackendSettings(remote_url=fake.url, remote_token="a token of sixteen characters")
            runtime.session = session = Session(lambda: settings)
            try:
                record = session.submit(Asked(folder))
                pump.forget_measures()
                ended = pump.run_until(lambda: record.ended and told.is_set(), 120.0)
                if not ended:
                    raise RuntimeError(f"the job did not end: {record}")
                longest = pump.longest_own
            finally:
                session.close()
    finally:
        runtime.session = before
        shutil.rmtree(folder, ignore_errors=True)
    return [Row(f"longest drain, {EVENTS:,} events", 1000 * longest, "ms", target=16.0)]


@dataclass(frozen=True)
class Asked:
    """A job of which only the answers matter."""

    folder: Path
    method: str = "motion.convert"
    label: str = "bench"
    landing: Any = None

    def params(self) -> dict[str, Any]:
        return {"motion": {"library": "talk"}, "format": "npz"}


def empty() -> None:
    """A file with nothing in it."""
    import bpy

    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=True)


def follow(head: Any, rig: Any, names: Any) -> None:
    """An entry for each shape key, by the channel of its name; and drivers."""
    from liveportrait_blender import shape_key_drivers

    settings = head.liveportrait.shape_keys
    settings.rig = rig
    with shape_key_drivers.paused():
        for name in names:
            entry = settings.entries.add()
            entry.shape_key = entry.channel = name
    drive(head)


def drive(head: Any) -> None:
    """Have the shape keys follow."""
    from liveportrait_blender import shape_key_drivers

    shape_key_drivers.drive(head)


def middle(function: Callable[[], Any], repeat: int) -> float:
    """Seconds of the middle one of several calls."""
    took = []
    for _ in range(repeat):
        began = time.perf_counter()
        function()
        took.append(time.perf_counter() - began)
    return statistics.median(took)


if __name__ == "__main__":
    raise SystemExit(main())
