# SPDX-License-Identifier: GPL-3.0-or-later
"""The real server with two methods more, which are broken.

    python -m tests.contract.server_with_faults serve ...
"""

from __future__ import annotations

import sys
from typing import Any

from backend.cli import main
from backend.server import methods
from backend.server.calls import Call, job_answer


async def broken(call: Call) -> dict[str, Any]:
    raise ZeroDivisionError("a secret of the server")


async def broken_job(call: Call) -> dict[str, Any]:
    return job_answer(call.server.jobs.submit(call.session, "broken.job", lambda *_: broken(call)))


if __name__ == "__main__":
    methods.METHODS = {**methods.METHODS, "broken": broken, "broken.job": broken_job}
    from backend.server import connection

    connection.METHODS = methods.METHODS
    sys.exit(main())
