# SPDX-License-Identifier: GPL-3.0-or-later
"""Pictures and clips in which one or more faces perform, each its own motion."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from backend import media
from backend.capture import Cancel, check_cancel
from backend.clip_rules import clip_rules
from backend.composition import compose, patch_of
from backend.driving import Driving
from backend.engines import Engine
from backend.errors import InputError
from backend.motion import Motion
from backend.options import Options
from backend.progress import Progress
from backend.results import Result, Sound
from backend.roles import Role, Roles, ease
from backend.source import DEEP, RENDERED_CROP, Source, crop_alone, open_faces, with_first
from backend.source_clip import SourceClip, open_clip
from backend.staging import Staged, face_in_frames
from backend.takes import Take, read_take
from backend.territories import place_of
from backend.timeline import frames_of

FOR_ALL_ENGINES = ("library", "liveportrait")  # who "measured" the motion library and released templates


@dataclass(frozen=True)
class Part:
    """A face and what drives it. number None: the largest face."""

    number: int | None
    driving: Driving


def stage_scene(
    path: Path,
    parts: Sequence[Part],
    options: Options,
    engine: Engine,
    result: Result,
    stack: ExitStack,
    progress: Progress,
    cancel: Cancel | None = None,
    first: int = 0,
) -> Staged:
    """Get a picture or clip and everything that drives it ready to be made from frame `first` on.

    Raises InputError, MediaError, NoFaceError, FaceTooSmallError, Cancelled.
    """
    if len(parts) > 1 and not (options.crop and options.paste_back):
        raise InputError(
            "Several faces need crop and paste-back.", "Leave out --no-crop and --no-paste-back."
        )
    numbers = [part.number for part in parts]
    if media.probe(path).kind == "picture":
        return _Still(path, numbers, options, engine, result).staged(parts, stack, progress, cancel, first)
    clip = open_clip(path, numbers, options, engine, stack, progress, cancel)
    return _Moving(clip, options, engine).staged(parts, stack, progress, cancel, first)


def sound_of(options: Options, drivings: Sequence[tuple[Driving, float]], source: Path) -> Sound | None:
    """The sound that options.audio asks for; drivings with the second at which each begins."""
    heard = [Sound(d.path, start) for d, start in drivings if d.has_audio and d.path is not None]
    info = media.probe(source)
    own = [Sound(source, 0.0)] if info.kind == "clip" and info.has_audio else []
    choice = {"auto": [*heard, *own], "driving": heard, "source": own, "none": []}[options.audio]
    return choice[0] if choice else None


def measured_elsewhere(driving: Driving, options: Options, engine: Engine) -> list[str]:
    """A line where another engine's measurement is taken over as it is, which relative motion never does."""
    if driving.motion is None or options.relative:
        return []
    if driving.motion.engine.startswith((engine.name, *FOR_ALL_ENGINES)):
        return []
    return [
        f"{driving.name} was measured by {driving.motion.engine!r}; its absolute pose and look may not suit"
        f" the {engine.name} engine"
    ]


class _Scene:
    """What pictures and clips have in common."""

    def __init__(self, options: Options, engine: Engine, path: Path) -> None:
        self._options, self._engine, self._path = options, engine, path
        self._notes: list[str] = []

    def _stage(
        self,
        parts: Sequence[Part],
        motions: Sequence[Motion],
        clip_frames: int | None,
        fps: Fraction | None,
        stack: ExitStack,
        progress: Progress,
        cancel: Cancel | None,
    ) -> tuple[list[Role], list[Take], np.ndarray, Fraction]:
        """Roles, takes, the source's frame for every frame, and the rate. motions: the faces' own."""
        takes: list[Take] = []
        for part in parts:
            known = next((t for p, t in zip(parts, takes, strict=False) if p.driving is part.driving), None)
            wanted = fps
            if wanted is None and takes:
                wanted = next((t.motion.fps for t in takes if not t.still), None)
            takes.append(
                known
                or read_take(
                    part.driving,
                    self._options,
                    self._engine,
                    stack,
                    fps=wanted,
                    progress=progress,
                    cancel=cancel,
                )
            )
        for part in parts:
            self._notes.extend(measured_elsewhere(part.driving, self._options, self._engine))
        moving = [len(t.motion) for t in takes if not t.still]
        lengths = [*moving, *([] if clip_frames is None else [clip_frames])]
        policy = self._options.length_policy
        total = (min(lengths) if policy == "cut" else max(lengths)) if lengths else 1
        if len(set(lengths)) > 1:
            said = [
                f"{p.driving.name} has {len(t.motion)}"
                for p, t in zip(parts, takes, strict=True)
                if not t.still
            ]
            if clip_frames is not None:
                said.insert(0, f"the source has {clip_frames}")
            self._notes.append(
                f"The lengths differ: {', '.join(dict.fromkeys(said))} frames; {total} are made"
                f" (--length-policy {policy})."
            )
        wanted_frames = np.arange(total)
        order = frames_of(
            clip_frames or 1, wanted_frames if clip_frames else np.zeros(total, np.intp), policy
        )
        roles_for = Roles(self._options, self._engine, self._notes)
        roles = [
            roles_for.role(m, t, order, clip_frames is not None) for m, t in zip(motions, takes, strict=True)
        ]
        rate = fps or next((t.motion.fps for t in takes if not t.still), takes[0].motion.fps)
        return roles, takes, order, rate

    def _rendered(self, source: Source, role: Role, frame: int) -> np.ndarray:
        keys = role.keypoints
        at = min(frame, len(keys.driving) - 1)  # one pose alone is held
        one = slice(at, at + 1)
        mouth = role.mouth_at(frame)
        return self._engine.render(source.appearance, keys.source[one], keys.driving[one], mouth)[0]

    def _motions(self, parts: Sequence[Part], roles: Sequence[Role]) -> Mapping[str, Motion]:
        """The motions to keep, a row a frame, by file name."""
        if len(parts) == 1:
            return {"motion.npz": roles[0].motion}
        return {f"motion_{part.number}.npz": role.motion for part, role in zip(parts, roles, strict=True)}

    def _warnings(self, takes: Sequence[Take]) -> list[str]:
        return list(dict.fromkeys([*self._notes, *(line for t in takes for line in t.warnings)]))

    def _sound(self, parts: Sequence[Part], takes: Sequence[Take]) -> Sound | None:
        drivings = [(p.driving, t.motion.start) for p, t in zip(parts, takes, strict=True)]
        return sound_of(self._options, drivings, self._path)


class _Still(_Scene):
    """Faces in one picture."""

    def __init__(
        self, path: Path, numbers: Sequence[int | None], options: Options, engine: Engine, result: Result
    ) -> None:
        super().__init__(options, engine, path)
        picture = media.read_picture(path)
        self._sources = open_faces(path, picture, numbers, options, engine)
        self._picture = self._sources[0].picture
        self._deep = self._picture.deep if result.keeps_depth else None
        alpha = self._picture.alpha
        self._opacity = None
        if alpha is not None and not result.keeps_alpha:
            self._opacity = np.repeat(alpha[..., None], 3, axis=2)
            self._notes.append("MP4 has no transparency, so the picture is on black; a folder keeps it")

    def staged(
        self,
        parts: Sequence[Part],
        stack: ExitStack,
        progress: Progress,
        cancel: Cancel | None,
        first: int,
    ) -> Staged:
        motions = [source.motion for source in self._sources]
        roles, takes, order, fps = self._stage(
            parts, motions, None, self._options.fps, stack, progress, cancel
        )
        height, width = self._picture.rgb.shape[:2]
        return Staged(
            self._frames(roles, range(first, len(order)), cancel),
            fps,
            (width, height),
            len(order),
            self._sound(parts, takes),
            lambda: self._motions(parts, roles),
            lambda: self._warnings(takes),
            None if self._opacity is not None else self._picture.alpha,
            8 if self._deep is None else 16,
            first,
            face_in_frames(motions[0], self._sources[0].crop, True, (width, height)),
        )

    def _frames(
        self, roles: Sequence[Role], frames: range, cancel: Cancel | None
    ) -> Generator[np.ndarray, None, None]:
        rgb = self._picture.rgb
        for frame in frames:
            check_cancel(cancel)
            patches = [
                patch_of(source, self._rendered(source, role, frame), rgb, self._options)
                for source, role in zip(self._sources, roles, strict=True)
            ]
            made = compose(rgb.copy(), patches)
            if self._opacity is not None:
                made = cv2.multiply(made, self._opacity, scale=1 / 255)
            if self._deep is not None:
                changed = (made != rgb).any(axis=-1, keepdims=True)
                made = np.where(changed, made.astype(np.uint16) * np.uint16(DEEP), self._deep)
            yield made


class _Moving(_Scene):
    """Faces in a clip."""

    def __init__(self, clip: SourceClip, options: Options, engine: Engine) -> None:
        super().__init__(options, engine, clip.path)
        self._clip = clip
        self._pastes = options.paste_back if options.crop else engine.native_resolution
        self._size = clip.size if self._pastes else self._crop_size()

    def _crop_size(self) -> tuple[int, int]:
        """Of the crop alone: that of its middle size in the clip, an even number."""
        squares = self._clip.faces[0].squares
        if not self._engine.native_resolution or squares is None:
            return RENDERED_CROP, RENDERED_CROP
        side = 2 * max(round(float(np.median(squares[:, 2])) / 2), 1)
        return side, side

    def staged(
        self,
        parts: Sequence[Part],
        stack: ExitStack,
        progress: Progress,
        cancel: Cancel | None,
        first: int,
    ) -> Staged:
        clip = self._clip
        matched = clip_rules(self._options).rates_matched
        roles, takes, order, _ = self._stage(
            parts,
            [face.motion for face in clip.faces],
            clip.frames,
            clip.fps if matched else self._options.fps,
            stack,
            progress,
            cancel,
        )
        for face, role in zip(clip.faces, roles, strict=True):
            ease(role.keypoints, face.visible[order])
        return Staged(
            self._frames(roles, order, first, cancel),
            clip.fps,
            self._size,
            len(order),
            self._sound(parts, takes),
            lambda: self._motions(parts, roles),
            lambda: self._warnings(takes) + clip.warnings + self._lost(parts),
            first=first,
            face=face_in_frames(clip.faces[0].motion, clip.faces[0].crop_at(0), self._pastes, self._size),
        )

    def _lost(self, parts: Sequence[Part]) -> list[str]:
        lines = []
        for part, face in zip(parts, self._clip.faces, strict=True):
            lost = int(np.count_nonzero(~face.visible))
            if lost:
                which = "the face" if part.number is None else f"face {part.number}"
                lines.append(
                    f"{which} is not seen in {lost} of {self._clip.frames} source frames; they stay as is"
                )
        return lines

    def _frames(
        self, roles: Sequence[Role], order: np.ndarray, first: int, cancel: Cancel | None
    ) -> Generator[np.ndarray, None, None]:
        with closing(media.prefetch(self._clip.pictures(order[first:]), 4)) as pictures:
            for frame, picture in enumerate(pictures, first):
                check_cancel(cancel)
                yield self._frame(roles, frame, int(order[frame]), picture)

    def _frame(self, roles: Sequence[Role], frame: int, number: int, picture: np.ndarray) -> np.ndarray:
        shown = [
            (face, role)
            for face, role in zip(self._clip.faces, roles, strict=True)
            if face.visible[number] or not self._pastes
        ]
        places = [place_of(face.crop_at(number), self._options, self._clip.size) for face, _ in shown]
        patches = []
        for at, (face, role) in enumerate(shown):
            near = with_first(places, at) if len(places) > 1 else []
            source = self._clip.source_at(face, number, picture, self._engine, near)
            rendered = self._rendered(source, role, frame)
            if not source.pastes(self._options):
                return crop_alone(source, rendered, self._size[0])
            patches.append(patch_of(source, rendered, picture, self._options))
        return compose(picture, patches)
