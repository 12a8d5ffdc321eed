# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes the environments, animates a portrait in Blender and says where the results lie.

python3 scripts/demo.py                      a photograph that scikit-image ships, and the motion library
python3 scripts/demo.py SOURCE DRIVING       your picture; a clip, a motion file or a name of the library
python3 scripts/demo.py --no-blender ...     with the backend's command line alone

Blender comes as a Python module. The extension's zip is built and installed into a profile of its own, its
supervisor starts the backend, Animate puts the moving portrait on a plane, and Cycles renders three frames.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts import build_extension
from scripts.environment import ROOT, ensure
from scripts.machine import SetupError, guarded

OUTPUT = ROOT / "demo_output"
BLENDER = "5.0.1"
MOTIONS = ("talk", "smile", "look-around")
FACE = "112,0,224,224"  # where the face is in the photograph: x, y, width, height in pixels


def main() -> int:
    parser = argparse.ArgumentParser(description="Make the environments and animate a portrait in Blender.")
    parser.add_argument("source", nargs="?", help="a picture (or a clip) of a face; without it, a photograph")
    parser.add_argument("driving", nargs="?", help="a clip, a motion file or a name of the motion library")
    parser.add_argument("--no-blender", action="store_true", help="only the backend's command line")
    parser.add_argument("--python", metavar="PATH", help="a Python 3.11 or 3.12 for the environment")
    options = parser.parse_args()
    if options.source and not options.driving:
        parser.error("give DRIVING too: a clip, a motion file or a name such as smile")
    python = str(ensure("demo", options.python))
    blender = "" if options.no_blender else _blender()
    _clear()
    if options.source:
        source, driving, region = _here(options.source), _here(options.driving), []
    else:
        source, driving, region = _photograph(python), str(OUTPUT / "driving.npz"), ["--region", FACE]
        _step(python, "scripts/join_motions.py", *MOTIONS, "-o", driving)
    clip, frames, strip = OUTPUT / "result.mp4", OUTPUT / "frames", OUTPUT / "strip.jpg"
    print(f"Animating {Path(source).name} into {clip}", flush=True)
    _step(python, "-m", "backend", "animate", source, driving, "-o", str(clip))
    said = None
    if blender:
        said = _in_blender(blender, python, source, driving)
        frames = Path(said["frames"])
    else:
        print(f"Animating {Path(source).name} into {frames}", flush=True)
        _step(python, "-m", "backend", "animate", source, driving, "-o", str(frames))
    _step(python, "scripts/contact_sheet.py", str(frames), "-o", str(strip), *region)
    print(f"\nThe clip:    {clip}")
    print(f"Its frames:  {frames} (with motion.npz, the performance, and result.json)")
    print(f"At a glance: {strip}")
    if said:
        print(f"For Blender: {said['blend']} (the portrait on a plane, {said['count']} frames)")
        print(f"Rendered:    {', '.join(Path(path).name for path in said['renders'])}")
        print(f"Extension:   {said['extension']} (Edit > Preferences > Get Extensions > Install from Disk)")
    return 0


def _blender() -> str:
    """The Python of Blender's environment; "" where it cannot be had, which is said."""
    try:
        return str(ensure(f"bpy-{BLENDER}"))
    except SetupError as error:
        print(f"{error}\nBlender as a Python module cannot be had here; this goes on without it.", flush=True)
        return ""


def _clear() -> None:
    """Removes what an earlier run left, since longer results would show through."""
    try:
        OUTPUT.mkdir(exist_ok=True)
        for name in ("frames", "liveportrait"):
            shutil.rmtree(OUTPUT / name, ignore_errors=True)
        for path in (*OUTPUT.glob("render_*.png"), *OUTPUT.glob("demo.blend*")):
            path.unlink()
    except OSError as error:
        raise SetupError(f"{OUTPUT} cannot be written ({error.strerror}); make it writable.") from error


def _in_blender(blender: str, python: str, source: str, driving: str) -> dict[str, str]:
    """Has demo_in_blender.py do its part with the extension's zip; gives what it says, and the zip."""
    extension = build_extension.build(OUTPUT)
    print(f"Animating {Path(source).name} in Blender {BLENDER}, out of {extension.name}", flush=True)
    with tempfile.TemporaryDirectory(prefix="liveportrait-demo-") as profile:
        elsewhere = ("BLENDER_USER_", "BLENDER_SYSTEM_", "LIVEPORTRAIT_")
        around = {name: value for name, value in os.environ.items() if not name.startswith(elsewhere)}
        answer = subprocess.run(
            [blender, "-I", str(ROOT / "scripts" / "demo_in_blender.py")]
            + [str(extension), python, source, driving, str(OUTPUT)],
            cwd=profile,
            env={**around, "BLENDER_USER_RESOURCES": profile},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
        )
    if answer.returncode != 0:
        print(f"{answer.stdout}{answer.stderr}".rstrip(), file=sys.stderr)
        raise SetupError("Blender could not do its part; the lines above say why. --no-blender goes without.")
    said: dict[str, str] = json.loads(answer.stdout.splitlines()[-1])
    return {**said, "extension": str(extension)}


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
