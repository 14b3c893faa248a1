"""Header fields of HTTP/1.1, in heads of requests and responses alike: their form, and which of them are forwarded.

What RFC 9112 leaves to the recipient's judgement is decided for the strict reading, always: what can be read in two
ways is refused, never repaired (RFC 9112 6.1, 11.2).
"""

from __future__ import annotations

import re
from typing import Final

from platformctl.errors import FrameError, HeadError, excerpt
from platformctl.wire.frames import PROTOCOL

MAX_FIELDS: Final = 128
MAX_LENGTH_DIGITS: Final = 18  # fits a signed 64-bit length

# RFC 9110 7.6.1, and what older clients send.
HOP_BY_HOP: Final = frozenset(
    {
        b"connection",
        b"http2-settings",
        b"keep-alive",
        b"proxy-connection",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"te",
        b"transfer-encoding",
        b"upgrade",
    }
)
# Set by the hub alone: whatever a client sends under these names is dropped (DESIGN, "The wire").
HUB_SET: Final = frozenset(
    {
        b"forwarded",
        b"traceparent",
        b"via",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-port",
        b"x-forwarded-prefix",
        b"x-forwarded-proto",
        b"x-real-ip",
        b"x-request-id",
    }
)
_NOTABLE: Final = frozenset({b"connection", b"content-length", b"expect", b"host", b"transfer-encoding", b"upgrade"})
# Identity is the hub's word; so is where the request goes.
HUB_PREFIX: Final = b"platform-"
# RFC 9110 6.5.1: fields that must not come late.
NO_TRAILERS: Final = (
    HOP_BY_HOP | HUB_SET | {b"authorization", b"content-length", b"cookie", b"host", b"set-cookie", b"trailer"}
)

TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_VALUE: Final = rb"[\t\x20-\x7e\x80-\xff]*"
BLOCK: Final = re.compile(rb"(?:" + TOKEN + rb"+:" + _VALUE + rb"+\r\n)*+")
# For what BLOCK has matched. Possessive, as BLOCK is, so that no input takes more than one pass.
FIELD: Final = re.compile(rb"([^:]++):[ \t]*+([^\r]*+)\r\n")
_UNCLEAN: Final = re.compile(
    rb"(?:\A|\n)(?:" + b"|".join(sorted(HOP_BY_HOP | {b"content-length"})) + rb"):", re.IGNORECASE
)
_LIST: Final = re.compile(rb"[ \t]*,[ \t]*")

Fields = list[tuple[bytes, bytes, bytes]]  # (lower-case name, name, value)


def check_lines(head: bytes, start: int, what: str) -> None:
    """Raise HeadError 400 unless `head` from `start` is `Name: value CRLF` lines and one empty line, to its end."""
    if BLOCK.fullmatch(head, start, len(head) - 2) and head.endswith(b"\r\n"):
        return
    lines = head.count(b"\r\n")
    if head.count(b"\n") != lines or head.count(b"\r") != lines or b"\0" in head:
        why = "has a bare CR, a bare LF or a NUL"
    elif b"\n " in head or b"\n\t" in head:
        why = "has a folded line (obs-fold, RFC 9112 5.2)"
    elif head.find(b"\r\n\r\n", start - 2) != len(head) - 4:
        why = "does not end at its empty line"
    else:
        why = "has a bad header name or a control character"
    raise HeadError(400, "bad-request", f"the {what} head {why}")


def lowered(fields: list[tuple[bytes, bytes]]) -> Fields:
    """The fields with their lower-case names. Raises HeadError 431."""
    if len(fields) > MAX_FIELDS:
        raise HeadError(431, "head-too-large", f"more than {MAX_FIELDS} header fields")
    return [(name.lower(), name, value.strip(b" \t")) for name, value in fields]


def notable(fields: Fields) -> dict[bytes, list[bytes]]:
    """The values of the fields that say how a message is framed and what becomes of its connection, by name."""
    found: dict[bytes, list[bytes]] = {}
    for lower, _, value in fields:
        if lower in _NOTABLE:
            if lower in found:
                found[lower].append(value)
            else:
                found[lower] = [value]
    return found


def connection_options(values: list[bytes]) -> tuple[bytes, ...]:
    """The lower-case options of Connection fields."""
    return tuple(option for value in values for option in _LIST.split(value.lower()) if option)


def content_length(lengths: list[bytes]) -> int:
    """The one Content-Length. Raises HeadError 400."""
    if len(lengths) > 1:
        raise HeadError(400, "bad-request", "more than one Content-Length")
    if not lengths[0].isdigit() or len(lengths[0]) > MAX_LENGTH_DIGITS:
        raise HeadError(400, "bad-request", f"bad Content-Length {excerpt(lengths[0])!r}")
    return int(lengths[0])


def split_block(block: bytes) -> list[tuple[bytes, bytes]]:
    """(name, value) of each `Name: value CRLF` line.

    Raises:
        FrameError: the block is not made of such lines alone.
    """
    if not BLOCK.fullmatch(block):
        raise FrameError(PROTOCOL, f"not made of well-formed header lines: {excerpt(block)!r}")
    return FIELD.findall(block)


def clean_block(block: bytes) -> bytes:
    """Check a header block that came over the tunnel, and take out what only this hop may say.

    The hub does not trust agents: a block that could end early, start another response, or change the framing never
    reaches a client (DESIGN, "The wire"). Returns the block without hop-by-hop and framing fields.

    Raises:
        FrameError: the block is not made of well-formed lines, or has too many.
    """
    if BLOCK.fullmatch(block) and block.count(b"\n") <= MAX_FIELDS and not _UNCLEAN.search(block):
        return block
    fields = split_block(block)
    if len(fields) > MAX_FIELDS:
        raise FrameError(PROTOCOL, f"more than {MAX_FIELDS} header fields")
    return b"".join(
        name + b": " + value + b"\r\n"
        for name, value in fields
        if name.lower() not in HOP_BY_HOP and name.lower() != b"content-length"
    )


def clean_trailers(block: bytes) -> bytes:
    """The trailer fields of `block` that may come late (RFC 9110 6.5.1); the others are dropped.

    Raises:
        FrameError: not made of well-formed lines, or too many.
    """
    fields = split_block(block)
    if len(fields) > MAX_FIELDS:
        raise FrameError(PROTOCOL, f"more than {MAX_FIELDS} trailer fields")
    return b"".join(
        name + b": " + value + b"\r\n"
        for name, value in fields
        if not (alike := name.lower().replace(b"_", b"-")).startswith(HUB_PREFIX) and alike not in NO_TRAILERS
    )
