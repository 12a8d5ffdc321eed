# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes the test environment and runs every test, the checks by ruff and mypy among them.

python3 scripts/test.py [--fast] [--python PATH] [any option of pytest]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.environment import ROOT, ensure, guarded


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Make the test environment and run the tests.",
        epilog="Everything else goes to pytest: files, -k WORDS, -x, ...",
        allow_abbrev=False,
    )
    parser.add_argument("--fast", action="store_true", help="leave out the slow tests, and say which")
    parser.add_argument("--python", metavar="PATH", help="a Python 3.11 or 3.12 for the environment")
    options, for_pytest = parser.parse_known_args()
    python = ensure("test", options.python)
    fast = ["--fast"] if options.fast else []
    command = [str(python), "-m", "pytest", *fast, *for_pytest]
    return subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL).returncode


if __name__ == "__main__":
    sys.exit(guarded(main))
