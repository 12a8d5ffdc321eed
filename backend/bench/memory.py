# SPDX-License-Identifier: GPL-3.0-or-later
"""Peak memory of a long clip against a short one, each in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from backend.bench.material import Material
from backend.bench.report import Report
from backend.errors import LivePortraitError

GROUP = "memory"
SIZE = 256  # pixels; small, so that ten minutes do not take an hour
RATE = 25
MOTION_BYTES = 600  # of Motion a frame, without mouths
CHILD = """
import resource, sys
from pathlib import Path
from backend.cli import main
code = main(sys.argv[1:])
status = Path("/proc/self/status")
if status.is_file():
    peak = int(status.read_text().partition("VmHWM:")[2].split()[0])
else:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1024 if sys.platform == "darwin" else 1)
print(peak)
sys.exit(code)
"""


def measure(report: Report, material: Material, scratch: Path, quick: bool) -> None:
    """Peak resident memory of animating 10 seconds and 10 minutes (quick: 1 minute) to MP4."""
    seconds = 60 if quick else 600
    short, long = (_peak(material, scratch, count * RATE) for count in (10, seconds))
    held = seconds * RATE * MOTION_BYTES / (1 << 20)
    report.add(GROUP, "peak, 10 seconds", short, "MB")
    report.add(GROUP, f"peak, {seconds} seconds", long, "MB")
    report.add(GROUP, "of it the Motion", held, "MB")
    report.add(GROUP, "growth, the Motion apart", 100 * ((long - held) / short - 1), "%", at_most=5)


def _peak(material: Material, scratch: Path, frames: int) -> float:
    """MB."""
    clip, source = material.clip(SIZE, frames, RATE), material.portrait(SIZE)
    command = [
        sys.executable,
        "-c",
        CHILD,
        "animate",
        str(source),
        str(clip),
        "-o",
        str(scratch / "memory.mp4"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LivePortraitError(f"The memory measurement failed: {done.stderr.strip() or done.returncode}.")
    return int(done.stdout.split()[-1]) / 1024
