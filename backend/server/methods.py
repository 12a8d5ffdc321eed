# SPDX-License-Identifier: GPL-3.0-or-later
"""The methods of the protocol: each checks its parameters and answers, or makes a job of them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backend.server.delivery import Wanted
from backend.server.inputs import (
    OF_CAPTURE,
    OF_SOURCE,
    check_models,
    input_of,
    key_of,
    resolved_engine,
    sha256_of,
    some_options,
)
from backend.server.jobs import WorkSpec
from backend.server.messages import RequestError, bad_params, binary, too_many
from backend.server.params import SHA256, Params, options_of
from backend.server.sessions import Input, Job, OpenSource, Session

if TYPE_CHECKING:
    from backend.server.app import Server

Answer = dict[str, Any]
MOST_FACES = 32


@dataclass(frozen=True)
class Call:
    """A request that is being answered."""

    server: Server
    session: Session
    identity: int | str
    params: Params


Method = Callable[[Call], Awaitable[Answer]]


async def prove(call: Call) -> Answer:
    nonce = call.params.text("nonce", longest=200)
    call.params.end()
    if not call.server.same_nonce(call.session, nonce):
        call.session.forget_nonce()
        raise RequestError("forbidden", "That is not what the file holds.", "Say hello again.")
    call.session.forget_nonce()
    call.session.local = True
    return {"local": True}


async def status(call: Call) -> Answer:
    call.params.end()
    return await call.server.status(call.session)


async def upload_begin(call: Call) -> Answer:
    sha256, size = call.params.text("sha256"), call.params.integer("size")
    name = call.params.text("name", "file", longest=255)
    call.params.end()
    server, session = call.server, call.session
    if not SHA256.fullmatch(sha256):
        raise bad_params("sha256 has to be 64 hexadecimal digits.")
    if size > server.limits.upload_bytes:
        raise too_many(
            "upload_bytes", "The file is too large.", f"At most {server.limits.upload_bytes} bytes."
        )
    if server.store.has(sha256):
        return {"have": True}
    if len(session.uploads) >= server.limits.uploads:
        raise too_many("uploads", "Too many uploads at a time.")
    number = session.name("u")
    upload = await asyncio.to_thread(server.store.begin, sha256, size, name)
    session.uploads[number] = upload
    return {"upload": number, "chunk": server.limits.chunk, "offset": upload.offset}


async def upload_finish(call: Call) -> Answer:
    upload = call.session.upload(number := call.params.text("upload"))
    call.params.end()
    del call.session.uploads[number]
    await asyncio.to_thread(call.server.store.finish, upload)
    return {"sha256": upload.sha256}


async def upload_cancel(call: Call) -> Answer:
    upload = call.session.upload(number := call.params.text("upload"))
    call.params.end()
    del call.session.uploads[number]
    call.server.store.drop(upload)
    return {}


async def source_open(call: Call) -> Answer:
    server, session = call.server, call.session
    file = input_of(call.params.mapping("source", needed=True), session, server.store, library=False)
    given = call.params.mapping("options")
    call.params.end()
    options = options_of(given)
    check_models(options, session)
    if len(session.sources) >= server.limits.open_sources:
        raise too_many("open_sources", "Too many sources are open.", "Close some with source.close.")
    number = session.name("s")
    source = OpenSource(file, options, given)
    session.sources[number] = source
    try:
        task = await asyncio.to_thread(_source_task, server, source, given)
        never = asyncio.Event()
        async with server.jobs.quick.turn(session.number, never):
            result, _ = await server.worker.run("quick", {**task, "do": "open"}, _ignore, never)
    except BaseException:
        session.sources.pop(number, None)
        raise
    return {"source": number, **result}


def _source_task(server: Server, source: OpenSource, given: Mapping[str, Any]) -> dict[str, Any]:
    """What a task says of an opened source, with the options of this request."""
    options = options_of({**source.given, **given})
    asked = {**some_options(options, OF_SOURCE), "engine": resolved_engine(options)}
    sliders = sorted(name for name in options.controls if name in ("eyes_open", "lips_open_target"))
    key = key_of("source", {"source": sha256_of(source.file, server.store)}, {**asked, "sliders": sliders})
    return {"source": str(source.file.path), "key": key, "options": {**source.given, **given}}


async def source_close(call: Call) -> Answer:
    number = call.params.text("source")
    call.params.end()
    call.session.source(number)
    del call.session.sources[number]
    return {}


async def preview(call: Call) -> Answer:
    server, session, params = call.server, call.session, call.params
    source = session.source(params.text("source"))
    given, form = params.mapping("options"), params.word("format", ("png", "raw"))
    task: dict[str, Any] = {"do": "preview", "format": form}
    if params.has("keypoints"):
        task["keypoints"] = params.keypoints("keypoints")
    elif params.has("motion"):
        motion = input_of(params.mapping("motion"), session, server.store, library=True)
        task |= {"motion": str(_file_of(motion)), "frame": params.integer("frame", 0)}
    params.end()
    check_models(options_of(given), session)
    if session.preview is not None:
        session.preview.set()
    mine = session.preview = asyncio.Event()
    task = {**await asyncio.to_thread(_source_task, server, source, given), **task}
    try:
        async with server.jobs.quick.turn(session.number, mine):
            if mine.is_set():
                raise RequestError("cancelled", "Cancelled.")
            if session.preview is mine:
                session.preview = None
            result, pixels = await server.worker.run("quick", task, _ignore, asyncio.Event())
    except RequestError as error:
        if mine.is_set() and error.code == "cancelled":
            raise RequestError("superseded", "A newer preview was asked for.") from None
        raise
    finally:
        if session.preview is mine:
            session.preview = None
    header = {"type": "preview", "request": call.identity, "format": form, **result}
    await session.send(binary(header, pixels))
    return result


def _file_of(file: Input) -> Path:
    from backend.library import library_file

    return file.path if file.path is not None else library_file(file.library)


def _ignore(told: Mapping[str, Any]) -> None:
    return None


async def motion_capture(call: Call) -> Answer:
    server, session, params = call.server, call.session, call.params
    driving = input_of(params.mapping("driving", needed=True), session, server.store, library=True)
    given, mouths = params.mapping("options"), params.flag("keep_mouth")
    params.end()
    options = options_of(given)
    check_models(options, session)

    def identify() -> tuple[str, dict[str, Any]]:
        asked = {**some_options(options, OF_CAPTURE), "engine": resolved_engine(options)}
        inputs = {"driving": sha256_of(driving, server.store)}
        known = key_of("motion", inputs, asked)
        task = {"do": "capture", "driving": driving.as_task(), "options": given, "key": known}
        return key_of("capture", inputs, {**asked, "mouths": mouths}), {
            **task,
            "keep_mouth": mouths,
            "target": "motion.npz",
        }

    wanted = Wanted("none", (("motion.npz", "motion.npz"),), server.limits.chunk)
    return _job(server.jobs.submit(session, "motion.capture", WorkSpec(identify, wanted, keeps=True)))


async def animate(call: Call) -> Answer:
    return _animate(call, "animate", "driving", "motion")


async def render(call: Call) -> Answer:
    return _animate(call, "render", "motion", "with_motion")


def _animate(call: Call, method: str, driver: str, file_flag: str) -> Answer:
    server, session, params = call.server, call.session, call.params
    source = input_of(params.mapping("source", needed=True), session, server.store, library=False)
    faces = _faces(call)
    drivers = dict(faces)
    if params.has(driver) or not faces:
        drivers[""] = input_of(params.mapping(driver, needed=True), session, server.store, library=True)
    given, with_motion = params.mapping("options"), params.flag(file_flag)
    output = params.word("output", ("frames", "mp4"))
    form = params.word("format", ("png", "raw", "none"))
    first = params.integer("first_frame", 0)
    params.end()
    options = options_of(given)
    check_models(options, session)
    if output == "mp4" and with_motion:
        raise bad_params("The motion comes with frames alone.", "Leave it out, or use motion.capture.")

    def identify() -> tuple[str, dict[str, Any]]:
        inputs = {f"driving {face}": sha256_of(each, server.store) for face, each in drivers.items()}
        inputs["source"] = sha256_of(source, server.store)
        asked = {**some_options(options), "engine": resolved_engine(options)}
        motion_key = key_of(
            "motion",
            {"driving": inputs.get("driving ", "")},
            {**some_options(options, OF_CAPTURE), "engine": asked["engine"]},
        )
        task = {
            "do": "animate",
            "source": str(source.path),
            "driving": drivers[""].as_task() if "" in drivers else None,
            "faces": {face: each.as_task() for face, each in faces.items()},
            "options": given,
            "output": output,
            "only_motion": method == "render",
            "key": motion_key,
        }
        return key_of("animate", inputs, {**asked, "output": output}), task

    if output == "mp4":
        wanted = Wanted("none", (("result.mp4", "result.mp4"),), server.limits.chunk)
    else:
        files = (("motion.npz", "frames/motion.npz"),) if with_motion else ()
        wanted = Wanted(form, files, server.limits.chunk)
    return _job(server.jobs.submit(session, method, WorkSpec(identify, wanted), first))


def _faces(call: Call) -> dict[str, Input]:
    """Drivings of their own, by the number of the face."""
    given = call.params.mapping("faces")
    if len(given) > MOST_FACES or not all(
        face.isascii() and face.isdigit() and len(face) < 4 for face in given
    ):
        raise bad_params("faces has numbers of faces as names.")
    if not all(isinstance(each, dict) for each in given.values()):
        raise bad_params("faces holds an input for each face.")
    return {
        face: input_of(each, call.session, call.server.store, library=True) for face, each in given.items()
    }


async def job_list(call: Call) -> Answer:
    call.params.end()
    return {"jobs": [job.as_json() for job in call.session.jobs.values()]}


async def job_cancel(call: Call) -> Answer:
    job = call.session.job(call.params.text("job"))
    call.params.end()
    call.server.jobs.cancel(call.session, job)
    return {"state": job.state}


async def job_resume(call: Call) -> Answer:
    job = call.session.job(call.params.text("job"))
    first = call.params.integer("first_frame", 0)
    call.params.end()
    call.server.jobs.resume(call.session, job, first)
    return _job(job)


def _job(job: Job) -> Answer:
    return {"job": job.number, "state": job.state, "key": job.key}


def _models_folder(call: Call) -> Path | None:
    if not call.params.has("models"):
        return None
    path = Path(call.params.text("models"))
    check_models(options_of({"models": str(path)}), call.session)
    if not path.is_absolute():
        raise bad_params("models has to be absolute.")
    return path


async def models_list(call: Call) -> Answer:
    from backend import models

    given = _models_folder(call)
    call.params.end()
    folder = models.models_folder(given)
    checked = await asyncio.to_thread(models.verify, folder, hashing=False)
    return {
        "folder": str(folder),
        "repository": models.REPOSITORY,
        "files": [item.as_json() for item in checked],
    }


async def models_download(call: Call) -> Answer:
    from backend import models

    given = _models_folder(call)
    revision = call.params.text("revision", longest=200) if call.params.has("revision") else None
    call.params.end()

    async def download(told: Callable[[Mapping[str, Any]], None], cancel: asyncio.Event) -> Answer:
        loop, stop = asyncio.get_running_loop(), threading.Event()

        def moved(step: models.Transferred) -> None:
            event = {"event": "progress", "stage": "download", "done": step.all_done, "total": step.all_size}
            loop.call_soon_threadsafe(told, event)

        def fetch() -> Answer:
            folder = models.models_folder(given)
            plan = models.make_plan(folder, revision)
            models.carry_out(plan, moved, stop)
            return {"folder": str(folder), "fetched": [item.file.name for item in plan.items if item.fetch]}

        async with call.server.downloading:
            wish = asyncio.create_task(cancel.wait())
            wish.add_done_callback(lambda task: stop.set())
            try:
                return await asyncio.to_thread(fetch)
            finally:
                wish.cancel()

    return _job(call.server.jobs.submit(call.session, "models.download", download))


async def unload(call: Call) -> Answer:
    call.params.end()
    if call.server.worker.busy:
        raise RequestError("busy", "A job is running.", "Cancel it or wait for its end.")
    await call.server.worker.stop()
    return {"unloaded": True}


async def shutdown(call: Call) -> Answer:
    call.params.end()
    if not call.session.local:
        raise RequestError(
            "forbidden", "Only a client on this machine may end the server.", "Prove it with the nonce."
        )
    call.server.close("asked to")
    return {"closing": True}


METHODS: Mapping[str, Method] = {
    "prove": prove,
    "status": status,
    "upload.begin": upload_begin,
    "upload.finish": upload_finish,
    "upload.cancel": upload_cancel,
    "source.open": source_open,
    "source.close": source_close,
    "preview": preview,
    "motion.capture": motion_capture,
    "animate": animate,
    "render": render,
    "job.list": job_list,
    "job.cancel": job_cancel,
    "job.resume": job_resume,
    "models.list": models_list,
    "models.download": models_download,
    "unload": unload,
    "shutdown": shutdown,
}
