# SPDX-License-Identifier: GPL-3.0-or-later
"""What the worker process does: one function a task, with the sources and motions that it keeps in memory."""

from __future__ import annotations

import json
import math
import shutil
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

import numpy as np

from backend import pipeline
from backend.capture import Cancel
from backend.driving import Driving, open_driving
from backend.engines import Choice, Engine, choose
from backend.errors import InputError
from backend.media.marking import PICTURE_MARK
from backend.media.png import encode_png
from backend.models import FoundModels, find
from backend.motion import FRAME_SHAPES, Motion
from backend.motion_files import save_motion
from backend.options import Options
from backend.progress import Progress
from backend.results import Summary, write_atomically
from backend.server.params import options_of
from backend.server.turnstile import SharedEngine, Turnstile
from backend.server.whole_frames import clean
from backend.server.work_files import Answer, convert, faces, facts_of, first_picture
from backend.source import Canvas, Source, open_faces

MOTION_BYTES = 256 << 20  # of captured motions, with the driver's mouths, that stay in memory
SOURCE_COPIES = 12  # an opened source takes about so many times the bytes of its picture

T = TypeVar("T")


class Kept(Generic[T]):
    """The last used things, together no larger than `most` bytes; one thing always stays."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._things: OrderedDict[str, tuple[T, int]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: str) -> T | None:
        with self._lock:
            if key not in self._things:
                return None
            self._things.move_to_end(key)
            return self._things[key][0]

    def put(self, key: str, thing: T, size: int) -> None:
        with self._lock:
            self._things[key] = (thing, size)
            self._things.move_to_end(key)
            while len(self._things) > 1 and sum(held for _, held in self._things.values()) > self._most:
                self._things.popitem(last=False)


class Work:
    """All tasks. Jobs run on one thread, quick tasks (source, preview) on another."""

    def __init__(self, source_bytes: int) -> None:
        self._turnstile = Turnstile()
        self._engines: dict[tuple[Any, ...], tuple[tuple[Any, ...], Choice]] = {}
        self._lock = threading.Lock()
        self._sources: Kept[Source] = Kept(source_bytes)
        self._motions: Kept[Motion] = Kept(MOTION_BYTES)

    def tasks(self) -> Mapping[str, Callable[[Mapping[str, Any], Progress, Cancel], Answer]]:
        return {
            "animate": self.animate,
            "capture": self.capture,
            "convert": convert,
            "engine": self.engine,
            "faces": faces,
            "open": self.open,
            "preview": self.preview,
        }

    def engine(self, task: Mapping[str, Any], progress: Progress, cancel: Cancel) -> Answer:
        """options -> the engine that works with them: its weights are loaded, and so known to be good."""
        return Answer({"engine": self._choice(options_of(task["options"])).engine.name})

    def capture(self, task: Mapping[str, Any], progress: Progress, cancel: Cancel) -> Answer:
        """driving, key, options, engine, keep_mouth, target -> a motion file at `target`."""
        options = options_of(task["options"])
        engine = self._engine(task, options, urgent=False)[0]
        opened = open_driving(_named(task["driving"]))
        motion = self._captured(task, opened, options, engine, progress, cancel)
        target = Path(task["target"])
        save_motion(motion, target, keep_mouth=task["keep_mouth"])
        return Answer(facts_of(motion, target))

    def animate(self, task: Mapping[str, Any], progress: Progress, cancel: Cancel) -> Answer:
        """source, driving, key, options, engine, folder, output -> frames or an MP4 in `folder`,
        and result.json.
        """
        options = options_of(task["options"])
        engine, choice = self._engine(task, options, urgent=False)
        folder = Path(task["folder"])
        clean(folder)
        opened = None if task["driving"] is None else open_driving(_named(task["driving"]))
        faces = {int(number): open_driving(_named(each)) for number, each in task["faces"].items()}
        for each in [*([opened] if opened else []), *faces.values()]:
            if task["only_motion"] and each.motion is None:
                raise InputError(f"{each.name} is a {each.kind}, not a motion.", "Use animate.")
        # A captured range would be cut once more.
        if opened is not None and opened.motion is None and options.frames is None:
            opened = replace(opened, motion=self._motions.get(task["key"]))
        frames = task["output"] == "frames"

        def make() -> Summary:
            return pipeline.animate(
                Path(task["source"]),
                opened,
                folder / "frames" if frames else folder / "result.mp4",
                options,
                faces=faces,
                resume=True,
                engine=engine,
                progress=progress,
                cancel=cancel,
            )

        try:
            summary = make()
        except InputError:
            # What lies here may be of another engine; then it is made anew. If it was not that, the error
            # comes again.
            if not any(folder.iterdir()):
                raise
            shutil.rmtree(folder)
            folder.mkdir()
            summary = make()
        told = summary.as_json()
        if frames:
            told = json.loads((folder / "frames" / "result.json").read_text("utf-8"))
        told |= {"engine_why": choice.why}
        write_atomically(folder / "result.json", json.dumps(told))
        return Answer(told)

    def open(self, task: Mapping[str, Any], progress: Progress, cancel: Cancel) -> Answer:
        """source, key, options, engine -> what the engine saw in it."""
        options = options_of(task["options"])
        engine, choice = self._engine(task, options, urgent=True)
        source = self._source(task, options, engine)
        width, height = source.output_size(options)
        motion = source.motion
        return Answer(
            {
                "width": width,
                "height": height,
                "engine": choice.engine.name,
                "eye_ratio": _plain(motion.eye_ratio[0]),
                "lip_ratio": _plain(motion.lip_ratio[0]),
                "keypoints": _plain(motion.keypoints()[0]),
            }
        )

    def preview(self, task: Mapping[str, Any], progress: Progress, cancel: Cancel) -> Answer:
        """source, key, options, engine, and keypoints, or motion and frame, or neither -> one picture."""
        options = replace(
            options_of(task["options"]), smoothing="off", reference_frame=0, frames=None, fps=None
        )
        engine = self._engine(task, options, urgent=True)[0]
        source = self._source(task, options, engine)
        if task.get("keypoints") is not None:
            moved = np.asarray(task["keypoints"], np.float32)[None]
            face = engine.render(source.appearance, source.motion.keypoints(), moved, None)[0]
            frame = Canvas(source, options).frame(face)
        else:
            motion = self._pose(task, source)
            frames = pipeline.render(source, motion, options, engine, first=len(motion) - 1, cancel=cancel)
            with closing(cast(Any, frames)):
                frame = next(iter(frames))
        alpha = Canvas(source, options).alpha if source.picture.alpha is not None else None
        pixels = frame if alpha is None else np.dstack([frame, alpha])
        payload = encode_png(pixels, PICTURE_MARK) if task["format"] == "png" else pixels.tobytes()
        height, width, channels = pixels.shape
        return Answer({"width": width, "height": height, "channels": channels, "bits": 8}, payload)

    def _pose(self, task: Mapping[str, Any], source: Source) -> Motion:
        """The reference frame and the one to show; without a motion the source as it is."""
        if task.get("motion") is None:
            still = source.motion
            return Motion.concatenate([still, still])
        facts = Path(task["motion"]).stat()
        key = f"file {task['motion']} {facts.st_mtime_ns} {facts.st_size}"
        motion = self._motions.get(key)
        if motion is None:
            opened = open_driving(_named({"path": task["motion"]}))
            if opened.motion is None:
                raise InputError(f"{opened.name} is no motion.", "Capture it first.")
            motion = opened.motion
            self._motions.put(key, motion, _size(motion))
        if task["frame"] >= len(motion):
            raise InputError(f"The motion has {len(motion)} frames.", "Ask for one of them.")
        return Motion.concatenate([motion[0], motion[task["frame"]]])

    def _engine(self, task: Mapping[str, Any], options: Options, urgent: bool) -> tuple[Engine, Choice]:
        choice = self._choice(options)
        if choice.engine.name != task["engine"]:  # chosen anew since: what is made is kept as that one's
            choice = self._choice(replace(options, engine=task["engine"]))
        return cast(Engine, SharedEngine(choice.engine, self._turnstile, urgent)), choice

    def _choice(self, options: Options) -> Choice:
        key = (options.engine, options.models, options.device, options.runtime)
        stamp = _weights(options) if options.engine == "auto" else ()
        with self._lock:
            if key not in self._engines or self._engines[key][0] != stamp:
                self._engines[key] = stamp, choose(options)
            return self._engines[key][1]

    def _source(self, task: Mapping[str, Any], options: Options, engine: Engine) -> Source:
        source = self._sources.get(task["key"])
        if source is None:
            source = _opened(Path(task["source"]), options, engine)
            self._sources.put(task["key"], source, SOURCE_COPIES * source.picture.rgb.nbytes)
        return source

    def _captured(
        self,
        task: Mapping[str, Any],
        opened: Driving,
        options: Options,
        engine: Engine,
        progress: Progress,
        cancel: Cancel,
    ) -> Motion:
        known = self._motions.get(task["key"]) if opened.motion is None else None
        if known is None:
            known = pipeline.capture(opened, options, engine, progress, cancel, keep_mouth=True)
            if opened.motion is None:
                self._motions.put(task["key"], known, _size(known))
        return known


def _weights(options: Options) -> tuple[Any, ...]:
    """What tells weights that were brought or mended meanwhile: "auto" is to be chosen anew then."""
    found = find(options)
    if not isinstance(found, FoundModels):
        return ()
    facts = [(path, path.stat()) for path in found.files.values()]
    return (found.device, *((path, fact.st_mtime_ns, fact.st_size) for path, fact in facts))


def _opened(path: Path, options: Options, engine: Engine) -> Source:
    return open_faces(path, first_picture(path), [options.face], options, engine)[0]


def _named(driving: Mapping[str, str]) -> str | Path:
    return Path(driving["path"]) if "path" in driving else driving["library"]


def _size(motion: Motion) -> int:
    arrays = (getattr(motion, name) for name in FRAME_SHAPES)
    return sum(array.nbytes for array in arrays if array is not None)


def _plain(values: Any) -> Any:
    """Lists of numbers; None where there is none, which JSON has no NaN for."""
    if isinstance(values, np.ndarray):
        return [_plain(entry) for entry in values]
    number = float(values)
    return round(number, 7) if math.isfinite(number) else None
