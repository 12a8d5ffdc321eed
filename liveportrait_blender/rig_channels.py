# SPDX-License-Identifier: GPL-3.0-or-later
"""ARKit's 52 channels on the keypoint rig, as properties that bones and ratios drive.

channel = clamp(sum of coefficient * (input - neutral)) by data/blendshapes.json. The drivers are simple
expressions, so that Blender evaluates them without Python and without the add-on. Left and right are the
subject's. The head's angles are there too: headPitch, headYaw, headRoll, in radians.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from . import fcurves, rig_controls
from .motion_file import Motion
from .paths import data_file
from .rig_action import described
from .rig_control_table import AXES
from .rig_layout import BONES, HEAD, NEUTRAL_INPUTS_KEY, TOTALS, property_path

if TYPE_CHECKING:
    import numpy as np

HEAD_ANGLES = {"headPitch": "ROT_X", "headYaw": "ROT_Y", "headRoll": "ROT_Z"}
CALM = 0.1  # share of the frames, the calmest, whose mean is the neutral face
FRAMES_FOR_NEUTRAL = 10
ARKIT = "arkit"  # the engine of motions that were made of channels, of an average face
# The table names an eye as LivePortrait does: "left" is the image's, which is the subject's right.
RATIO_CHANNELS = {
    "eye_ratio_left": "eye_ratio_right",
    "eye_ratio_right": "eye_ratio_left",
    "lip_ratio": "lip_ratio",
}
_WORDS = {"eye_ratio_left": "r", "eye_ratio_right": "l", "lip_ratio": "m"}
_PART = "_part_"  # between a channel's name and the number of a partial sum


@lru_cache(maxsize=1)
def table() -> dict[str, Any]:
    """data/blendshapes.json."""
    return json.loads(data_file("blendshapes.json").read_text(encoding="utf-8"))


def names() -> tuple[str, ...]:
    """ARKit's 52 names in the table's order."""
    return tuple(row["name"] for row in table()["channels"])


def unknown() -> dict[str, str]:
    """Channels that cannot be told from the keypoints and stay 0 -> why."""
    return {row["name"]: row["why_not"] for row in table()["channels"] if not row["known"]}


def inputs_of(motion: Motion) -> np.ndarray:
    """(n, m) float64: what the table reads, in the order of its `neutral`."""
    import numpy as np

    ratios = {
        "eye_ratio_left": motion.eye_ratio[:, 0],
        "eye_ratio_right": motion.eye_ratio[:, 1],
        "lip_ratio": motion.lip_ratio,
    }
    columns = [
        ratios[name] if name in ratios else motion.expression[:, _keypoint(name), AXES[name[-1]]]
        for name in table()["neutral"]
    ]
    return np.stack(columns, 1).astype(np.float64)


def values(motion: Motion, neutral: Mapping[str, float]) -> np.ndarray:
    """(n, 52) float64: the channels of a motion relative to a neutral face, as the rig shows them."""
    import numpy as np

    inputs = list(table()["neutral"])
    rows = table()["channels"]
    coefficients = np.zeros((len(rows), len(inputs)))
    for k, row in enumerate(rows):
        for term in row["terms"]:
            coefficients[k, inputs.index(term["input"])] = term["coefficient"]
    bias = np.array([row["bias"] for row in rows])
    low, high = np.array([row["clamp"] for row in rows], np.float64).T
    base = np.array([neutral[name] for name in inputs])
    return np.clip((inputs_of(motion) - base) @ coefficients.T + bias, low, high)


def neutral_inputs(motion: Motion | None) -> dict[str, float]:
    """The inputs of a face that does nothing: the mean of the motion's calmest tenth, the frame of a motion
    of one, and an average face's for a motion too short to tell, one that was made of channels, or none."""
    import numpy as np

    average = table()["neutral"]
    if motion is None or motion.engine == ARKIT or 1 < len(motion) < FRAMES_FOR_NEUTRAL:
        return dict(average)
    activity = values(motion, average).sum(axis=1)
    calm = np.argsort(activity, kind="stable")[: max(1, round(CALM * len(motion)))]
    return dict(zip(average, inputs_of(motion)[calm].mean(axis=0).tolist()))


def add(armature: Any, neutral: Mapping[str, float] | None = None) -> None:
    """Give a rig the channels, relative to a neutral face [the one it has, else an average one]."""
    for row in table()["channels"]:
        name = row["name"]
        if name not in armature:
            armature[name] = 0.0
        about = "ARKit channel" if row["known"] else f"Always 0: {row['why_not']}".rstrip(".")
        armature.id_properties_ui(name).update(min=0.0, max=1.0, default=0.0, description=about)
    for name, kind in HEAD_ANGLES.items():
        armature[name] = 0.0
        armature.id_properties_ui(name).update(default=0.0, subtype="ANGLE", description="The head's turn")
        rig_controls.drive(armature, property_path(name), -1, "a", {"a": (HEAD, kind)})
    set_neutral(armature, neutral or neutral_of(armature))


def has_channels(armature: Any) -> bool:
    """Whether the rig has the channels."""
    return all(name in armature for name in names())


def remove(armature: Any) -> None:
    """Take the channels out of a rig, with their drivers."""
    ours = {*names(), *HEAD_ANGLES}
    for name in [key for key in armature.keys() if key in ours or key.split(_PART)[0] in ours]:  # noqa: SIM118
        armature.driver_remove(property_path(name))
        del armature[name]


def neutral_of(armature: Any) -> dict[str, float]:
    """The neutral inputs that the rig's channels are relative to."""
    stored = armature.data.get(NEUTRAL_INPUTS_KEY)
    return dict(table()["neutral"]) if stored is None else {**table()["neutral"], **stored.to_dict()}


def remember_neutral(armature: Any, neutral: Mapping[str, float]) -> None:
    """Let the present Action keep the neutral inputs of its own performance."""
    about = described(armature)
    if about is not None:
        about["channel_neutral"] = dict(neutral)


def own_neutral(armature: Any) -> dict[str, float]:
    """The neutral inputs of the present Action's performance; an average face's where it keeps none."""
    about = described(armature)
    stored = about.get("channel_neutral") if about is not None else None
    return {**table()["neutral"], **(stored.to_dict() if stored is not None else {})}


def set_neutral(armature: Any, neutral: Mapping[str, float]) -> None:
    """Have the channels be relative to `neutral`, {input: value} as `neutral_inputs` gives."""
    armature.data[NEUTRAL_INPUTS_KEY] = {name: float(value) for name, value in neutral.items()}
    for row in table()["channels"]:
        if row["known"]:
            _drive_channel(armature, row, neutral)
    armature.update_tag()


def mirrored_inputs(neutral: Mapping[str, float], rest: Sequence[float]) -> dict[str, float]:
    """Neutral inputs of the mirror image; rest (63,): delta of the neutral face, as in rig_mirror."""
    import numpy as np

    from .rig_mirror import mirrored_delta

    base = np.array(rest)
    delta = base.copy()
    places = {name: 3 * _keypoint(name) + AXES[name[-1]] for name in neutral if name not in RATIO_CHANNELS}
    for name, place in places.items():
        delta[place] = neutral[name]
    moved = mirrored_delta(delta[None], base)[0]
    found = {name: float(moved[place]) for name, place in places.items()}
    found["eye_ratio_left"], found["eye_ratio_right"] = neutral["eye_ratio_right"], neutral["eye_ratio_left"]
    return {**dict(neutral), **found}


def baked(armature: Any) -> bool:
    """Whether an Action of the rig holds keys of channels, which their drivers would hide."""
    return any((property_path(name), 0) in fcurves.curves_of(armature) for name in names())


def _keypoint(name: str) -> int:
    return int(name[3:5])


def _drive_channel(armature: Any, row: dict[str, Any], neutral: Mapping[str, float]) -> None:
    name, terms = row["name"], row["terms"]
    constant = row["bias"] - sum(term["coefficient"] * neutral[term["input"]] for term in terms)
    low, high = row["clamp"]
    parts: list[tuple[str, dict[str, rig_controls.Source]]] = [("", {})]
    wrapper = f"min(max({constant:.6g},{low:g}),{high:g})"
    for term in terms:
        word, source = _word(armature, term["input"])
        text = f"{term['coefficient']:+.5g}*{word}"
        if len(parts[-1][0]) + len(text) + len(wrapper) > rig_controls.SIMPLE_LENGTH - 20:
            parts.append(("", {}))
        parts[-1] = parts[-1][0] + text, {**parts[-1][1], word: source}
    text, sources = parts[0]
    for number, (part, words) in enumerate(parts[1:]):
        extra = f"{name}{_PART}{number}"
        armature[extra] = 0.0
        rig_controls.drive(armature, property_path(extra), -1, part.removeprefix("+"), words)
        word = f"p{number}"
        text, sources = f"{text}+{word}", {**sources, word: property_path(extra)}
    expression = f"min(max({constant:.6g}{text},{low:g}),{high:g})"
    rig_controls.drive(armature, property_path(name), -1, expression, sources)


def _word(armature: Any, name: str) -> tuple[str, rig_controls.Source]:
    """A short word for an input of the table, and what it reads on the rig."""
    if name in RATIO_CHANNELS:
        channel = RATIO_CHANNELS[name]
        total = TOTALS[channel]  # with the expression controls' share
        return _WORDS[name], property_path(total if total in armature else channel)
    return f"{name[-1]}{_keypoint(name)}", (BONES[_keypoint(name)], f"LOC_{name[-1].upper()}")
