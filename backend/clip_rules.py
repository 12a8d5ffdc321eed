# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the product treats clips differently from the released program."""

from __future__ import annotations

from dataclasses import dataclass, fields

from backend.options import Options


@dataclass(frozen=True)
class ClipRules:
    """What the product does to clips that the released program does not: True is ours, False is theirs."""

    exact_rates: bool = True
    """29.97 frames a second stay 30000/1001. Theirs cuts rates to whole numbers, and sound drifts away."""

    rates_matched: bool = True
    """A driving of another rate than the clip source's is brought to that, so that it keeps its speed. Theirs
    takes frame by frame."""

    first_frames_kept: bool = True
    """Frames before the first face keep their place in time. Theirs drops them, and the sound is early."""

    faces_found_again: bool = True
    """A face that was lost, or changed by a cut, is looked for again, and where there is none its motion is
    interpolated. Theirs follows for ever whatever is where the face was."""

    lost_faces_stay: bool = True
    """A frame of a clip source without a face is shown as it is. Theirs pastes something anyway."""

    steady_crops: bool = True
    """The crop of a clip source follows its face smoothly. Theirs jumps with the landmarks' noise."""

    reference_per_shot: bool = True
    """After a cut in the driving clip relative motion starts from a frame of the new shot. Theirs keeps the
    first shot's, so that the head jumps by the difference between the two shots."""

    alpha_kept: bool = True
    """Transparency of a picture goes into the frames. Theirs is opaque."""


PRODUCT = ClipRules()
UPSTREAM = ClipRules(*[False] * len(fields(ClipRules)))


def clip_rules(options: Options) -> ClipRules:
    """The rules of the chosen compatibility."""
    return UPSTREAM if options.compatibility == "upstream" else PRODUCT
