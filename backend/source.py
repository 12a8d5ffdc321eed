# SPDX-License-Identifier: GPL-3.0-or-later
"""The portrait: its picture, the face in it, what the engine measured, and how rendered faces come back into
it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from backend import cropping, media
from backend.clip_rules import clip_rules
from backend.cropping import CROP_SIZE, SourceCrop
from backend.engines import Engine
from backend.errors import InputError
from backend.faces import choose_face, find_faces, named
from backend.motion import Motion
from backend.options import Options
from backend.paste import PastePlan, Paster
from backend.territories import Place, alone, place_of

RENDERED_CROP = 512  # pixels across what an engine without native resolution renders
READS_LANDMARKS = ("eye_retargeting", "lip_retargeting", "normalize_lips")
RATIO_CONTROLS = ("eyes_open", "lips_open_target")
PASTED_ELSEWHERE = 3000 * 3000  # pixels of a region, which cost a GPU some 100 bytes each
DEEP = 257  # 255 * 257 = 65535: 8-bit levels in 16 bits


@dataclass(frozen=True)
class Source:
    """An opened picture.

    motion: its own measurement, one frame. appearance: the engine's. crop: where the motion space lies in the
    picture. window: x0, y0, x1, y1, the part of the picture that an engine of native resolution renders.
    """

    path: Path
    picture: media.Picture
    motion: Motion
    appearance: Any
    native: bool
    crop: SourceCrop
    window: tuple[int, int, int, int]

    @property
    def crop_size(self) -> int:
        """Pixels across the crop alone, --no-paste-back: an even number."""
        if not self.native or self.crop.rect is None:
            return RENDERED_CROP
        return 2 * max(round(self.crop.rect.size / 2), 1)

    def pastes(self, options: Options) -> bool:
        """Whether frames are whole pictures (else they are the crop alone)."""
        if self.crop.rect is None:
            return self.native
        return options.paste_back

    def output_size(self, options: Options) -> tuple[int, int]:
        """Width and height of the frames."""
        height, width = self.picture.rgb.shape[:2]
        return (width, height) if self.pastes(options) else (self.crop_size, self.crop_size)


def open_source(path: Path, options: Options, engine: Engine) -> Source:
    """Read a picture, find and measure its face and let the engine take it in.

    Raises InputError for what is no picture, MediaError, NoFaceError, FaceTooSmallError.
    """
    check_source(path)
    kind = media.probe(path).kind
    if kind != "picture":
        raise InputError(
            f"{path.name} is a {kind}, not a picture.", "Save one of its frames as a picture and use that."
        )
    return open_faces(path, media.read_picture(path), [options.face], options, engine)[0]


def check_source(path: Path) -> None:
    """Raise InputError when there is no such file."""
    if not path.exists():
        raise InputError(f"There is no file {str(path)!r}.", "Give a picture or a clip with a face.")


def open_faces(
    path: Path, picture: media.Picture, numbers: Sequence[int | None], options: Options, engine: Engine
) -> list[Source]:
    """The faces of these numbers (None: the largest) in one picture, each a source of its own."""
    height, width = picture.rgb.shape[:2]
    if not clip_rules(options).alpha_kept:
        picture = replace(picture, alpha=None)
    found = find_faces(picture.rgb, options.face_order) if needs_face(options, engine) else None
    measured = []
    for number in numbers:
        landmarks = None
        if found is not None:
            with named(path.name):
                landmarks = engine.refine(picture.rgb, choose_face(found, number).landmarks)
        crop = crop_of(options, engine, width, height, landmarks)
        small = cropping.crop(picture.rgb, crop.M_o2c, CROP_SIZE, compatibility=options.compatibility)
        placed = None if landmarks is None else crop.landmarks_in_crop(landmarks[None])
        measured.append((landmarks, crop, engine.measure(small[None], placed), small))
    places = [place_of(crop, options, (width, height)) for _, crop, _, _ in measured]
    return [
        prepare(path, picture, landmarks, crop, motion, engine, small, with_first(places, at))
        for at, (landmarks, crop, motion, small) in enumerate(measured)
    ]


def with_first(places: Sequence[Place], at: int) -> list[Place]:
    """The faces' places, number `at` first."""
    return [places[at], *places[:at], *places[at + 1 :]]


def prepare(
    path: Path,
    picture: media.Picture,
    landmarks: np.ndarray | None,
    crop: SourceCrop,
    motion: Motion,
    engine: Engine,
    small: np.ndarray | None = None,
    places: Sequence[Place] = (),
) -> Source:
    """Let the engine take in a face that is already found and measured.

    landmarks (k,3) f4 in px of the picture, k the engine's. small: the 256 px crop, where the caller has it.
    places: of this face and of all others that perform, which it is parted from.
    """
    height, width = picture.rgb.shape[:2]
    window = window_of(crop, width, height) if engine.native_resolution else (0, 0, width, height)
    if engine.native_resolution:
        x0, y0, x1, y1 = window
        corner = np.array([x0, y0, 0], np.float32)
        region = alone(picture.rgb, window, places[0], places[1:]) if places else picture.rgb[y0:y1, x0:x1]
        appearance = engine.encode(
            np.ascontiguousarray(region),
            None if landmarks is None else landmarks - corner,
            crop.placement - [[0, 0, x0], [0, 0, y0]],
        )
    else:
        if small is None:
            small = cropping.crop(picture.rgb, crop.M_o2c, CROP_SIZE)
        placed = None if landmarks is None else crop.landmarks_in_crop(landmarks)
        appearance = engine.encode(small, placed)
    return Source(path, picture, motion, appearance, engine.native_resolution, crop, window)


def needs_face(options: Options, engine: Engine) -> bool:
    return (
        options.crop
        or engine.wants_landmarks
        or any(getattr(options, name) for name in READS_LANDMARKS)
        or any(name in options.controls for name in RATIO_CONTROLS)
    )


def crop_of(
    options: Options, engine: Engine, width: int, height: int, landmarks: np.ndarray | None
) -> SourceCrop:
    """The crop round the face, or with --no-crop the whole picture: squeezed into the square as in the
    released program, or, where the engine measures landmarks, in its own proportions so that the head
    keeps its shape.
    """
    if options.crop:
        assert landmarks is not None
        return cropping.source_crop(
            landmarks,
            options.crop_scale,
            options.crop_x,
            options.crop_y,
            options.rotate,
            options.compatibility,
        )
    if not engine.wants_landmarks:
        return cropping.whole_picture((width, height))
    square = cropping.Rect(width / 2, height / 2, float(max(width, height)))
    return SourceCrop(cropping.crop_matrix(square))


def window_of(crop: SourceCrop, width: int, height: int) -> tuple[int, int, int, int]:
    """The upright rectangle of whole pixels, inside the picture, that holds the crop."""
    corners = cropping.transform_points(CROP_SIZE * np.array([[0.0, 0], [1, 0], [0, 1], [1, 1]]), crop.M_c2o)
    x0, y0 = np.clip(np.floor(corners.min(axis=0)), 0, [width, height]).astype(int)
    x1, y1 = np.clip(np.ceil(corners.max(axis=0)), 0, [width, height]).astype(int)
    return int(x0), int(y0), int(x1), int(y1)


class Canvas:
    """Puts rendered faces back into the picture; every pixel that the face does not touch stays
    bit-identical.

    `deep` keeps 16 bits where the picture has them: rendered pixels are 8-bit levels, all others are as they
    were. `flat` puts a picture with transparency on black, for outputs that have none.
    """

    def __init__(self, source: Source, options: Options, deep: bool = False, flat: bool = False) -> None:
        self._source = source
        self._pastes = source.pastes(options)
        self._deep = source.picture.deep if deep and self._pastes else None
        self._base = source.picture.rgb if self._deep is None else self._deep
        self._frame = self._base.copy()
        self._paster = None
        if self._pastes and not source.native:
            height, width = source.picture.rgb.shape[:2]
            back = cropping.invert(source.crop.matrix(RENDERED_CROP))
            self._paster = Paster((width, height), back, RENDERED_CROP, compatibility=options.compatibility)
        alpha = self.alpha if flat else None
        self._opacity = None if alpha is None else np.repeat(alpha[..., None], 3, axis=2)

    @property
    def bits(self) -> int:
        return 8 if self._deep is None else 16

    @property
    def alpha(self) -> np.ndarray | None:
        """The frames' transparency (h,w) uint8, or None for opaque ones."""
        alpha = self._source.picture.alpha
        if alpha is None or self._pastes:
            return alpha
        return cropping.crop(alpha, self._source.crop.matrix(self._source.crop_size), self._source.crop_size)

    def plan(self) -> PastePlan | None:
        """How an engine that pastes makes what `frame` then takes as pasted. None where there is nothing to
        paste, or the region is too large to lie beside the networks in a GPU's memory.
        """
        if self._paster is None:
            return None
        x0, y0, x1, y1 = self._paster.region
        return self._paster.plan(self._base) if 0 < (x1 - x0) * (y1 - y0) <= PASTED_ELSEWHERE else None

    def frame(self, rendered: np.ndarray, pasted: bool = False) -> np.ndarray:
        """The output frame (h,w,3) with a rendered face, or with what the plan makes of it. The array is used
        again for the next frame.
        """
        frame = self._with_region(rendered) if pasted else self._placed(rendered)
        return frame if self._opacity is None else cv2.multiply(frame, self._opacity, scale=1 / 255)

    def _placed(self, rendered: np.ndarray) -> np.ndarray:
        source = self._source
        if not self._pastes:
            return crop_alone(source, rendered, source.crop_size)
        if self._paster is not None:
            return self._paster.paste(self._base, rendered, out=self._frame)
        if self._deep is not None:
            return self._deepened(rendered)
        x0, y0, x1, y1 = source.window
        self._frame[y0:y1, x0:x1] = rendered
        return self._frame

    def _with_region(self, pixels: np.ndarray) -> np.ndarray:
        assert self._paster is not None
        x0, y0, x1, y1 = self._paster.region
        self._frame[y0:y1, x0:x1] = pixels
        return self._frame

    def _deepened(self, rendered: np.ndarray) -> np.ndarray:
        assert self._deep is not None
        x0, y0, x1, y1 = self._source.window
        changed = (rendered != self._source.picture.rgb[y0:y1, x0:x1]).any(axis=-1, keepdims=True)
        levels = rendered.astype(np.uint16)
        levels *= DEEP
        np.copyto(self._frame[y0:y1, x0:x1], self._deep[y0:y1, x0:x1])
        np.copyto(self._frame[y0:y1, x0:x1], levels, where=changed)
        return self._frame


def crop_alone(source: Source, rendered: np.ndarray, size: int) -> np.ndarray:
    """--no-paste-back: the crop, `size` px across; an engine without native resolution has its own size."""
    if not source.native:
        return rendered
    x0, y0, _, _ = source.window
    from_window = source.crop.matrix(size).copy()
    from_window[:, 2] += from_window[:, :2] @ [x0, y0]
    return cropping.crop(rendered, from_window, size)
