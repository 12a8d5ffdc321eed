# SPDX-License-Identifier: GPL-3.0-or-later
"""What a very large portrait costs, said before the work begins: every frame is as large as it is."""

from __future__ import annotations

from pathlib import Path

from backend import media
from backend.options import Options

#: From here on it is said. Measured from 1 to 144 megapixels with the mesh engine: 27 bytes of memory a
#: pixel, frames of 0.4 (smooth) to 1.4 (grainy) bytes a pixel, 0.7 s a frame at 17 megapixels, 2.3 s at 144.
LARGE = 4096 * 4096
BYTES_OF_MEMORY, BYTES_OF_FRAME = 27, 1


def cost_of(source: Path, options: Options, folder: bool) -> str:
    """A sentence on a source picture of more than LARGE pixels, else "". folder: frames are kept one by one.

    Raises MediaError where the picture cannot be read.
    """
    if not options.paste_back:
        return ""  # the frames are the crop alone
    info = media.probe(source)
    pixels = info.width * info.height
    if info.kind != "picture" or pixels <= LARGE:
        return ""
    disk = f"about {pixels * BYTES_OF_FRAME / 1e6:.0f} MB each on the disk and " if folder else ""
    return (
        f"{source.name} has {info.width} x {info.height} pixels, and so has every frame: {disk}"
        f"{pixels * BYTES_OF_MEMORY / 1e9:.1f} GB of memory; scaled down to 4096 or less it is much quicker"
    )
