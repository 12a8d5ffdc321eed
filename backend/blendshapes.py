# SPDX-License-Identifier: GPL-3.0-or-later
"""Implicit keypoints to ARKit's 52 blendshapes and back, by the fitted tables data/blendshapes*.json.

channel = clamp(sum of coefficient * (input - neutral)); an input is a number of delta, an eye ratio or the
lip ratio. Back, each of these is its neutral plus the sum of effect * channel, and then what it takes for the
channels to be read again as they were (blendshapes_return). scripts/fit_blendshapes.py writes the tables;
docs/blendshapes.md says how well they hold.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.blendshape_names import CHANNELS, INDEX
from backend.blendshapes_return import reading_as
from backend.errors import InputError
from backend.motion import Motion
from backend.rotations import rotation_from_euler
from backend.templates import mean_canonical

DATA = Path(__file__).with_name("data") / "blendshapes.json"
INVERSE = Path(__file__).with_name("data") / "blendshapes_inverse.json"
FORMAT = "liveportrait-blendshapes/1"
INVERSE_FORMAT = "liveportrait-blendshapes-inverse/1"
#: A performer's own neutral is looked for in motions of at least so many frames; shorter ones are taken
#: relative to an average face.
FRAMES_FOR_NEUTRAL = 10
CALM = 0.1  # share of the frames, the calmest, whose mean is the neutral
ARKIT = "arkit"  # the engine of motions that were made of channels, of an average face
GAZE_LIMIT = 0.3  # eye widths; further no iris goes
_RATIOS = ("eye_ratio_left", "eye_ratio_right", "lip_ratio")

Floats = NDArray[np.float64]
#: "auto": the calmest tenth of the frames, of ARKIT's an average face; "first" frame; "mean" of all;
#: "average": an average face; a frame's number; or input values by name, the average face's where a name is
#: missing.
Neutral = str | int | Mapping[str, float]


@dataclass(frozen=True)
class Table:
    """inputs: names of the m inputs; neutral (m,): an average neutral face's; coefficients (52,m), bias,
    low, high (52,); known (52,) bool: the others cannot be told and are 0 always; why_not: reasons."""

    inputs: tuple[str, ...]
    neutral: Floats
    coefficients: Floats
    bias: Floats
    low: Floats
    high: Floats
    known: NDArray[np.bool_]
    why_not: tuple[str, ...]

    @staticmethod
    def parse(text: str) -> Table:
        """From the JSON text. ValueError for another format or channels in another order."""
        content: dict[str, Any] = json.loads(text)
        rows = content["channels"]
        if content["format"] != FORMAT or tuple(row["name"] for row in rows) != CHANNELS:
            raise ValueError(f"no table of the form {FORMAT}")
        inputs = tuple(content["neutral"])
        place = {name: i for i, name in enumerate(inputs)}
        coefficients = np.zeros((len(rows), len(inputs)))
        for i, row in enumerate(rows):
            for term in row["terms"]:
                coefficients[i, place[term["input"]]] = term["coefficient"]
        low, high = np.array([row["clamp"] for row in rows], np.float64).T
        return Table(
            inputs,
            np.array(list(content["neutral"].values()), np.float64),
            coefficients,
            np.array([row["bias"] for row in rows], np.float64),
            low,
            high,
            np.array([row["known"] for row in rows], np.bool_),
            tuple(row["why_not"] for row in rows),
        )


@cache
def table() -> Table:
    """The shipped table."""
    return Table.parse(DATA.read_text(encoding="utf-8"))


def inputs_of(motion: Motion, names: Sequence[str] | None = None) -> Floats:
    """(n, m) values of the inputs called `names` [the table's], frame by frame."""
    columns = []
    ratios = dict(zip(_RATIOS, (*motion.eye_ratio.T, motion.lip_ratio), strict=True))
    for name in table().inputs if names is None else names:
        if name in ratios:
            columns.append(ratios[name])
        else:
            columns.append(motion.expression[:, int(name[3:5]), "xyz".index(name[-1])])
    return np.stack(columns, axis=1).astype(np.float64)


def channels(motion: Motion, neutral: Neutral = "auto") -> NDArray[np.float32]:
    """(n,52) ARKit channels in CHANNELS' order, 0 to 1; channels that cannot be told are 0.

    Left and right are the subject's. InputError for a neutral that does not exist.
    """
    inputs = inputs_of(motion)
    return _values(inputs, neutral_inputs(motion, neutral)).astype(np.float32)


def _values(inputs: Floats, neutral: Floats) -> Floats:
    maps = table()
    return np.clip((inputs - neutral) @ maps.coefficients.T + maps.bias, maps.low, maps.high)


def neutral_inputs(motion: Motion, neutral: Neutral = "auto") -> Floats:
    """(m,) the values of the inputs that are taken for a face that does nothing; see Neutral."""
    maps, inputs = table(), inputs_of(motion)
    if isinstance(neutral, Mapping):
        if unknown := [name for name in neutral if name not in maps.inputs]:
            raise InputError(f"There is no input {unknown[0]!r}.", f"There are: {', '.join(maps.inputs)}.")
        own = dict(zip(maps.inputs, maps.neutral, strict=True)) | dict(neutral)
        return np.array([own[name] for name in maps.inputs], np.float64)
    if isinstance(neutral, int):
        if not 0 <= neutral < len(inputs):
            raise InputError(f"There is no frame {neutral}.", f"The motion has 0 to {len(inputs) - 1}.")
        return inputs[neutral]
    if neutral == "first":
        return inputs[0]
    if neutral == "mean":
        return inputs.mean(axis=0)
    unsure = len(inputs) < FRAMES_FOR_NEUTRAL or motion.engine == ARKIT
    if neutral == "average" or (neutral == "auto" and unsure):
        return maps.neutral
    if neutral == "auto":
        activity = _values(inputs, maps.neutral).sum(axis=1)
        calm = np.argsort(activity, kind="stable")[: max(1, round(CALM * len(inputs)))]
        return inputs[calm].mean(axis=0)
    raise InputError(f"There is no neutral {neutral!r}.", "Give auto, first, mean, average or a frame.")


@dataclass(frozen=True)
class Inverse:
    """outputs: names of the k outputs; neutral (k,); effects (52,k); spread (k,): how far each usually moves
    within a clip, 0 for gaze."""

    outputs: tuple[str, ...]
    neutral: Floats
    effects: Floats
    spread: Floats

    @staticmethod
    def parse(text: str) -> Inverse:
        """From the JSON text. ValueError for another format."""
        content: dict[str, Any] = json.loads(text)
        rows = content["outputs"]
        if content["format"] != INVERSE_FORMAT:
            raise ValueError(f"no table of the form {INVERSE_FORMAT}")
        effects = np.zeros((len(CHANNELS), len(rows)))
        for j, row in enumerate(rows):
            for name, effect in row["effects"].items():
                effects[INDEX[name], j] = effect
        neutral, spread = (np.array([row[key] for row in rows], np.float64) for key in ("neutral", "spread"))
        return Inverse(tuple(row["name"] for row in rows), neutral, effects, spread)


@cache
def inverse() -> Inverse:
    """The shipped table of the way back."""
    return Inverse.parse(INVERSE.read_text(encoding="utf-8"))


def motion_of(values: NDArray[np.floating[Any]], angles: Floats | None = None, **fields: Any) -> Motion:
    """The performance that ARKit channels (n,52), 0 to 1, and head angles (n,3) describe.

    angles: pitch, yaw, roll in LivePortrait's degrees, None for a still head; fields: fps, start, valid ...
    of Motion. An average face at scale 1 in the middle of the crop performs it, so only what is relative to a
    neutral frame means something. engine "arkit", ratios and gaze follow from the channels, and `channels`
    reads them again, but for what no face of ours does at once.
    """
    back = inverse()
    made = _that_reads(np.asarray(values, np.float64))
    columns = dict(zip(back.outputs, made.T, strict=True))
    n = len(made)
    expression = np.zeros((n, 21, 3))
    for name, column in columns.items():
        if name.startswith("kp_"):
            expression[:, int(name[3:5]), "xyz".index(name[-1])] = column
    turned = np.zeros((n, 3)) if angles is None else np.asarray(angles, np.float64)
    gaze = [columns[f"gaze_{side}_{axis}"] for side in ("left", "right") for axis in "xy"]
    return Motion(
        rotation=rotation_from_euler(*turned.T),
        expression=expression,
        scale=np.ones(n),
        translation=np.zeros((n, 3)),
        canonical=mean_canonical(),
        eye_ratio=np.maximum(np.stack([columns[name] for name in _RATIOS[:2]], axis=1), 0.0),
        lip_ratio=np.maximum(columns["lip_ratio"], 0.0),
        gaze=np.clip(np.stack(gaze, axis=1), -GAZE_LIMIT, GAZE_LIMIT).reshape(n, 2, 2),
        engine=ARKIT,
        ratios_estimated=True,
        **fields,
    )


def _that_reads(values: Floats) -> Floats:
    """(n,k) outputs of the way back, of which the forward map reads the known ones of channels (n,52)."""
    maps, back = table(), inverse()
    made = back.neutral + values @ back.effects
    columns = np.array([back.outputs.index(name) for name in maps.inputs])
    ratios = np.array([name in _RATIOS for name in maps.inputs])
    coefficients, known = maps.coefficients[maps.known], maps.known
    made[:, columns] = reading_as(
        made[:, columns],
        values[:, known],
        coefficients,
        maps.bias[known] - coefficients @ maps.neutral,
        back.spread[columns],
        np.where(ratios, 0.0, -np.inf),
    )
    return made
