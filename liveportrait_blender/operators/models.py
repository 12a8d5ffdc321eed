# SPDX-License-Identifier: GPL-3.0-or-later
"""LivePortrait's weights, which the neural engine needs: list, download, check, use another program's."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import bpy
from bpy.types import Operator

from .. import model_store, online, paths, preferences, pump, runtime
from ..client import BackendError
from ..dialogs import WIDTH, paragraph
from ..model_store import Listing, Verifying
from ..names import UserError

PATIENCE = 120.0  # seconds for a backend that has to start first

listing = Listing()  # as last told; panels read it
problem = ""  # why there is none
_verifying: Verifying | None = None


@dataclass(frozen=True)
class DownloadRequest:
    """`models.download`: into the folder that the backend was started with."""

    folder: Path
    label: str = "Download Models"
    landing: Any = None
    method: str = field(default="models.download", init=False)

    def params(self) -> dict[str, Any]:
        return {}


def take(told: dict[str, Any] | None, error: BackendError | None) -> None:
    """What `models.list` has answered."""
    global listing, problem
    try:
        listing, problem = (model_store.read(told or {}), "") if error is None else (listing, error.message)
    except ValueError as fault:
        problem = str(fault)


def is_verifying() -> bool:
    return _verifying is not None and not _verifying.ended


def downloading() -> Any:
    """The job that downloads, or None."""
    jobs = (job for job in runtime.session.jobs if job.method == "models.download" and not job.ended)
    return next(jobs, None)


def _needs_backend(operator: Any) -> bool:
    reason, _ = runtime.missing()
    if reason:
        operator.poll_message_set(reason)
    return not reason


class LIVEPORTRAIT_OT_list_models(Operator):
    bl_idname = "liveportrait.list_models"
    bl_label = "List Models"
    bl_description = "Ask the backend which of LivePortrait's weights are here"

    @classmethod
    def poll(cls, context: Any) -> bool:
        return _needs_backend(cls)

    def execute(self, context: Any) -> set[str]:
        try:
            take(runtime.session.call("models.list", {}, PATIENCE), None)
        except (UserError, BackendError) as error:
            return runtime.report(self, error)
        if problem:
            self.report({"ERROR"}, problem)
            return {"CANCELLED"}
        here = sum(file.usable for file in listing.files)
        self.report({"INFO"}, f"{here} of {len(listing.files)} files are in {listing.folder}")
        return {"FINISHED"}

    def invoke(self, context: Any, event: Any) -> set[str]:
        if bpy.app.background or not runtime.session.state.up:
            return self.execute(context)
        runtime.session.later("models.list", {}, take)
        return {"FINISHED"}


class LIVEPORTRAIT_OT_download_models(Operator):
    bl_idname = "liveportrait.download_models"
    bl_label = "Download Models"
    bl_description = "Download LivePortrait's weights for the neural engine; what is here already is kept"

    @classmethod
    def poll(cls, context: Any) -> bool:
        if downloading() is not None:
            cls.poll_message_set("The models are being downloaded")
            return False
        settings = preferences.get()
        if settings is None or settings.backend != "REMOTE":  # a remote backend uses its own network
            reason, _ = online.missing()
            if reason:
                cls.poll_message_set(reason)
                return False
        return _needs_backend(cls)

    def invoke(self, context: Any, event: Any) -> set[str]:
        self._from_button = True
        return context.window_manager.invoke_props_dialog(self, width=WIDTH)

    def draw(self, context: Any) -> None:
        layout = self.layout
        box = layout.box().column(align=True)
        box.label(text=f"Size: {listing.to_fetch / 1e6:.0f} MB", icon="IMPORT")
        box.label(text=f"Place: {listing.folder or preferences.models_folder()}", icon="FILE_FOLDER")
        box.label(text=f"From: {listing.repository or model_store.SOURCE}", icon="URL")
        box.label(text="Licence: MIT, code and weights, from LivePortrait's authors", icon="TEXT")
        told = (
            "Models with other licences, which LivePortrait's own program also uses, are never fetched. "
            "Checksums are compared, and an interrupted download goes on where it broke off."
        )
        paragraph(layout, told)

    def execute(self, context: Any) -> set[str]:
        from .. import scene_jobs

        try:
            record = runtime.session.submit(DownloadRequest(paths.user_folder("logs")))
            if getattr(self, "_from_button", False) and not bpy.app.background:
                return {"FINISHED"}
            scene_jobs.wait(record)
            take(runtime.session.call("models.list", {}, PATIENCE), None)
        except (UserError, BackendError) as error:
            return runtime.report(self, error)
        return {"FINISHED"}


class LIVEPORTRAIT_OT_verify_models(Operator):
    bl_idname = "liveportrait.verify_models"
    bl_label = "Verify Models"
    bl_description = "Compare the checksums of all weights with those of the released files"

    @classmethod
    def poll(cls, context: Any) -> bool:
        if is_verifying():
            cls.poll_message_set("The models are being checked")
            return False
        settings = preferences.backend_settings()
        if settings.local is None:
            remote = "The models of a remote backend are checked there: python -m backend models verify"
            cls.poll_message_set(remote if settings.remote_url else settings.why_not.rstrip("."))
            return False
        return True

    def execute(self, context: Any) -> set[str]:
        begin_verifying()
        if _verifying is None:
            self.report({"ERROR"}, "There is no backend on this machine")
            return {"CANCELLED"}
        _verifying.wait()
        look()
        if problem:
            self.report({"ERROR"}, problem)
            return {"CANCELLED"}
        bad = [file.name for file in listing.files if file.state == "damaged"]
        if bad:
            self.report({"ERROR"}, f"Damaged: {', '.join(bad)}. Download the models again")
            return {"CANCELLED"}
        self.report({"INFO"}, "The models are sound" if listing.complete else "The models are not complete")
        return {"FINISHED"}

    def invoke(self, context: Any, event: Any) -> set[str]:
        if bpy.app.background:
            return self.execute(context)
        begin_verifying()
        return {"FINISHED"}


def begin_verifying() -> None:
    """Compare checksums beside Blender; `look` takes the result."""
    global _verifying, problem
    launch = preferences.backend_settings().local
    if launch is None:
        return
    _verifying, problem = Verifying(launch), ""
    _verifying.start()
    if look not in pump.watchers:
        pump.watchers.append(look)
    pump.start()


def look() -> None:
    """Take the result of a check that has ended."""
    global listing, problem, _verifying
    if _verifying is None or not _verifying.ended:
        return
    if _verifying.listing is not None:
        listing = _verifying.listing
    problem, _verifying = _verifying.error, None
    if look in pump.watchers:
        pump.watchers.remove(look)


class LIVEPORTRAIT_OT_choose_models(Operator):
    bl_idname = "liveportrait.choose_models"
    bl_label = "Use Existing Models"
    bl_description = (
        "Use the weights in a folder of yours, LivePortrait's own or ComfyUI's; nothing is copied"
    )

    directory: bpy.props.StringProperty(
        name="Folder", description="The folder of the weights", subtype="DIR_PATH", options={"SKIP_SAVE"}
    )

    @classmethod
    def poll(cls, context: Any) -> bool:
        settings = preferences.get()
        if settings is not None and settings.backend == "REMOTE":
            cls.poll_message_set("A remote backend has models of its own")
            return False
        return True

    def invoke(self, context: Any, event: Any) -> set[str]:
        context.window_manager.fileselect_add(self)
        return {"RUNNING_MODAL"}

    def execute(self, context: Any) -> set[str]:
        folder = Path(bpy.path.abspath(self.directory))
        if not folder.is_dir():
            self.report({"ERROR"}, f"{folder} is no folder")
            return {"CANCELLED"}
        if not model_store.is_model_folder(folder):
            self.report(
                {"ERROR"}, f"None of LivePortrait's weights are in {folder}. Choose the folder above them"
            )
            return {"CANCELLED"}
        preferences.get().models_folder = str(folder)
        forget()
        if runtime.session.state.kind != "stopped":
            self.report({"WARNING"}, "Restart the backend to use them")
        return {"FINISHED"}


def forget() -> None:
    """Another folder, or another backend: what was told is of no use any more."""
    global listing, problem
    listing, problem = Listing(), ""


CLASSES = (
    LIVEPORTRAIT_OT_list_models,
    LIVEPORTRAIT_OT_download_models,
    LIVEPORTRAIT_OT_verify_models,
    LIVEPORTRAIT_OT_choose_models,
)


def _download_ended(record: Any) -> None:
    if record.method == "models.download" and runtime.session.state.up:
        runtime.session.later("models.list", {}, take)


def _told() -> tuple[Any, ...]:
    return listing, problem, is_verifying()


def register() -> None:
    runtime.takers.append(_download_ended)
    pump.drawn_from.append(_told)


def unregister() -> None:
    global _verifying
    if _verifying is not None:
        _verifying.cancel()
    _verifying = None
    forget()
    for listed, function in ((runtime.takers, _download_ended), (pump.drawn_from, _told)):
        if function in listed:
            listed.remove(function)
