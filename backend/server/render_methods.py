# SPDX-License-Identifier: GPL-3.0-or-later
"""Jobs of the worker: motion is captured and converted, pictures are rendered."""

from __future__ import annotations

import asyncio
from typing import Any

from backend.server.calls import Answer, Call, job_answer
from backend.server.delivery import Wanted
from backend.server.inputs import (
    OF_CAPTURE,
    check_models,
    input_of,
    key_of,
    resolved_engine,
    sha256_of,
    some_options,
)
from backend.server.jobs import WorkSpec
from backend.server.messages import bad_params
from backend.server.params import options_of
from backend.server.sessions import Input

MOST_FACES = 32


async def motion_capture(call: Call) -> Answer:
    server, session, params = call.server, call.session, call.params
    driving = input_of(params.mapping("driving", needed=True), session, server.store, library=True)
    given, mouths = params.mapping("options"), params.flag("keep_mouth")
    params.end()
    options = options_of(given)
    check_models(options, session)

    def identified(engine: str) -> tuple[str, dict[str, Any]]:
        asked = {**some_options(options, OF_CAPTURE), "engine": engine}
        inputs = {"driving": sha256_of(driving, server.store)}
        known = key_of("motion", inputs, asked)
        task = {"do": "capture", "driving": driving.as_task(), "options": given, "key": known}
        return key_of("capture", inputs, {**asked, "mouths": mouths}), {
            **task,
            "engine": engine,
            "keep_mouth": mouths,
            "target": "motion.npz",
        }

    async def identify() -> tuple[str, dict[str, Any]]:
        engine = await resolved_engine(options, given, server.worker)
        return await asyncio.to_thread(identified, engine)

    wanted = Wanted("none", (("motion.npz", "motion.npz"),), server.limits.chunk)
    return job_answer(server.jobs.submit(session, "motion.capture", WorkSpec(identify, wanted, keeps=True)))


async def motion_convert(call: Call) -> Answer:
    """A motion file as one of the other kind."""
    server, session, params = call.server, call.session, call.params
    motion = input_of(params.mapping("motion", needed=True), session, server.store, library=True)
    form = params.word("format", ("npz", "pkl"))
    params.end()
    name = f"motion.{form}"

    async def identify() -> tuple[str, dict[str, Any]]:
        sha256 = await asyncio.to_thread(sha256_of, motion, server.store)
        key = key_of("convert", {"motion": sha256}, {"format": form})
        return key, {"do": "convert", "motion": motion.as_task(), "target": name}

    wanted = Wanted("none", ((name, name),), server.limits.chunk)
    return job_answer(server.jobs.submit(session, "motion.convert", WorkSpec(identify, wanted, keeps=True)))


async def animate(call: Call) -> Answer:
    return _animate(call, "animate", "driving", "motion")


async def render(call: Call) -> Answer:
    return _animate(call, "render", "motion", "with_motion")


def _animate(call: Call, method: str, driver: str, file_flag: str) -> Answer:
    server, session, params = call.server, call.session, call.params
    source = input_of(params.mapping("source", needed=True), session, server.store, library=False)
    faces = _faces(call)
    given, with_motion = params.mapping("options"), params.flag(file_flag)
    drivers = dict(faces)
    # Expression controls alone are something to perform, too.
    if params.has(driver) or not (faces or given.get("controls")):
        drivers[""] = input_of(params.mapping(driver, needed=True), session, server.store, library=True)
    output = params.word("output", ("frames", "mp4"))
    form = params.word("format", ("png", "raw", "none"))
    first = params.integer("first_frame", 0)
    params.end()
    options = options_of(given)
    check_models(options, session)
    if output == "mp4" and with_motion:
        raise bad_params("The motion comes with frames alone.", "Leave it out, or use motion.capture.")

    def identified(engine: str) -> tuple[str, dict[str, Any]]:
        inputs = {f"driving {face}": sha256_of(each, server.store) for face, each in drivers.items()}
        inputs["source"] = sha256_of(source, server.store)
        asked = {**some_options(options), "engine": engine}
        motion_key = key_of(
            "motion",
            {"driving": inputs.get("driving ", "")},
            {**some_options(options, OF_CAPTURE), "engine": engine},
        )
        task = {
            "do": "animate",
            "source": str(source.path),
            "driving": drivers[""].as_task() if "" in drivers else None,
            "faces": {face: each.as_task() for face, each in faces.items()},
            "options": given,
            "engine": engine,
            "output": output,
            "only_motion": method == "render",
            "key": motion_key,
        }
        return key_of("animate", inputs, {**asked, "output": output}), task

    async def identify() -> tuple[str, dict[str, Any]]:
        engine = await resolved_engine(options, given, server.worker)
        return await asyncio.to_thread(identified, engine)

    if output == "mp4":
        wanted = Wanted("none", (("result.mp4", "result.mp4"),), server.limits.chunk)
    else:
        files = (("motion.npz", "frames/motion.npz"),) if with_motion else ()
        wanted = Wanted(form, files, server.limits.chunk)
    return job_answer(server.jobs.submit(session, method, WorkSpec(identify, wanted), first))


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
