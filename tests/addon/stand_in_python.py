# SPDX-License-Identifier: GPL-3.0-or-later
"""Takes the place of Python, pip and uv in tests of the set-up: writes down how it was called, does as if.

STAND_IN_RECORD names the file that takes one JSON line a call; STAND_IN_MODE what to do wrong: words of
"full", "offline", "hang", "broken", "nothing", each after the step that it befalls: "install:full".
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from pathlib import Path

OWN = Path(__file__)
FAULTS = {
    "full": "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device",
    "offline": "WARNING: Retrying after 'NewConnectionError(': Name or service not known')'\n"
    "ERROR: No matching distribution found for mediapipe==0.10.21",
    "nothing": "ERROR: No matching distribution found for mediapipe==0.10.21",
    "broken": "Traceback (most recent call last):\nRuntimeError: the stand-in is broken",
}


def copy(to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(OWN, to)
    to.chmod(0o700)


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def may_fail(step: str) -> None:
    where, _, what = os.environ.get("STAND_IN_MODE", "").partition(":")
    if where != step:
        return
    if what == "hang":
        say("Collecting patience")
        time.sleep(600)
    say(FAULTS[what])
    sys.exit(1)


def main(arguments: list[str]) -> None:
    with Path(os.environ["STAND_IN_RECORD"]).open("a") as record:
        kept = ("PIP_", "UV_", "PYTHON", "SSL_")
        variables = {name: value for name, value in os.environ.items() if name.startswith(kept)}
        record.write(json.dumps([OWN.name, arguments, variables, str(Path.cwd())]) + "\n")
    if "-c" in arguments:  # what pythons.probe asks
        version = json.loads(os.environ.get("STAND_IN_VERSION", "[3, 11, 9]"))
        say(json.dumps([str(OWN), version, "/stand-in", True, True, "24.0", True, "x86_64"]))
    elif "venv" in arguments:
        may_fail("create")
        folder = Path(arguments[-1])
        copy(folder / "bin" / "python")
        (folder / "pyvenv.cfg").touch()
    elif "config" in arguments:
        say("global.extra-index-url='https://mirror.invalid/simple'")
    elif "install" in arguments and any(argument.startswith("uv==") for argument in arguments):
        copy(OWN.with_name("uv"))
    elif "install" in arguments and "python" in arguments[:1]:
        may_fail("python")
    elif "install" in arguments:
        inside = OWN.parent.parent
        if "--python" in arguments:
            inside = Path(arguments[arguments.index("--python") + 1]).parent.parent
        (inside / "lib" / "python3.11" / "site-packages" / "mediapipe-0.10.21.dist-info").mkdir(
            parents=True, exist_ok=True
        )
        say("Collecting mediapipe==0.10.21 (from -r mesh.txt)\n  Downloading mediapipe-0.10.21.whl (35.6 MB)")
        may_fail("install")
    elif "doctor" in arguments:
        lack = os.environ.get("STAND_IN_MODE") == "check:broken"
        found = {"state": "lack", "found": "ImportError: libGL.so.1", "advice": "Install libgl1."}
        say(json.dumps({"works": not lack, "findings": [found] if lack else []}, indent=1))
        sys.exit(1 if lack else 0)


if __name__ == "__main__":
    main(sys.argv[1:])
