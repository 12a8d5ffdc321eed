# SPDX-License-Identifier: GPL-3.0-or-later
"""What the backend is given to render an edited performance, so that the portrait shows what the rig shows.

Relative motion is measured from a reference frame. Were that a frame of the edited performance, an edit that
is in it, a smile that is held throughout, say, would cancel itself. So the unedited neutral frame is sent
along behind the last frame, and named as the reference; its picture is taken away again. Where the
performance has cuts, each shot has a neutral frame of its own, and all of them are brought to one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from .motion_file import Motion
from .names import UserError
from .rig_action import neutral
from .rig_sampling import sample_shots

if TYPE_CHECKING:
    import numpy as np

# Options that belong to the capture, or that the rig itself has in its curves.
_NOT_FOR_CURVES = ("frames", "controls", "reference_frame", "smoothing", "fps")


def motion_to_render(
    armature: Any,
    frames: Sequence[float],
    *,
    scene: Any,
    relative: bool = True,
    progress: Callable[[float], None] | None = None,
) -> Motion:
    """The performance at scene frames (n,); where `relative`, with the neutral frame behind it, n + 1 in all.

    Raises UserError as `sample`, and where the rig has no neutral frame.
    """
    motion, shots = sample_shots(armature, frames, scene=scene, progress=progress)
    if not relative:
        return motion
    main = neutral(armature, int(shots[0]))
    if main is None:
        raise UserError(
            f"{armature.name} has no neutral frame.",
            "Choose one with Set Neutral.",
            "liveportrait.set_neutral",
        )
    for shot in sorted(set(shots.tolist()) - {int(shots[0])}):
        own = neutral(armature, shot)
        if own is not None:
            _rebase(motion, shots == shot, own, main)
    return _joined(replace(motion, cuts=None), main)


def render_options(options: Mapping[str, Any], count: int, rate: str) -> dict[str, Any]:
    """The options of a job that renders `motion_to_render` of `count` frames; `options` as of the result."""
    kept = {name: value for name, value in options.items() if name not in _NOT_FOR_CURVES}
    kept["fps"] = rate
    if kept.get("relative", True):
        kept["reference_frame"] = count
    return kept


def _rebase(motion: Motion, where: np.ndarray, own: Motion, main: Motion) -> None:
    """Let the frames `where` differ from `main` by what they differ from `own`, as the backend counts it."""
    share = main.scale / own.scale
    motion.expression[where] += main.expression - own.expression
    motion.rotation[where] = motion.rotation[where] @ own.rotation[0].T @ main.rotation[0]
    motion.translation[where] = main.translation + (motion.translation[where] - own.translation) * share
    motion.scale[where] *= share


def _joined(motion: Motion, last: Motion) -> Motion:
    import numpy as np

    arrays: dict[str, Any] = {}
    for name, array in motion.arrays().items():
        end = getattr(last, name)
        if end is None:  # gaze that was not measured there
            end = np.full((1, *array.shape[1:]), np.nan, array.dtype)
        arrays[name] = np.concatenate([array, end.astype(array.dtype)])
    return replace(motion, **arrays)
