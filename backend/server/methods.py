# SPDX-License-Identifier: GPL-3.0-or-later
"""The methods of the protocol, by name; those here are the server's own affairs."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from backend.library import library_facts
from backend.server.calls import Answer, Call, Method, job_answer
from backend.server.messages import RequestError, bad_params, too_many
from backend.server.model_methods import models_download, models_list
from backend.server.params import SHA256
from backend.server.render_methods import animate, motion_capture, motion_convert, render
from backend.server.source_methods import preview, source_close, source_faces, source_open

__all__ = ["METHODS", "Call"]


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


async def library_list(call: Call) -> Answer:
    call.params.end()
    return {"motions": await asyncio.to_thread(library_facts)}


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
    return job_answer(job)


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
    "library.list": library_list,
    "source.faces": source_faces,
    "source.open": source_open,
    "source.close": source_close,
    "preview": preview,
    "motion.capture": motion_capture,
    "motion.convert": motion_convert,
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
