# SPDX-License-Identifier: GPL-3.0-or-later
"""What goes over the socket: strict reading of requests and binary headers, and the words of answers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from backend.errors import LivePortraitError
from backend.server.limits import Limits

PROTOCOL = 1
PARSE, INVALID_REQUEST, UNKNOWN_METHOD, BAD_PARAMS, INTERNAL, FAILED = (
    -32700,
    -32600,
    -32601,
    -32602,
    -32603,
    -32000,
)
ID_LENGTH = 64
LARGEST_ID = 1 << 53  # JSON numbers are exact up to here everywhere


class RequestError(LivePortraitError):
    """A request that is answered with an error; `number` is JSON-RPC's code, `code` the protocol's word."""

    def __init__(
        self, code: str, message: str, hint: str = "", details: Any = "", number: int = FAILED
    ) -> None:
        super().__init__(message, hint)
        self.code = code
        self.number = number
        self.extra = details


@dataclass(frozen=True)
class Request:
    """A request as it came; `id` None for a notification."""

    id: int | str | None
    method: str
    params: Mapping[str, Any]


def invalid(message: str, hint: str = "See PROTOCOL.md.") -> RequestError:
    return RequestError("invalid-request", message, hint, number=INVALID_REQUEST)


def bad_params(message: str, hint: str = "See PROTOCOL.md.") -> RequestError:
    return RequestError("bad-params", message, hint, number=BAD_PARAMS)


def too_many(limit: str, message: str, hint: str = "Wait until others have ended.") -> RequestError:
    return RequestError("too-many", message, hint, details={"limit": limit})


def read_json(text: str | bytes, nesting: int) -> Any:
    """Strict JSON, no deeper than `nesting`. Raises RequestError (parse)."""
    try:
        value = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise RequestError(
            "parse", "The message is no JSON.", "See PROTOCOL.md.", str(error)[:200], PARSE
        ) from None
    level: list[Any] = [value]
    for _ in range(nesting):
        level = [
            inner
            for entry in level
            if isinstance(entry, list | dict)
            for inner in (entry.values() if isinstance(entry, dict) else entry)
        ]
        if not level:
            return value
    if any(isinstance(entry, list | dict) for entry in level):
        raise RequestError("parse", f"The message is nested deeper than {nesting}.", "", number=PARSE)
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def read_request(text: str, limits: Limits) -> Request:
    """A JSON-RPC 2.0 request. Raises RequestError; see also `id_of`."""
    # Characters first: most are one byte, and what is far too long is not encoded.
    if len(text) > limits.text_bytes or len(text.encode()) > limits.text_bytes:
        raise invalid("The message is too long.", f"At most {limits.text_bytes} bytes of text.")
    value = read_json(text, limits.nesting)
    if not isinstance(value, dict) or value.get("jsonrpc") != "2.0":
        raise invalid("The message is no JSON-RPC 2.0 request.")
    if not value.keys() <= {"jsonrpc", "id", "method", "params"}:
        raise invalid("The request has members that JSON-RPC does not know.")
    method, params = value.get("method"), value.get("params", {})
    if not isinstance(method, str) or not isinstance(params, dict):
        raise invalid("A request has a method (text) and params (an object).")
    if "id" in value and not _is_id(value["id"]):
        raise invalid("A request's id is an integer or a short text.")
    return Request(value.get("id"), method, params)


def _is_id(value: Any) -> bool:
    if isinstance(value, bool):
        return False
    return (isinstance(value, int) and abs(value) <= LARGEST_ID) or (
        isinstance(value, str) and 0 < len(value) <= ID_LENGTH
    )


def id_of(text: str, nesting: int) -> int | str | None:
    """The id of a message that is no good request, where one can be found."""
    try:
        value = read_json(text, nesting)
    except RequestError:
        return None
    found = value.get("id") if isinstance(value, dict) else None
    return found if _is_id(found) else None


def read_binary(message: bytes, limits: Limits) -> tuple[dict[str, Any], memoryview]:
    """(header, payload) of a binary message. Raises RequestError."""
    length = int.from_bytes(message[:4], "big")
    if len(message) < 4 or length > limits.header_bytes or len(message) < 4 + length:
        raise invalid("The binary message has no whole header.")
    header = read_json(message[4 : 4 + length], limits.nesting)
    if not isinstance(header, dict):
        raise invalid("The binary message's header is no object.")
    return header, memoryview(message)[4 + length :]


def binary(header: Mapping[str, Any], payload: bytes | memoryview = b"") -> bytes:
    """A binary message."""
    head = json.dumps(header).encode()
    return b"".join((len(head).to_bytes(4, "big"), head, payload))


def answer(identity: int | str, result: Any) -> str:
    return json.dumps({"jsonrpc": "2.0", "id": identity, "result": result})


def notification(method: str, params: Mapping[str, Any]) -> str:
    return json.dumps({"jsonrpc": "2.0", "method": method, "params": params})


def failure(identity: int | str | None, error: LivePortraitError) -> str:
    number = error.number if isinstance(error, RequestError) else FAILED
    told = error_data(error)
    return json.dumps(
        {
            "jsonrpc": "2.0",
            "id": identity,
            "error": {"code": number, "message": told.pop("message"), "data": told},
        }
    )


def error_data(error: LivePortraitError) -> dict[str, Any]:
    """code, message, hint, details."""
    details = error.extra if isinstance(error, RequestError) else error.details
    return {"code": error.code, "message": error.message, "hint": error.hint, "details": details}


class RemoteError(RequestError):
    """An error that the worker told of."""

    def __init__(self, told: Mapping[str, Any]) -> None:
        super().__init__(
            str(told.get("code", "fault")),
            str(told.get("message", "")),
            str(told.get("hint", "")),
            told.get("details", ""),
        )
