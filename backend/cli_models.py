# SPDX-License-Identifier: GPL-3.0-or-later
"""`models list | download | verify | export`: what weights are here, fetching, checking, converting them."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backend.errors import Cancelled
from backend.networks.onnx_files import FILES, FOLDER
from backend.progress import JSON_INTERVAL, JsonLines

if TYPE_CHECKING:
    from backend.models import Checked, Item, Plan, Transferred

AddCommand = Callable[[Any, str, Callable[[argparse.Namespace], int], str], argparse.ArgumentParser]


def add_model_commands(commands: Any, add: AddCommand) -> None:
    """Add the words after `models`; `add` makes a command's parser with the flags that all commands have."""
    listing = add(commands, "list", _list, "which of the released files are here")
    download = add(commands, "download", _download, "fetch the released weights from Hugging Face")
    download.add_argument("--revision", metavar="COMMIT", help="a commit, tag or branch of the repository")
    download.add_argument(
        "--replace", action="store_true", help="fetch also what is here and sound, but not the same"
    )
    download.add_argument("--dry-run", action="store_true", help="only show what would be fetched")
    download.add_argument("--offline", action="store_true", help="ask nobody; fail if anything is missing")
    verify = add(commands, "verify", _verify, "check the weights that are here: sizes, checksums, tensors")
    verify.add_argument("--quick", action="store_true", help="leave the checksums out")
    export = add(commands, "export", _export, "write the networks in another form")
    export.add_argument(
        "--onnx", action="store_true", required=True, help="as ONNX files (opset 20), for --runtime onnx"
    )
    export.add_argument(
        "-o", "--output", type=Path, metavar="FOLDER", help="where to [onnx in the weights' folder]"
    )
    export.add_argument("--only", action="append", default=[], choices=tuple(FILES), help="this one alone")
    export.add_argument("--fused", action="store_true", help="warping and drawing as one file, too")
    for parser in (listing, download, verify, export):
        parser.add_argument(
            "--models", type=Path, metavar="DIR", help="the folder of the weights [the user's data folder]"
        )


def _list(parsed: argparse.Namespace) -> int:
    from backend import models

    folder = models.models_folder(parsed.models)
    checked = models.verify(folder, hashing=False)
    if parsed.json:
        content = {"folder": str(folder), "repository": models.REPOSITORY}
        files = [item.as_json() for item in checked]
        sys.stdout.write(json.dumps({**content, "files": files}, indent=1) + "\n")
        return 0
    rows = [
        (
            item.file.path,
            _megabytes(item.size or item.file.size),
            item.file.licence,
            _state(item),
            item.file.what,
        )
        for item in checked
    ]
    _show_table(f"{models.REPOSITORY} in {folder}", ("file", "size", "licence", "state", "for"), rows)
    if not all(item.usable for item in checked if item.file.required):
        sys.stdout.write("Fetch what is missing: python -m backend models download\n")
    return 0


def _state(item: Checked) -> str:
    if item.state == "good":
        return "here"
    return item.state if item.state != "damaged" else f"damaged: {item.said}"


def _download(parsed: argparse.Namespace) -> int:
    from backend import models

    folder = models.models_folder(parsed.models)
    plan = models.make_plan(folder, parsed.revision, parsed.replace, parsed.offline)
    _show_plan(plan, parsed.json)
    if not parsed.dry_run:
        try:
            with _reporting(parsed.json) as progress:
                models.carry_out(plan, progress)
        except KeyboardInterrupt:
            raise Cancelled(
                "Interrupted.", "What has come is kept; the same command goes on from there."
            ) from None
    fetched = [item for item in plan.items if item.fetch]
    if parsed.json:
        revision = None if plan.listing is None else plan.listing.revision
        names = [item.file.name for item in fetched if not parsed.dry_run]
        JsonLines(sys.stdout).emit("result", folder=str(folder), fetched=names, revision=revision)
    elif fetched and not parsed.dry_run:
        sys.stdout.write(f"{len(fetched)} files are in {folder}, checksums agree.\n")
    return 0


def _show_plan(plan: Plan, as_json: bool) -> None:
    """What will be fetched, with sizes and licences, before anything is."""
    from backend.models.catalogue import REPOSITORY

    endpoint = revision = None
    if plan.listing is not None:
        endpoint, revision = plan.listing.endpoint, plan.listing.revision
    if as_json:
        files = [
            {
                "name": item.file.name,
                "path": str(item.path),
                "size": item.size,
                "have": item.have,
                "licence": item.file.licence,
                "fetch": item.fetch,
            }
            for item in plan.items
        ]
        JsonLines(sys.stdout).emit(
            "plan",
            repository=REPOSITORY,
            endpoint=endpoint,
            revision=revision,
            bytes=plan.bytes_to_fetch,
            files=files,
        )
        return
    if not any(item.fetch for item in plan.items):
        sys.stdout.write(f"Everything is in {plan.folder}; nothing to fetch.\n")
        return
    rows = [
        (item.file.path, _megabytes(item.size), item.file.licence, _intent(item), item.file.what)
        for item in plan.items
    ]
    title = f"{REPOSITORY} at {str(revision)[:12]} from {endpoint} to {plan.folder}"
    _show_table(title, ("file", "size", "licence", "plan", "for"), rows)
    sys.stdout.write(f"To fetch: {_megabytes(plan.bytes_to_fetch)}. Code and weights: MIT licence.\n")
    sys.stdout.flush()


def _intent(item: Item) -> str:
    if not item.fetch:
        return "is here"
    return f"go on from {_megabytes(item.have)}" if item.have else "fetch"


def _verify(parsed: argparse.Namespace) -> int:
    from backend import models

    folder = models.models_folder(parsed.models)
    checked = models.verify(folder, hashing=not parsed.quick)
    usable = all(item.usable for item in checked if item.file.required)
    if parsed.json:
        files = [item.as_json() for item in checked]
        sys.stdout.write(
            json.dumps({"folder": str(folder), "usable": usable, "files": files}, indent=1) + "\n"
        )
    else:
        for item in checked:
            mark = "ok" if item.state == "good" else item.state
            sys.stdout.write(f"{mark:<8} {item.path or item.file.path}: {item.said}\n")
        if not usable:
            sys.stdout.write("Fetch what is missing or damaged: python -m backend models download\n")
    return 0 if usable and not any(item.state == "damaged" for item in checked) else 1


def _export(parsed: argparse.Namespace) -> int:
    from backend import models
    from backend.errors import EngineError
    from backend.options import Options

    found = models.find(Options(engine="neural", models=parsed.models, device="cpu"))
    if isinstance(found, models.NotAvailable):
        raise EngineError(f"There is nothing to export: {found.why}.", found.advice)
    from backend.networks.onnx_export import export

    folder = parsed.output or found.folder / FOLDER
    with _counting(parsed.json) as report:
        paths = export(found.files, folder, only=parsed.only, fused=parsed.fused, report=report)
    if parsed.json:
        names = [path.name for path in paths]
        JsonLines(sys.stdout).emit("result", folder=str(folder), written=names)
    else:
        total = _megabytes(sum(path.stat().st_size for path in paths))
        sys.stdout.write(f"{len(paths)} networks are in {folder} ({total}); each gives PyTorch's numbers.\n")
    return 0


@contextlib.contextmanager
def _counting(as_json: bool) -> Iterator[Callable[[str, int, int], None]]:
    """How an export's progress is told."""
    if as_json:
        lines = JsonLines(sys.stdout)
        yield lambda name, done, total: lines.emit("progress", stage="export", done=done, total=total)
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True) as bar:
        task = bar.add_task("")
        yield lambda name, done, total: bar.update(task, description=name, completed=done, total=total)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"


def _show_table(title: str, heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for head in heads:
        table.add_column(head, justify="right" if head == "size" else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    width = None if sys.stdout.isatty() else 160
    console = Console(file=sys.stdout, highlight=False, width=width)
    console.print(Text(title, style="bold"))
    console.print(table)


@contextlib.contextmanager
def _reporting(as_json: bool) -> Iterator[Callable[[Transferred], None]]:
    """How progress is told: JSON lines when asked for, a bar on a terminal, else not at all."""
    if as_json:
        yield _json_report()
    elif sys.stderr.isatty():
        with _bar() as report:
            yield report
    else:
        yield lambda moved: None


def _json_report() -> Callable[[Transferred], None]:
    lines, last = JsonLines(sys.stdout), [0.0]

    def report(moved: Transferred) -> None:
        now = time.monotonic()
        if now - last[0] < JSON_INTERVAL and moved.done < moved.size:
            return
        last[0] = now
        lines.emit(
            "progress",
            stage="download",
            file=moved.name,
            done=moved.all_done,
            total=moved.all_size,
            unit="bytes",
        )

    return report


@contextlib.contextmanager
def _bar() -> Iterator[Callable[[Transferred], None]]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("Asking the hub", total=None)

        def report(moved: Transferred) -> None:
            progress.update(task, description=moved.name, completed=moved.all_done, total=moved.all_size)

        yield report
