# SPDX-License-Identifier: GPL-3.0-or-later
"""What went wrong in a set-up, as one sentence and what to do, from what pip or uv wrote. Imports no bpy."""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Sequence

from .pythons import spoken_versions

NO_PYTHON = f"Check the network, or install Python {spoken_versions()} and set up again."
AGAIN = "What has been downloaded is kept; set up again to go on."
_FULL = r"No space left on device|\[Errno 28\]|disk is full|not enough space on|os error (?:28|112)\b"
_NO_NETWORK = (
    r"Name or service not known|Temporary failure in name resolution|getaddrinfo failed|nodename nor servname"
    r"|NewConnectionError|Network is unreachable|Connection refused|dns error"
    r"|Failed to establish a new connection|error sending request for url|ConnectTimeoutError"
    r"|ReadTimeoutError|Read timed out|Connection reset"
)


def why(step: str, code: int, lines: Sequence[str]) -> tuple[str, str]:
    """(sentence, hint) for a command that ended with `code`. step: its label; lines: its last ones."""
    said = "\n".join(lines)
    if re.search(_FULL, said, re.IGNORECASE):
        return "The disk is full.", f"Make room on it. {AGAIN}"
    if re.search(r"CERTIFICATE_VERIFY_FAILED|invalid peer certificate|SSLError|SSLCertVerification", said):
        return (
            "The package index's certificate is not trusted here.",
            "Check the clock; behind a proxy name its certificate: pip config set global.cert FILE.",
        )
    if re.search(r"407 Proxy|ProxyError|Cannot connect to proxy", said):
        return "The proxy refused the connection.", "Tell pip the proxy: pip config set global.proxy ADDRESS."
    if re.search(_NO_NETWORK, said) and step.startswith("Fetching Python"):
        return "The place that Python is fetched from cannot be reached.", NO_PYTHON
    if re.search(_NO_NETWORK, said):
        return "The package index cannot be reached.", f"Check the network. {AGAIN}"
    if re.search(r"DO NOT MATCH THE HASHES|Hash mismatch", said):
        return "A package came damaged.", "Set up again; if it stays so, something changes downloads."
    found = re.findall(r"No matching distribution found for (\S+)", said)
    found += re.findall(r"there (?:is|are) no (?:versions? of )?([A-Za-z0-9_.-]+==\S+)", said)
    if found or "No solution found" in said:
        what = found[-1].rstrip(".,") if found else "a package"
        return (
            f"There is no build of {what} for this system and Python.",
            "Use another Python in the preferences, or a remote backend.",
        )
    if re.search(r"ensurepip is not available|No module named '?(?:venv|ensurepip)", said):
        hint = "Install its venv package (Debian: python3-venv), or another Python."
        return "This Python cannot make environments.", hint
    if re.search(r"Permission denied|\[Errno 13\]|Access is denied|os error (?:5|13)\b", said):
        hint = "Look at the folder's owner, or for a virus scanner that holds it."
        return "The set-up was not allowed to write.", hint
    if code < 0:
        return f"{step} was ended by the system (signal {-code}).", f"Mostly memory is short. {AGAIN}"
    last = next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
    return f"{step} failed: {last[:200]}", "Show the log for more, then set up again."


def of_doctor(lines: Sequence[str]) -> tuple[str, str]:
    """(sentence, hint) for a finished environment that does not work, from what `doctor --json` wrote."""
    said = "\n".join(lines)
    try:
        told = json.loads(said[said.index("{") : said.rindex("}") + 1])
        lack = next(finding for finding in told["findings"] if finding["state"] == "lack")
        sentence, advice = str(lack["found"]).strip(), str(lack["advice"]).strip()
    except (ValueError, KeyError, TypeError, StopIteration):
        return why("Trying it", 1, lines)
    return f"The packages are here, but do not work: {sentence.splitlines()[0][:200]}", advice


def of_os(error: OSError, doing: str) -> tuple[str, str]:
    """(sentence, hint) for something that the set-up itself could not do."""
    if error.errno == errno.ENOSPC:
        return "The disk is full.", f"Make room on it. {AGAIN}"
    where = f" ({error.filename})" if error.filename else ""
    return f"{doing} failed: {error.strerror or error}{where}.", "Look at the folder's owner and free space."
