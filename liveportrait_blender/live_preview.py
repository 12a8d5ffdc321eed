# SPDX-License-Identifier: GPL-3.0-or-later
"""A picture of the source that follows the expression controls: the image "LivePortrait Preview".

The sliders only mark that they have moved. `look`, which the pump calls, asks for one picture at a time and
always for the newest values, so nothing waits and nothing piles up. A thread makes of it what Blender takes;
the main thread only puts that into the image.
"""

from __future__ import annotations

import importlib
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import bpy
import bpy.utils.previews

from . import inputs, pump, requests, runtime
from .client import BackendError
from .names import UserError

IMAGE = "LivePortrait Preview"
LARGEST = 512  # pixels of the longer side: what the main thread puts into an image in a few milliseconds
ICON = 256  # pixels of the longer side of the panel's
WITHIN = 60.0  # seconds for an answer
MOST_BYTES = 1 << 28
PER_SOURCE = ("frames", "fps", "controls")  # options that say nothing about a single picture

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pixels:
    """A picture as foreach_set takes it: width * height * 4 float32 in 0..1, bottom row first."""

    width: int
    height: int
    values: Any


@dataclass
class _Coming:
    """A picture that a thread makes ready: (for the image, for the panel), or what was wrong with it."""

    wanted: dict[str, float]
    ready: threading.Event = field(default_factory=threading.Event)
    pixels: tuple[Pixels, Pixels] | None = None
    fault: Exception | None = None


@dataclass
class _Live:
    """What is shown and asked for at the moment."""

    on: bool = False
    scene_uid: int = 0
    chosen: Any = None  # the settings that name the source and its options, as they were when it was opened
    opened: str = ""
    asking: bool = False
    coming: _Coming | None = None
    shown: Any = None
    turn: int = 0  # answers of an earlier turn count no more
    error: str = ""
    pictures: int = 0
    large: bool = False
    options: dict[str, Any] = field(default_factory=dict)


_live = _Live()
_icons: Any = None


def is_on() -> bool:
    """Whether the preview follows the controls."""
    return _live.on


def error() -> str:
    """Why there is no picture, "" if there is one or it is on its way."""
    return _live.error


def pictures() -> int:
    """How many have been shown since it was started."""
    return _live.pictures


def icon() -> int:
    """The picture as an icon for template_icon, 0 without one. For draw."""
    return _icons[IMAGE].icon_id if _icons is not None and IMAGE in _icons else 0


def start(context: Any) -> None:
    """Begin to follow the controls of the scene; starts the backend. Raises UserError."""
    inputs.source(context)
    runtime.session.ensure()
    # Blender's main thread does not wait for it to be loaded.
    threading.Thread(target=importlib.import_module, args=("numpy",), daemon=True).start()
    _forget()
    _live.on, _live.scene_uid = True, context.scene.session_uid
    if look not in pump.watchers:
        pump.watchers.append(look)
    pump.start()


def stop() -> None:
    """Follow no more; the last picture stays."""
    session, opened = runtime.session, _live.opened
    if opened and session.state.up:
        session.later("source.close", {"source": opened}, lambda _result, _error: None)
    _forget()
    if look in pump.watchers:
        pump.watchers.remove(look)


def is_current() -> bool:
    """Whether the picture shows what the controls say now; for tests and for waiting."""
    context = bpy.context
    return _live.on and not _live.asking and _live.coming is None and _live.shown == _wanted(context.scene)


def _forget() -> None:
    turn = _live.turn + 1
    _live.__init__(turn=turn)  # type: ignore[misc]


def look() -> None:
    """Ask for what is not yet shown. Cheap; called by the pump."""
    context = bpy.context
    scene = context.scene
    if not _live.on or scene is None:
        return
    if scene.session_uid != _live.scene_uid:  # another scene or file
        stop()
        return
    if _live.coming is not None:
        if not _live.coming.ready.is_set():
            return
        _take(_live.coming)
    state = runtime.session.state
    if _live.asking or not state.up:
        if not state.up:
            _live.opened = ""  # whoever answers next does not know it
            if state.kind in ("failed", "stopped"):
                _fail(f"{state.sentence} {state.hint}".strip())
        return
    chosen = _chosen(context)
    if chosen != _live.chosen or not _live.opened:
        if chosen == _live.chosen and _live.error:
            return  # it would fail the same way again
        _open(context, chosen)
    elif (wanted := _wanted(scene)) != _live.shown:
        _ask(wanted)


def _wanted(scene: Any) -> dict[str, float]:
    return dict(scene.liveportrait.controls.as_controls())


def _chosen(context: Any) -> Any:
    settings = context.scene.liveportrait
    options = settings.options.as_options()
    kept = tuple(sorted((name, str(value)) for name, value in options.items() if name not in PER_SOURCE))
    image, owner = settings.source_image, context.active_object
    seen = {
        "FILE": settings.source_path,
        "IMAGE": image.name if image else "",
        "OBJECT": owner.name if owner else "",
    }
    return settings.source_kind, seen.get(settings.source_kind, ""), kept


def _open(context: Any, chosen: Any) -> None:
    _live.chosen, _live.opened, _live.shown, _live.error = chosen, "", None, ""
    options = context.scene.liveportrait.options.as_options()
    _live.options = {name: value for name, value in options.items() if name not in PER_SOURCE}
    try:
        source = inputs.source(context).value
    except UserError as error:
        _fail(str(error))
        return

    def opened(result: dict[str, Any]) -> None:
        _live.opened = str(result["source"])
        _live.large = max(int(result["width"]), int(result["height"])) > 2 * LARGEST

    _later("source.open", {"source": source, "options": _live.options}, opened)


def _ask(wanted: dict[str, float]) -> None:
    coming = _Coming(wanted)

    def come(_result: dict[str, Any]) -> None:
        _live.coming = coming

    more = {"paste_back": False} if _live.large else {}  # the face says it all, and comes in time
    reply = _later("preview", requests.preview(_live.opened, wanted, more), come)
    threading.Thread(target=_make_ready, args=(reply, coming), daemon=True).start()


def _make_ready(reply: Any, coming: _Coming) -> None:
    """On a thread: wait for the answer, which `_later` judges, and convert its picture."""
    try:
        reply.result(WITHIN)
        if not reply.pictures:
            raise BackendError("lost", "The preview has no picture.")
        coming.pixels = converted(*reply.pictures[0])
    except (BackendError, LookupError, TypeError, ValueError, ImportError, MemoryError) as fault:
        coming.fault = fault
    finally:
        coming.ready.set()


def _take(coming: _Coming) -> None:
    """Show a picture that is ready, or say what is wrong with it."""
    _live.coming = None
    if coming.pixels is not None:
        show(*coming.pixels)
        _live.shown, _live.error = coming.wanted, ""
        _live.pictures += 1
    elif isinstance(coming.fault, BackendError):
        _live.opened = ""  # it is opened again
    else:
        log.warning("Not a preview: %s", coming.fault)
        _fail("The backend sent something that is no picture.")


def _later(method: str, params: dict[str, Any], then: Callable[[dict[str, Any]], None]) -> Any:
    """Ask; one question at a time, and answers that nobody waits for any more are dropped: the reply."""
    turn, _live.asking = _live.turn, True

    def answered(result: dict[str, Any] | None, error: BackendError | None) -> None:
        if turn != _live.turn:
            return
        _live.asking = False
        try:
            if error is not None:
                raise error
            then(result or {})
        except BackendError as fault:
            if fault.code in ("lost", "not-found", "superseded"):
                _live.opened = ""  # a new connection: it is opened again
            else:
                _fail(f"{fault.message} {fault.hint}".strip())
        except (LookupError, TypeError, ValueError) as fault:
            log.warning("Not a preview: %s", fault)
            _fail("The backend sent something that is no picture.")

    return runtime.session.later(method, params, answered, WITHIN)


def _fail(sentence: str) -> None:
    _live.error, _live.opened = sentence, ""


# --- pixels -------------------------------------------------------------------------------------------------


def converted(header: dict[str, Any], payload: bytes) -> tuple[Pixels, Pixels]:
    """Raw pixels (rows from the top, RGB or RGBA, 8 or 16 bits) for the image and for the panel.

    Touches nothing of Blender's, so any thread may call it. Raises LookupError, TypeError, ValueError.
    """
    import numpy as np

    width, height, channels, bits = (header[name] for name in ("width", "height", "channels", "bits"))
    sizes = (width, height, channels, bits)
    if not all(type(size) is int for size in sizes) or channels not in (3, 4) or bits not in (8, 16):
        raise ValueError(f"a picture of {sizes}")
    size = width * height * channels * bits // 8
    if width < 1 or height < 1 or size > MOST_BYTES or size != len(payload):
        raise ValueError(f"a picture of {sizes} in {len(payload)} bytes")
    pixels = np.frombuffer(payload, np.uint8 if bits == 8 else "<u2").reshape(height, width, channels)
    step = -(-max(width, height) // LARGEST)
    pixels = pixels[::step, ::step][::-1]
    shown = np.ones((*pixels.shape[:2], 4), np.float32)
    np.multiply(pixels, np.float32(1 / (2**bits - 1)), out=shown[..., :channels])
    step = -(-max(shown.shape) // ICON)
    return _pixels(shown), _pixels(shown[::step, ::step])


def _pixels(rows: Any) -> Pixels:
    return Pixels(rows.shape[1], rows.shape[0], rows.ravel())


def show(picture: Pixels, small: Pixels) -> Any:
    """Put it into the image and into the panel."""
    image = _image(picture.width, picture.height)
    image.pixels.foreach_set(picture.values)
    image.update()
    for window in bpy.context.window_manager.windows:
        for area in window.screen.areas:
            if area.type == "IMAGE_EDITOR":
                area.tag_redraw()
    _show_icon(small)
    return image


def _image(width: int, height: int) -> Any:
    image = bpy.data.images.get(IMAGE)
    if image is None or image.source != "GENERATED":
        image = bpy.data.images.new(IMAGE, width, height, alpha=True)
    if tuple(image.size) != (width, height):
        image.scale(width, height)
    return image


def _show_icon(small: Pixels) -> None:
    """The same picture, for the panel."""
    global _icons
    if bpy.app.background:  # nobody looks
        return
    if _icons is None:
        _icons = bpy.utils.previews.new()
    preview = _icons.get(IMAGE) or _icons.new(IMAGE)
    preview.image_size = small.width, small.height
    preview.image_pixels_float.foreach_set(small.values)


def register() -> None:
    pump.drawn_from.append(_drawn)


def _drawn() -> Any:
    return _live.on, _live.error, _live.pictures


def unregister() -> None:
    global _icons
    stop()
    if _drawn in pump.drawn_from:
        pump.drawn_from.remove(_drawn)
    if _icons is not None:
        bpy.utils.previews.remove(_icons)
        _icons = None
