# SPDX-License-Identifier: GPL-3.0-or-later
"""Every error of the protocol, told as PROTOCOL.md has it."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.contract.serving import PATIENCE, Raw, Running, serving

NOTHING = "0" * 64


@pytest.fixture
def near(server: Running) -> Any:
    with Raw(server) as connection:
        connection.hello(prove=True)
        yield connection


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("{", -32700),
        ("", -32700),
        ('{"jsonrpc": "2.0", "id": 1, "method": "status", "params": {"a": NaN}}', -32700),
        ("[" * 100_000, -32700),
        (
            '{"jsonrpc": "2.0", "id": 1, "method": "status", "params": ' + '{"a":' * 40 + "1" + "}" * 41,
            -32700,
        ),
        ("1" * 5000, -32700),
        ("[]", -32600),
        ('[{"jsonrpc": "2.0", "id": 1, "method": "status"}]', -32600),
        ('{"jsonrpc": "1.0", "id": 1, "method": "status"}', -32600),
        ('{"jsonrpc": "2.0", "id": true, "method": "status"}', -32600),
        ('{"jsonrpc": "2.0", "id": 1, "method": 5}', -32600),
        ('{"jsonrpc": "2.0", "id": 1, "method": "status", "params": []}', -32600),
        ('{"jsonrpc": "2.0", "id": 1, "method": "status", "more": 1}', -32600),
    ],
)
def test_what_is_no_request(raw: Raw, message: str, code: int) -> None:
    raw.socket.send(message)
    while "error" not in (told := json.loads(raw.socket.recv(timeout=PATIENCE))):
        pass
    assert told["error"]["code"] == code
    assert told["id"] in (None, 1)
    assert "result" in raw.ask("status")


@pytest.mark.parametrize(
    "message", [b"", b"\0\0\0", b"\0\0\xff\xff{}", b"\0\0\0\2[]", b"\0\0\0\2{}", b"\xff" * 9]
)
def test_what_is_no_binary_message(raw: Raw, message: bytes) -> None:
    raw.socket.send(message)
    told = raw.answer(None)
    assert told["error"]["code"] in (-32600, -32602, -32700)
    assert "result" in raw.ask("status")


@pytest.mark.parametrize(
    ("method", "params", "codes"),
    [
        ("fly", {}, (-32601, "unknown-method")),
        ("hello", {}, (-32601, "unknown-method")),
        ("status", {"a": 1}, (-32602, "bad-params")),
        ("prove", {}, (-32602, "bad-params")),
        ("prove", {"nonce": "x"}, (-32000, "forbidden")),
        ("job.cancel", {"job": "j9"}, (-32000, "not-found")),
        ("job.resume", {"job": "j9"}, (-32000, "not-found")),
        ("source.close", {"source": "s9"}, (-32000, "not-found")),
        ("preview", {"source": "s9"}, (-32000, "not-found")),
        ("upload.finish", {"upload": "u9"}, (-32000, "not-found")),
        ("upload.begin", {"sha256": "zz", "size": 1}, (-32602, "bad-params")),
        ("upload.begin", {"sha256": NOTHING, "size": -1}, (-32602, "bad-params")),
        ("upload.begin", {"sha256": NOTHING, "size": 1 << 50}, (-32000, "too-many")),
        ("source.open", {"source": {"sha256": NOTHING}}, (-32000, "not-found")),
        ("source.open", {"source": {"path": "/etc/hostname"}}, (-32000, "forbidden")),
        ("source.open", {"source": {"library": "talk"}}, (-32602, "bad-params")),
        ("source.open", {"source": {}}, (-32602, "bad-params")),
        ("source.open", {"source": {"sha256": NOTHING, "path": "/"}}, (-32602, "bad-params")),
        ("motion.capture", {"driving": {"library": "../talk"}}, (-32000, "bad-input")),
        ("motion.capture", {"driving": {"library": "talk"}, "options": {"fly": 1}}, (-32602, "bad-params")),
        ("motion.capture", {"driving": {"library": "talk"}, "options": {"fps": "0"}}, (-32602, "bad-params")),
        (
            "motion.capture",
            {"driving": {"library": "talk"}, "options": {"models": "/"}},
            (-32000, "forbidden"),
        ),
        ("models.list", {"models": "/"}, (-32000, "forbidden")),
        ("shutdown", {}, (-32000, "forbidden")),
    ],
)
def test_requests_that_cannot_be(
    raw: Raw, method: str, params: dict[str, Any], codes: tuple[int, str]
) -> None:
    assert raw.error(method, params) == codes


def test_paths_that_are_no_inputs(near: Raw, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (str(tmp_path / "none.png"), str(tmp_path / "pipe"), "/dev/zero", "/a\0b", "/\ud800"):
        assert near.error("source.open", {"source": {"path": path}}) == (-32000, "bad-input")
    assert near.error("source.open", {"source": {"path": "here.png"}}) == (-32602, "bad-params")


def test_errors_of_the_worker_keep_their_words(near: Raw, tmp_path: Path) -> None:
    (tmp_path / "not.png").write_text("no picture")
    told = near.ask("source.open", {"source": {"path": str(tmp_path / "not.png")}})["error"]
    assert told["data"]["code"] in ("unreadable-media", "bad-input")
    assert "not.png" in told["message"] and told["data"]["hint"]
    (tmp_path / "evil.pkl").write_bytes(b"\x80\x04cos\nsystem\n(S'true'\ntR.")
    near.ask("motion.capture", {"driving": {"path": str(tmp_path / "evil.pkl")}})
    while (ended := json.loads(near.socket.recv(timeout=PATIENCE))).get("method") != "job.finished":
        pass
    assert ended["params"]["state"] == "failed"
    assert ended["params"]["error"]["code"] in ("unsafe-pickle", "bad-motion")


def test_uploads_that_lie(raw: Raw) -> None:
    content = b"some bytes"
    sha256 = hashlib.sha256(b"other bytes").hexdigest()

    def part(upload: str, offset: int, payload: bytes) -> None:
        head = json.dumps({"type": "upload", "upload": upload, "offset": offset}).encode()
        raw.socket.send(len(head).to_bytes(4, "big") + head + payload)

    begun = raw.ask("upload.begin", {"sha256": sha256, "size": len(content)})["result"]
    part(begun["upload"], 0, content)
    assert raw.error("upload.finish", {"upload": begun["upload"]}) == (-32000, "upload")
    # Too few, out of place, too many.
    begun = raw.ask("upload.begin", {"sha256": sha256, "size": 11})["result"]
    part(begun["upload"], 0, content)
    assert raw.error("upload.finish", {"upload": begun["upload"]}) == (-32000, "upload")
    for offset, payload in ((5, content), (0, content * 2)):
        begun = raw.ask("upload.begin", {"sha256": sha256, "size": 11})["result"]
        part(begun["upload"], offset, payload)
        assert raw.answer(None)["error"]["data"]["code"] == "upload"
    assert raw.error("source.open", {"source": {"sha256": sha256}}) == (-32000, "not-found")
    begun = raw.ask("upload.begin", {"sha256": sha256, "size": 11})["result"]
    assert raw.ask("upload.cancel", {"upload": begun["upload"]})["result"] == {}


def test_the_wrong_protocol_says_which_side_to_update(server: Running) -> None:
    for protocol, side in ((0, "client"), (2, "server")):
        with Raw(server) as raw:
            told = raw.hello(protocol=protocol)["error"]
            assert told["data"]["code"] == "protocol-mismatch"
            assert told["data"]["details"] == {"server": 1, "client": protocol, "update": side}


def test_faults_of_the_server_are_told_without_its_secrets(tmp_path: Path) -> None:
    with serving(tmp_path, module=("tests.contract.server_with_faults",)) as running, Raw(running) as raw:
        raw.hello()
        told = raw.ask("broken")["error"]
        assert told["code"] == -32603 and told["data"]["code"] == "internal"
        assert "secret" not in json.dumps(told)
        job = raw.ask("broken.job")["result"]["job"]
        while (ended := json.loads(raw.socket.recv(timeout=PATIENCE))).get("method") != "job.finished":
            pass
        assert ended["params"]["job"] == job and ended["params"]["state"] == "failed"
        assert ended["params"]["error"]["code"] == "fault" and ended["params"]["error"]["hint"]
        assert "secret" not in json.dumps(ended)
        assert "result" in raw.ask("status")
        assert "a secret of the server" in (tmp_path / "stderr.txt").read_text()


def test_errors_of_faces_and_engines(near: Raw, portrait: Path, tmp_path: Path) -> None:
    import cv2
    import numpy as np

    whole = cv2.imread(str(portrait))
    assert whole is not None
    cv2.imwrite(str(tmp_path / "grey.png"), np.full((200, 200, 3), 90, np.uint8))
    cv2.imwrite(str(tmp_path / "tiny.png"), cv2.resize(whole, (56, 56), interpolation=cv2.INTER_AREA))
    weights = tmp_path / "models" / "liveportrait" / "base_models"
    weights.mkdir(parents=True)
    more = tmp_path / "models" / "liveportrait" / "retargeting_models"
    more.mkdir()
    for name in ("appearance_feature_extractor", "motion_extractor", "warping_module", "spade_generator"):
        (weights / f"{name}.pth").write_bytes(b"no weights at all")
    (more / "stitching_retargeting_module.pth").write_bytes(b"no weights at all")
    neural = {"engine": "neural", "models": str(tmp_path / "models")}
    for path, options, code in (
        (tmp_path / "grey.png", {}, "no-face"),
        (tmp_path / "tiny.png", {}, "face-too-small"),
        (portrait, {"face": 5}, "no-face"),
        (portrait, neural, "bad-weights"),
        (portrait, {"engine": "neural", "models": str(tmp_path / "empty")}, "engine"),
    ):
        told = near.ask("source.open", {"source": {"path": str(path)}, "options": options})["error"]
        assert told["code"] == -32000 and told["data"]["code"] == code, told
        assert told["message"] and told["data"]["hint"]
