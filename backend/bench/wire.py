# SPDX-License-Identifier: GPL-3.0-or-later
"""What this machine's sockets can do at the moment: the same bytes without the backend around them.

`python -m backend.bench.wire websockets|socket SIZE COUNT` sends COUNT messages of SIZE bytes to each client,
and over websockets takes as many from it.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from websockets.asyncio.server import ServerConnection, serve
from websockets.sync.client import connect

ROOT = Path(__file__).resolve().parents[2]
PIECE = 1 << 20  # bytes that are sent and received at a time over the plain socket


def rate(kind: str, size: int, count: int, repeats: int = 3) -> float:
    """MB/s from another process to this one, the best of some; `kind` is "websockets" or "socket"."""
    command = [sys.executable, "-m", "backend.bench.wire", kind, str(size), str(count)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, text=True)
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        receive = _over_websocket if kind == "websockets" else _over_socket
        return size * count / 1e6 / min(receive(port) for _ in range(repeats))
    finally:
        process.kill()
        process.communicate()


def upload_rate(size: int, count: int, repeats: int = 3) -> float:
    """MB/s from this process to another over websockets, the best of some."""
    command = [sys.executable, "-m", "backend.bench.wire", "websockets", str(size), str(count)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, text=True)
    try:
        assert process.stdout is not None
        port, content = int(process.stdout.readline()), os.urandom(size)
        times = []
        for _ in range(repeats):
            with connect(f"ws://127.0.0.1:{port}", compression=None, proxy=None) as client:
                client.recv()
                began = time.perf_counter()
                for _ in range(count):
                    client.send(content)
                client.send("end")
                client.recv()
                times.append(time.perf_counter() - began)
        return size * count / 1e6 / min(times)
    finally:
        process.kill()
        process.communicate()


def _over_websocket(port: int) -> float:
    with connect(f"ws://127.0.0.1:{port}", compression=None, proxy=None, max_size=None) as client:
        client.recv()
        began = time.perf_counter()
        client.send("go")
        while isinstance(client.recv(), bytes):
            pass
        return time.perf_counter() - began


def _over_socket(port: int) -> float:
    with socket.create_connection(("127.0.0.1", port)) as client:
        began = time.perf_counter()
        while client.recv(PIECE):
            pass
        return time.perf_counter() - began


async def _serve_websockets(size: int, count: int) -> None:
    content = os.urandom(size)

    async def send(client: ServerConnection) -> None:
        await client.send("ready")
        while isinstance(said := await client.recv(), bytes):
            pass
        for _ in range(count if said == "go" else 0):
            await client.send(content)
        await client.send("end")

    async with serve(send, "127.0.0.1", 0, compression=None) as listening:
        _announce(next(iter(listening.sockets)).getsockname()[1])
        await listening.serve_forever()


def _serve_sockets(size: int, count: int) -> None:
    content = memoryview(os.urandom(size))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        _announce(listening.getsockname()[1])
        while True:
            client, _ = listening.accept()
            with client:
                for _ in range(count):
                    for at in range(0, size, PIECE):
                        client.sendall(content[at : at + PIECE])


def _announce(port: int) -> None:
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    kind, size, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    if kind == "websockets":
        asyncio.run(_serve_websockets(size, count))
    else:
        _serve_sockets(size, count)
