# SPDX-License-Identifier: GPL-3.0-or-later
"""The figures of a run: kept as rows, shown as tables, written as JSON with the machine's name."""

from __future__ import annotations

import json
import math
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TextIO

from backend import __version__
from backend.results import write_atomically


@dataclass(frozen=True)
class Row:
    """One figure. `target` is what it must reach (None: for information); `at_least` says on which side it
    lies.
    """

    group: str
    name: str
    value: float
    unit: str = ""
    target: float | None = None
    at_least: bool = True

    @property
    def reached(self) -> bool | None:
        if self.target is None or math.isnan(self.value):
            return None
        return self.value >= self.target if self.at_least else self.value <= self.target


@dataclass
class Report:
    suite: str
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    def add(
        self,
        group: str,
        name: str,
        value: float,
        unit: str = "",
        *,
        at_least: float | None = None,
        at_most: float | None = None,
    ) -> None:
        target = at_most if at_least is None else at_least
        limit = None if target is None else float(target)
        self.rows.append(Row(group, name, float(value), unit, limit, at_most is None))

    def as_json(self) -> dict[str, Any]:
        rows = [
            {**asdict(row), "value": None if math.isnan(row.value) else row.value, "reached": row.reached}
            for row in self.rows
        ]
        return {
            "format": "liveportrait-bench/1",
            "suite": self.suite,
            "version": __version__,
            "machine": machine(),
            "seconds": round(time.monotonic() - self.began, 1),
            "rows": rows,
            "notes": self.notes,
        }

    def write(self, path: Path) -> None:
        """Raises OutputError."""
        write_atomically(path, json.dumps(self.as_json(), indent=1))

    def show(self, stream: TextIO) -> None:
        """A table a group."""
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        console = Console(file=stream, highlight=False)
        about = machine()
        console.print(
            Text(f"{about['processor']}, {about['cores']} cores, {about['system']}, load {about['load']}")
        )
        for group in dict.fromkeys(row.group for row in self.rows):
            table = Table(title=group, title_justify="left", box=None)
            for heading, side in (("", "left"), ("figure", "right"), ("target", "right"), ("", "left")):
                table.add_column(heading, justify=side)  # type: ignore[arg-type]
            for row in (row for row in self.rows if row.group == group):
                mark = {True: Text("ok", "green"), False: Text("missed", "red"), None: Text("")}[row.reached]
                sign = "≥" if row.at_least else "≤"
                target = "" if row.target is None else f"{sign} {_short(row.target)}"
                table.add_row(row.name, f"{_short(row.value)} {row.unit}".strip(), target, mark)
            console.print(table)
        for note in self.notes:
            console.print(Text(note))


def _short(value: float) -> str:
    if math.isnan(value):
        return "-"
    return f"{value:.4g}" if abs(value) < 1000 else f"{value:.0f}"


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }


def _processor() -> str:
    names: Sequence[str] = ()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = cpuinfo.read_text("utf-8", errors="replace").splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
