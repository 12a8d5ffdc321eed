# SPDX-License-Identifier: GPL-3.0-or-later
"""A still source that performs while its driver is being filmed: one pass, causal, nothing is known ahead."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from dataclasses import replace

import numpy as np

from backend.capture import PICTURE_RATE, measure_frame
from backend.engines import Engine
from backend.errors import InputError
from backend.face_tracks import tracker_for
from backend.motion import Motion
from backend.one_euro import MotionFilter
from backend.options import Options
from backend.retargeting import retarget
from backend.source import Canvas, Source


def live(
    source: Source, options: Options, engine: Engine, frames: Iterable[np.ndarray]
) -> Generator[np.ndarray, None, None]:
    """One picture (h,w,3 uint8 RGB) for each of the driver's (h,w,3 uint8 RGB, all of one size), made before
    the next is asked for; valid until then.

    Relative motion starts from the first frame with a face, before which the source is shown as it is; while
    the face is lost the last pose is held. options.smoothing sets a one-euro filter at options.fps (25);
    "auto" is strength 1. Raises InputError for options that need the whole performance.
    """
    if options.reference_frame != 0 or options.frames is not None:
        raise InputError(
            "Live driving starts from its first frame.", "Leave out --reference-frame and --frames."
        )
    strength = {"off": 0.0, "auto": 1.0}.get(str(options.smoothing))
    steady = MotionFilter(
        float(options.smoothing) if strength is None else strength, float(options.fps or PICTURE_RATE)
    )
    chosen = replace(options, smoothing="off", fps=None)
    canvas = Canvas(source, options, flat=True)
    reference: Motion | None = None
    matrix: np.ndarray | None = None
    shown = None if not source.pastes(options) else source.picture.rgb
    with tracker_for(options, options.driving_face) as tracker:
        for rgb in frames:
            face = tracker.update(rgb)
            if face is not None:
                measured, matrix = measure_frame(engine, rgb, face, options, matrix)
                mouth, motion = measured.mouth, steady(replace(measured, mouth=None))
                reference = reference or motion
                keys = retarget(source.motion, motion, chosen, engine, reference=reference)
                rendered = engine.render(source.appearance, keys.source, keys.driving, mouth)
                shown = canvas.frame(rendered[0])
            elif shown is None:
                at_rest = source.motion.keypoints()
                shown = canvas.frame(engine.render(source.appearance, at_rest, at_rest)[0])
            yield shown
