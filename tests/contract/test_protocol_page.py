# SPDX-License-Identifier: GPL-3.0-or-later
"""PROTOCOL.md says what there is: every method, and the example as it really goes."""

from __future__ import annotations

import json
import re
from pathlib import Path

from backend.server.methods import METHODS
from tests.contract.serving import PATIENCE, ROOT, Raw, Running

PAGE = (ROOT / "backend" / "PROTOCOL.md").read_text("utf-8")


def test_every_method_is_there() -> None:
    table = PAGE.partition("## Methods")[2].partition("## Limits")[0]
    assert set(re.findall(r"^\| `([\w.]+)` \|", table, re.MULTILINE)) == {*METHODS, "hello"}


def test_the_exchange_goes_as_it_is_written(server: Running, portrait: Path) -> None:
    """The requests of the example, and the same kinds of messages in the same order."""
    lines = re.findall(r"^    ([<>]) (.+)$", PAGE.partition("## One exchange")[2], re.MULTILINE)
    asked = [re.sub(r'"(token|nonce)":"[^"]*"', r'"\1":"?"', line) for way, line in lines if way == ">"]
    expected = [kind_of(line) for way, line in lines if way == "<"]
    seen: list[str] = []
    nonce = ""
    with Raw(server) as raw:
        for number, line in enumerate(asked):
            request = json.loads(line)
            if request["method"] == "hello":
                told = raw.hello()
                nonce = Path(told["result"]["nonce_file"]).read_text()
                seen.append("1")
                continue
            if request["method"] == "prove":
                request["params"]["nonce"] = nonce
            if "source" in request["params"]:
                request["params"]["source"] = {"path": str(portrait)}
            raw.socket.send(json.dumps({**request, "id": number + 1}))
            while True:
                message = raw.socket.recv(timeout=PATIENCE)
                seen.append("binary" if isinstance(message, bytes) else kind_of(message))
                if seen[-1] == (str(number + 1) if number + 1 < len(asked) else "job.finished"):
                    break
    assert unrepeated(seen) == unrepeated(expected)


def kind_of(line: str) -> str:
    """ "binary", the method of a notification, or the id of an answer."""
    if line.startswith("binary"):
        return "binary"
    found = re.search(r'"method": ?"([\w.]+)"', line) or re.search(r'"id": ?(\d+)', line)
    assert found, line
    return found[1]


def unrepeated(kinds: list[str]) -> list[str]:
    """Without progress, which need not come, and with frames that follow each other as one."""
    kept = [kind for kind in kinds if kind != "job.progress"]
    return [kind for at, kind in enumerate(kept) if at == 0 or kept[at - 1] != kind]
