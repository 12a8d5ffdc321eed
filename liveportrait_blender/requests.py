# SPDX-License-Identifier: GPL-3.0-or-later
"""What is asked of the backend, as plain data, built from a scene's settings."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import bpy

from . import face_drivings, inputs, motion_rates, preferences, results, runtime
from .names import UserError

LIBRARY_RATE, SEQUENCE_RATE = Fraction(30), Fraction(25)  # of its motions; of what does not say
FASTEST = 1000  # frames a second that the backend takes

Input = Path | Mapping[str, str]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class AnimateRequest:
    """`animate`: a source performs a driving, or the expression controls alone where driving is None.

    faces: drivings of their own, by the face's number.
    """

    source: Path
    driving: Input | None
    options: Mapping[str, Any]
    folder: Path
    label: str
    landing: results.Landing | None = None
    motion: bool = True
    faces: Mapping[str, Input] = field(default_factory=dict)
    method: str = field(default="animate", init=False)

    def params(self) -> dict[str, Any]:
        given: dict[str, Any] = {"source": self.source, "options": dict(self.options), "motion": self.motion}
        if self.driving is not None:
            given["driving"] = self.driving
        if self.faces:
            given["faces"] = dict(self.faces)
        return given


@dataclass(frozen=True)
class RenderRequest:
    """`render`: a source performs a motion that was captured, or edited, before."""

    source: Path
    motion: Input
    options: Mapping[str, Any]
    folder: Path
    label: str
    landing: results.Landing | None = None
    method: str = field(default="render", init=False)

    def params(self) -> dict[str, Any]:
        return {"source": self.source, "motion": self.motion, "options": dict(self.options)}


@dataclass(frozen=True)
class CaptureRequest:
    """`motion.capture`: a driving as motion.npz in a folder."""

    driving: Input
    options: Mapping[str, Any]
    folder: Path
    label: str
    landing: Any = None
    method: str = field(default="motion.capture", init=False)

    def params(self) -> dict[str, Any]:
        return {"driving": self.driving, "options": dict(self.options)}

    @property
    def file(self) -> Path:
        return self.folder / "motion.npz"


def preview(source: str, controls: Mapping[str, float], more: Mapping[str, Any]) -> dict[str, Any]:
    """The params of `preview`: one picture of an opened source with the expression controls."""
    return {"source": source, "options": {**more, "controls": dict(controls)}, "format": "raw"}


# --- building -----------------------------------------------------------------------------------------------


def missing(context: Any, needs_source: bool = True, needs_driving: bool = True) -> str:
    """Why nothing can be asked, for poll messages; "" if it can. Cheap."""
    reason = runtime.missing()[0]
    if not reason and needs_source:
        reason = inputs.source_missing(context)
    if not reason and needs_source and face_drivings.in_use(context):
        reason, needs_driving = face_drivings.missing(context), face_drivings.needs_main(context)
    if not reason and needs_driving:
        reason = inputs.driving_missing(context)
    return reason


def has_controls(scene: Any) -> bool:
    """Whether the expression controls are something to perform."""
    from . import control_curves

    return bool(scene.liveportrait.controls.as_controls()) or control_curves.are_animated(scene)


def scene_rate(scene: Any) -> str:
    """A scene's exact frame rate as the protocol has it: 24, 24000/1001. Raises UserError."""
    # fps_base is a float32: 1.001 and not 1.00100004673.
    rate = Fraction(scene.render.fps) / Fraction(f"{scene.render.fps_base:.7g}")
    if not 0 < rate <= FASTEST:
        raise UserError(f"A scene of {float(rate):g} frames a second is too fast.", f"At most {FASTEST}.")
    return str(rate.limit_denominator(1_000_000))


def job_options(scene: Any, chosen: inputs.Chosen | None, more: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a job of this scene: what is not as always, the controls, the scene's rate, and the part
    of the driving that is chosen. `more` goes before the settings.
    """
    settings = scene.liveportrait
    options = {**settings.options.as_options(), **more}
    if (device := preferences.default_device()) != "auto":
        options.setdefault("device", device)
    options.setdefault("fps", scene_rate(scene))  # pictures of a folder, too, are then one a scene frame
    if "controls" not in options and (controls := settings.controls.as_controls()):
        options["controls"] = controls
    if chosen is not None and chosen.frames is not None:
        options["frames"] = within(chosen.frames, options.get("frames"))
    return options


def capture_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Those that capturing takes: the controls and the look belong to the source."""
    return {name: value for name, value in options.items() if name != "controls"}


def within(whole: tuple[int, int | None], part: Any) -> list[int | None]:
    """A range, counted within another: both half-open, None for the end."""
    first, stop = part if part is not None else (0, None)
    ends = [whole[0] + stop] if stop is not None else []
    ends += [whole[1]] if whole[1] is not None else []
    return [whole[0] + first, min(ends) if ends else None]


def driving_rate(driving: Input, asked: str | None = None) -> Fraction:
    """Frames a second of a driving, so that seconds can be counted in it. asked: the option `fps`, which is
    the rate of a folder of pictures.
    """
    if not isinstance(driving, Path):
        return LIBRARY_RATE
    if driving.is_dir():
        return Fraction(asked) if asked else SEQUENCE_RATE
    if driving.suffix.lower() in motion_rates.SUFFIXES:
        return motion_rates.rate_of(driving) or SEQUENCE_RATE
    try:
        clip = bpy.data.movieclips.load(str(driving))
    except RuntimeError:  # no clip
        return SEQUENCE_RATE
    try:
        return Fraction(clip.fps).limit_denominator(1001) if clip.fps > 0 else SEQUENCE_RATE
    finally:
        bpy.data.movieclips.remove(clip)


def first_seconds(request: AnimateRequest, seconds: float) -> AnimateRequest:
    """The same, for the first seconds of its range alone."""
    driving = next((each for each in (request.driving, *request.faces.values()) if each is not None), None)
    if driving is None:
        return request
    first, stop = request.options.get("frames") or (0, None)
    rate = driving_rate(driving, request.options.get("fps"))
    end = first + max(round(rate * Fraction(seconds)), 1)
    frames = [first, end if stop is None else min(stop, end)]
    return replace(request, options={**request.options, "frames": frames})


def landing(
    context: Any,
    source: inputs.Chosen,
    driving: inputs.Chosen | None,
    options: Mapping[str, Any],
    *,
    folder: Path,
    name: str,
    kind: str = "",
    start: int | None = None,
    replaces: Any = None,
    faces: Mapping[str, inputs.Chosen] | None = None,
) -> results.Landing:
    """Where in the file a result is to go. replaces: the image of a result whose place it takes."""
    scene, target = context.scene, context.active_object
    heard = [one for one in (driving, *(faces or {}).values()) if one is not None]
    sound, begin = _sound(source, heard, options)
    return results.Landing(
        folder=str(folder),
        name=name,
        kind=kind or scene.liveportrait.result_kind,
        start_frame=scene.frame_current if start is None else start,
        scene=scene.name,
        scene_uid=scene.session_uid,
        target="" if target is None else target.name,
        target_uid=0 if target is None else target.session_uid,
        replaces=0 if replaces is None else replaces.session_uid,
        source=as_text(source.value),
        driving="" if driving is None else as_text(driving.value),
        recipe={
            "source": as_text(source.value),
            "driving": "" if driving is None else as_text(driving.value),
            "options": dict(options),
            "faces": {number: as_text(one.value) for number, one in (faces or {}).items()},
        },
        sound=sound,
        sound_start=begin,
    )


def as_text(value: Input) -> str:
    """A file's path, or library:NAME."""
    return str(value) if isinstance(value, Path) else f"library:{value['library']}"


def from_text(text: str, library: bool = True) -> inputs.Chosen:
    """The opposite; a name alone is the library's where there is no such file. Raises UserError.

    library: whether a motion of the library is likely to be meant, as it is not for a portrait.
    """
    from .properties.options import table

    names = [row["name"] for row in table()["library"]]
    path = Path(bpy.path.abspath(text))
    if not text.startswith("library:") and path.exists():
        return inputs.Chosen(path.resolve(), path.name)
    name = text.removeprefix("library:")
    if name not in names:
        if not library or Path(text).suffix or Path(text).name != text:
            raise UserError(f"There is no file {path}.", "Check the path, or choose another file.")
        known = ", ".join(names)
        raise UserError(f'There is no file or library motion "{text}".', f"The library has {known}.")
    return inputs.Chosen({"library": name}, name)


def faces_from(given: Mapping[str, Any]) -> dict[str, inputs.Chosen]:
    """What drives each face that has a driving of its own, by number, out of texts. Raises UserError."""
    found = {}
    for number, text in given.items():
        if not (number.isascii() and number.isdigit() and len(number) < 4) or not isinstance(text, str):
            raise UserError(f"{number}: {text} is no face's driving.", 'Write {"1": "clip.mp4"}.')
        found[str(int(number))] = from_text(text)
    return dict(sorted(found.items(), key=lambda item: int(item[0])))


def _sound(
    source: inputs.Chosen, drivings: Sequence[inputs.Chosen], options: Mapping[str, Any]
) -> tuple[str, float]:
    """The file whose sound belongs to a result, and where in it the result begins."""
    wanted = options.get("audio", "auto")
    heard = next((one for one in drivings if _sounds(one.value)), None)
    if wanted in ("auto", "driving") and heard is not None:
        first = (options.get("frames") or (0, None))[0]
        begin = float(first / driving_rate(heard.value)) if first else 0.0
        return str(heard.value), begin
    if wanted in ("auto", "source") and _sounds(source.value):
        return str(source.value), 0.0
    return "", 0.0


def _sounds(value: Input) -> bool:
    """Whether a file may have sound: pictures, motions and folders have none."""
    return isinstance(value, Path) and value.suffix.lower() in bpy.path.extensions_movie
