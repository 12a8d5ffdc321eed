# SPDX-License-Identifier: GPL-3.0-or-later
"""Pictures, clips, picture sequences and sound, in and out."""

from __future__ import annotations

from backend.media.clip_writer import ClipWriter
from backend.media.clips import Clip
from backend.media.joining import comment_of, join, whole_pictures
from backend.media.marking import CLIP_MARK, PICTURE_MARK
from backend.media.pictures import Picture, read_picture
from backend.media.prefetching import prefetch
from backend.media.probing import MediaInfo, probe
from backend.media.sequence_writer import SequenceWriter

__all__ = [
    "CLIP_MARK",
    "Clip",
    "ClipWriter",
    "MediaInfo",
    "PICTURE_MARK",
    "Picture",
    "SequenceWriter",
    "comment_of",
    "join",
    "prefetch",
    "probe",
    "read_picture",
    "whole_pictures",
]
