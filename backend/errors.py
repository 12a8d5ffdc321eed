# SPDX-License-Identifier: GPL-3.0-or-later
"""Typed errors. `str(error)` is one clear line for the user; the hint says what to do about it."""

from __future__ import annotations


class LivePortraitError(Exception):
    """A fault that ends the job. `message`: what happened, `hint`: what to do, `details`: for the log."""

    exit_code = 1
    code = "fault"

    def __init__(self, message: str, hint: str = "", details: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details = details

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class InputError(LivePortraitError):
    """Something the user gave cannot be used."""

    exit_code = 2
    code = "bad-input"


class MediaError(InputError):
    """A picture or clip that cannot be read."""

    code = "unreadable-media"


class MotionFileError(InputError):
    """A motion file or template with missing, misshapen or impossible numbers."""

    code = "bad-motion"


class UnsafePickleError(MotionFileError):
    """A template that holds anything but numpy arrays and plain containers; nothing in it was run."""

    code = "unsafe-pickle"


class NoFaceError(InputError):
    """No usable face in a picture or in any frame of a clip."""

    code = "no-face"


class FaceTooSmallError(NoFaceError):
    """A face was found but has too few pixels to animate."""

    code = "face-too-small"


class WeightsError(InputError):
    """A file of weights that is damaged or of another network; nothing in it was run."""

    code = "bad-weights"


class DownloadError(LivePortraitError):
    """Weights could not be fetched; what has come so far is kept."""

    code = "download"


class EngineError(LivePortraitError):
    """The chosen engine cannot run here."""

    code = "engine"


class OutputError(LivePortraitError):
    """The result could not be written; finished frames are kept."""

    code = "output"


class Cancelled(LivePortraitError):
    """The job was cancelled; finished frames are kept."""

    exit_code = 130
    code = "cancelled"
