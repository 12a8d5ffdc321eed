# SPDX-License-Identifier: GPL-3.0-or-later
"""The neural engine's weights: listed and downloaded."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from backend import models
from backend.server.calls import Answer, Call, job_answer
from backend.server.inputs import check_models
from backend.server.messages import bad_params
from backend.server.params import options_of


def _models_folder(call: Call) -> Path | None:
    if not call.params.has("models"):
        return None
    path = Path(call.params.text("models"))
    check_models(options_of({"models": str(path)}), call.session)
    if not path.is_absolute():
        raise bad_params("models has to be absolute.")
    return path


async def models_list(call: Call) -> Answer:
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

    return job_answer(call.server.jobs.submit(call.session, "models.download", download))
