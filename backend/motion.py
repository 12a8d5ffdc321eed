# SPDX-License-Identifier: GPL-3.0-or-later
"""Motion: a performance in LivePortrait's implicit-keypoint space, the currency between all rooms.

x = s (x_c R + delta) + t with row vectors, 21 keypoints, coordinates -1 to 1 across the crop,
t = (tx, ty, 0).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from backend import smoothing
from backend.errors import InputError, MotionFileError, NoFaceError
from backend.rotations import slerp

FORMAT = "liveportrait-motion/1"
KEYPOINTS = 21
MOUTH_SHAPE = (48, 64, 3)

# Per-frame arrays and the shape of one frame.
FRAME_SHAPES: dict[str, tuple[int, ...]] = {
    "rotation": (3, 3),
    "expression": (KEYPOINTS, 3),
    "scale": (),
    "translation": (3,),
    "canonical": (KEYPOINTS, 3),
    "eye_ratio": (2,),
    "lip_ratio": (),
    "gaze": (2, 2),
    "mouth": MOUTH_SHAPE,
    "valid": (),
    "cuts": (),
}
_DTYPES: dict[str, type[np.generic]] = {"mouth": np.uint8, "valid": np.bool_, "cuts": np.bool_}
_UNKNOWN = {"gaze": np.float32(np.nan), "cuts": np.False_}  # what stands in for an array that some lack
_ROTATION_TOLERANCE = 0.02
_MAXIMUM_STRENGTH = 20

Floats = NDArray[np.floating[Any]]


@dataclass(kw_only=True, eq=False)
class Motion:
    """n frames at the constant rate fps_numerator / fps_denominator, the first at `start` seconds of a clip.

    rotation (n,3,3), expression (n,21,3), scale (n,), translation (n,3), canonical (n,21,3; one (21,3) or
    (1,21,3) is repeated), eye_ratio (n,2; image-left first), lip_ratio (n,), all float32;
    gaze (n,2,2) float32 or None: iris offset in eye widths, image-left first, NaN = not measured;
    mouth (n,48,64,3) uint8 or None: the driver's inner mouth; valid (n,) bool: a face was found.
    cuts (n,) bool or None: a new shot begins with this frame. Nothing is blended or smoothed across it.
    `ratios_estimated`: eye_ratio and lip_ratio were derived from the expression, not measured.
    Arrays are made contiguous and of these types on construction; MotionFileError if that cannot be.
    """

    rotation: Floats
    expression: Floats
    scale: Floats
    translation: Floats
    canonical: Floats
    eye_ratio: Floats
    lip_ratio: Floats
    fps_numerator: int = 25
    fps_denominator: int = 1
    start: float = 0.0
    gaze: Floats | None = None
    mouth: NDArray[np.uint8] | None = None
    valid: NDArray[np.bool_] = None  # type: ignore[assignment]  # all true
    engine: str = "unknown"
    format: str = FORMAT
    ratios_estimated: bool = False
    cuts: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        rate = Fraction(int(self.fps_numerator), max(1, int(self.fps_denominator)))
        if rate <= 0 or self.fps_denominator <= 0:
            raise MotionFileError(
                f"Motion field fps is {self.fps_numerator}/{self.fps_denominator}.",
                "A frame rate is positive.",
            )
        self.fps_numerator, self.fps_denominator = rate.numerator, rate.denominator
        self.start = float(self.start)
        if np.ndim(self.rotation) != 3:
            shape = np.shape(self.rotation)
            raise MotionFileError(f"Motion field rotation has shape {shape}, expected (n, 3, 3).")
        n = len(self.rotation)
        if self.valid is None:
            self.valid = np.ones(n, np.bool_)
        canonical = np.asarray(self.canonical)
        if canonical.shape in ((KEYPOINTS, 3), (1, KEYPOINTS, 3)):
            self.canonical = np.broadcast_to(canonical.reshape(1, KEYPOINTS, 3), (n, KEYPOINTS, 3))
        for name, shape in FRAME_SHAPES.items():
            value = getattr(self, name)
            if value is None:
                continue
            array = np.asarray(value)
            if array.shape != (n, *shape):
                raise MotionFileError(f"Motion field {name} has shape {array.shape}, expected {(n, *shape)}.")
            dtype = _DTYPES.get(name, np.float32)
            if array.dtype.kind not in "biuf":
                raise MotionFileError(f"Motion field {name} holds {array.dtype}, expected {np.dtype(dtype)}.")
            setattr(self, name, np.ascontiguousarray(array, dtype))

    def __len__(self) -> int:
        return len(self.rotation)

    @classmethod
    def still(
        cls,
        *,
        canonical: ArrayLike,
        rotation: ArrayLike | None = None,
        expression: ArrayLike | None = None,
        scale: float = 1.0,
        translation: ArrayLike = (0.0, 0.0, 0.0),
        eye_ratio: ArrayLike = (0.0, 0.0),
        lip_ratio: float = 0.0,
        **fields: Any,
    ) -> Motion:
        """One frame from arrays without the frame axis: canonical (21,3), rotation (3,3) [identity],
        expression (21,3) [zero], translation (3,), eye_ratio (2,); further fields of Motion by name."""
        return cls(
            rotation=np.asarray(np.eye(3) if rotation is None else rotation, np.float32).reshape(1, 3, 3),
            expression=np.asarray(
                np.zeros((KEYPOINTS, 3)) if expression is None else expression, np.float32
            ).reshape(1, KEYPOINTS, 3),
            scale=np.full(1, scale, np.float32),
            translation=np.asarray(translation, np.float32).reshape(1, 3),
            canonical=np.asarray(canonical, np.float32).reshape(1, KEYPOINTS, 3),
            eye_ratio=np.asarray(eye_ratio, np.float32).reshape(1, 2),
            lip_ratio=np.full(1, lip_ratio, np.float32),
            **fields,
        )

    @property
    def fps(self) -> Fraction:
        """Frames a second, exact."""
        return Fraction(self.fps_numerator, self.fps_denominator)

    @property
    def duration(self) -> float:
        """Seconds from the first frame to the end of the last one."""
        return float(len(self) / self.fps)

    def keypoints(self) -> NDArray[np.float32]:
        """x (n,21,3) float32 by the formula; the third translation counts as 0, as in the released code."""
        shift = self.translation * np.array([1, 1, 0], np.float32)
        x = self.scale[:, None, None] * (self.canonical @ self.rotation + self.expression) + shift[:, None, :]
        return np.ascontiguousarray(x, np.float32)

    def validate(self) -> Motion:
        """Return self, or raise MotionFileError naming the field that holds something impossible: no frame,
        NaN or infinity (gaze may be NaN), a scale that is not positive, no rotation, another format."""
        if self.format != FORMAT:
            raise MotionFileError(
                f"Motion field format is {self.format[:40]!r}, expected {FORMAT!r}.",
                "Was it written by a newer version?",
            )
        if len(self) == 0:
            raise MotionFileError("The motion has no frames.", "Capture it again.")
        if not np.isfinite(self.start):
            raise MotionFileError("Motion field start is not a finite number.")
        for name in FRAME_SHAPES:
            array = getattr(self, name)
            if array is None or array.dtype.kind != "f":
                continue
            bad = np.isinf(array) if name == "gaze" else ~np.isfinite(array)
            if bad.any():
                frame = int(np.argmax(bad.reshape(len(self), -1).any(axis=1)))
                raise MotionFileError(
                    f"Motion field {name} holds NaN or infinity, first in frame {frame}.", "Capture it again."
                )
        if (self.scale <= 0).any():
            frame = int(np.argmax(self.scale <= 0))
            raise MotionFileError(f"Motion field scale is not positive in frame {frame}.")
        rotation = self.rotation.astype(np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            error = np.abs(rotation @ np.swapaxes(rotation, 1, 2) - np.eye(3)).max(axis=(1, 2))
            wrong = ~(error < _ROTATION_TOLERANCE) | (np.linalg.det(rotation) < 0)
        if wrong.any():
            frame = int(np.argmax(wrong))
            raise MotionFileError(f"Motion field rotation holds no rotation in frame {frame}.")
        return self

    def __getitem__(self, key: int | slice) -> Motion:
        """Frames as a Motion of their own whose `start` moves along; a step k divides the rate by k.

        InputError when nothing is selected, IndexError for a missing frame, ValueError for a step below 1.
        """
        if not isinstance(key, slice):
            frame = range(len(self))[key]
            key = slice(frame, frame + 1)
        first, stop, step = key.indices(len(self))
        if step < 1:
            raise ValueError("a motion is sliced forwards")
        if first >= stop:
            raise InputError(
                f"No frame of the motion lies in {key.start}:{key.stop}.",
                f"It has {len(self)} frames, 0 to {len(self) - 1}.",
            )
        return self._take(np.arange(first, stop, step), self.fps / step, self.start + float(first / self.fps))

    def _take(self, index: NDArray[np.intp], fps: Fraction, start: float) -> Motion:
        arrays = {name: array[index] for name, array in self._arrays().items()}
        return self._update(fps, start, arrays)

    def _arrays(self) -> dict[str, NDArray[Any]]:
        """The per-frame arrays that are there, by name."""
        return {name: getattr(self, name) for name in FRAME_SHAPES if getattr(self, name) is not None}

    def _update(self, fps: Fraction, start: float, fields: dict[str, Any]) -> Motion:
        fields = {**fields, "fps_numerator": fps.numerator, "fps_denominator": fps.denominator}
        return replace(self, **fields, start=start)

    @property
    def shots(self) -> list[slice]:
        """The parts between two cuts, in order; one slice for a motion without cuts."""
        begin = [] if self.cuts is None else [int(frame) for frame in np.flatnonzero(self.cuts[1:]) + 1]
        return [slice(a, b) for a, b in zip([0, *begin], [*begin, len(self)], strict=True)]

    def _shot_of_frames(self) -> NDArray[np.intp]:
        """Per frame the number of its shot, from 0."""
        if self.cuts is None:
            return np.zeros(len(self), np.intp)
        return np.asarray(np.cumsum(self.cuts) - self.cuts[0], np.intp)

    @staticmethod
    def concatenate(motions: Sequence[Motion]) -> Motion:
        """One after the other on the first one's timeline. Gaze missing in some becomes NaN there; mouths are
        kept only if all have them. InputError for an empty list or rates that differ (resample first)."""
        if not motions:
            raise InputError("There is no motion to join.")
        first = motions[0]
        for other in motions[1:]:
            if other.fps != first.fps:
                raise InputError(
                    f"Motions of {first.fps} and {other.fps} frames a second cannot be joined.",
                    "Resample them to one rate first.",
                )
        fields: dict[str, Any] = {
            "engine": "+".join(dict.fromkeys(m.engine for m in motions)),
            "ratios_estimated": any(m.ratios_estimated for m in motions),
        }
        for name, shape in FRAME_SHAPES.items():
            parts = [getattr(m, name) for m in motions]
            if name in _UNKNOWN and any(part is not None for part in parts):
                parts = [
                    np.full((len(m), *shape), _UNKNOWN[name]) if part is None else part
                    for m, part in zip(motions, parts, strict=True)
                ]
            fields[name] = np.concatenate(parts) if all(part is not None for part in parts) else None
        return replace(first, **fields)

    def resample(self, fps: Fraction | int) -> Motion:
        """The same time span at another rate: frame k shows the time start + k / fps.

        Rotations by slerp, other numbers linearly, mouths from the nearest frame; valid where every frame
        used was valid; the last frame is held to the end of its time, and a single frame stays single.
        InputError if fps is not positive.
        """
        fps = Fraction(fps)
        if fps <= 0:
            raise InputError(f"{fps} frames a second is no frame rate.", "Give a positive number.")
        if fps == self.fps:
            return self
        if len(self) == 1:
            return self._update(fps, self.start, {})
        ratio = self.fps / fps
        count = -(-len(self) * ratio.denominator // ratio.numerator)
        # Whole numbers, so that 30000/1001 has no drift after an hour.
        places = [divmod(k * ratio.numerator, ratio.denominator) for k in range(count)]
        below = np.array([place[0] for place in places], np.intp)
        amount = np.array([place[1] / ratio.denominator for place in places], np.float64)
        above = np.where(amount > 0, below + 1, below)
        above = np.minimum(above, len(self) - 1)
        shot = self._shot_of_frames()
        above = np.where(shot[above] == shot[below], above, below)
        return self._update(fps, self.start, self._blend(below, above, amount))

    def _blend(
        self, below: NDArray[np.intp], above: NDArray[np.intp], amount: NDArray[np.float64]
    ) -> dict[str, Any]:
        """All arrays at a share `amount` of the way from frames `below` to frames `above` (k,) each."""
        blended: dict[str, Any] = {}
        for name, array in self._arrays().items():
            if name == "rotation":
                blended[name] = slerp(array[below], array[above], amount)
            elif name == "valid":
                blended[name] = array[below] & array[above]
            elif name == "cuts":
                shot = self._shot_of_frames()[below]
                blended[name] = np.append(array[:1], shot[1:] != shot[:-1])
            elif name == "mouth":
                blended[name] = array[np.where(amount < 0.5, below, above)]
            else:
                share = amount.reshape(-1, *[1] * (array.ndim - 1)).astype(np.float32)
                low = array[below]
                blended[name] = low + share * (array[above] - low)
        return blended

    def fill_invalid(self) -> Motion:
        """Frames that are not valid, interpolated between their valid neighbours (held at the ends and at
        cuts); `valid` stays as it is. NoFaceError when no frame is valid."""
        frames = np.arange(len(self))
        found = frames[self.valid]
        if len(found) == 0:
            raise NoFaceError(
                "No face was found in any frame.", "Use a clip whose face is larger and unobstructed."
            )
        if len(found) == len(self):
            return self
        after = np.minimum(np.searchsorted(found, frames, side="left"), len(found) - 1)
        before = np.maximum(np.searchsorted(found, frames, side="right") - 1, 0)
        low, high = found[before], found[after]
        shot = self._shot_of_frames()
        own_low, own_high = shot[low] == shot, shot[high] == shot
        low, high = np.where(own_high & ~own_low, high, low), np.where(own_low & ~own_high, low, high)
        span = high - low
        amount = np.where(span > 0, np.clip(frames - low, 0, span) / np.maximum(span, 1), 0.0)
        return replace(self, **{**self._blend(low, high, amount), "valid": self.valid, "cuts": self.cuts})

    def smooth(self, strength: float | Literal["off", "auto"] = 1.0) -> Motion:
        """Zero-phase Gaussian smoothing; strength 0 or "off" changes nothing, 1 is the usual, "auto" suits
        the clip's own shake (`smoothing.automatic_strength`). Frames must be filled (`fill_invalid`).

        Head, scale, translation, identity get a width of 1.5 frames times strength; expression and gaze 1.0;
        eye and lip ratios and the lids' keypoints 0.5, which strength lowers but never raises: blinks stay.
        InputError for a strength below 0 or above 20.
        """
        if strength == "off":
            return self
        factor = smoothing.automatic_strength(self.rotation) if strength == "auto" else float(strength)
        if not 0 <= factor <= _MAXIMUM_STRENGTH:
            raise InputError(
                f"{strength} is no smoothing strength.",
                f"Give off, auto or a number from 0 to {_MAXIMUM_STRENGTH}.",
            )
        if factor == 0 or len(self) < 2:
            return self
        if len(self.shots) > 1:
            smoothed_shots = [replace(self[shot], cuts=None).smooth(factor) for shot in self.shots]
            return replace(Motion.concatenate(smoothed_shots), cuts=self.cuts, start=self.start)
        pose, soft = smoothing.POSE_SIGMA * factor, smoothing.EXPRESSION_SIGMA * factor
        lids = smoothing.LID_SIGMA * min(factor, 1.0)
        expression = smoothing.gaussian(self.expression, soft)
        eyelids = list(smoothing.LID_KEYPOINTS)
        expression[:, eyelids] = smoothing.gaussian(self.expression[:, eyelids], lids)
        smoothed: dict[str, Any] = {
            "rotation": smoothing.smooth_rotations(self.rotation, pose),
            "expression": expression,
            "scale": smoothing.gaussian(self.scale, pose),
            "translation": smoothing.gaussian(self.translation, pose),
            "canonical": smoothing.gaussian(self.canonical, pose),
            "eye_ratio": smoothing.gaussian(self.eye_ratio, lids),
            "lip_ratio": smoothing.gaussian(self.lip_ratio, lids),
            "gaze": None if self.gaze is None else smoothing.gaussian(self.gaze, soft),
        }
        return replace(self, **smoothed)
