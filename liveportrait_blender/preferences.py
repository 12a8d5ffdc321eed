# SPDX-License-Identifier: GPL-3.0-or-later
"""The add-on's preferences: which backend, where its files lie, how much they may take."""

import logging
import os
from pathlib import Path
from typing import Any

import bpy
from bpy.types import AddonPreferences

from . import environments, paths, secret
from .names import ROOT_PACKAGE
from .setup_plan import PROFILES
from .supervisor import BackendSettings, Launch

PYTHON_VARIABLE = "LIVEPORTRAIT_PYTHON"  # for farms: the backend's Python where nothing was set up
SET_UP, REPAIR, OPEN = (
    "liveportrait.set_up_backend",
    "liveportrait.repair_backend",
    "liveportrait.open_preferences",
)
BACKENDS = (
    ("LOCAL", "Set Up Here", "An environment of the extension's own on this machine, made by Set Up Backend"),
    ("PYTHON", "Existing Python", "A Python of yours that has the backend's packages"),
    ("REMOTE", "Remote", "A backend on another machine, over an encrypted connection"),
)
DEVICES = (
    ("auto", "Automatic", "The graphics card if it can be used, else the processor"),
    ("cpu", "Processor", "Only the processor"),
    ("cuda", "NVIDIA Graphics Card", "CUDA"),
    ("mps", "Apple Graphics", "Metal"),
)
LEVELS = (
    ("DEBUG", "Everything", "For looking for faults"),
    ("INFO", "Normal", "What happens"),
    ("WARNING", "Warnings", "Only what is not as it should be"),
    ("ERROR", "Errors", "Only what failed"),
)
PROFILE_ITEMS = tuple(
    (profile.name, profile.label, f"{profile.description}: {profile.sizes}") for profile in PROFILES.values()
)


def _changed(self: Any, _context: Any) -> None:
    from . import runtime

    runtime.forget_settings()


def _level_changed(self: Any, context: Any) -> None:
    logging.getLogger(ROOT_PACKAGE).setLevel(self.log_level)
    _changed(self, context)


def _get_token(self: Any) -> str:
    return secret.token()


def _set_token(self: Any, value: str) -> None:
    _keep_token(value, self.remember_token)


def _remember_changed(self: Any, context: Any) -> None:
    _keep_token(secret.token(), self.remember_token)


def _keep_token(text: str, remember: bool) -> None:
    try:
        secret.set_token(text, remember)
    except OSError:
        logging.getLogger(__name__).exception("The token cannot be kept; it serves until Blender is closed")
    _changed(None, None)


class LIVEPORTRAIT_AP_preferences(AddonPreferences):
    bl_idname = ROOT_PACKAGE

    backend: bpy.props.EnumProperty(
        name="Backend", description="Which program does the work", items=BACKENDS, update=_changed
    )
    profile: bpy.props.EnumProperty(
        name="Engine", description="What Set Up Backend installs", items=PROFILE_ITEMS, default="mesh"
    )
    python_path: bpy.props.StringProperty(
        name="Python",
        description="The Python of an environment with the packages of requirements/mesh.txt",
        subtype="FILE_PATH",
        update=_changed,
    )
    remote_url: bpy.props.StringProperty(
        name="Address", description="Where the remote backend listens, as wss://name:port", update=_changed
    )
    remote_token: bpy.props.StringProperty(
        name="Token",
        description="The secret that the remote backend was started with; not kept in Blender's preferences",
        subtype="PASSWORD",
        get=_get_token,
        set=_set_token,
        options={"SKIP_SAVE"},
    )
    remember_token: bpy.props.BoolProperty(
        name="Remember Token",
        description="Keep the token in a file that only you can read; otherwise it is forgotten with Blender",
        update=_remember_changed,
    )
    remote_certificate: bpy.props.StringProperty(
        name="Certificate",
        description="The remote backend's certificate (PEM), if no known authority has signed it",
        subtype="FILE_PATH",
        update=_changed,
    )
    port: bpy.props.IntProperty(
        name="Port",
        description="Where the backend listens on this machine, 0 for a free one",
        min=0,
        max=65535,
        update=_changed,
    )
    device: bpy.props.EnumProperty(
        name="Device",
        description="What the neural engine runs on unless a scene says otherwise",
        items=DEVICES,
    )
    models_folder: bpy.props.StringProperty(
        name="Models",
        description="The folder of LivePortrait's weights, also another program's; empty for the extension's",
        subtype="DIR_PATH",
        update=_changed,
    )
    cache_folder: bpy.props.StringProperty(
        name="Cache",
        description="Where the backend keeps what it has rendered; empty for the extension's own folder",
        subtype="DIR_PATH",
        update=_changed,
    )
    cache_limit: bpy.props.IntProperty(
        name="Cache Limit (GB)",
        description="Gigabytes that the cache may take; what was not used the longest goes first",
        min=1,
        max=10_000,
        default=16,
        update=_changed,
    )
    unload_after: bpy.props.IntProperty(
        name="Free Memory After (min)",
        description="Minutes without work after which the backend frees the memory, 0 for never",
        min=0,
        max=24 * 60,
        default=10,
        update=_changed,
    )
    log_level: bpy.props.EnumProperty(
        name="Log",
        description="How much is written down",
        items=LEVELS,
        default="INFO",
        update=_level_changed,
    )
    consent_seen: bpy.props.BoolProperty(
        name="Note Read", description="Whether the note on consent was read", options={"HIDDEN"}
    )
    auto_start: bpy.props.BoolProperty(
        name="Start with Blender",
        description="Start the backend together with Blender, and not only when it is needed",
    )

    def draw(self, context: Any) -> None:
        from .panels import settings

        settings.draw_preferences(self, self.layout, context)


def get() -> Any:
    """The add-on's preferences, None while it is not enabled."""
    addon = bpy.context.preferences.addons.get(ROOT_PACKAGE)
    return None if addon is None else addon.preferences


def is_remote() -> bool:
    """Whether the backend is one that was started elsewhere."""
    settings = get()
    return settings is not None and settings.backend == "REMOTE"


def folder_of(text: str, own: str) -> Path:
    """A folder that the user named, or the extension's own."""
    return Path(bpy.path.abspath(text)).absolute() if text.strip() else paths.user_folder() / own


def models_folder() -> Path:
    settings = get()
    return folder_of(settings.models_folder if settings else "", "models")


def cache_folder() -> Path:
    settings = get()
    return folder_of(settings.cache_folder if settings else "", "cache")


def log_file() -> Path:
    """Of the backend that this Blender starts: two Blenders do not write to one file."""
    return paths.user_folder("logs") / f"backend-{os.getpid() % 8}.log"


def default_device() -> str:
    """The device for scenes that name none."""
    settings = get()
    return settings.device if settings else "auto"


def backend_settings() -> BackendSettings:
    """The backend that the preferences name, or why there is none. Looks at a few files; never raises."""
    settings = get()
    if settings is None:
        return BackendSettings(why_not="The add-on is not enabled.")
    try:
        if settings.backend == "REMOTE":
            return _remote(settings)
        python, why_not, fix = _python(settings)
        if python is None:
            return BackendSettings(why_not=why_not, fix=fix)
        return BackendSettings(local=_launch(settings, python))
    except OSError as error:
        logging.getLogger(__name__).warning("No backend can be named: %s", error)
        return BackendSettings(why_not=f"The backend's files cannot be read: {error}.", fix=OPEN)


def _remote(settings: Any) -> BackendSettings:
    url = settings.remote_url.strip()
    if not url:
        return BackendSettings(why_not="The address of the remote backend is missing.", fix=OPEN)
    if not secret.token():
        return BackendSettings(why_not="The token of the remote backend is missing.", fix=OPEN)
    certificate = None
    if settings.remote_certificate.strip():
        certificate = Path(bpy.path.abspath(settings.remote_certificate))
        if not certificate.is_file():
            return BackendSettings(why_not=f"The certificate {certificate} is not there.", fix=OPEN)
    return BackendSettings(remote_url=url, remote_token=secret.token(), remote_certificate=certificate)


def _python(settings: Any) -> tuple[Path | None, str, str]:
    """The backend's Python, or why there is none and what helps."""
    if settings.backend == "PYTHON":
        if not settings.python_path.strip():
            return None, "The backend's Python has not been chosen.", OPEN
        path = Path(bpy.path.abspath(settings.python_path))
        return (
            (path, "", "") if path.is_file() else (None, f"The backend's Python {path} is not there.", OPEN)
        )
    found = environments.look(paths.user_folder())
    if found.kind == "whole":
        return found.python, "", ""
    if given := os.environ.get(PYTHON_VARIABLE):
        path = Path(given)
        return (path, "", "") if path.is_file() else (None, f"{PYTHON_VARIABLE} names no file: {path}.", "")
    from . import set_up

    if set_up.is_running():
        return None, "The backend is being set up.", ""
    if found.kind == "broken":
        return None, f"The backend has to be repaired. {found.why}", REPAIR
    return None, "The backend is not set up yet.", SET_UP


def _launch(settings: Any, python: Path) -> Launch:
    checkout = paths.is_checkout()
    return Launch(
        python=python,
        code=paths.backend_code(),
        cache=cache_folder(),
        log=log_file(),
        models=models_folder(),
        unload_after=settings.unload_after * 60.0,
        copy_to=None if checkout else paths.user_folder(),
        port=settings.port,
        cache_bytes=settings.cache_limit << 30,
        log_level=settings.log_level.lower(),
    )


CLASSES = (LIVEPORTRAIT_AP_preferences,)


def register() -> None:
    settings = get()
    if settings is not None:
        logging.getLogger(ROOT_PACKAGE).setLevel(settings.log_level)


def unregister() -> None:
    secret.forget()
