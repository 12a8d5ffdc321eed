# SPDX-License-Identifier: GPL-3.0-or-later
"""Running the command line as a user does, and making small inputs for it."""

from __future__ import annotations

import subprocess
import sys
import wave
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments: str | Path, prelude: str = "", timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """`python -m backend ARGUMENTS` in a process of its own; `prelude` is Python that runs first in it."""
    code = f"{prelude}\nimport sys\nfrom backend.cli import main\nsys.exit(main())"
    command = [sys.executable, "-c", code] if prelude else [sys.executable, "-m", "backend"]
    return subprocess.run(
        [*command, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def write_tone(path: Path, seconds: float, rate: int = 16000) -> Path:
    """A WAV file with a tone."""
    wave_form = 8000 * np.sin(2 * np.pi * 440 * np.arange(int(seconds * rate)) / rate)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(wave_form.astype("<i2").tobytes())
    return path
