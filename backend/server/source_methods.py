# SPDX-License-Identifier: GPL-3.0-or-later
"""Sources that a client opens to look at: their faces, their measurements, previews."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backend.library import library_file
from backend.server.calls import Answer, Call, ignore
from backend.server.inputs import (
    OF_SOURCE,
    check_models,
    input_of,
    key_of,
    resolved_engine,
    sha256_of,
    some_options,
)
from backend.server.messages import RequestError, binary, too_many
from backend.server.params import options_of
from backend.server.sessions import Input, OpenSource

if TYPE_CHECKING:
    from backend.server.app import Server

LARGEST_THUMBNAIL = 512  # pixels across


async def source_faces(call: Call) -> Answer:
    """The faces that can be chosen, with a small picture of each if asked."""
    server, session, params = call.server, call.session, call.params
    file = input_of(params.mapping("source", needed=True), session, server.store, library=False)
    given, across = params.mapping("options"), params.integer("thumbnail", 0, LARGEST_THUMBNAIL)
    params.end()
    check_models(options_of(given), session)
    task = {"do": "faces", "source": str(file.path), "options": given, "thumbnail": across}
    never = asyncio.Event()
    async with server.jobs.quick.turn(session.number, never):
        told, pictures = await server.worker.run("quick", task, ignore, never)
    sizes, at = told.pop("sizes"), 0
    for face, size in zip(told["faces"], sizes, strict=False):
        header = {"type": "thumbnail", "request": call.identity, "number": face["number"], "format": "png"}
        await session.send(binary({**header, "width": across, "height": across}, pictures[at : at + size]))
        at += size
    return told


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
        task = await _source_task(server, source, given)
        never = asyncio.Event()
        async with server.jobs.quick.turn(session.number, never):
            result, _ = await server.worker.run("quick", {**task, "do": "open"}, ignore, never)
    except BaseException:
        session.sources.pop(number, None)
        raise
    return {"source": number, **result}


async def _source_task(server: Server, source: OpenSource, given: Mapping[str, Any]) -> dict[str, Any]:
    """What a task says of an opened source, with the options of this request."""
    given = {**source.given, **given}
    options = options_of(given)
    engine = await resolved_engine(options, given, server.worker)
    asked = {**some_options(options, OF_SOURCE), "engine": engine}
    sliders = sorted(name for name in options.controls if name in ("eyes_open", "lips_open_target"))
    sha256 = await asyncio.to_thread(sha256_of, source.file, server.store)
    key = key_of("source", {"source": sha256}, {**asked, "sliders": sliders})
    return {"source": str(source.file.path), "key": key, "engine": engine, "options": given}


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
    task = {**await _source_task(server, source, given), **task}
    try:
        async with server.jobs.quick.turn(session.number, mine):
            if mine.is_set():
                raise RequestError("cancelled", "Cancelled.")
            if session.preview is mine:
                session.preview = None
            result, pixels = await server.worker.run("quick", task, ignore, asyncio.Event())
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
    return file.path if file.path is not None else library_file(file.library)
