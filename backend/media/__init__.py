# SPDX-License-Identifier: GPL-3.0-or-later
"""Pictures, clips, picture sequences and sound, in and out."""

from __future__ import annotations

from backend.media.clip_writer import ClipWriter
from backend.media.clips import Clip
from backend.media.pictures import Picture, read_picture
from backend.media.prefetching import prefetch
from backend.media.probing import MediaInfo, probe
from backend.media.sequence_writer import SequenceWriter

__all__ = [
    "Clip",
    "ClipWriter",
    "MediaInfo",
    "Picture",
    "SequenceWriter",
    "prefetch",
    "probe",
    "read_picture",
]
