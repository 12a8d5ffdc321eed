# SPDX-License-Identifier: GPL-3.0-or-later
"""What the hub says about the released files: the commit, sizes and checksums; and what its failures mean.

huggingface_hub is imported when something is asked of the hub and not before. It is told to send nothing
about this machine, and no access token unless HF_TOKEN holds one: the files are public.
"""

from __future__ import annotations

import os
import types
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from backend import __version__
from backend.errors import DownloadError, InputError
from backend.models.catalogue import REPOSITORY

OFFICIAL = "https://huggingface.co"
OFFLINE_VARIABLES = ("LIVEPORTRAIT_OFFLINE", "HF_HUB_OFFLINE")
CONNECT_SECONDS = 10.0
READ_SECONDS = 30.0  # of silence, not of the whole; HF_HUB_DOWNLOAD_TIMEOUT overrules it

_LATER = "Try again later; what has come so far is kept."


@dataclass(frozen=True)
class HubFile:
    """A file as the hub describes it: bytes, and SHA-256 of its content."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Listing:
    """A commit of the repository and its large files by path."""

    endpoint: str
    revision: str
    files: Mapping[str, HubFile]


def endpoint() -> str:
    """The hub to ask: HF_ENDPOINT (a mirror), else the official one. Raises InputError."""
    address = (os.environ.get("HF_ENDPOINT") or OFFICIAL).rstrip("/")
    if not address.startswith(("https://", "http://")):
        raise InputError(f"HF_ENDPOINT is no web address: {address}.", "Give it as https://...")
    return address


def offline_because() -> str | None:
    """The environment variable that forbids the network, if one does."""
    for name in OFFLINE_VARIABLES:
        if os.environ.get(name, "").strip().lower() in ("1", "true", "yes", "on"):
            return name
    return None


def open_library() -> types.ModuleType:
    """huggingface_hub, set up for this project. Raises DownloadError where it is not installed."""
    try:
        import huggingface_hub
        from huggingface_hub import constants
    except ImportError as error:
        raise DownloadError(
            "Fetching weights needs the package huggingface_hub, which is not installed.",
            "Install one of the neural profiles, or copy the files yourself and name them with --models DIR.",
            str(error),
        ) from error
    constants.HF_HUB_DISABLE_TELEMETRY = True
    huggingface_hub.logging.set_verbosity_error()  # its hints would stand between our own lines
    return huggingface_hub


def new_client() -> Any:
    """An HTTP client (of the library that huggingface_hub uses) with time limits and the user's proxies.

    Raises DownloadError for proxies that cannot be used.
    """
    open_library()
    from huggingface_hub.utils import httpx

    limits = httpx.Timeout(silence_seconds(), connect=min(silence_seconds(), CONNECT_SECONDS))
    try:
        return httpx.Client(follow_redirects=True, timeout=limits)
    except (ImportError, ValueError, httpx.InvalidURL) as error:
        raise DownloadError(
            "The proxy settings in the environment cannot be used.",
            "Set HTTPS_PROXY as http://host:port; SOCKS is not supported.",
            str(error),
        ) from error


def silence_seconds() -> float:
    """How long a server may be silent, in seconds. Raises InputError."""
    text = os.environ.get("HF_HUB_DOWNLOAD_TIMEOUT")
    try:
        seconds = float(text) if text else READ_SECONDS
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise InputError(f"HF_HUB_DOWNLOAD_TIMEOUT is no number of seconds: {text}.", "Set it to 30, say.")
    return seconds


def headers() -> dict[str, str]:
    """What every request says: the program's name, and HF_TOKEN if the environment has it."""
    open_library()
    from huggingface_hub.utils import build_hf_headers

    token = os.environ.get("HF_TOKEN") or False
    return {
        **build_hf_headers(token=token, library_name="liveportrait-blender", library_version=__version__),
        "Accept-Encoding": "identity",
    }


def look_up(revision: str, address: str, repository: str = REPOSITORY) -> Listing:
    """Ask the hub for a revision (branch, tag or commit) of the repository.

    Raises DownloadError (unreachable, refused, not there) and InputError (no such revision).
    """
    library = open_library()
    from huggingface_hub.utils import set_client_factory

    set_client_factory(new_client)
    try:
        api = library.HfApi(endpoint=address, headers=headers(), token=False)
        info = api.model_info(repository, revision=revision, files_metadata=True, timeout=silence_seconds())
        files = {
            file.rfilename: HubFile(int(file.lfs.size), str(file.lfs.sha256).lower())
            for file in info.siblings
            if file.lfs is not None
        }
        return Listing(address, str(info.sha), files)
    except Exception as error:  # whatever the library raises, the user gets one line
        raise explain(error, f"{repository} at {revision}", address) from error
    finally:
        library.close_session()


def explain(error: Exception, what: str, address: str) -> DownloadError | InputError:
    """The failure of a request for `what` in one line with what to do about it."""
    from huggingface_hub import errors
    from huggingface_hub.utils import httpx

    details = f"{type(error).__name__}: {error}"
    if isinstance(error, (DownloadError, InputError)):
        return error
    if isinstance(error, errors.OfflineModeIsEnabled):
        return offline(", ".join(OFFLINE_VARIABLES))
    if isinstance(error, errors.RevisionNotFoundError):
        return InputError(f"{address} has no {what}.", "Leave --revision out, or name a commit.", details)
    if isinstance(error, (errors.HfHubHTTPError, httpx.HTTPStatusError)):
        return explain_status(error.response.status_code, what, address, details)
    if isinstance(error, httpx.TimeoutException):
        return DownloadError(f"{address} did not answer in time for {what}.", _LATER, details)
    if isinstance(error, httpx.ProxyError):
        return DownloadError(
            f"The proxy refuses the way to {address}.", "Check HTTPS_PROXY and NO_PROXY.", details
        )
    if isinstance(error, httpx.ConnectError):
        return DownloadError(
            f"{address} cannot be reached.",
            "Check the network and HTTPS_PROXY, or set HF_ENDPOINT to a mirror; what has come is kept.",
            details,
        )
    if isinstance(error, httpx.HTTPError):
        return DownloadError(f"The connection to {address} broke during {what}.", _LATER, details)
    return DownloadError(
        f"{address} answers, but not as a hub does.",
        "Check HF_ENDPOINT, and whether this network wants a login page first.",
        details,
    )


def explain_status(status: int, what: str, address: str, details: str = "") -> DownloadError:
    """What an HTTP status other than success means."""
    if status in (401, 403, 407):
        return DownloadError(
            f"{address} refuses access to {what} (HTTP {status}).",
            "The files are public: check proxy and mirror, or set HF_TOKEN if they ask for an account.",
            details,
        )
    if status in (404, 410):
        return DownloadError(
            f"{address} has no {what} (HTTP {status}).",
            "Check HF_ENDPOINT and --revision; without both, see the project's page for a newer version.",
            details,
        )
    if status == 429:
        return DownloadError(f"{address} puts off {what}: too many requests (HTTP 429).", _LATER, details)
    return DownloadError(f"{address} failed with HTTP {status} for {what}.", _LATER, details)


def offline(reason: str) -> DownloadError:
    """Files are wanted and the network is forbidden."""
    return DownloadError(
        f"Nothing is fetched: offline mode is on ({reason}).",
        "Turn it off, or copy the files yourself and name their folder with --models DIR.",
    )
