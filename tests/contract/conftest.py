# SPDX-License-Identifier: GPL-3.0-or-later
"""One server that most tests share, and small inputs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import pytest

from liveportrait_blender.client import Client
from tests.contract.serving import Raw, Running, serving


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with serving(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture
def client(server: Running) -> Iterator[Client]:
    """On this machine, as the add-on is."""
    client = server.client()
    yield client
    client.close()


@pytest.fixture
def far_client(server: Running) -> Iterator[Client]:
    """One that cannot prove to be on this machine."""
    client = server.client(local=False)
    yield client
    client.close()


@pytest.fixture
def raw(server: Running) -> Iterator[Raw]:
    """A connection that has said hello."""
    with Raw(server) as connection:
        connection.hello()
        yield connection


@pytest.fixture(scope="session")
def portrait(astronaut: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small portrait."""
    path = tmp_path_factory.mktemp("inputs") / "portrait.png"
    picture = cv2.imread(str(astronaut))
    assert picture is not None
    cv2.imwrite(str(path), picture[:320, 60:380])
    return path
