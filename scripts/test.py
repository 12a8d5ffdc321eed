# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes the environments for tests and runs every test, the checks by ruff and mypy among them.

    python3 scripts/test.py [--fast] [--all-blenders | --blender VERSION] [--python PATH] [pytest's options]

Without further words: the project's own tests in .venv, then those of the add-on inside Blender 4.2 and 5.0,
each release in an environment of its own. A file or folder among the options leaves out the runs that it does
not belong to. The exit code is the worst of the runs', and the last lines say how each of them ended.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.build_extension import fetch_bundled_wheel
from scripts.environment import BLENDERS, ROOT, ensure
from scripts.machine import NoPython, guarded

DEFAULT_BLENDERS = ("4.2.23", "5.0.1")  # the oldest there is, and one with the API of 5
IN_BLENDER = ROOT / "tests" / "blender"
NOTHING_RAN = 5  # pytest's code for a run without a single test
MEANING = {0: "passed", 1: "FAILED", 2: "INTERRUPTED", NOTHING_RAN: "no test ran"}


@dataclass(frozen=True)
class Run:
    """One call of pytest: how it is spoken of, and what its environment holds."""

    name: str
    profile: str


PROJECT = Run("the project", "test")


def in_blender(version: str) -> Run:
    """The run of the add-on's tests inside one release."""
    return Run(f"Blender {version}", f"bpy-{version}")


def plan(options: argparse.Namespace, for_pytest: list[str]) -> list[tuple[Run, list[str]]]:
    """The runs to do, in their order, each with what its pytest is told."""
    if options.blender:
        runs = [in_blender(options.blender)]
    else:
        runs = [PROJECT, *map(in_blender, BLENDERS if options.all_blenders else DEFAULT_BLENDERS)]
    named = {word: path for word in for_pytest if (path := named_test(word))}
    planned = []
    for run in runs:
        own = [word for word, path in named.items() if belongs(path, run)]
        if own or not named:
            where = [] if own or run is PROJECT else [IN_BLENDER.relative_to(ROOT).as_posix()]
            fast = ["--fast"] if options.fast else []
            planned.append((run, [*fast, *where, *(w for w in for_pytest if w not in named or w in own)]))
    return planned


def named_test(word: str) -> Path | None:
    """The file or folder of tests that a word for pytest names; pytest is started in the project's folder."""
    path = (ROOT / word.split("::")[0]).resolve()
    return path if path.exists() and path.is_relative_to(ROOT / "tests") else None


def belongs(path: Path, run: Run) -> bool:
    """Whether a run has something to do in a file or folder of tests."""
    if path in IN_BLENDER.parents:  # tests/ itself
        return True
    return path.is_relative_to(IN_BLENDER) is (run is not PROJECT)


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Make the environments for tests and run the tests.",
        epilog="Everything else goes to pytest: files, -k WORDS, -x, ...",
        allow_abbrev=False,
    )
    parser.add_argument("--fast", action="store_true", help="leave out the slow tests, and say which")
    parser.add_argument("--python", metavar="PATH", help="a Python 3.11 or 3.12 for .venv")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--all-blenders", action="store_true", help=f"in all of {', '.join(BLENDERS)}")
    which.add_argument("--blender", metavar="VERSION", choices=BLENDERS, help="in this one and nothing else")
    options, for_pytest = parser.parse_known_args()
    runs = plan(options, for_pytest)
    python = ensure("test", options.python)  # the backend that the add-on's tests talk to is in there
    codes: dict[str, int] = {}
    left_out: dict[str, str] = {}
    for run, told in runs:
        try:
            inside = python if run is PROJECT else ensure(run.profile)
        except NoPython as error:
            if options.blender:
                raise
            left_out[run.name] = str(error)
            continue
        if run is not PROJECT:
            fetch_bundled_wheel()  # while the network may still be used; no test does
        print(f"\n=== {run.name}", flush=True)
        variables = {**os.environ, "LIVEPORTRAIT_TEST_PYTHON": str(python)}
        command = [str(inside), "-m", "pytest", *told]
        answer = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, env=variables)
        codes[run.name] = answer.returncode
    return conclude(codes, left_out, chosen=bool(for_pytest) or options.fast)


def conclude(codes: dict[str, int], left_out: dict[str, str], chosen: bool) -> int:
    """Says how each run ended; gives the exit code for all of them.

    Where tests were chosen, a run that has none of them is no failure, as long as another one has.
    """
    if len(codes) + len(left_out) > 1:
        print("\n=== in short")
        for name, code in codes.items():
            print(f"{name}: {MEANING.get(code, f'ended with {code}')}")
        for name, why in left_out.items():
            print(f"{name}: left out. {why}")
    enough = chosen and 0 in codes.values()
    counted = [abs(code) for code in codes.values() if not (enough and code == NOTHING_RAN)]
    return max(counted, default=NOTHING_RAN)


if __name__ == "__main__":
    sys.exit(guarded(main))
