# SPDX-License-Identifier: GPL-3.0-or-later
"""One face of a scene: its keypoints for every frame, from its own motion and what drives it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from backend.engines import Engine
from backend.motion import Motion
from backend.options import Options
from backend.performance import controls_of
from backend.retargeting import Retargeted, retarget, rules_of
from backend.takes import Take
from backend.timeline import frames_of, take

AT_ONCE = 1000  # frames that are retargeted together
EASE = 5  # frames over which the driving fades in and out beside frames without a face


@dataclass(frozen=True)
class Role:
    """One face's keypoints for every frame of the scene; frames (n,): of the take, for the mouths."""

    keypoints: Retargeted
    take: Take
    frames: np.ndarray

    @property
    def motion(self) -> Motion:
        """What was captured, a row for every frame of the scene (one for a still driving)."""
        return self.take.captured if self.take.still else take(self.take.captured, self.frames)

    def mouth_at(self, frame: int) -> np.ndarray | None:
        return self.take.mouths_at(self.frames[frame : frame + 1])


class Roles:
    """Makes roles; `notes` gets what the user should know."""

    def __init__(self, options: Options, engine: Engine, notes: list[str]) -> None:
        self._options, self._engine, self._notes = options, engine, notes

    def role(self, source: Motion, driver: Take, order: np.ndarray, is_clip: bool) -> Role:
        """A face's keypoints for frames `order` of its own motion, driven by a take."""
        total = len(order)
        frames = np.zeros(total, np.intp)
        if not driver.still:
            frames = frames_of(len(driver.motion), np.arange(total), self._options.length_policy)
        if not is_clip and driver.still:
            return Role(self._retargeted(source, driver, order[:1], frames[:1], False), driver, frames)
        step = self._at_once(is_clip, total)
        parts = [
            self._retargeted(
                source, driver, order[piece], frames[piece], is_clip, int(piece[0]), int(order[0])
            )
            for piece in np.split(np.arange(total), range(step, total, step))
        ]
        return Role(
            Retargeted(
                np.concatenate([part.source for part in parts]),
                np.concatenate([part.driving for part in parts]),
                [],
            ),
            driver,
            frames,
        )

    def _at_once(self, is_clip: bool, total: int) -> int:
        """How many frames have to be retargeted together: all where something is smoothed over them."""
        options = self._options
        steadied = options.source_smoothing != "off" or options.silence_lips
        return total if is_clip and (steadied or not rules_of(options).smooth_by_motion) else AT_ONCE

    def _retargeted(
        self,
        source: Motion,
        driver: Take,
        order: np.ndarray,
        frames: np.ndarray,
        is_clip: bool,
        first: int = 0,
        opening: int = 0,
    ) -> Retargeted:
        """Keypoints of the frames from `first` on, which show `order` of the source and `frames` of the
        driving.

        A clip's eyes are steadied to the opening of its first frame, `opening`, so that one leads a part.
        """
        leads = is_clip and first > 0
        options = replace(
            self._options,
            smoothing="off",
            reference_frame=0,
            length_policy="cut",
            controls=controls_of(self._options, first, len(order), leads),
        )
        if leads:
            order, frames = np.append(opening, order), np.append(frames[:1], frames)
        driving, reference = driver.motion, None
        if not driver.still:
            references = driver.references[frames]
            if (references == references[0]).all():
                references = references[:1]
            driving, reference = take(driver.motion, frames), take(driver.motion, references)
        if is_clip:
            source = take(source, order)
            # Where the clip starts over it is cut, so nothing is smoothed across.
            jumps = np.append(False, np.abs(np.diff(order)) > 1)
            source = replace(source, cuts=jumps if source.cuts is None else source.cuts | jumps)
        done = retarget(source, driving, options, self._engine, reference=reference, source_is_clip=is_clip)
        self._notes.extend(note for note in done.notes if note not in self._notes)
        return Retargeted(done.source[leads:], done.driving[leads:], done.notes)


def ease(keypoints: Retargeted, visible: np.ndarray) -> None:
    """Let the driving fade to the source's own motion towards frames (n,) in which the face is not seen."""
    if visible.all():
        return
    away = np.where(visible, len(visible), 0)
    for _ in range(EASE):
        away[1:] = np.minimum(away[1:], away[:-1] + 1)
        away[:-1] = np.minimum(away[:-1], away[1:] + 1)
    weight = np.clip(away / (EASE + 1), 0.0, 1.0).astype(np.float32)[:, None, None]
    keypoints.driving[:] = keypoints.source + weight * (keypoints.driving - keypoints.source)
