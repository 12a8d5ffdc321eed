# SPDX-License-Identifier: GPL-3.0-or-later
"""Implicit keypoints to blendshape scores: one sparse linear map a channel, clamped to 0..1.

value = clamp(sum of coefficient * (input - neutral)).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from backend.blendshape_names import CHANNELS, INDEX, mirrored
from backend.engines.mesh_maps import LIVE
from backend.motion import Motion
from backend.rotations import euler_from_rotation
from scripts.blendshape_fit.material import Recording

INPUTS = (
    *(f"kp_{number // 3:02d}.{'xyz'[number % 3]}" for number in LIVE),
    "eye_ratio_left",
    "eye_ratio_right",
    "lip_ratio",
)
MOVES = 0.05  # standard deviation of a score from which on a clip is said to move the channel
PENALTY = 4.2e-2  # of a coefficient per standard deviation of its input, squared
#: Ratios are penalised more than keypoints, so that most of the say is the keypoints': they are what an
#: animator edits and what the portrait follows.
RATIO_PENALTY = 10.0
LEAKAGE = 0.1  # weight of the rows by which a turn of the head must not move a channel
FLOOR = 0.05  # standard deviation of a score under which a clip's errors count no more than with it
RELEASED = 6.0  # weight of what the released networks measured; there are 5 such recordings and 24 others
ACTIVE = 0.02  # a score under this says no more than "not at all"
PRUNED = 0.02  # share of the largest term under which a term is dropped
CALM = 0.1  # share of a clip's frames, its calmest, whose mean is its neutral
_LIDS, _MOUTH = (11, 13, 15, 16), (3, 7, 14, 17, 19, 20)
#: Which keypoints (and ratios) may say something about a channel; the names are beginnings. Keypoints that
#: hold the pose (0, 4, 5) are left out.
FAMILIES: tuple[tuple[str, tuple[int, ...], tuple[str, ...]], ...] = (
    ("eyeBlinkLeft", (15, 16), ("eye_ratio_right",)),  # index left is image-left, the subject's right
    ("eyeBlinkRight", (11, 13), ("eye_ratio_left",)),
    ("eyeLook", _LIDS, ()),
    ("eyeSquint", (1, 2, 3, 7, 10, *_LIDS), ()),
    ("eyeWide", (1, 2, *_LIDS), ()),
    ("brow", (1, 2, 3, 7, 10, 11, 15, 16), ()),
    ("jaw", (14, 17, 19, 20), ("lip_ratio",)),
    ("mouthSmile", (3, 7, 14, 17, 20), ()),
    ("mouthUpperUp", (3, 7, 10, 14, 17, 20), ()),
    ("mouthLowerDown", (3, 7, 20), ()),
    ("mouthPress", (3, 7, 20), ()),
    ("mouthStretch", (3, 7, 10, 14, 17, 20), ()),
    ("mouthDimple", (14, 17, 19, 20), ()),
    ("mouth", _MOUTH, ()),
)
#: Keypoints that a mirror image exchanges: the lids'. The others have no partner; what the two halves of the
#: mouth do is spread over all of them, so there only the mirrored recordings make left and right alike.
PARTNERS = {11: 15, 15: 11, 13: 16, 16: 13}
#: Channels whose two sides share one law. The gaze is worse off with one: .88 for eyeLookDown, not .94.
ONE_LAW = ("eyeBlink",)
#: MediaPipe's score where ARKit's is 1.
FULL = {"eyeBlink": 0.75}


def columns_of(channel: str) -> np.ndarray:
    """Indices of INPUTS that may take part in a channel; empty for one of no family."""
    for start, keypoints, ratios in FAMILIES:
        if channel.startswith(start):
            return np.array(
                [
                    i
                    for i, name in enumerate(INPUTS)
                    if name in ratios or (name.startswith("kp_") and int(name[3:5]) in keypoints)
                ]
            )
    return np.zeros(0, int)


def inputs_of(motion: Motion) -> np.ndarray:
    """(n, len(INPUTS))."""
    delta = motion.expression.reshape(len(motion), 63)[:, LIVE].astype(np.float64)
    return np.column_stack([delta, motion.eye_ratio, motion.lip_ratio])


def pose_of(motion: Motion) -> np.ndarray:
    """(n,6): pitch, yaw, roll in radians, t / s, log s."""
    angles = np.radians(np.column_stack(euler_from_rotation(motion.rotation)))
    place = motion.translation[:, :2] / motion.scale[:, None]
    return np.column_stack([angles, place, np.log(motion.scale)])


@dataclass
class Sample:
    """A recording as numbers: inputs (n,39), pose (n,6), scores (n,52), gaze (n,4) where it was measured;
    neutral (39,) and rest (52,): inputs and scores of its calmest frames."""

    clip: str
    engine: str
    mirrored: bool
    x: np.ndarray
    pose: np.ndarray
    scores: np.ndarray
    gaze: np.ndarray | None
    neutral: np.ndarray = field(default_factory=lambda: np.zeros(0))
    rest: np.ndarray = field(default_factory=lambda: np.zeros(0))

    @staticmethod
    def of(recording: Recording) -> Sample:
        scores = np.nan_to_num(recording.scores)
        sample = Sample(
            recording.clip,
            recording.engine,
            recording.mirrored,
            inputs_of(recording.motion),
            pose_of(recording.motion),
            scores,
            None if recording.motion.gaze is None else recording.motion.gaze.reshape(-1, 4),
        )
        calm = calmest(scores[:, [INDEX[name] for name in CALM_BY]].sum(axis=1))
        sample.neutral, sample.rest = sample.x[calm].mean(axis=0), scores[calm].mean(axis=0)
        return sample

    def moves(self, channel: int) -> bool:
        return bool(self.scores[:, channel].std() >= MOVES)


#: What a neutral face does least of.
CALM_BY = tuple(
    name
    for name in CHANNELS
    if name.startswith(
        ("eyeBlink", "eyeLook", "jawOpen", "mouthSmile", "mouthUpperUp", "mouthLowerDown", "mouthFunnel",
         "browDown", "browInnerUp", "mouthStretch")
    )
)  # fmt: skip


def calmest(activity: np.ndarray) -> np.ndarray:
    """The frames of least activity (n,): a tenth of them, one at least."""
    return np.argsort(activity, kind="stable")[: max(1, round(CALM * len(activity)))]


def _centred(values: np.ndarray) -> np.ndarray:
    return values - values.mean(axis=0)


def spread_of(samples: Sequence[Sample]) -> np.ndarray:
    """(39,) what one input usually moves by within a clip."""
    return np.sqrt(np.mean([_centred(s.x).var(axis=0) for s in samples], axis=0))


def leakage_of(samples: Sequence[Sample], spread: np.ndarray) -> np.ndarray:
    """(3,39): what 0.1 radians of pitch, yaw, roll do to the inputs (in spreads) when the face does nothing:
    a regression of the inputs on pose and scores together."""
    known, wanted = [], []
    for s in samples:
        weight = 1.0 / np.sqrt(len(s.x))
        known.append(weight * np.column_stack([_centred(s.pose) / 0.1, _centred(s.scores)]))
        wanted.append(weight * _centred(s.x) / spread)
    a, b = np.concatenate(known), np.concatenate(wanted)
    penalty = np.diag([0.1] * 6 + [1.0] * len(CHANNELS)) * 0.02 * len(samples) / 24
    return np.linalg.solve(a.T @ a + penalty, a.T @ b)[:3]


def fit_channel(
    samples: Sequence[Sample], channel: int, spread: np.ndarray, leakage: np.ndarray
) -> np.ndarray:
    """(39,) coefficients: ridge regression within each clip, in which a score of zero says only that the
    value is not above it (frames whose score is zero and whose value lies below take no part, as in a
    censored regression). Small terms are dropped, and the rest fitted again."""
    columns = columns_of(CHANNELS[channel])
    coefficients = np.zeros(len(INPUTS))
    for _ in range(2):
        found = _censored_ridge(samples, channel, columns, spread, leakage)
        size = np.abs(found)
        keep = size >= PRUNED * size.max()
        coefficients[:] = 0.0
        coefficients[columns] = found / spread[columns]
        if keep.all():
            break
        columns = columns[keep]
    return coefficients


def _censored_ridge(
    samples: Sequence[Sample], channel: int, columns: np.ndarray, spread: np.ndarray, leakage: np.ndarray
) -> np.ndarray:
    parts = []
    for s in samples:
        y = s.scores[:, channel]
        weight = (RELEASED if s.engine == "liveportrait" else 1.0) / (len(y) * (y.var() + FLOOR**2))
        parts.append((s.x[:, columns] / spread[columns], y, weight))
    ratio = np.array([not INPUTS[c].startswith("kp_") for c in columns])
    share = len(samples) / 24 / FLOOR**2
    base = np.diag(np.where(ratio, RATIO_PENALTY, 1.0)) * PENALTY * 0.24 * share
    leak = leakage[:, columns]
    base += LEAKAGE * share * leak.T @ leak
    takes_part = [np.ones(len(y), bool) for _, y, _ in parts]
    found = np.zeros(len(columns))
    for _ in range(12):
        normal, right = base.copy(), np.zeros(len(columns))
        for (x, y, weight), part in zip(parts, takes_part, strict=True):
            a, b = _centred(x[part]), _centred(y[part])
            normal += weight * a.T @ a
            right += weight * a.T @ b
        found = np.linalg.solve(normal, right)
        before, takes_part = takes_part, []
        for (x, y, _), part in zip(parts, before, strict=True):
            value = (x - x[part].mean(axis=0)) @ found + y[part].mean()
            active = (y > ACTIVE) | (value > 0)
            takes_part.append(active if active.sum() > 2 else part)
        if all((a == b).all() for a, b in zip(before, takes_part, strict=True)):
            break
    return found


def mirror_image(coefficients: np.ndarray) -> np.ndarray:
    """The coefficients (39,) of the mirrored channel. KeyError where a term's keypoint has no partner."""
    image = np.zeros(len(INPUTS))
    for i in np.flatnonzero(coefficients):
        name = INPUTS[i]
        if name.startswith("eye_ratio"):
            partner = "eye_ratio_right" if name.endswith("left") else "eye_ratio_left"
        else:
            partner = f"kp_{PARTNERS[int(name[3:5])]:02d}.{name[-1]}"
        image[INPUTS.index(partner)] = coefficients[i] * (-1.0 if name[-2:] == ".x" else 1.0)
    return image


def fit_gain(samples: Sequence[Sample], channel: int, coefficients: np.ndarray) -> float:
    """The factor with which the clamped values come nearest to the scores above rest, over the recordings
    that move the channel."""
    parts = [
        (
            (s.x - s.neutral) @ coefficients,
            np.clip(s.scores[:, channel] - s.rest[channel], 0.0, 1.0),
            (RELEASED if s.engine == "liveportrait" else 1.0) / len(s.x),
        )
        for s in samples
        if s.moves(channel)
    ]
    errors = {
        float(gain): sum(w * float(((np.clip(gain * v, 0, 1) - y) ** 2).sum()) for v, y, w in parts)
        for gain in np.linspace(0.5, 2.0, 61)
    }
    return min(errors, key=lambda gain: errors[gain]) if parts else 1.0


@dataclass
class Map:
    """coefficients (52,39), neutral (39,): the average neutral of the recordings. There is no bias: a neutral
    face gives exactly 0, and small movements come through."""

    coefficients: np.ndarray
    neutral: np.ndarray

    def values(self, x: np.ndarray, neutral: np.ndarray) -> np.ndarray:
        """(n,52), clamped."""
        return np.clip((x - neutral) @ self.coefficients.T, 0.0, 1.0)

    def own_neutral(self, x: np.ndarray) -> np.ndarray:
        """(39,) what backend.blendshapes takes for neutral by itself: no score is looked at."""
        return x[calmest(self.values(x, self.neutral).sum(axis=1))].mean(axis=0)


def fit(samples: Sequence[Sample], channels: Sequence[int]) -> Map:
    """The map fitted on some recordings, for some channels; the others are zero."""
    spread = spread_of(samples)
    leakage = leakage_of(samples, spread)
    coefficients = np.zeros((len(CHANNELS), len(INPUTS)))
    fitted = {channel: fit_channel(samples, channel, spread, leakage) for channel in channels}
    for channel, row in fitted.items():
        if CHANNELS[channel].startswith(ONE_LAW):
            row = 0.5 * (row + mirror_image(fitted[INDEX[mirrored(CHANNELS[channel])]]))
        full = next((f for name, f in FULL.items() if CHANNELS[channel].startswith(name)), 1.0)
        coefficients[channel] = row * fit_gain(samples, channel, row) / full
    return Map(coefficients, np.mean([s.neutral for s in samples], axis=0))
