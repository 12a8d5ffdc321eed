# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line. Every failure is one line that says what to do; exit code 2 bad input, 1 fault, 130
Ctrl-C.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import json
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TextIO

from backend import __version__
from backend.cli_curves import add_convert_options, add_curve_options, run_convert, save_csv, wanted_motion
from backend.cli_models import add_model_commands
from backend.cli_options import (
    add_capture_options,
    add_engine_options,
    add_job_options,
    faces_from,
    options_from,
)
from backend.errors import Cancelled, InputError, LivePortraitError
from backend.progress import Bar, JsonLines, Progress, TextWarnings
from backend.server.command import add_serve_options

FAULT, BAD_INPUT, INTERRUPTED = 1, 2, 130


SOURCE_HELP = "a picture or clip with a human face"


class OneLineParser(argparse.ArgumentParser):
    """argparse without the usage text before an error; guesses what a wrong option was meant to be."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        if self._subparsers is None:
            for word in args or ():
                if word == "--":
                    break
                if word.startswith("--") and word.partition("=")[0] not in self._option_string_actions:
                    self._unknown(word.partition("=")[0])
        return super().parse_known_args(args, namespace)

    def _unknown(self, flag: str) -> NoReturn:
        near = difflib.get_close_matches(flag, self._option_string_actions, 1)
        guess = f"Did you mean {near[0]}? " if near else ""
        raise InputError(f"There is no option {flag}.", f"{guess}Try: {self.prog} --help")

    def error(self, message: str) -> NoReturn:
        raise InputError(message[:1].upper() + message[1:] + ".", f"Try: {self.prog} --help")


def build_parser() -> argparse.ArgumentParser:
    """All commands and options; DESIGN.md section 6."""
    parser = OneLineParser(
        prog="python -m backend",
        allow_abbrev=False,
        description="Moving portraits and performances from a picture and a driving clip.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(
        title="commands", metavar="COMMAND", required=True, parser_class=OneLineParser
    )

    animate = _command(
        commands, "animate", _animate, "a picture or clip performs a driving clip, motion or template"
    )
    animate.add_argument("source", metavar="SOURCE", type=Path, help=SOURCE_HELP)
    animate.add_argument(
        "driving",
        metavar="DRIVING",
        nargs="?",
        help="a clip, a picture, a motion .npz, a template .pkl or a name of the motion library; not needed"
        " where --face N:DRIVING says it for each face",
    )
    _add_result(animate)
    add_job_options(animate)

    capture = _command(commands, "capture", _capture, "keep a performance as a motion file")
    capture.add_argument("driving", metavar="DRIVING", help="a clip, a picture, a motion file or template")
    capture.add_argument(
        "-o",
        "--output",
        metavar="MOTION",
        type=Path,
        help="a motion .npz, or a template .pkl for the released program",
    )
    add_curve_options(capture)
    capture.add_argument(
        "--keep-mouth", action="store_true", help="also keep the pictures of the driver's mouth"
    )
    add_capture_options(capture)

    render = _command(commands, "render", _render, "a picture or clip performs a captured motion")
    render.add_argument("source", metavar="SOURCE", type=Path, help=SOURCE_HELP)
    render.add_argument(
        "driving",
        metavar="MOTION",
        nargs="?",
        help="a motion .npz, a template .pkl or a name of the library; or --face N:MOTION for each face",
    )
    _add_result(render)
    add_job_options(render)

    for command in (animate, capture, render):
        command.add_argument(
            "--server", metavar="URL", help="let a running server do it; LIVEPORTRAIT_TOKEN holds its token"
        )

    convert = _command(commands, "convert", run_convert, "a performance from one kind of file to another")
    add_convert_options(convert)

    doctor = _command(
        commands, "doctor", _doctor, "what is installed, which engine would run, and what is missing"
    )
    add_engine_options(doctor)

    models = commands.add_parser("models", help="the neural engine's weights", allow_abbrev=False)
    actions = models.add_subparsers(
        title="actions", metavar="ACTION", required=True, parser_class=OneLineParser
    )
    add_model_commands(actions, _command)

    serve = _command(commands, "serve", _serve, "run as a service that Blender and others talk to")
    add_serve_options(serve)

    bench = _command(commands, "bench", _bench, "measure speed, memory and quality on this machine")
    bench.add_argument("--suite", choices=("mesh", "retargeting", "neural", "server"), default="mesh")
    bench.add_argument(
        "--data", type=Path, metavar="DIR", help="real material: driving/, portraits/, templates/"
    )
    bench.add_argument("-o", "--output", type=Path, metavar="FILE", help="also write the figures as JSON")
    bench.add_argument("--quick", action="store_true", help="fewer frames; for a first look")
    bench.add_argument("--models", type=Path, metavar="DIR", help="weights for neural [generated ones]")
    bench.add_argument(
        "--device", choices=("auto", "cpu", "cuda", "mps"), default="auto", help="for neural [auto]"
    )
    bench.add_argument(
        "--baseline",
        action="store_true",
        help="for neural: the straightforward networks and onnxruntime, in turn with ours",
    )
    return parser


def _command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], int], summary: str
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=summary, description=summary, allow_abbrev=False
    )
    parser.set_defaults(run=run)
    parser.add_argument(
        "--json", action="store_true", help="progress and result as JSON lines on standard output"
    )
    parser.add_argument("--log-level", choices=("debug", "info", "warning", "error"), default="warning")
    parser.add_argument("--verbose", action="store_true", help="show where a failure comes from")
    return parser


def _add_result(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-o",
        "--output",
        metavar="OUT",
        type=Path,
        required=True,
        help="NAME.mp4, or a folder for 000000.png ..., motion.npz and result.json",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on after the last whole frame that this job has left here",
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    verbose = "--verbose" in given
    as_json = "--json" in given
    try:
        parsed = build_parser().parse_args(given)
        logging.basicConfig(level=parsed.log_level.upper(), format="%(levelname)s %(name)s: %(message)s")
        return int(parsed.run(parsed))
    except LivePortraitError as error:
        return _fail(error, error.exit_code, verbose, as_json)
    except KeyboardInterrupt:
        return _fail(Cancelled("Interrupted."), INTERRUPTED, verbose, as_json)
    except BrokenPipeError:
        # Nobody reads any more; without this Python would complain once more when it closes the stream.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAULT
    except Exception as error:  # noqa: BLE001 - the last resort: a fault of ours is one line too
        hint = "" if verbose else "Run again with --verbose for details."
        return _fail(
            LivePortraitError(f"Unexpected fault: {type(error).__name__}: {error}.", hint),
            FAULT,
            verbose,
            as_json,
        )


def _fail(error: LivePortraitError, code: int, verbose: bool, as_json: bool) -> int:
    if verbose:
        traceback.print_exc()
        if error.details:
            sys.stderr.write(error.details.rstrip() + "\n")
    sys.stderr.write("error: " + " ".join(str(error).split()) + "\n")
    if as_json:
        JsonLines(sys.stdout).emit("error", code=error.code, message=error.message, hint=error.hint)
    return code


@contextlib.contextmanager
def _reporting(parsed: argparse.Namespace) -> Iterator[Progress]:
    """JSON lines when asked for, a bar on a terminal, otherwise warnings only."""
    stream: TextIO = sys.stderr
    if parsed.json:
        yield JsonLines(sys.stdout)
    elif stream.isatty():
        with Bar(stream) as bar:
            yield bar
    else:
        yield TextWarnings(stream)


@contextlib.contextmanager
def _cancelled_by_signal() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C (or SIGTERM) sets, for an end in order; a second ends it at once."""
    cancel = threading.Event()

    def on_interrupt(number: int, frame: FrameType | None) -> None:
        if cancel.is_set():
            raise KeyboardInterrupt
        cancel.set()

    if threading.current_thread() is not threading.main_thread():
        yield cancel
        return
    before = {number: signal.signal(number, on_interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield cancel
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _animate(parsed: argparse.Namespace) -> int:
    if parsed.server is not None:
        return _animate_there(parsed)
    from backend.pipeline import animate

    with _cancelled_by_signal() as cancel, _reporting(parsed) as progress:
        summary = animate(
            parsed.source,
            parsed.driving,
            parsed.output,
            options_from(parsed),
            faces=faces_from(parsed),
            resume=parsed.resume,
            progress=progress,
            cancel=cancel,
        )
    return _made(parsed, summary.as_json())


def _animate_there(parsed: argparse.Namespace) -> int:
    from backend.server import remote

    with _cancelled_by_signal() as cancel, _reporting(parsed) as progress:
        told = remote.animate(
            parsed.server,
            parsed.source,
            parsed.driving,
            faces_from(parsed),
            parsed.output,
            options_from(parsed),
            progress,
            cancel,
        )
    return _made(parsed, told)


def _made(parsed: argparse.Namespace, told: Mapping[str, Any]) -> int:
    """Say what has come out: as JSON when asked for, as a line on a terminal."""
    if parsed.json:
        output = parsed.output if parsed.output is not None else parsed.csv
        JsonLines(sys.stdout).emit("result", output=str(output), **told)
    elif sys.stderr.isatty():
        frames, fps = told["frames"], told["fps"]
        many = "1 frame" if frames == 1 else f"{frames} frames, {frames / fps:.1f} s at {fps:.5g} fps"
        sys.stderr.write(f"{parsed.output or parsed.csv}: {many}\n")
    return 0


def _render(parsed: argparse.Namespace) -> int:
    from backend.driving import open_driving

    given = [parsed.driving] if parsed.driving is not None else []
    for driving in map(open_driving, [*given, *faces_from(parsed).values()]):
        if driving.motion is None:
            raise InputError(
                f"{driving.name} is a {driving.kind}, not a motion file.", "Use animate, or capture it first."
            )
    return _animate(parsed)


def _capture_there(parsed: argparse.Namespace) -> int:
    from backend.server import remote

    options = options_from(parsed)
    with _cancelled_by_signal() as cancel, _reporting(parsed) as progress, wanted_motion(parsed) as output:
        told = remote.capture(
            parsed.server, parsed.driving, output, options, parsed.keep_mouth, progress, cancel
        )
        save_csv(parsed, output)
    return _made(parsed, told)


def _capture(parsed: argparse.Namespace) -> int:
    if parsed.server is not None:
        return _capture_there(parsed)
    from backend.pipeline import capture_to_file

    with _cancelled_by_signal() as cancel, _reporting(parsed) as progress, wanted_motion(parsed) as output:
        motion = capture_to_file(
            parsed.driving,
            output,
            options_from(parsed),
            progress=progress,
            cancel=cancel,
            keep_mouth=parsed.keep_mouth,
        )
        save_csv(parsed, output)
    told = {
        "frames": len(motion),
        "fps": float(motion.fps),
        "valid_frames": int(motion.valid.sum()),
        "engine": motion.engine,
    }
    return _made(parsed, told)


def _doctor(parsed: argparse.Namespace) -> int:
    from backend.doctor import examine, show

    findings = examine(options_from(parsed))
    if parsed.json:
        sys.stdout.write(json.dumps(findings.as_json(), indent=1) + "\n")
    else:
        show(findings, sys.stdout)
    return 0 if findings.works else FAULT


def _serve(parsed: argparse.Namespace) -> int:
    from backend.server.command import run

    return run(parsed)


def _bench(parsed: argparse.Namespace) -> int:
    from backend.bench import run
    from backend.bench.neural import Wanted

    return run(
        parsed.suite,
        data=parsed.data,
        output=parsed.output,
        quick=parsed.quick,
        as_json=parsed.json,
        wanted=Wanted(parsed.models, parsed.device, parsed.baseline),
    )
