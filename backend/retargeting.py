# SPDX-License-Identifier: GPL-3.0-or-later
"""From a driving performance to the keypoints of a source: the published algorithm and our corrections of it.

x = s (x_c R + delta) + t (rows; t_z = 0). `retarget` mixes R, delta, s and t of source and driving by
region and mode, then stitches, adds the retargeting deltas and scales the motion. The order and the rules
are those of the released LivePortrait program; each point where ours differ is one field of `Rules`.

The released "expression-friendly" option multiplies the motion by the size ratio between the source and
frame 0 of the animation, which in relative mode IS the source: it is always 1, so both driving options are
the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from backend.errors import InputError
from backend.expressions import apply_controls, check_controls, neutral_expression, ratio_targets
from backend.kalman import kalman_smooth
from backend.motion import Motion
from backend.options import REGIONS, Options
from backend.ratios import ratio_change
from backend.reference_frame import choose_reference
from backend.retargeting_rules import (
    EYE_KEYPOINTS,
    LIP_KEYPOINTS,
    Rules,
    rules_of,
    transferred,
)

LIP_NORMALIZE_THRESHOLD = 0.03  # released InferenceConfig.lip_normalize_threshold
SOURCE_EYES_THRESHOLD = 0.18  # released source_video_eye_retargeting_threshold
SOURCE_EYES_OPEN = 0.39  # what it uses when the first source frame's eyes are below that
OBSERVATION_VARIANCE = 3e-7  # released driving_smooth_observation_variance


class Retargeter(Protocol):
    """The part of an engine that this room needs. Keypoints are (n, 21, 3) float32 in crop coordinates.

    Ratios are (n, 3) [image-left, image-right, target] for the eyes, (n, 2) [source, target] for the lips.
    The returned deltas are added to keypoints, so they are in crop coordinates too (not divided by the
    scale).
    """

    def stitch(self, source: np.ndarray, driving: np.ndarray) -> np.ndarray: ...

    def retarget_eyes(self, source: np.ndarray, ratios: np.ndarray) -> np.ndarray: ...

    def retarget_lips(self, source: np.ndarray, ratios: np.ndarray) -> np.ndarray: ...


@dataclass(frozen=True)
class Retargeted:
    """Keypoints to render: source and driving (n, 21, 3) float32; notes: one line each for the user."""

    source: np.ndarray
    driving: np.ndarray
    notes: list[str]


@dataclass(frozen=True)
class _Case:
    """What the rules depend on. Of the driving only the frames in use are left; the reference is one
    frame."""

    source: Motion
    driving: Motion
    reference: Motion
    frames: int
    clip_source: bool
    clip_driving: bool
    options: Options
    rules: Rules
    observation_variance: float

    @property
    def moves_pose(self) -> bool:
        return self.options.region in ("all", "pose")


def retarget(
    source: Motion,
    driving: Motion,
    options: Options,
    engine: Retargeter,
    *,
    reference: Motion | None = None,
    rules: Rules | None = None,
    source_is_clip: bool | None = None,
    steady_source_eyes: bool = False,
    observation_variance: float = OBSERVATION_VARIANCE,
) -> Retargeted:
    """Keypoints that make the source perform the driving motion.

    source: one frame (a picture) or n (a clip; source_is_clip says so when it has one frame). driving: n
    frames, or one: a picture or one-frame template, whose expression is then read relative to the neutral
    face; its head pose is taken over in absolute mode only. Two clips give as many frames as the shorter.
    reference: one frame that replaces options.reference_frame, so that a long driving can be given in parts
    (one frame of it then counts as a part of a clip). rules None: those of options.compatibility.
    steady_source_eyes brings every frame of a clip source to the eye opening of its first (the released
    flag_source_video_eye_retargeting); observation_variance is that of the released smoothing of clip
    sources. Raises InputError for motions without frames, a reference frame that does not exist, impossible
    numbers.
    """
    notes: list[str] = []
    case = _prepare(
        source,
        driving,
        reference,
        options,
        rules or rules_of(options),
        source_is_clip,
        observation_variance,
        notes,
    )
    expression, rotation, scale, translation = _mix(case)
    expression = _apply_gains(case, expression)
    edited = apply_controls(expression, rotation, scale, translation, options.controls)
    x_s = _repeat(
        _keypoints(
            case.source.canonical,
            case.source.rotation,
            case.source.expression,
            case.source.scale,
            case.source.translation,
        ),
        case.frames,
    )
    x_d = _keypoints(
        case.source.canonical, edited.rotation, edited.expression, edited.scale, edited.translation
    )
    driven = expression - case.source.expression  # without the controls, which stay on top of any retargeting

    x_d = x_d + _asked_openings(case, x_s, engine)
    retargeting = options.eye_retargeting or options.lip_retargeting
    if retargeting:
        deltas = _retargeting_deltas(case, x_s, driven, engine)
        x_d = (x_d if case.rules.retargeting_keeps_motion or not options.relative else x_s) + deltas
    if options.stitch:
        x_d = engine.stitch(x_s, x_d)
    x_d = x_d + _deltas_at_rest(case, x_s, engine, steady_source_eyes)
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
    observation_variance: float,
    notes: list[str],
) -> _Case:
    if len(source) == 0 or len(driving) == 0:
        which = "source" if len(source) == 0 else "driving motion"
        raise InputError(f"The {which} has no frames.", "Choose another file or range of frames.")
    if options.region not in REGIONS:
        raise InputError(f"There is no region {options.region!r}.", f"Use one of {', '.join(REGIONS)}.")
    for name in ("multiplier", "eye_gain", "lip_gain"):
        if not np.isfinite(getattr(options, name)):
            raise InputError(f"{name.replace('_', ' ')} must be a finite number.", "Use 1 for no change.")
    check_controls(options.controls)
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
    frames = len(driving)
    if clip_source:
        frames = min(len(source), len(driving)) if clip_driving else len(source)
        if clip_driving and len(source) != len(driving):
            notes.append(
                f"source and driving differ in length: {frames} frames are made, as many as the shorter has"
            )
        source = source[:frames]
        driving = driving[:frames] if clip_driving else driving
    return _Case(
        source, driving, reference, frames, clip_source, clip_driving, options, rules, observation_variance
    )


def _mix(case: _Case) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """delta, R, s, t of the animation before stitching: source and driving mixed by region and mode."""
    source, driving, reference, options = case.source, case.driving, case.reference, case.options
    kalman = case.clip_source and case.clip_driving and not case.rules.smooth_by_motion

    def filtered(values: np.ndarray) -> np.ndarray:
        return kalman_smooth(values, case.observation_variance) if kalman else values

    if not options.relative:
        wanted = driving.expression
    elif case.clip_driving:
        wanted = source.expression + driving.expression - reference.expression
    else:
        wanted = source.expression + (driving.expression - _still_neutral(case))
    mask = transferred(options.region, everything=options.relative and not case.clip_source)
    expression = np.where(mask, filtered(_repeat(wanted, case.frames)), source.expression)

    rotation, scale, translation = source.rotation, source.scale, source.translation
    if case.moves_pose and not options.relative:
        rotation, translation = filtered(_repeat(driving.rotation, case.frames)), driving.translation
    elif case.moves_pose and case.clip_driving:
        turned = driving.rotation @ reference.rotation.transpose(0, 2, 1)
        rotation = filtered(turned @ source.rotation)
        if not case.clip_source:
            translation = source.translation + driving.translation - reference.translation
    if options.relative and options.region == "all" and not case.clip_source and not options.lock_scale:
        scale = source.scale * (driving.scale / reference.scale)
    return (
        expression,
        _repeat(rotation, case.frames),
        _repeat(scale, case.frames),
        _repeat(translation, case.frames),
    )


def _still_neutral(case: _Case) -> np.ndarray:
    """What a one-frame driving is read relative to. For the eyes of a picture the released program uses 0."""
    if case.options.region == "eyes" and not case.clip_source:
        return np.zeros((1, 21, 3), dtype=np.float32)
    return neutral_expression()[None]


def _apply_gains(case: _Case, expression: np.ndarray) -> np.ndarray:
    """Scale the change of the eye and lip keypoints against the source; 1 is no change."""
    gain = np.ones((21, 1), dtype=np.float32)
    gain[list(EYE_KEYPOINTS)] = case.options.eye_gain
    gain[list(LIP_KEYPOINTS)] = case.options.lip_gain
    if np.all(gain == 1):
        return expression
    return case.source.expression + gain * (expression - case.source.expression)


def _retargeting_deltas(case: _Case, x_s: np.ndarray, change: np.ndarray, engine: Retargeter) -> np.ndarray:
    """What eye and lip retargeting add, (n, 21, 3)."""
    options, keeps = case.options, case.rules.retargeting_keeps_motion
    eyes_s, lips_s = _repeat(case.source.eye_ratio, case.frames), _repeat(case.source.lip_ratio, case.frames)
    eyes_d, lips_d = (
        _repeat(case.driving.eye_ratio, case.frames),
        _repeat(case.driving.lip_ratio, case.frames),
    )
    deltas = np.zeros_like(x_s)
    if not keeps:
        if options.eye_retargeting:
            deltas += engine.retarget_eyes(x_s, np.column_stack([eyes_s, eyes_d[:, 0]]))
        if options.lip_retargeting:
            deltas += engine.retarget_lips(x_s, np.column_stack([lips_s, lips_d]))
        return deltas
    achieved = ratio_change(change)
    if options.eye_retargeting:
        wanted = np.maximum(eyes_s + options.eye_gain * (eyes_d - eyes_s), 0)
        deltas += _eyes_to(case, x_s, eyes_s, wanted, engine) - _eyes_to(
            case, x_s, eyes_s, eyes_s + achieved.eye_ratio, engine
        )
    if options.lip_retargeting:
        opened = np.maximum(lips_s + options.lip_gain * (lips_d - lips_s), 0)
        deltas += engine.retarget_lips(x_s, np.column_stack([lips_s, opened]))
        deltas -= engine.retarget_lips(x_s, np.column_stack([lips_s, lips_s + achieved.lip_ratio]))
    return deltas


def _eyes_to(
    case: _Case, x_s: np.ndarray, ratios: np.ndarray, target: np.ndarray, engine: Retargeter
) -> np.ndarray:
    """The delta that opens the eyes from ratios (n, 2) to target (n, 2).

    The map knows one target for both eyes. It gets their mean, and openings as far from it as each eye
    has to go; where both targets are one, that is what the released program asks.
    """
    if not case.rules.each_eye_its_own:
        return engine.retarget_eyes(x_s, np.column_stack([ratios, target[:, 0]]))
    both = target.mean(axis=1, keepdims=True)
    return engine.retarget_eyes(x_s, np.column_stack([ratios + (both - target), both]))


def _asked_openings(case: _Case, x_s: np.ndarray, engine: Retargeter) -> np.ndarray:
    """The deltas of the controls eyes_open and lips_open_target.

    Nothing where the source is that open already: the released editor compares its ratio rounded to 2
    decimals.
    """
    deltas = np.zeros_like(x_s)
    for part, target in ratio_targets(case.options.controls).items():
        wanted = np.broadcast_to(target, (case.frames,)).astype(np.float32)
        if part == "eyes":
            ratios = _repeat(case.source.eye_ratio, case.frames)
            found = engine.retarget_eyes(x_s, np.column_stack([ratios, wanted]))
            present = ratios.mean(axis=1)
        else:
            present = _repeat(case.source.lip_ratio, case.frames)
            found = engine.retarget_lips(x_s, np.column_stack([present, wanted]))
        asked = np.abs(np.round(present, 2) - wanted) > 1e-4
        deltas += np.where(asked[:, None, None], found, 0).astype(np.float32)
    return deltas


def _deltas_at_rest(case: _Case, x_s: np.ndarray, engine: Retargeter, steady_source_eyes: bool) -> np.ndarray:
    """What is added after stitching: normalised lips, and the steadied eyes of a clip source."""
    options, rules = case.options, case.rules
    deltas = np.zeros_like(x_s)
    hindered = options.lip_retargeting or (options.eye_retargeting and not rules.lips_normalized_beside_eyes)
    lips = _repeat(case.source.lip_ratio, case.frames)
    if options.normalize_lips and options.relative and not hindered:
        rest = np.zeros_like(lips)
        if rules.lips_rest_like_driver and case.clip_driving:
            rest = np.minimum(lips, case.reference.lip_ratio)
        delta = engine.retarget_lips(x_s, np.column_stack([lips, rest]))
        deltas += np.where((lips >= LIP_NORMALIZE_THRESHOLD)[:, None, None], delta, 0)
    if steady_source_eyes and case.clip_source and not (options.eye_retargeting or options.lip_retargeting):
        eyes = case.source.eye_ratio
        opening = eyes[0].mean()
        opening = opening if opening >= SOURCE_EYES_THRESHOLD else SOURCE_EYES_OPEN
        deltas += engine.retarget_eyes(
            x_s, np.column_stack([eyes, np.full(case.frames, opening, np.float32)])
        )
    return deltas


def _keypoints(
    canonical: np.ndarray,
    rotation: np.ndarray,
    expression: np.ndarray,
    scale: np.ndarray,
    translation: np.ndarray,
) -> np.ndarray:
    """x = s (x_c R + delta) + (t_x, t_y, 0), (n, 21, 3) float32."""
    x = scale[:, None, None] * (canonical @ rotation + expression)
    x[..., :2] += translation[:, None, :2]
    return np.asarray(x, dtype=np.float32)


def _repeat(values: np.ndarray, frames: int) -> np.ndarray:
    """values with one row repeated to `frames` rows (a copy), others as they are."""
    return np.repeat(values, frames, axis=0) if len(values) == 1 and frames != 1 else values
