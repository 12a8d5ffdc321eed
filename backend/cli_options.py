# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of a job as flags: the same words as in the protocol and the panel, one flag a field of
Options.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass, fields
from fractions import Fraction
from pathlib import Path
from typing import Any

from backend.errors import InputError
from backend.expressions import controls
from backend.options import FACE_ORDERS, REGIONS, Options
from backend.timeline import LENGTH_POLICIES

# What people write for the rates of television, which are not these decimals.
BROADCAST_RATES = {
    "23.976": Fraction(24000, 1001),
    "23.98": Fraction(24000, 1001),
    "29.97": Fraction(30000, 1001),
    "59.94": Fraction(60000, 1001),
}


def add_job_options(parser: argparse.ArgumentParser) -> None:
    """Add the flags for every field of Options."""
    default = Options()
    add_engine_options(parser)

    motion = parser.add_argument_group("motion")
    either = motion.add_mutually_exclusive_group()
    either.add_argument(
        "--relative",
        action="store_true",
        default=default.relative,
        help="add the driver's movement to the source's own look [default]",
    )
    either.add_argument(
        "--absolute", dest="relative", action="store_false", help="take the driver's pose and look over"
    )
    motion.add_argument(
        "--driving-option",
        choices=("expression-friendly", "pose-friendly"),
        default=default.driving_option,
        help="of the released program, for --compatibility upstream; otherwise both do the same",
    )
    motion.add_argument(
        "--multiplier", type=Number(), default=default.multiplier, help="strength of the motion [1]"
    )
    motion.add_argument(
        "--region", choices=REGIONS, default=default.region, help="what moves; the rest stays [all]"
    )
    _flag(motion, "stitch", default.stitch, "keep the shoulders in place")
    _flag(motion, "normalize-lips", default.normalize_lips, "let the source's lips rest as the driver's do")
    _flag(motion, "eye-retargeting", default.eye_retargeting, "open the eyes as far as the driver's")
    _flag(motion, "lip-retargeting", default.lip_retargeting, "open the lips as far as the driver's")
    _flag(motion, "lock-scale", default.lock_scale, "do not follow the driver towards and from the camera")
    motion.add_argument(
        "--eye-gain", type=Number(), default=default.eye_gain, help="strength of the eyes' motion [1]"
    )
    motion.add_argument(
        "--lip-gain", type=Number(), default=default.lip_gain, help="strength of the lips' motion [1]"
    )
    motion.add_argument(
        "--smoothing",
        type=smoothing,
        default=default.smoothing,
        metavar="off|auto|VALUE",
        help="steady the driving motion: auto goes by its jitter, VALUE is a strength, 1 is usual [off]",
    )
    motion.add_argument(
        "--reference-frame",
        type=reference_frame,
        default=default.reference_frame,
        metavar="N|auto",
        help="the driving frame that counts as rest, 0 is the first that is used [0]",
    )

    clips = parser.add_argument_group("clips as source")
    clips.add_argument(
        "--length-policy",
        choices=LENGTH_POLICIES,
        default=default.length_policy,
        help="where source and driving differ in length: stop with the shorter, hold its last frame, start it"
        " over, or run it back and forth [cut]",
    )
    clips.add_argument(
        "--source-smoothing",
        type=smoothing,
        default=default.source_smoothing,
        metavar="off|auto|VALUE",
        help="steady the source's own motion [off]",
    )
    _flag(clips, "steady-source-eyes", default.steady_source_eyes, "open its eyes as in its first frame")
    _flag(clips, "silence-lips", default.silence_lips, "let its lips rest before the driving moves them")
    clips.add_argument(
        "--observation-variance",
        type=Number(minimum=0),
        default=default.observation_variance,
        metavar="VALUE",
        help="smoothing in upstream compatibility [3e-7]",
    )

    crop = parser.add_argument_group("crop")
    _flag(crop, "crop", default.crop, "crop the source to its face")
    _flag(crop, "rotate", default.rotate, "turn the source's crop upright")
    _flag(crop, "paste-back", default.paste_back, "put the face back into the picture")
    _add_square(crop, "crop", "the source's", default.crop_scale, default.crop_x, default.crop_y)
    _add_driving_crop(parser)

    choice = parser.add_argument_group("choice")
    choice.add_argument(
        "--face",
        type=face_choice,
        action="append",
        default=[],
        dest="faces",
        metavar="N|N:DRIVING",
        help="the number of the source's face, 0 is the largest [largest]; with DRIVING, once for each face,"
        " it is driven by that",
    )
    choice.add_argument(
        "--driving-face",
        type=whole_number,
        metavar="N",
        help="the number of the face that drives, where the driving has several [largest]",
    )
    _add_choice(choice)
    choice.add_argument(
        "--audio",
        choices=("auto", "driving", "source", "none"),
        default=default.audio,
        help="whose sound an MP4 gets: auto is the driving clip's, or else the source's [auto]",
    )

    sliders = parser.add_argument_group("expression controls")
    for control in controls():
        unit = f" {control.unit}" if control.unit else ""
        sliders.add_argument(
            control.flag,
            type=Number(control.minimum, control.maximum),
            metavar="VALUE",
            dest=f"control_{control.name}",
            default=None,
            help=f"{control.label}, {control.minimum:g} to {control.maximum:g}{unit}".replace("%", "%%"),
        )


def add_engine_options(parser: argparse.ArgumentParser) -> None:
    """The flags that choose the engine."""
    default = Options()
    engine = parser.add_argument_group("engine")
    engine.add_argument(
        "--engine",
        choices=("auto", "mesh", "neural"),
        default=default.engine,
        help="mesh needs nothing more; neural needs weights and PyTorch; auto takes neural if it can [auto]",
    )
    engine.add_argument("--models", type=Path, metavar="DIR", help="the released weights")
    engine.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda", "mps"),
        default=default.device,
        help="where the neural engine runs; the mesh engine uses the CPU [auto]",
    )
    engine.add_argument(
        "--runtime",
        choices=("auto", "torch", "onnx"),
        default=default.runtime,
        help="what runs the networks: PyTorch, onnxruntime (models export), or for each the faster [auto]",
    )


def add_capture_options(parser: argparse.ArgumentParser) -> None:
    """The flags for what measuring a performance depends on, no others."""
    add_engine_options(parser)
    _add_driving_crop(parser)
    choice = parser.add_argument_group("choice")
    choice.add_argument(
        "--face",
        type=captured_face,
        dest="driving_face",
        metavar="N",
        help="the face's number, 0 is the largest [largest]",
    )
    _add_choice(choice)


def _add_choice(choice: Any) -> None:
    default = Options()
    choice.add_argument(
        "--face-order",
        choices=FACE_ORDERS,
        default=default.face_order,
        help="how faces are numbered [large-small]",
    )
    choice.add_argument("--frames", type=frame_range, metavar="A:B", help="driving frames A to B - 1")
    choice.add_argument(
        "--fps",
        type=frame_rate,
        metavar="RATE",
        help="pictures a second: 24, 23.976, 30000/1001; folders of pictures then have as many",
    )
    choice.add_argument(
        "--compatibility",
        choices=("product", "upstream"),
        default=default.compatibility,
        help="upstream does what the released program does, its faults included [product]",
    )


def _add_driving_crop(parser: argparse.ArgumentParser) -> None:
    default = Options()
    group = parser.add_argument_group("driving crop")
    _flag(
        group,
        "driving-crop",
        default.driving_crop,
        "crop the driving clip to its face [when it is not square]",
    )
    x, y = default.driving_crop_x, default.driving_crop_y
    _add_square(group, "driving-crop", "the driving's", default.driving_crop_scale, x, y)


def _add_square(group: Any, prefix: str, whose: str, scale: float, x: float, y: float) -> None:
    group.add_argument(
        f"--{prefix}-scale",
        type=Number(above=0),
        default=scale,
        help=f"side of {whose} crop in face sizes [{scale:g}]",
    )
    group.add_argument(
        f"--{prefix}-x", type=Number(), default=x, help=f"shift to the right, in sides of the crop [{x:g}]"
    )
    group.add_argument(
        f"--{prefix}-y", type=Number(), default=y, help=f"shift downwards, in sides of the crop [{y:g}]"
    )


def options_from(parsed: argparse.Namespace) -> Options:
    """The Options that parsed flags ask for."""
    given = vars(parsed)
    known = {field.name: given[field.name] for field in fields(Options) if field.name in given}
    values = {control.name: given.get(f"control_{control.name}") for control in controls()}
    alone = [number for number, driving in given.get("faces") or [] if driving is None]
    if len(alone) > 1:
        raise InputError("--face is given twice.", "Give one number, or N:DRIVING for each face.")
    known["face"] = alone[0] if alone else None
    known["controls"] = {name: value for name, value in values.items() if value is not None}
    return Options(**known)


def faces_from(parsed: argparse.Namespace) -> dict[int, str]:
    """What drives each face that has a driving of its own. Raises InputError for a face that has two, or that
    is named without any.
    """
    faces: dict[int, str] = {}
    for number, driving in parsed.faces:
        if driving is None:
            if parsed.driving is None:
                raise InputError(f"Nothing drives face {number}.", f"Write --face {number}:DRIVING.")
            continue
        if number in faces:
            raise InputError(f"Face {number} is given two drivings.", "Give each face one.")
        faces[number] = driving
    return faces


def _flag(group: Any, name: str, default: bool | None, what: str) -> None:
    shown = {True: " [on]", False: " [off]", None: ""}[default]
    group.add_argument(f"--{name}", action=argparse.BooleanOptionalAction, default=default, help=what + shown)


@dataclass(frozen=True)
class Number:
    """A reader of finite numbers within a range. Frozen and open to reading: the add-on's table of options is
    made from these ranges.
    """

    minimum: float = -math.inf
    maximum: float = math.inf
    above: float = -math.inf

    def __call__(self, text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
        if not math.isfinite(value):
            raise argparse.ArgumentTypeError(f"{text!r} is not a finite number")
        if not self.minimum <= value <= self.maximum:
            raise argparse.ArgumentTypeError(f"{text} is outside {self.minimum:g} to {self.maximum:g}")
        if value <= self.above:
            raise argparse.ArgumentTypeError(f"{text} has to be above {self.above:g}")
        return value


def whole_number(text: str) -> int:
    """A number from 0."""
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0")
    return int(text)


def face_choice(text: str) -> tuple[int, str | None]:
    """N, or N:DRIVING."""
    number, colon, driving = text.partition(":")
    if colon and not driving:
        raise argparse.ArgumentTypeError(f"{text!r} names no driving")
    return whole_number(number), driving if colon else None


def captured_face(text: str) -> int:
    """A face's number, where it cannot have a driving."""
    if ":" in text:
        raise argparse.ArgumentTypeError("a capture has one face; write --face N, and capture once for each")
    return whole_number(text)


def smoothing(text: str) -> float | str:
    """off, auto or a strength from 0."""
    if text in ("off", "auto"):
        return text
    try:
        return Number(minimum=0)(text)
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(f"{text!r} is not off, auto or a number from 0") from None


def reference_frame(text: str) -> int | str:
    """auto or a frame's number."""
    return text if text == "auto" else whole_number(text)


def frame_range(text: str) -> tuple[int, int | None]:
    """A:B, half-open; A or B may be left out."""
    first, colon, stop = text.partition(":")
    if not colon:
        raise argparse.ArgumentTypeError(f"{text!r} is not a range; write A:B, A: or :B")
    begin, end = whole_number(first) if first else 0, whole_number(stop) if stop else None
    if end is not None and end <= begin:
        raise argparse.ArgumentTypeError(f"{text} has no frames; the second number has to be the larger")
    return begin, end


def frame_rate(text: str) -> Fraction:
    """A positive rate: 25, 23.976 or 30000/1001."""
    try:
        rate = BROADCAST_RATES.get(text) or Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise argparse.ArgumentTypeError(f"{text!r} is not a frame rate") from None
    if not 0 < rate <= 1000:
        raise argparse.ArgumentTypeError(f"{text} is not a frame rate between 0 and 1000")
    return rate.limit_denominator(1_000_000)
