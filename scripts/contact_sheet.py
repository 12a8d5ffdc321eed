# SPDX-License-Identifier: GPL-3.0-or-later
"""Puts moments of a folder of frames side by side in one picture.

python scripts/contact_sheet.py FRAMES -o strip.jpg [--count 8] [--height 224] [--region x,y,w,h]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import numpy as np

from backend.errors import InputError, LivePortraitError
from backend.media import read_picture


def contact_sheet(
    pictures: list[Path], count: int, height: int, region: tuple[int, int, int, int] | None = None
) -> np.ndarray:
    """Moments spread evenly over a sequence, from left to right.

    Args:
        pictures: the files in order; at least one.
        count: how many moments; fewer where there are fewer files.
        height: of the sheet, in pixels.
        region: x, y, width, height in pixels: the part of each picture to show; None shows all.

    Returns:
        uint8 RGB (height, w, 3).
    """
    if not pictures:
        raise InputError("There are no frames to show.", "Name a folder of .png frames.")
    chosen = np.unique(np.linspace(0, len(pictures) - 1, count).round().astype(int))
    tiles = []
    for index in chosen:
        rgb = read_picture(pictures[index]).rgb
        if region is not None:
            x, y, w, h = region
            rgb = rgb[y : y + h, x : x + w]
        if not rgb.size:
            raise InputError(f"The region {region} is outside the frames.", "Give x,y,w,h in their pixels.")
        width = max(1, round(rgb.shape[1] * height / rgb.shape[0]))
        tiles.append(cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA))
    return np.hstack(tiles)


def _region(text: str) -> tuple[int, int, int, int]:
    x, y, w, h = map(int, text.split(","))
    if min(x, y) < 0 or min(w, h) < 1:
        raise ValueError(text)
    return x, y, w, h


def main() -> int:
    parser = argparse.ArgumentParser(description="Show moments of a folder of frames side by side.")
    parser.add_argument("frames", type=Path, help="a folder of .png frames")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, help="the picture to write (.jpg or .png)"
    )
    parser.add_argument("--count", type=int, default=8, help="how many moments [8]")
    parser.add_argument("--height", type=int, default=224, help="of the sheet in pixels [224]")
    parser.add_argument(
        "--region", type=_region, help="x,y,w,h: the part of each frame to show, in pixels [all]"
    )
    options = parser.parse_args()
    try:
        frames = sorted(options.frames.glob("*.png"))
        sheet = contact_sheet(frames, options.count, options.height, options.region)
        encoded = cv2.imencode(options.output.suffix, cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))[1]
        options.output.write_bytes(encoded.tobytes())
    except LivePortraitError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
