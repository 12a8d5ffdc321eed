# SPDX-License-Identifier: GPL-3.0-or-later
"""Shape keys that suit a performer and a head: the neutral face, ranges from a clip, examples by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import channel_samples, keypoint_rig, least_squares, rig_channels, shape_key_drivers
from .channel_samples import Samples
from .names import UserError
from .shape_key_formula import sign, source, taking_part, total_of

if TYPE_CHECKING:
    import numpy as np

MOVES = 0.08  # a channel whose percentiles lie closer was not exercised; its entry stays
LARGEST_GAIN = 5.0
OFFSETS = (-1.0, 1.0)
_CENSORED_ROUNDS = 10


@dataclass(frozen=True)
class Solved:
    """What the examples changed: shape keys, and the root mean square error before and after."""

    shape_keys: list[str]
    before: float
    after: float


def neutral_from_clip(rig: Any, frames: Sequence[float], scene: Any = None) -> None:
    """Have the rig's channels be relative to the calmest tenth of what it performs at scene frames, as the
    backend finds a neutral face: the frames whose channels, read against an average face, add up to least.
    Raises UserError."""
    motion = keypoint_rig.sample(rig, frames, scene=scene)
    if not motion.valid.any():
        raise UserError("There is no face in these frames.", "Choose another range.")
    import numpy as np

    seen = motion.take(np.flatnonzero(motion.valid))
    rig_channels.set_neutral(rig, rig_channels.neutral_inputs(seen))


def ranges_from_clip(item: Any, samples: Samples, low: float = 5.0, high: float = 98.0) -> list[str]:
    """Set gain and offset of a mesh's entries so that a range-of-motion clip fills their ranges.

    The channel's `low` percentile gives the entry's rest, 0 (or its minimum, if that is above), the `high`
    one its maximum; gains end at 5. Entries that share a shape key, follow an angle, turn round (a gain below
    0) or were not exercised stay as they are. Returns the names of the shape keys that were set.

    Raises:
        UserError: the mapping cannot be written, or percentiles are the wrong way round.
    """
    import numpy as np

    _writable(item)
    if not 0 <= low < high <= 100:
        raise UserError("The percentiles are the wrong way round.", "Give the lower one first, 0 to 100.")
    if not samples.valid.any():
        raise UserError("There is no face in these frames.", "Choose another range.")
    found = []
    with shape_key_drivers.paused():
        for name, entries in taking_part(item.liveportrait.shape_keys.entries).items():
            entry = entries[0]
            if len(entries) > 1 or entry.gain <= 0 or source(entry) in rig_channels.HEAD_ANGLES:
                continue
            bottom, top = np.percentile(_input(entry, samples)[samples.valid], (low, high)).tolist()
            if top - bottom < MOVES:
                continue
            rest = max(float(entry.minimum), 0.0)
            gain = min((float(entry.maximum) - rest) / (top - bottom), LARGEST_GAIN)
            entry.gain, entry.offset = gain, rest - gain * bottom
            found.append(name)
    shape_key_drivers.refresh(item)
    return found


def pose_by_hand(item: Any, begin: bool) -> None:
    """Let the user set the shape keys (their drivers are muted), or have the drivers work again."""
    driven = shape_key_drivers.driven(item)
    if not driven:
        raise UserError(f'"{item.name}" does not follow a performance.', "Drive its shape keys first.")
    for curve in driven.values():
        curve.mute = begin
    item.data.update_tag()


def is_posed_by_hand(item: Any) -> bool:
    """Whether drivers of the mesh's shape keys are muted, and not for a bake."""
    from .shape_key_bake import is_baked

    return not is_baked(item) and any(curve.mute for curve in shape_key_drivers.driven(item).values())


def add_example(item: Any, frame: float, scene: Any = None) -> Any:
    """Remember the shape keys as they are now as how they should be at a scene frame; replaces one that is
    there. Raises UserError."""
    _writable(item)
    settings = item.liveportrait.shape_keys
    key = shape_key_drivers.key_of(item)
    names = [name for name in taking_part(settings.entries) if name in key.key_blocks]
    if not names or not keypoint_rig.is_rig(settings.rig):
        raise UserError(f'"{item.name}" has no entries or no performance.', "Match its shape keys by name.")
    samples = channel_samples.sample(settings.rig, [frame], scene=scene)
    examples = item.liveportrait.calibration.examples
    example = next((each for each in examples if abs(each.frame - frame) < 1e-3), None) or examples.add()
    example.frame = frame
    example.pose = json.dumps({name: round(key.key_blocks[name].value, 6) for name in names})
    example.channels = json.dumps({name: float(line[0]) for name, line in samples.values.items()})
    return example


def solve_examples(item: Any, prior: float = 0.05) -> Solved:
    """Fit gains and offset of each shape key's entries to the examples: least squares with bounds, drawn
    towards the values that are there.

    Gains keep their sign and end at 5, offsets at 1. An example where the shape key is at the end of its
    range is no reason to come back from beyond. prior: how much the present values count; 1 as much as an
    example that moves the channel fully.

    Raises:
        UserError: there are no examples, or the mapping cannot be written.
    """
    import numpy as np

    _writable(item)
    examples = [
        (json.loads(example.pose), json.loads(example.channels))
        for example in item.liveportrait.calibration.examples
    ]
    if not examples:
        raise UserError("There are no examples.", "Set the shape keys on a frame and add one.")
    changed, before, after = [], [], []
    with shape_key_drivers.paused():
        for name, entries in taking_part(item.liveportrait.shape_keys.entries).items():
            own = [(pose[name], channels) for pose, channels in examples if name in pose]
            if not own:
                continue
            wanted = np.array([value for value, _ in own])
            channels = {source(e): np.array([c[source(e)] for _, c in own]) for e in entries}
            before.append(total_of(entries, channels) - wanted)
            was = [(entry.gain, entry.offset) for entry in entries]
            _fit(entries, channels, wanted, prior)
            after.append(total_of(entries, channels) - wanted)
            if any(abs(a - b) > 1e-4 for e, w in zip(entries, was) for a, b in zip((e.gain, e.offset), w)):
                changed.append(name)
    shape_key_drivers.refresh(item)
    return Solved(changed, _rms(before), _rms(after))


def _fit(entries: Sequence[Any], channels: dict[str, np.ndarray], wanted: np.ndarray, prior: float) -> None:
    import numpy as np

    inputs = np.stack([_reshaped(entry, channels[source(entry)]) for entry in entries], 1)
    there = np.array([float(entry.gain) for entry in entries] + [float(entries[0].offset)])
    rest = sum(float(entry.offset) for entry in entries[1:])
    low = np.append(np.where(there[:-1] < 0, -LARGEST_GAIN, 0.0), OFFSETS[0])
    high = np.append(np.where(there[:-1] < 0, 0.0, LARGEST_GAIN), OFFSETS[1])
    matrix = np.column_stack([inputs, np.ones(len(wanted))])
    # An offset moves the face at rest, so it has to be asked for by more than a gain has.
    weight = np.sqrt(np.append(np.full(len(entries), prior), 4 * prior))
    bottom, top = float(entries[0].minimum), float(entries[0].maximum)
    counts = np.ones(len(wanted), bool)
    found = there
    for _ in range(_CENSORED_ROUNDS):
        rows = np.concatenate([matrix[counts], np.diag(weight)])
        goal = np.concatenate([wanted[counts] - rest, weight * there])
        found = least_squares.bounded(rows, goal, np.minimum(low, there), np.maximum(high, there))
        reached = matrix @ found + rest
        beyond = ((wanted >= top - 1e-4) & (reached > top)) | ((wanted <= bottom + 1e-4) & (reached < bottom))
        if (counts == ~beyond).all():
            break
        counts = ~beyond
    for entry, gain in zip(entries, found):
        entry.gain = gain
    entries[0].offset = found[-1]


def _input(entry: Any, samples: Samples) -> np.ndarray:
    return _reshaped(entry, samples.values[source(entry)])


def _reshaped(entry: Any, values: np.ndarray) -> np.ndarray:
    """What an entry's gain multiplies: the channel without the dead zone, as shape_key_formula has it."""
    import numpy as np

    dead = float(entry.dead_zone)
    if source(entry) in rig_channels.HEAD_ANGLES:
        return sign(entry) * (np.maximum(values - dead, 0.0) + np.minimum(values + dead, 0.0))
    return np.maximum(values - dead, 0.0) / (1.0 - dead) if dead > 0 else np.asarray(values)


def _rms(errors: list[np.ndarray]) -> float:
    import numpy as np

    return float(np.sqrt(np.square(np.concatenate(errors)).mean())) if errors else 0.0


def _writable(item: Any) -> None:
    if item.library is not None:
        raise UserError(f'"{item.name}" is linked from another file.', "Make a library override of it first.")
