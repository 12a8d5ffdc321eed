# SPDX-License-Identifier: GPL-3.0-or-later
"""How far eyes and lips open: retargeting, asked openings, lips at rest, lids that close as the driver's."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from backend.expressions import ratio_targets
from backend.ratios import ratio_change
from backend.retargeting_case import Case, Retargeter, repeat

LIP_NORMALIZE_THRESHOLD = 0.03  # released InferenceConfig.lip_normalize_threshold
SOURCE_EYES_THRESHOLD = 0.18  # released source_video_eye_retargeting_threshold
SOURCE_EYES_OPEN = 0.39  # what it uses when the first source frame's eyes are below that

LIDS = (11, 13, 15, 16)  # upper and lower lid of the image-left eye, then of the image-right one
SHUT = 0.05  # eye ratio of a closed eye
OPEN_AT_LEAST = 0.15  # a reference opening below this is a blink or a squint,
USUALLY_OPEN = 0.3  # and this is taken instead
LID_FACTORS = (0.6, 1.8)


def retargeting_deltas(case: Case, x_s: np.ndarray, change: np.ndarray, engine: Retargeter) -> np.ndarray:
    """What eye and lip retargeting add, (n, 21, 3). change (n, 21, 3): of the expression, by the driving."""
    options, keeps = case.options, case.rules.retargeting_keeps_motion
    eyes_s, lips_s = repeat(case.source.eye_ratio, case.frames), repeat(case.source.lip_ratio, case.frames)
    eyes_d, lips_d = repeat(case.driving.eye_ratio, case.frames), repeat(case.driving.lip_ratio, case.frames)
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
    case: Case, x_s: np.ndarray, ratios: np.ndarray, target: np.ndarray, engine: Retargeter
) -> np.ndarray:
    """The delta that opens the eyes from ratios (n, 2) to target (n, 2).

    The map knows one target for both eyes. It gets their mean, and openings as far from it as each eye
    has to go; where both targets are one, that is what the released program asks.
    """
    if not case.rules.each_eye_its_own:
        return engine.retarget_eyes(x_s, np.column_stack([ratios, target[:, 0]]))
    both = target.mean(axis=1, keepdims=True)
    return engine.retarget_eyes(x_s, np.column_stack([ratios + (both - target), both]))


def asked_openings(case: Case, x_s: np.ndarray, engine: Retargeter) -> np.ndarray:
    """The deltas of the controls eyes_open and lips_open_target.

    Nothing where the source is that open already: the released editor compares its ratio rounded to 2
    decimals.
    """
    deltas = np.zeros_like(x_s)
    for part, target in ratio_targets(case.options.controls).items():
        wanted = np.broadcast_to(target, (case.frames,)).astype(np.float32)
        if part == "eyes":
            ratios = repeat(case.source.eye_ratio, case.frames)
            found = engine.retarget_eyes(x_s, np.column_stack([ratios, wanted]))
            present = ratios.mean(axis=1)
        else:
            present = repeat(case.source.lip_ratio, case.frames)
            found = engine.retarget_lips(x_s, np.column_stack([present, wanted]))
        asked = np.abs(np.round(present, 2) - wanted) > 1e-4
        deltas += np.where(asked[:, None, None], found, 0).astype(np.float32)
    return deltas


def deltas_at_rest(case: Case, x_s: np.ndarray, engine: Retargeter) -> np.ndarray:
    """What is added after stitching: normalised lips, and the steadied eyes of a clip source."""
    options, rules = case.options, case.rules
    deltas = np.zeros_like(x_s)
    hindered = options.lip_retargeting or (options.eye_retargeting and not rules.lips_normalized_beside_eyes)
    lips = repeat(case.base.lip_ratio, case.frames)
    if options.normalize_lips and options.relative and not hindered:
        rest = np.zeros_like(lips)
        if rules.lips_rest_like_driver and case.clip_driving:
            rest = np.minimum(lips, case.reference.lip_ratio)
        delta = engine.retarget_lips(x_s, np.column_stack([lips, rest]))
        deltas += np.where((lips >= LIP_NORMALIZE_THRESHOLD)[:, None, None], delta, 0)
    if _steadies_eyes(case) and not (options.eye_retargeting or options.lip_retargeting):
        eyes = case.source.eye_ratio
        opening = np.full(case.frames, _steady_opening(case), np.float32)
        deltas += engine.retarget_eyes(x_s, np.column_stack([eyes, opening]))
    return deltas


def _steadies_eyes(case: Case) -> bool:
    return case.options.steady_source_eyes and case.clip_source


def _steady_opening(case: Case) -> float:
    """The opening that every frame of a clip source is brought to: that of its first."""
    opening = float(case.source.eye_ratio[0].mean())
    return opening if opening >= SOURCE_EYES_THRESHOLD else SOURCE_EYES_OPEN


def close_lids(case: Case, expression: np.ndarray) -> np.ndarray:
    """expression (n, 21, 3) whose lids have closed by the same share of their opening as the driver's.

    Only closing is changed, each eye for itself and each frame by itself.
    """
    wanted = case.rules.lids_close_with_driver and case.options.relative and case.clip_driving
    if not wanted or case.options.eye_retargeting or case.options.region in ("pose", "lips"):
        return expression
    closing = np.minimum(ratio_change(expression - case.base.expression).eye_ratio, 0)
    reference = case.reference.eye_ratio
    reference = np.where(reference >= OPEN_AT_LEAST, reference, USUALLY_OPEN)
    present = _steady_opening(case) if _steadies_eyes(case) else case.base.eye_ratio
    factor = np.clip((present - SHUT) / (reference - SHUT), *LID_FACTORS)
    closed = expression.copy()
    closed[:, LIDS, 1] += ((factor - 1) * closing) @ _lids_for_eye_ratio()
    return closed


@lru_cache(maxsize=1)
def _lids_for_eye_ratio() -> np.ndarray:
    """(2, 4): by how much y of LIDS changes for one unit of each eye's ratio; the smallest such change."""
    each = np.zeros((len(LIDS), 21, 3), np.float32)
    each[range(len(LIDS)), LIDS, 1] = 1
    return np.linalg.pinv(ratio_change(each).eye_ratio).astype(np.float32)
