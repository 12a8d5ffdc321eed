# SPDX-License-Identifier: GPL-3.0-or-later
"""`blender -b --command liveportrait animate SOURCE DRIVING -o OUT`, and capture and render.

The backend is the one of the add-on's preferences; all its options go by the names that they have everywhere.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import bpy

from . import pump, requests, results, runtime, scene_jobs
from .client import BackendError
from .job_records import JobRecord
from .names import UserError
from .properties import controls, options

NAME = "liveportrait"
FAULT, BAD_INPUT, INTERRUPTED = 1, 2, 130
FAULTS = ("fault", "internal", "worker-crashed", "lost", "timeout", "engine", "output")
START = 1  # scene frame of the first picture in a new file

_handle: Any = None


class Parser(argparse.ArgumentParser):
    """argparse whose errors are one sentence."""

    def error(self, message: str) -> NoReturn:
        raise UserError(message[:1].upper() + message[1:] + ".", f"Try: {self.prog} --help")


def build_parser() -> Parser:
    """The commands and their options, out of the tables that the backend and the panel share."""
    parser = Parser(
        prog=f"blender -b --command {NAME}",
        description="Moving portraits from a picture and a driving clip.",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, dest="command")
    place = "a new folder for the frames, or a .blend file, which gets an image plane that shows them"
    animate = commands.add_parser("animate", help="a picture or clip performs a driving", allow_abbrev=False)
    animate.add_argument("source", metavar="SOURCE")
    animate.add_argument("driving", metavar="DRIVING", nargs="?", default="")
    render = commands.add_parser("render", help="a picture or clip performs a motion", allow_abbrev=False)
    render.add_argument("source", metavar="SOURCE")
    render.add_argument("motion", metavar="MOTION")
    for command in (animate, render):
        command.add_argument("-o", "--output", metavar="OUT", type=Path, required=True, help=place)
        command.add_argument("--name", default="", help="of the result in a .blend file")
        command.add_argument("--start-frame", type=int, help="scene frame of its first picture [1]")
        _add_options(command, faces=command is animate)
        _add_controls(command)
    capture = commands.add_parser("capture", help="keep a performance as a motion file", allow_abbrev=False)
    capture.add_argument("driving", metavar="DRIVING")
    capture.add_argument("-o", "--output", metavar="MOTION.npz", type=Path, required=True)
    _add_options(capture)
    return parser


def _add_options(parser: argparse.ArgumentParser, faces: bool = False) -> None:
    for name, row in options.rows().items():
        flag = f"--{name.replace('_', '-')}"
        words: dict[str, Any] = {"default": None, "help": _percents(row["description"])}
        if faces and name == "face":
            words = {"action": "append", "default": [], "metavar": "N|N:DRIVING"}
            more = "; with DRIVING, once for each face, it is driven by that"
            parser.add_argument(flag, help=_percents(row["description"]) + more, **words)
        elif row["type"] == "boolean":
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, **words)
        elif row["type"] == "choice":
            parser.add_argument(flag, choices=[choice["name"] for choice in row["choices"]], **words)
        else:
            parser.add_argument(flag, metavar=row["type"].upper(), **words)


def _add_controls(parser: argparse.ArgumentParser) -> None:
    for name, row in controls.rows().items():
        words: dict[str, Any] = {"type": float, "metavar": "VALUE", "dest": f"control_{name}"}
        parser.add_argument(f"--{name.replace('_', '-')}", help=_percents(row["label"]), **words)


def _percents(text: str) -> str:
    return text.replace("%", "%%")


def options_of(parsed: argparse.Namespace) -> dict[str, Any]:
    """The protocol's options out of the flags that were given. Raises UserError."""
    found: dict[str, Any] = {}
    for name, row in options.rows().items():
        text = getattr(parsed, name)
        if isinstance(text, list):  # --face, for animate
            alone = [one for one in text if ":" not in one]
            if len(alone) > 1:
                raise UserError("--face is given twice.", "Give one number, or N:DRIVING for each face.")
            text = alone[0] if alone else None
        if text is not None:
            found[name] = _value(f"--{name.replace('_', '-')}", row, text)
    sliders = {name: getattr(parsed, f"control_{name}", None) for name in controls.rows()}
    if any(value is not None for value in sliders.values()):
        found["controls"] = {name: value for name, value in sliders.items() if value is not None}
    return found


def faces_of(parsed: argparse.Namespace) -> dict[str, str]:
    """What drives each face that is given a driving of its own. Raises UserError."""
    found: dict[str, str] = {}
    for text in parsed.face if parsed.command == "animate" else ():
        number, colon, driving = text.partition(":")
        if colon and number in found:
            raise UserError(f"Face {number} is given two drivings.", "Give each face one.")
        if colon:
            found[number] = driving
    return found


def _value(flag: str, row: dict[str, Any], text: Any) -> Any:
    if not isinstance(text, str) or row["type"] in ("choice", "rate", "folder"):
        return str(Path(text).absolute()) if row["type"] == "folder" else text
    if text in (row.get("words") or ()):
        return text
    try:
        if row["type"] == "range":
            first, _, stop = text.partition(":")
            return [int(first or 0), int(stop) if stop else None]
        return int(text) if row["type"] == "integer" else float(text)
    except ValueError:
        raise UserError(f"{flag} {text} is not understood.", f"Give {row['type']}.") from None


def run(arguments: Sequence[str]) -> int:
    """Carry out a command: its exit code. Every failure is one line."""
    try:
        parsed = build_parser().parse_args(list(arguments), argparse.Namespace(fresh=False))
        record = _submit(parsed)
        _follow(record)
        scene_jobs.wait(record)
        _finish(parsed, record)
    except SystemExit as end:  # of --help
        return int(end.code or 0)
    except KeyboardInterrupt:
        return _fail("Interrupted.", INTERRUPTED)
    except UserError as error:
        code = FAULT if runtime.session.state.kind in ("failed", "silent") else BAD_INPUT
        return _fail(str(error), code)
    except BackendError as error:
        return _fail(str(error), FAULT if error.code in FAULTS else BAD_INPUT)
    finally:
        runtime.session.stop()
    return 0


def _submit(parsed: argparse.Namespace) -> JobRecord:
    given, output = options_of(parsed), parsed.output.absolute()
    if parsed.command == "capture":
        if output.suffix.lower() != ".npz":
            raise UserError(f"Cannot write {output.name}.", "Give a name that ends in .npz.")
        chosen = requests.from_text(parsed.driving)
        folder = output.parent / f".{output.name}.part"
        return runtime.session.submit(
            requests.CaptureRequest(chosen.value, given, folder, f"Capture {chosen.label}")
        )
    if output.suffix.lower() == ".blend":
        return _into_file(parsed, given, output)
    if output.suffix:
        raise UserError(f"Cannot write {output.name}.", "Give a folder, or a name that ends in .blend.")
    if output.exists() and any(output.iterdir()):
        raise UserError(f"{output} is not empty.", "Give a new folder.")
    source = requests.from_text(parsed.source, library=False)
    if not isinstance(source.value, Path):
        raise UserError(f'There is no picture "{parsed.source}".', "Give a picture or a clip.")
    if parsed.command == "render":
        motion = requests.from_text(parsed.motion)
        return runtime.session.submit(
            requests.RenderRequest(source.value, motion.value, given, output, source.label)
        )
    driving = requests.from_text(parsed.driving).value if parsed.driving else None
    faces = {number: one.value for number, one in requests.faces_from(faces_of(parsed)).items()}
    return runtime.session.submit(
        requests.AnimateRequest(source.value, driving, given, output, source.label, faces=faces)
    )


def _into_file(parsed: argparse.Namespace, given: dict[str, Any], output: Path) -> JobRecord:
    """A job whose result lands in a .blend file, a new one if need be."""
    if output.exists():
        bpy.ops.wm.open_mainfile(filepath=str(output))
    else:
        bpy.ops.wm.read_homefile(use_empty=True)
        bpy.ops.wm.save_as_mainfile(filepath=str(output))  # frames go beside it
        parsed.fresh = True
    start = START if parsed.start_frame is None else parsed.start_frame
    place = {"kind": "PLANE", "name": parsed.name, "start": start}
    if parsed.command == "render":
        source = requests.from_text(parsed.source, library=False)
        motion = Path(parsed.motion).absolute()
        asked = {"fps": requests.scene_rate(bpy.context.scene), **given}
        return scene_jobs.render_performance(bpy.context, motion, source=source, options=asked, **place)
    return scene_jobs.animate(
        bpy.context,
        source=parsed.source,
        driving=parsed.driving,
        faces=faces_of(parsed),
        options=given,
        **place,
    )


def _follow(record: JobRecord) -> None:
    """Wait, with a line that tells how far it is where somebody looks at it."""
    shown = ""
    if not sys.stderr.isatty():
        return
    while not pump.run_until(lambda: record.settled, 0.2):
        if runtime.session.state.kind == "silent":
            break
        if record.text != shown:
            shown = record.text
            sys.stderr.write(f"\r\x1b[K{shown}")
            sys.stderr.flush()
    sys.stderr.write("\r\x1b[K")


def _finish(parsed: argparse.Namespace, record: JobRecord) -> None:
    output = parsed.output.absolute()
    if parsed.command == "capture":
        (record.folder / "motion.npz").replace(output)
        record.folder.rmdir()
        said = f"{output}: {(record.result or {}).get('frames')} frames"
    elif output.suffix.lower() == ".blend":
        with _without_backup() if parsed.fresh else contextlib.nullcontext():
            bpy.ops.wm.save_mainfile()
        said = f"{output}: {results.frames_in(record.folder)} frames in {record.folder}"
    else:
        (output / "result.json").write_text(json.dumps(record.result, indent=1, ensure_ascii=False), "utf-8")
        said = f"{output}: {results.frames_in(output)} frames"
    for warning in record.warnings:
        sys.stderr.write(f"warning: {warning}\n")
    sys.stdout.write(said + "\n")


@contextlib.contextmanager
def _without_backup() -> Iterator[None]:
    """A new file has no version before it that would be worth a .blend1."""
    preferences = bpy.context.preferences
    before, changed = preferences.filepaths.save_version, preferences.is_dirty
    preferences.filepaths.save_version = 0
    try:
        yield
    finally:
        preferences.filepaths.save_version = before
        preferences.is_dirty = changed


def _fail(sentence: str, code: int) -> int:
    sys.stderr.write("error: " + " ".join(sentence.split()) + "\n")
    return code


def register() -> None:
    global _handle
    _handle = bpy.utils.register_cli_command(NAME, run)


def unregister() -> None:
    global _handle
    if _handle is not None:
        bpy.utils.unregister_cli_command(_handle)
        _handle = None
