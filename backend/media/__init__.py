# SPDX-License-Identifier: GPL-3.0-or-later
"""Pictures, clips, picture sequences and sound, in and out."""

from __future__ import annotations

from backend.media.clips import Clip
from backend.media.pictures import Picture, read_picture
from backend.media.prefetching import prefetch
from backend.media.probing import MediaInfo, probe

__all__ = ["Clip", "MediaInfo", "Picture", "prefetch", "probe", "read_picture"]
