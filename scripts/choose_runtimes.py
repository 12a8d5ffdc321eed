# SPDX-License-Identifier: GPL-3.0-or-later
"""Measures which networks onnxruntime runs faster than PyTorch, and writes it down for `--runtime auto`.

    python scripts/choose_runtimes.py [--device cpu|cuda]     writes backend/data/runtime_choice.json

Each network is timed in both in turn, one frame at a time, with generated weights. onnxruntime is chosen
where it saves more than a tenth: below that its files are not worth their space. Choices for other devices
stay.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from backend.bench.report import machine
from backend.networks import timing
from backend.networks.loading import CHOICE
from backend.networks.onnx_export import export
from backend.networks.random_weights import write_random

WORTH = 0.9  # of PyTorch's time
ABOUT = (
    "Networks that onnxruntime runs faster than PyTorch on a kind of device, as scripts/choose_runtimes.py"
    " measured; milliseconds a frame (least of a few runs in turn), PyTorch's first."
)


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure which networks onnxruntime runs faster.")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    device = parser.parse_args().device
    with tempfile.TemporaryDirectory() as folder:
        files = write_random(Path(folder))
        paths = {path.stem: path for path in export(files, Path(folder) / "onnx")}
        measured = {}
        for taken in timing.measure(files, device, onnx=paths, sizes=(1,)):
            # On a CPU the engine draws in float32 alone.
            ours = [one for one in taken if not one.form.startswith("onnxruntime")]
            by_torch = min(one.least for one in ours if device != "cpu" or one.form == "float32")
            by_onnx = [one.least for one in taken if one.form.startswith("onnxruntime")]
            if by_onnx:
                measured[taken[0].network] = (round(by_torch, 1), round(by_onnx[0], 1))
                print(f"{taken[0].network}: PyTorch {by_torch:.0f} ms, onnxruntime {by_onnx[0]:.0f} ms")
    table = json.loads(CHOICE.read_text(encoding="utf-8")) if CHOICE.is_file() else {}
    faster = [name for name, (ours, theirs) in measured.items() if theirs < WORTH * ours]
    chosen = {**table.get("faster_in_onnxruntime", {}), device: faster}
    about = machine()
    where = f"{about['processor']}, {about['cores']} cores, {timing.device_name(device)}"
    known = {**table.get("measured", {}), device: {"machine": where, "load": about["load"], **measured}}
    content = {"about": ABOUT, "faster_in_onnxruntime": chosen, "measured": known}
    CHOICE.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(f"{CHOICE.name}: {', '.join(faster) or 'none'} on {device}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
