# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes the environment, animates a portrait and says where the results lie.

python3 scripts/demo.py                      a photograph that scikit-image ships, and the motion library
python3 scripts/demo.py SOURCE DRIVING       your picture; a clip, a motion file or a name of the library
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.environment import ROOT, SetupError, ensure, guarded

OUTPUT = ROOT / "demo_output"
MOTIONS = ("talk", "smile", "look-around")
FACE = "112,0,224,224"  # where the face is in the photograph: x, y, width, height in pixels


def main() -> int:
    parser = argparse.ArgumentParser(description="Make the environment and animate a portrait.")
    parser.add_argument("source", nargs="?", help="a picture (or a clip) of a face; without it, a photograph")
    parser.add_argument("driving", nargs="?", help="a clip, a motion file or a name of the motion library")
    parser.add_argument("--python", metavar="PATH", help="a Python 3.11 or 3.12 for the environment")
    options = parser.parse_args()
    if options.source and not options.driving:
        parser.error("give DRIVING too: a clip, a motion file or a name such as smile")
    python = str(ensure("demo", options.python))
    try:
        OUTPUT.mkdir(exist_ok=True)
        shutil.rmtree(OUTPUT / "frames", ignore_errors=True)  # a longer earlier run would show through
    except OSError as error:
        raise SetupError(f"{OUTPUT} cannot be written ({error.strerror}); make it writable.") from error
    if options.source:
        source, driving, region = _here(options.source), _here(options.driving), []
    else:
        source, driving, region = _photograph(python), str(OUTPUT / "driving.npz"), ["--region", FACE]
        _step(python, "scripts/join_motions.py", *MOTIONS, "-o", driving)
    for result in (OUTPUT / "result.mp4", OUTPUT / "frames"):
        print(f"Animating {Path(source).name} into {result}", flush=True)
        _step(python, "-m", "backend", "animate", source, driving, "-o", str(result))
    strip = OUTPUT / "strip.jpg"
    _step(python, "scripts/contact_sheet.py", str(OUTPUT / "frames"), "-o", str(strip), *region)
    print(f"\nThe clip:    {OUTPUT / 'result.mp4'}")
    print(f"Its frames:  {OUTPUT / 'frames'} (with motion.npz, the performance, and result.json)")
    print(f"At a glance: {strip}")
    return 0


def _photograph(python: str) -> str:
    """The picture inside scikit-image, which is found but never imported: its own needs are not installed."""
    code = "import importlib.util as u, pathlib as p; print(p.Path(u.find_spec('skimage').origin).parent)"
    answer = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    return str(Path(answer.stdout.strip()) / "data" / "astronaut.png")


def _here(name: str) -> str:
    """A file as the caller sees it, since the backend runs in the project's folder; other names unchanged."""
    return str(Path(name).resolve()) if Path(name).exists() else name


def _step(python: str, *arguments: str) -> None:
    """Runs one step in the environment; ends this script with its exit code if it fails."""
    code = subprocess.run([python, *arguments], cwd=ROOT).returncode
    if code != 0:
        sys.exit(code)


if __name__ == "__main__":
    sys.exit(guarded(main))
