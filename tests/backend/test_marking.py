# SPDX-License-Identifier: GPL-3.0-or-later
"""What is made says that it is AI-generated, pixels stay as they were, and an interrupted job goes on."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
import zlib
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from backend import media
from backend.driving import Driving
from backend.errors import Cancelled
from backend.media.png import encode_png
from backend.options import Options
from backend.pipeline import animate
from tests.backend.fakes import FakeEngine
from tests.backend.synthetic_motion import make_motion
from tests.backend.test_resume import StopAt

TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
PROPERTY = "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}DigitalSourceType"
FRAMES = 24


@pytest.fixture(scope="module")
def performance() -> Driving:
    motion = make_motion(FRAMES, mouth=None, valid=np.ones(FRAMES, bool), fps_numerator=25, fps_denominator=1)
    return Driving("motion", "made up", None, motion=motion)


def texts(path: Path) -> dict[str, str]:
    """The international texts of a PNG, with every chunk's checksum looked at."""
    data, found, at = path.read_bytes(), {}, 8
    while at < len(data):
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        body = data[at + 8 : at + 8 + length]
        assert int.from_bytes(data[at + 8 + length : at + 12 + length], "big") == zlib.crc32(kind + body)
        if kind == b"iTXt":
            keyword, _, rest = body.partition(b"\0")
            assert rest[:2] == b"\0\0"  # not compressed
            found[keyword.decode("latin-1")] = rest[2:].split(b"\0", 2)[2].decode()
        at += 12 + length
    return found


@pytest.mark.parametrize("shape", [(9, 7, 3), (9, 7, 4)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_the_mark_leaves_pixels_alone(shape: tuple[int, ...], dtype: type, tmp_path: Path) -> None:
    pixels: np.ndarray = np.random.default_rng(1).integers(0, np.iinfo(dtype).max, shape).astype(dtype)
    plain, marked = (
        cv2.imdecode(np.frombuffer(encode_png(pixels, mark), np.uint8), cv2.IMREAD_UNCHANGED)
        for mark in (None, media.PICTURE_MARK)
    )
    assert_array_equal(plain, marked)
    assert_array_equal(marked[:, :, :3][:, :, ::-1], pixels[:, :, :3])


def test_pictures_say_that_they_are_generated(
    astronaut: Path, performance: Driving, tmp_path: Path
) -> None:
    animate(astronaut, performance, tmp_path / "out", Options(), engine=FakeEngine())
    for path in sorted((tmp_path / "out").glob("0*.png")):
        said = texts(path)
        assert said["Comment"].startswith("AI-generated")
        packet = ElementTree.fromstring(said["XML:com.adobe.xmp"])
        assert [one.text for one in packet.iter(PROPERTY)] == [TYPE]


def test_a_resumed_job_writes_the_same_files(astronaut: Path, performance: Driving, tmp_path: Path) -> None:
    def go(out: Path, **more: object) -> None:
        animate(astronaut, performance, out, Options(), engine=FakeEngine(), **more)  # type: ignore[arg-type]

    go(tmp_path / "whole")
    stop = StopAt(10)
    with pytest.raises(Cancelled):
        go(tmp_path / "part", progress=stop, cancel=stop.event)
    go(tmp_path / "part", resume=True)
    whole = {path.name: path.read_bytes() for path in (tmp_path / "whole").glob("0*.png")}
    assert len(whole) == FRAMES
    assert {path.name: path.read_bytes() for path in (tmp_path / "part").glob("0*.png")} == whole


def test_clips_say_it_too_also_when_they_were_put_together(
    astronaut: Path, performance: Driving, tmp_path: Path
) -> None:
    def go(**more: object) -> None:
        animate(astronaut, performance, tmp_path / "out.mp4", Options(), engine=FakeEngine(), **more)  # type: ignore[arg-type]

    def description() -> str:
        with av.open(str(tmp_path / "out.mp4")) as container:
            return container.metadata.get("description", "")

    go()
    assert TYPE in description() and description().startswith("AI-generated")
    stop = StopAt(10)
    with pytest.raises(Cancelled):
        go(progress=stop, cancel=stop.event)
    go(resume=True)
    assert TYPE in description()
