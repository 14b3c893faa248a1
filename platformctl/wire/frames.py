"""Frame layouts of `platformctl.tunnel.v1` (SPEC.md, "Frames"): encode, decode, and every bound on a length.

A frame is a 10-byte header, `length:u32 type:u8 flags:u8 stream:u32` in network order, and `length` bytes of payload.
Frames never span WebSocket messages; one message carries many frames.
"""

from __future__ import annotations

import json
import struct
from typing import Any, Final

from platformctl.errors import FrameError

SUBPROTOCOL: Final = "platformctl.tunnel.v1"
VERSIONS: Final = (1,)

HEADER: Final = struct.Struct(">IBBI")
HEADER_SIZE: Final = 10

HELLO: Final = 1
WELCOME: Final = 2
REGISTER: Final = 3
REGISTERED: Final = 4
DEREGISTER: Final = 5
REPLICAS: Final = 6
GOAWAY: Final = 7
PING: Final = 8
PONG: Final = 9
OPEN: Final = 16
HEAD: Final = 17
DATA: Final = 18
END: Final = 19
RESET: Final = 20
WINDOW: Final = 21

NAMES: Final[dict[int, str]] = {
    HELLO: "HELLO",
    WELCOME: "WELCOME",
    REGISTER: "REGISTER",
    REGISTERED: "REGISTERED",
    DEREGISTER: "DEREGISTER",
    REPLICAS: "REPLICAS",
    GOAWAY: "GOAWAY",
    PING: "PING",
    PONG: "PONG",
    OPEN: "OPEN",
    HEAD: "HEAD",
    DATA: "DATA",
    END: "END",
    RESET: "RESET",
    WINDOW: "WINDOW",
}

FLAG_END: Final = 1  # the sender's half of the stream ends with this frame
FLAG_INTERIM: Final = 2  # HEAD: a 1xx head, the final one is still to come
FLAG_TRAILERS: Final = 4  # HEAD: trailer fields, always with FLAG_END

FLAGS_ALLOWED: Final[dict[int, int]] = {OPEN: FLAG_END, HEAD: FLAG_END | FLAG_INTERIM | FLAG_TRAILERS, DATA: FLAG_END}

# A DATA frame is at most two TLS records, so that a stream's turn stays short (RFC 8446 5.1: 16 KiB a record).
MAX_DATA: Final = 32 * 1024
MAX_HEAD: Final = 64 * 1024
MAX_CONTROL: Final = 64 * 1024
MAX_MESSAGE: Final = 1024 * 1024
MAX_WINDOW: Final = 0x7FFF_FFFF
MAX_STREAM_ID: Final = 0xFFFF_FFFF
# HEAD frames take no credit, so 1xx heads are counted: no backend has a use for so many.
MAX_INTERIM: Final = 32

# Error codes, for RESET and GOAWAY alike (SPEC.md, "Error codes").
NO_ERROR: Final = 0
PROTOCOL: Final = 1
FLOW_CONTROL: Final = 2
CANCELLED: Final = 3
UNKNOWN_SERVICE: Final = 4
REFUSED: Final = 5
CONNECT_FAILED: Final = 6
CONNECT_TIMEOUT: Final = 7
RESPONSE_TIMEOUT: Final = 8
IDLE_TIMEOUT: Final = 9
BACKEND_PROTOCOL: Final = 10
BACKEND_CLOSED: Final = 11
SLOW_CONSUMER: Final = 12
TUNNEL_LOST: Final = 13
UNAUTHORIZED: Final = 14
SUPERSEDED: Final = 15
VERSION: Final = 16
OVERLOADED: Final = 17
INTERNAL: Final = 18

ERROR_NAMES: Final[dict[int, str]] = {
    NO_ERROR: "no-error",
    PROTOCOL: "protocol",
    FLOW_CONTROL: "flow-control",
    CANCELLED: "cancelled",
    UNKNOWN_SERVICE: "unknown-service",
    REFUSED: "refused",
    CONNECT_FAILED: "connect-failed",
    CONNECT_TIMEOUT: "connect-timeout",
    RESPONSE_TIMEOUT: "response-timeout",
    IDLE_TIMEOUT: "idle-timeout",
    BACKEND_PROTOCOL: "backend-protocol",
    BACKEND_CLOSED: "backend-closed",
    SLOW_CONSUMER: "slow-consumer",
    TUNNEL_LOST: "tunnel-lost",
    UNAUTHORIZED: "unauthorized",
    SUPERSEDED: "superseded",
    VERSION: "version",
    OVERLOADED: "overloaded",
    INTERNAL: "internal",
}

U32: Final = struct.Struct(">I")
_OPEN: Final = struct.Struct(">BqB")  # kind, body length (-1: chunked), service name length
_HEAD: Final = struct.Struct(">Hq")  # status, body length (-1: until END)

KIND_HTTP: Final = 1
KIND_UPGRADE: Final = 2
KIND_TCP: Final = 3

UNKNOWN_LENGTH: Final = -1


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One whole frame."""
    return HEADER.pack(len(payload), kind, flags, stream) + payload


def control(kind: int, message: dict[str, Any]) -> bytes:
    """A control frame with a JSON object, stream 0.

    Raises:
        FrameError: the object is larger than MAX_CONTROL.
    """
    payload = json.dumps(message, separators=(",", ":"), ensure_ascii=False).encode()
    if len(payload) > MAX_CONTROL:
        raise FrameError(PROTOCOL, f"{NAMES[kind]} of {len(payload)} bytes is over the limit of {MAX_CONTROL}")
    return frame(kind, 0, 0, payload)


def parse_control(kind: int, payload: bytes) -> dict[str, Any]:
    """The JSON object of a control frame.

    Raises:
        FrameError: too long, not UTF-8, not JSON, or not an object; or with something in it that could not be written
            as JSON again (NaN, lone surrogates), so that what a peer said can always be passed on.
    """
    name = NAMES[kind]
    if len(payload) > MAX_CONTROL:
        raise FrameError(PROTOCOL, f"{name} of {len(payload)} bytes is over the limit of {MAX_CONTROL}")
    try:
        message = json.loads(payload.decode(), parse_constant=_refuse_constant)
        if b"\\u" in payload:
            json.dumps(message, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as e:  # Unicode errors are ValueErrors
        raise FrameError(PROTOCOL, f"{name} does not carry valid JSON") from e
    if not isinstance(message, dict):
        raise FrameError(PROTOCOL, f"{name} does not carry a JSON object")
    return message


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


def open_prefix(kind: int, service: bytes, body_length: int) -> bytes:
    """The start of an OPEN payload; the request head (heads.py) follows it for HTTP, nothing for TCP.

    `body_length`: 0 none, n exact, UNKNOWN_LENGTH until END.
    """
    return _OPEN.pack(kind, body_length, len(service)) + service


def parse_open(payload: bytes) -> tuple[int, str, int, bytes]:
    """(kind, service, body length, request head) of an OPEN payload.

    Raises:
        FrameError: truncated, an unknown kind, or a negative length that is not UNKNOWN_LENGTH.
    """
    if len(payload) < _OPEN.size:
        raise FrameError(PROTOCOL, "OPEN is truncated")
    kind, length, size = _OPEN.unpack_from(payload)
    start = _OPEN.size + size
    if len(payload) < start:
        raise FrameError(PROTOCOL, "OPEN is shorter than its service name")
    if kind not in (KIND_HTTP, KIND_UPGRADE, KIND_TCP):
        raise FrameError(PROTOCOL, f"OPEN has unknown kind {kind}")
    if length < UNKNOWN_LENGTH:
        raise FrameError(PROTOCOL, f"OPEN has body length {length}")
    service = payload[_OPEN.size : start]
    if not service.isascii():
        raise FrameError(PROTOCOL, "OPEN has a service name that is not ASCII")
    return kind, service.decode("ascii"), length, payload[start:]


def head_payload(status: int, body_length: int, block: bytes) -> bytes:
    """A response HEAD payload. `block` is `Name: value CRLF` lines without the final empty line."""
    return _HEAD.pack(status, body_length) + block


def parse_head(payload: bytes) -> tuple[int, int, bytes]:
    """(status, body length, header block) of a response HEAD payload; the block itself is still unchecked.

    Raises:
        FrameError: truncated, a status outside 100 to 599, or a bad body length.
    """
    if len(payload) < _HEAD.size:
        raise FrameError(PROTOCOL, "HEAD is truncated")
    status, length = _HEAD.unpack_from(payload)
    if not 100 <= status <= 599:
        raise FrameError(PROTOCOL, f"HEAD has status {status}")
    if length < UNKNOWN_LENGTH:
        raise FrameError(PROTOCOL, f"HEAD has body length {length}")
    return status, length, payload[_HEAD.size :]
