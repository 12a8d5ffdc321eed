# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line's curves: `capture --csv`, and `convert` between motion files, templates and curves."""

from __future__ import annotations

import argparse
import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from backend.blendshapes import Neutral
from backend.errors import InputError

NEUTRALS = ("auto", "first", "mean", "average")
SUFFIXES = (".npz", ".pkl", ".csv", ".json")


def _neutral(text: str) -> Neutral:
    if text in NEUTRALS:
        return text
    if text.isdecimal():
        return int(text)
    raise argparse.ArgumentTypeError(f"{text} is no neutral; give {', '.join(NEUTRALS)} or a frame")


def _curve_file(text: str) -> Path:
    path = Path(text)
    if path.suffix.lower() not in (".csv", ".json"):
        raise argparse.ArgumentTypeError(f"{text} must end in .csv or .json")
    return path


def _add_neutral(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--neutral",
        type=_neutral,
        default="auto",
        metavar="WHICH",
        help="the face that does nothing, for curves: auto is the clip's calmest tenth; first, mean, average"
        " (an average face) or a frame's number [auto]",
    )


def add_curve_options(parser: argparse.ArgumentParser) -> None:
    """The flags of `capture` that write curves."""
    parser.add_argument(
        "--csv",
        type=_curve_file,
        metavar="CURVES",
        help="also ARKit's 52 channels and the head's angles: .csv as Live Link Face writes it, or .json",
    )
    _add_neutral(parser)


@contextlib.contextmanager
def wanted_motion(parsed: argparse.Namespace) -> Iterator[Path]:
    """Where `capture` writes its motion: what -o says, or with --csv alone a file that goes again."""
    from backend.results import refuse_overwriting

    if parsed.csv is not None:
        refuse_overwriting(parsed.csv, [Path(parsed.driving)])
    if parsed.output is not None:
        yield parsed.output
        return
    if parsed.csv is None:
        raise InputError(
            "There is nowhere to write to.", "Give -o motion.npz, --csv curves.csv, or both."
        )
    with tempfile.TemporaryDirectory(prefix="liveportrait-") as folder:
        yield Path(folder) / "motion.npz"


def save_csv(parsed: argparse.Namespace, motion: Path) -> None:
    """Write the curves of a captured motion file, if they are wanted."""
    if parsed.csv is None:
        return
    from backend.motion_files import load_motion, save_curves

    save_curves(load_motion(motion), parsed.csv, parsed.neutral)


def add_convert_options(parser: argparse.ArgumentParser) -> None:
    """The arguments of `convert`."""
    parser.add_argument(
        "input", metavar="IN", help="a motion .npz, a template .pkl, curves .csv or .json, or a library name"
    )
    parser.add_argument("output", metavar="OUT", type=Path, help="a name in .npz, .pkl, .csv or .json")
    _add_neutral(parser)


def run_convert(parsed: argparse.Namespace) -> int:
    """`convert IN OUT`: the kind is said by OUT's name."""
    from backend.driving import open_driving
    from backend.motion_files import save_curves, save_motion
    from backend.results import refuse_overwriting

    suffix = parsed.output.suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(f"Cannot write {parsed.output.name}.", f"Give a name in {', '.join(SUFFIXES)}.")
    driving = open_driving(parsed.input)
    if driving.motion is None:
        raise InputError(f"{driving.name} is a {driving.kind}, not a performance.", "Capture it first.")
    if driving.path is not None:
        refuse_overwriting(parsed.output, [driving.path])
    if suffix in (".csv", ".json"):
        save_curves(driving.motion, parsed.output, parsed.neutral)
    else:
        save_motion(driving.motion, parsed.output)
    return 0
