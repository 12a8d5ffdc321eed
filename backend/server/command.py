# SPDX-License-Identifier: GPL-3.0-or-later
"""`python -m backend serve`: its flags, the token, TLS, the log."""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import logging
import logging.handlers
import os
import ssl
import sys
from pathlib import Path

import platformdirs

from backend.errors import InputError

APPLICATION = "liveportrait-blender"
TOKEN = "LIVEPORTRAIT_TOKEN"
TOKEN_LENGTH = (16, 512)
LOG_LEVEL = "LIVEPORTRAIT_LOG_LEVEL"  # debug, info, warning or error
LOG_BYTES, LOG_FILES = 2 << 20, 3


def add_serve_options(parser: argparse.ArgumentParser) -> None:
    """The flags of `serve`; the words of PROTOCOL.md."""
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on [127.0.0.1]")
    parser.add_argument("--port", type=int, default=0, help="[a free one]")
    parser.add_argument("--tls-cert", type=Path, metavar="FILE", help="certificate chain, PEM")
    parser.add_argument("--tls-key", type=Path, metavar="FILE", help="its private key, PEM")
    parser.add_argument(
        "--token-stdin", action="store_true", help=f"read the token from standard input, not from {TOKEN}"
    )
    parser.add_argument("--parent-pid", type=int, metavar="PID", help="end with this process")
    parser.add_argument("--watch-stdin", action="store_true", help="end with standard input")
    parser.add_argument(
        "--unload-after", type=float, default=600.0, metavar="SECONDS", help="free the GPU when idle [600]"
    )
    parser.add_argument("--cache", type=Path, metavar="DIR", help="the work folder [the user's cache]")
    parser.add_argument(
        "--limit", action="append", default=[], metavar="NAME=VALUE", help="a limit of PROTOCOL.md"
    )


def run(parsed: argparse.Namespace) -> int:
    """Serve until the end. Raises InputError for what cannot be."""
    from backend.server.app import Server, Settings
    from backend.server.limits import limits_from

    tls = _tls(parsed.tls_cert, parsed.tls_key)
    _check_address(parsed.host, parsed.port, tls is not None)
    limits = limits_from(parsed.limit)
    token = _token(parsed.token_stdin)
    cache = parsed.cache or Path(platformdirs.user_cache_dir(APPLICATION, appauthor=False))
    log_file = _start_log()
    settings = Settings(
        token=token,
        cache=cache.absolute(),
        log_file=log_file,
        host=parsed.host,
        port=parsed.port,
        tls=tls,
        parent_pid=parsed.parent_pid,
        watch_stdin=parsed.watch_stdin,
        unload_after=parsed.unload_after,
        limits=limits,
    )

    async def serve() -> None:
        await Server(settings).run()

    asyncio.run(serve())
    return 0


def _token(from_stdin: bool) -> str:
    """The token, which no child process inherits."""
    kept = os.environ.pop(TOKEN, "")
    token = kept
    if from_stdin:
        # Byte by byte: what follows the line is left for --watch-stdin.
        line = bytearray()
        while len(line) <= TOKEN_LENGTH[1] and (byte := os.read(sys.stdin.fileno(), 1)) not in (b"", b"\n"):
            line += byte
        token = line.decode("utf-8", "replace").strip()
    if not TOKEN_LENGTH[0] <= len(token) <= TOKEN_LENGTH[1]:
        raise InputError(
            f"There is no token of {TOKEN_LENGTH[0]} to {TOKEN_LENGTH[1]} characters.",
            f"Set {TOKEN} to a random text, or use --token-stdin.",
        )
    return token


def _tls(certificate: Path | None, key: Path | None) -> ssl.SSLContext | None:
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise InputError("--tls-cert and --tls-key belong together.", "Give both.")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise InputError(
            f"Cannot use {certificate.name} and {key.name}: {error.strerror or error}.", "Give PEM files."
        ) from error
    return context


def _check_address(host: str, port: int, encrypted: bool) -> None:
    if not 0 <= port <= 65535:
        raise InputError(f"{port} is no port.", "Give a number from 0 to 65535.")
    try:
        own = ipaddress.ip_address(host).is_loopback
    except ValueError:
        own = host == "localhost"
    if not own and not encrypted:
        raise InputError(
            f"{host} can be reached from other machines, and the connection would not be encrypted.",
            "Give --tls-cert and --tls-key, or listen on 127.0.0.1.",
        )


def _start_log() -> Path | None:
    """Standard error and a rotating file, where one can be written."""
    root = logging.getLogger("backend")
    level = logging.getLevelNamesMapping().get(os.environ.get(LOG_LEVEL, "").upper(), logging.INFO)
    root.setLevel(min(root.getEffectiveLevel(), level) if level <= logging.INFO else level)
    form = logging.Formatter("%(asctime)s %(levelname)s %(process)d %(name)s: %(message)s")
    console = logging.StreamHandler()
    console.setFormatter(form)
    root.addHandler(console)
    root.propagate = False
    folder = Path(platformdirs.user_log_dir(APPLICATION, appauthor=False))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # A file a server: several may run, and a file cannot be turned over under another's hands.
        path = folder / f"server-{os.getpid() % 8}.log"
        handler = logging.handlers.RotatingFileHandler(
            path, maxBytes=LOG_BYTES, backupCount=LOG_FILES, encoding="utf-8"
        )
    except OSError:
        root.warning("No log file can be written in %s", folder)
        return None
    handler.setFormatter(form)
    root.addHandler(handler)
    return path
