# SPDX-License-Identifier: GPL-3.0-or-later
"""Channels as files: CSV as Epic's Live Link Face writes it, and JSON; as the backend writes them.

CSV: Timecode (HH:MM:SS:FF.mmm, which says the time), BlendShapeCount, ARKit's 52 in the app's order, then
yaw, pitch, roll of head, left and right eye in radians. Frames without a face are rows without values.
"""

from __future__ import annotations

import json
import math
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from . import rig_channels
from .names import UserError

if TYPE_CHECKING:
    import numpy as np

    from .channel_samples import Samples

FORMAT = "liveportrait-curves/1"
EYE_TURN = 0.6  # radians an eye turns when its eyeLook channel is 1
HEAD = ("HeadYaw", "HeadPitch", "HeadRoll")
_EYES = ("LeftEyeYaw", "LeftEyePitch", "LeftEyeRoll", "RightEyeYaw", "RightEyePitch", "RightEyeRoll")
# Live Link Face's files have right before left here.
_SWAPPED = {
    "jawLeft": "jawRight",
    "jawRight": "jawLeft",
    "mouthLeft": "mouthRight",
    "mouthRight": "mouthLeft",
}


def write(path: Path, samples: Samples) -> Path:
    """Write JSON for a name in .json, else CSV; whole or not at all. Raises UserError."""
    text = to_json(samples) if path.suffix.lower() == ".json" else to_csv(samples)
    temporary = path.with_name(f".{path.name}.part")
    try:
        try:
            temporary.write_text(text, encoding="utf-8", newline="\n")
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(
            f"{path} cannot be written: {error.strerror or error}.", "Choose another place."
        ) from error
    return path


def to_csv(samples: Samples) -> str:
    """The text of a CSV file."""
    import numpy as np

    columns = [_SWAPPED.get(name, name) for name in rig_channels.names()]
    titles = [name[0].upper() + name[1:] for name in columns]
    lines = [",".join(["Timecode", "BlendShapeCount", *titles, *HEAD, *_EYES])]
    values = np.stack([samples.values[name] for name in columns], 1)
    numbers = np.concatenate([values, head_angles(samples), _eyes(samples)], 1)
    numbers = np.round(numbers.astype(np.float32).astype(np.float64), 8) + 0.0  # no -0.00000000
    count = numbers.shape[1]
    for frame, (row, valid) in enumerate(zip(numbers.tolist(), samples.valid.tolist())):
        cells = ",".join(f"{value:.8f}" for value in row) if valid else "," * (count - 1)
        lines.append(f"{timecode(samples.start, frame, samples.rate)},{count if valid else 0},{cells}")
    return "\n".join(lines) + "\n"


def to_json(samples: Samples) -> str:
    """The text of a JSON file: exact rate, names, values and head angles by frame."""
    import numpy as np

    names = rig_channels.names()
    values = np.stack([samples.values[name] for name in names], 1).astype(np.float32)
    content = {
        "format": FORMAT,
        "fps": [samples.rate.numerator, samples.rate.denominator],
        "start": samples.start,
        "channels": list(names),
        "head": list(HEAD),
        "unit": "radians",
        "valid": samples.valid.tolist(),
        "head_angles": [[round(v, 7) for v in row] for row in head_angles(samples).tolist()],
    }
    rows = ",\n  ".join(json.dumps([round(v, 7) for v in row]) for row in values.tolist())
    return json.dumps(content, indent=1)[:-2] + f',\n "values": [\n  {rows}\n ]\n}}\n'


def timecode(start: float, frame: int, rate: Fraction) -> str:
    """HH:MM:SS:FF.mmm of start + frame / rate seconds; hours past a day start over."""
    nominal = math.ceil(rate)
    # In thousandths of a nominal frame, so that nothing is rounded twice.
    time = Fraction(max(start, 0.0)).limit_denominator(1_000_000) + frame / rate
    frames, thousandths = divmod(round(time * nominal * 1000), 1000)
    seconds, frames = divmod(frames, nominal)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours % 24:02d}:{minutes:02d}:{seconds:02d}:{frames:02d}.{thousandths:03d}"


def head_angles(samples: Samples) -> np.ndarray:
    """(k,3) yaw > 0 to the subject's left, pitch > 0 up, roll > 0 to the right shoulder: radians, float32."""
    import numpy as np

    angles = [samples.values[name] for name in ("headYaw", "headPitch", "headRoll")]
    return (-np.stack(angles, 1)).astype(np.float32)


def _eyes(samples: Samples) -> np.ndarray:
    import numpy as np

    columns = []
    for side, outwards in (("Left", 1.0), ("Right", -1.0)):
        look = {
            way: samples.values[f"eyeLook{way}{side}"].astype(np.float32)
            for way in ("In", "Out", "Up", "Down")
        }
        columns += [
            outwards * EYE_TURN * (look["Out"] - look["In"]),
            EYE_TURN * (look["Up"] - look["Down"]),
            np.zeros(len(samples), np.float32),
        ]
    return np.stack(columns, 1)
