# SPDX-License-Identifier: GPL-3.0-or-later
"""Joins performances, one after another, into one motion file.

    python scripts/join_motions.py talk smile other.npz -o motion.npz

Names are of the motion library or of motion files. The first one gives the frame rate.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from backend.errors import LivePortraitError
from backend.library import load_library
from backend.motion import Motion
from backend.motion_files import load_motion, save_motion


def join(names: list[str]) -> Motion:
    """The named motions, brought to the first one's rate, as one."""
    parts = [load_motion(Path(name)) if Path(name).is_file() else load_library(name) for name in names]
    return Motion.concatenate(
        [part if part.fps == parts[0].fps else part.resample(parts[0].fps) for part in parts]
    )


def main() -> int:
    parser = argparse.ArgumentParser(description="Join performances into one motion file.")
    parser.add_argument("names", nargs="+", metavar="NAME", help="of the motion library, or a motion file")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the .npz to write")
    options = parser.parse_args()
    try:
        save_motion(join(options.names), options.output)
    except LivePortraitError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
