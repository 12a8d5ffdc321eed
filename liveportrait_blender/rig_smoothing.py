# SPDX-License-Identifier: GPL-3.0-or-later
"""A performance without jitter: a smoothed copy of the rig's Action, the original untouched."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import compat, fcurves
from .names import UserError
from .rig_layout import BONES, HEAD, RATIOS, bone_path, property_path

if TYPE_CHECKING:
    import numpy as np

FACE, HEAD_ONLY, ALL = "FACE", "HEAD", "ALL"
_REACH = 3.0  # standard deviations that the kernel is wide, to each side


def smooth(armature: Any, frames: float, part: str = ALL) -> Any:
    """Give the rig a copy of its Action whose keys are weighted means of those about them, and return it.

    frames: standard deviation of the Gaussian in scene frames. part: FACE (keypoints, lids, lips), HEAD_ONLY
    or ALL. Nothing is mixed over a cut, where a key holds its value. The original Action stays in the file.

    Raises:
        UserError: there is no Action, or it is linked.
    """
    data = armature.animation_data
    action = data.action if data is not None else None
    if action is None:
        raise UserError(f"{armature.name} has no Action.", "Choose one in the Action Editor.")
    if armature.library is not None:
        raise UserError(f"{armature.name} is linked from another file.", "Make a library override first.")
    action.use_fake_user = True
    copy = action.copy()
    copy.name = f"{action.name} Smooth"
    copy.use_fake_user = True
    compat.assign_action(armature, copy)
    wanted = _names(part)
    lines, kinds = {}, {}
    for name, curve in fcurves.curves_of(armature, copy).items():
        if name not in wanted or len(curve.keyframe_points) < 3:
            continue
        at, values = fcurves.read(curve)
        codes = fcurves.read_interpolation(curve)
        holds = codes == fcurves.codes()["CONSTANT"]
        lines[name] = (at, smoothed(at, values, holds, frames))
        kinds[name] = codes
    fcurves.fill(armature, copy, lines, interpolation=kinds)
    armature.update_tag()
    return copy


def smoothed(at: np.ndarray, values: np.ndarray, holds: np.ndarray, sigma: float) -> np.ndarray:
    """values (k,) at frames `at` (k,), each the Gaussian mean of its stretch's; `holds` (k,): the stretch
    ends after this key. A straight line stays as it is, its ends included."""
    import numpy as np

    result = np.asarray(values, np.float64).copy()
    edges = (np.flatnonzero(holds[:-1]) + 1).tolist()
    for first, stop in zip([0, *edges], [*edges, len(at)]):
        line = result[first:stop].copy()
        count = len(line)
        gap = float(np.median(np.diff(at[first:stop]))) if count > 1 else 1.0
        reach = min(int(np.ceil(_REACH * sigma / max(gap, 1e-6))), count - 1)
        if sigma <= 0 or reach < 1:
            continue
        kernel = np.exp(-0.5 * np.square(np.arange(-reach, reach + 1) * gap / sigma))
        # Turned about its ends, so that they neither shrink nor bend.
        before = 2 * line[0] - line[reach:0:-1]
        after = 2 * line[-1] - line[-2 : -reach - 2 : -1]
        padded = np.concatenate([before, line, after])
        result[first:stop] = np.convolve(padded, kernel / kernel.sum(), "valid")
    return result


def _names(part: str) -> set[tuple[str, int]]:
    head = {
        (bone_path(HEAD, what), axis) for what in ("location", "rotation_euler", "scale") for axis in range(3)
    }
    face = {(bone_path(bone, "location"), axis) for bone in BONES for axis in range(3)}
    face |= {(property_path(name), 0) for name in RATIOS}
    return {FACE: face, HEAD_ONLY: head}.get(part, face | head)
