# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes docs/moments.jpg: portraits, each at the strongest moment of several performances.

python scripts/make_moments.py PORTRAIT ... --driving smile wink CLIP ... [-o docs/moments.jpg]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import numpy as np

from backend.driving import open_driving
from backend.engines.mesh import MeshEngine
from backend.errors import LivePortraitError
from backend.motion import Motion
from backend.options import Options
from backend.pipeline import capture, render
from backend.rotations import euler_from_rotation
from backend.source import Source, open_source

SIDE = 180  # pixels of a moment
DEGREES = 0.004  # of head rotation that count like one unit of expression
OPEN = 0.6  # of the first frame's opening, below which both eyes count as shut
QUALITY = 88


def strongest(motion: Motion) -> int:
    """The frame that is furthest from the first, and no blink if that can be helped."""
    expression = np.abs(motion.expression - motion.expression[0]).sum(axis=(1, 2))
    turned = np.abs(np.stack(euler_from_rotation(motion.rotation), axis=-1))
    far = expression + DEGREES * np.abs(turned - turned[0]).sum(axis=-1)
    open_eye = motion.eye_ratio.max(axis=1)
    return int(np.where(open_eye >= OPEN * open_eye[0], far, far - far.max()).argmax())


def moment(picture: np.ndarray, source: Source) -> np.ndarray:
    """A square of the picture round the face's region, SIDE pixels across."""
    x0, y0, x1, y1 = source.window
    side = min(max(x1 - x0, y1 - y0), *picture.shape[:2])
    x = int(np.clip((x0 + x1 - side) / 2, 0, picture.shape[1] - side))
    y = int(np.clip((y0 + y1 - side) / 2, 0, picture.shape[0] - side))
    return cv2.resize(picture[y : y + side, x : x + side], (SIDE, SIDE), interpolation=cv2.INTER_AREA)


def main() -> int:
    parser = argparse.ArgumentParser(description="Show portraits at the strongest moments of performances.")
    parser.add_argument("portraits", type=Path, nargs="+")
    parser.add_argument("--driving", nargs="+", required=True, help="names of the library, clips, templates")
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/moments.jpg"))
    given = parser.parse_args()
    options, engine = Options(), MeshEngine()
    try:
        motions = [capture(open_driving(name), options, engine, keep_mouth=True) for name in given.driving]
        rows = []
        for path in given.portraits:
            source = open_source(path, options, engine)
            row = [moment(source.picture.rgb, source)]
            for motion in motions:
                frame = next(render(source, motion, options, engine, first=strongest(motion)))
                row.append(moment(frame, source))
            rows.append(np.hstack(row))
    except LivePortraitError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    sheet = cv2.cvtColor(np.vstack(rows), cv2.COLOR_RGB2BGR)
    encoded = cv2.imencode(given.output.suffix, sheet, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1]
    given.output.write_bytes(encoded.tobytes())
    return 0


if __name__ == "__main__":
    sys.exit(main())
