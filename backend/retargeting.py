# SPDX-License-Identifier: GPL-3.0-or-later
"""From a driving performance to the keypoints of a source: the published algorithm and our corrections of it.

x = s (x_c R + delta) + t (rows; t_z = 0). `retarget` mixes R, delta, s and t of source and driving by
region and mode, then stitches, adds the retargeting deltas and scales the motion. The order and the rules
are those of the released LivePortrait program; each point where ours differ is one field of `Rules`.

The released "expression-friendly" option multiplies the motion by the size ratio between the source and
frame 0 of the animation, which in relative mode IS the source: it is always 1 but for rounding, so in the
product both driving options are the same.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from backend.errors import InputError
from backend.expressions import Edited, apply_controls, check_controls, neutral_expression
from backend.hull import motion_multiplier
from backend.kalman import kalman_smooth
from backend.lip_silence import silence
from backend.motion import Motion
from backend.openings import asked_openings, close_lids, deltas_at_rest, retargeting_deltas
from backend.options import REGIONS, Options
from backend.reference_frame import choose_reference
from backend.retargeting_case import Case, Retargeter, repeat, without_effect
from backend.retargeting_rules import EYE_KEYPOINTS, LIP_KEYPOINTS, Rules, rules_of, transferred
from backend.timeline import in_step


@dataclass(frozen=True)
class Retargeted:
    """Keypoints to render: source and driving (n, 21, 3) float32; notes: one line each for the user."""

    source: np.ndarray
    driving: np.ndarray
    notes: list[str]


def retarget(
    source: Motion,
    driving: Motion,
    options: Options,
    engine: Retargeter,
    *,
    reference: Motion | None = None,
    rules: Rules | None = None,
    source_is_clip: bool | None = None,
) -> Retargeted:
    """Keypoints that make the source perform the driving motion.

    source: one frame (a picture) or n (a clip; source_is_clip says so when it has one frame). driving: n
    frames, or one: a picture or one-frame template, whose expression is then read relative to the neutral
    face; its head pose is taken over in absolute mode only. Clips of different lengths are brought into step
    by options.length_policy. reference: one frame that replaces options.reference_frame, so that a long
    driving can be given in parts (one frame of it then counts as a part of a clip), or one for each frame of
    a driving as long as the source. rules None: those of options.compatibility. Raises InputError for
    motions without frames, a reference frame that does not exist, impossible numbers.
    """
    notes: list[str] = []
    case = _prepare(source, driving, reference, options, rules or rules_of(options), source_is_clip, notes)
    mixed = _mix(case)
    expression = _apply_gains(case, close_lids(case, mixed.expression))
    edited = apply_controls(
        *mixed._replace(expression=expression),
        options.controls,
        move_head=case.rules.controls_move_the_head,
    )
    x_s = repeat(case.source.keypoints(), case.frames)
    x_d = _keypoints(case, edited)
    if not case.rules.driving_options_agree:
        x_d = _expression_friendly(case, x_s, x_d)
    driven = expression - case.source.expression  # without the controls, which stay on top of any retargeting

    x_d = x_d + asked_openings(case, x_s, engine)
    if options.eye_retargeting or options.lip_retargeting:
        deltas = retargeting_deltas(case, x_s, driven, engine)
        x_d = (x_d if case.rules.retargeting_keeps_motion or not options.relative else x_s) + deltas
    if options.stitch:
        x_d = engine.stitch(x_s, x_d)
    x_d = x_d + deltas_at_rest(case, x_s, engine)
    x_d = x_s + (x_d - x_s) * np.float32(options.multiplier)
    if not np.isfinite(x_d).all():
        raise InputError(
            "The animation has numbers that are not finite.", "Capture the driving motion again."
        )
    return Retargeted(x_s, np.ascontiguousarray(x_d, dtype=np.float32), notes)


def _prepare(
    source: Motion,
    driving: Motion,
    reference: Motion | None,
    options: Options,
    rules: Rules,
    source_is_clip: bool | None,
    notes: list[str],
) -> Case:
    if len(source) == 0 or len(driving) == 0:
        which = "source" if len(source) == 0 else "driving motion"
        raise InputError(f"The {which} has no frames.", "Choose another file or range of frames.")
    _check(options)
    clip_source = len(source) > 1 if source_is_clip is None else source_is_clip
    clip_driving = len(driving) > 1 or reference is not None
    if len(driving) > 1 and options.smoothing != "off":
        driving = driving.smooth(options.smoothing)
    if reference is None:
        reference = driving[
            choose_reference(
                driving, options.reference_frame, only_with_face=rules.reference_has_face, notes=notes
            )
        ]
    base = source.smooth(options.source_smoothing) if clip_source else source
    if options.silence_lips:
        base = silence(base)
    frames = len(source) if clip_source else len(driving)
    if clip_source and clip_driving:
        lengths = (len(source), len(driving))
        base, _ = in_step(base, driving, options.length_policy)
        source, driving = in_step(source, driving, options.length_policy)
        frames = len(driving)
        if lengths[0] != lengths[1]:
            notes.append(
                f"source and driving differ in length ({lengths[0]} and {lengths[1]} frames):"
                f" {frames} frames are made ({options.length_policy})"
            )
    case = Case(source, base, driving, reference, frames, clip_source, clip_driving, options, rules)
    notes.extend(without_effect(case))
    return case


def _check(options: Options) -> None:
    if options.region not in REGIONS:
        raise InputError(f"There is no region {options.region!r}.", f"Use one of {', '.join(REGIONS)}.")
    for name in ("multiplier", "eye_gain", "lip_gain"):
        if not np.isfinite(getattr(options, name)):
            raise InputError(f"{name.replace('_', ' ')} must be a finite number.", "Use 1 for no change.")
    if not (np.isfinite(options.observation_variance) and options.observation_variance >= 0):
        raise InputError("observation variance must be 0 or more.", "Use 3e-7, as the released program does.")
    check_controls(options.controls)


def _mix(case: Case) -> Edited:
    """delta, R, s, t of the animation before stitching: source and driving mixed by region and mode."""
    source, driving, reference, options = case.base, case.driving, case.reference, case.options
    kalman = case.clip_source and case.clip_driving and not case.rules.smooth_by_motion

    def filtered(values: np.ndarray) -> np.ndarray:
        return kalman_smooth(values, options.observation_variance) if kalman else values

    if not options.relative:
        wanted = driving.expression
    elif case.clip_driving:
        wanted = source.expression + driving.expression - reference.expression
    else:
        wanted = source.expression + (driving.expression - _still_neutral(case))
    mask = transferred(options.region, everything=options.relative and not case.clip_source)
    expression = np.where(mask, filtered(repeat(wanted, case.frames)), source.expression)

    rotation, scale, translation = source.rotation, source.scale, source.translation
    if case.moves_pose and not options.relative:
        rotation, translation = filtered(repeat(driving.rotation, case.frames)), driving.translation
    elif case.moves_pose and case.clip_driving:
        turned = driving.rotation @ reference.rotation.transpose(0, 2, 1)
        rotation = filtered(turned @ source.rotation)
        if not case.clip_source:
            way = driving.translation - reference.translation
            size = source.scale / reference.scale if case.rules.translation_in_source_size else np.ones(1)
            translation = source.translation + way * size[:, None].astype(np.float32)
    if options.relative and options.region == "all" and not case.clip_source and not options.lock_scale:
        scale = source.scale * (driving.scale / reference.scale)
    return Edited(
        expression,
        repeat(rotation, case.frames),
        repeat(scale, case.frames),
        repeat(translation, case.frames),
    )


def _still_neutral(case: Case) -> np.ndarray:
    """What a one-frame driving is read relative to. For the eyes of a picture the released program uses 0."""
    if case.options.region == "eyes" and not case.clip_source:
        return np.zeros((1, 21, 3), dtype=np.float32)
    return neutral_expression()[None]


def _apply_gains(case: Case, expression: np.ndarray) -> np.ndarray:
    """Scale the change of the eye and lip keypoints against the source; 1 is no change."""
    gain = np.ones((21, 1), dtype=np.float32)
    gain[list(EYE_KEYPOINTS)] = case.options.eye_gain
    gain[list(LIP_KEYPOINTS)] = case.options.lip_gain
    if np.all(gain == 1):
        return expression
    return case.base.expression + gain * (expression - case.base.expression)


def _expression_friendly(case: Case, x_s: np.ndarray, x_d: np.ndarray) -> np.ndarray:
    """x_d as the released "expression-friendly" option makes it: the way from its reference frame, times the
    source's size over that frame's, from x_s on.
    """
    options = case.options
    if not options.relative or options.driving_option != "expression-friendly":
        return x_d
    if case.clip_source or not case.clip_driving:
        return x_d
    x_0 = _keypoints(case, _mix(replace(case, driving=case.reference, frames=1)))
    return x_s + (x_d - x_0) * np.float32(motion_multiplier(x_s[0], x_0[0]))


def _keypoints(case: Case, edited: Edited) -> np.ndarray:
    """x = s (x_c R + delta) + (t_x, t_y, 0), (n, 21, 3) float32."""
    x = edited.scale[:, None, None] * (case.base.canonical @ edited.rotation + edited.expression)
    x[..., :2] += edited.translation[:, None, :2]
    return np.asarray(x, dtype=np.float32)
