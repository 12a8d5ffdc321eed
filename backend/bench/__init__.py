# SPDX-License-Identifier: GPL-3.0-or-later
"""`python -m backend bench`: speed, memory and quality on this machine, as a table and as JSON."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from backend.bench.report import Report
from backend.errors import InputError
from backend.results import check_writable

if TYPE_CHECKING:
    from backend.bench.neural import Wanted


def run(
    suite: str,
    *,
    data: Path | None = None,
    output: Path | None = None,
    quick: bool = False,
    as_json: bool = False,
    wanted: Wanted | None = None,
) -> int:
    """Run a suite (`wanted`: what the neural one is to measure), show and write its figures; 0 whatever they
    are, so that a slow machine is no failure.
    """
    from backend.bench import left_out, memory, neural, quality, retargeting, server, speed
    from backend.bench.material import Material
    from backend.engines import choose
    from backend.options import Options

    if data is not None and not (data / "driving").is_dir():
        raise InputError(
            f"{data} has no folder driving/.", "Give a folder with driving/ and perhaps templates/."
        )
    if output is not None:
        check_writable(output.parent)
    report = Report(suite)
    engine = choose(Options(engine="mesh")).engine
    with tempfile.TemporaryDirectory(prefix="liveportrait-bench-") as folder:
        scratch = Path(folder)
        material = Material(data, scratch, engine)
        if suite == "server":
            server.measure(report, material, scratch, quick)
        elif suite == "neural":
            neural.measure(report, material, scratch, wanted or neural.Wanted(), quick)
        elif suite == "retargeting":
            retargeting.measure(report, material, scratch, engine, quick)
        else:
            speed.measure(report, material, scratch, engine, quick)
            quality.measure(report, material, scratch, engine, quick)
            if data is not None and not quick:
                left_out.measure(report, data)
            memory.measure(report, material, scratch, quick)
    if data is None:
        report.notes.append("Measured on a drawn face; --data DIR measures real clips.")
    if output is not None:
        report.write(output)
    if as_json:
        sys.stdout.write(json.dumps(report.as_json()) + "\n")
    else:
        report.show(sys.stdout)
    return 0
