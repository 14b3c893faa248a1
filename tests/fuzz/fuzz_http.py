"""Fuzz what comes from clients and backends: request heads, chunked bodies, response heads, header blocks.

Only HeadError (FrameError for blocks) may come out. What is accepted must mean the same when it is written again, must
not depend on how it arrives, and must mean the same to another parser (h11): a difference there is request smuggling.
"""

from __future__ import annotations

import sys
from collections.abc import Set
from pathlib import Path

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).resolve().parents[2])]
    from tests.fuzz import harness

    harness.run("tests.fuzz.fuzz_http")

import h11

from platformctl.errors import FrameError, HeadError
from platformctl.wire.chunked import ChunkedDecoder
from platformctl.wire.frames import UNKNOWN_LENGTH
from platformctl.wire.heads import RequestHead, clean_block, clean_trailers, parse_request, parse_response

METHODS = (b"GET", b"HEAD", b"POST", b"CONNECT")
STATUSES = frozenset({400, 414, 417, 431, 501, 505})


def one_input(data: bytes) -> None:
    if data:
        TARGETS[data[0] % len(TARGETS)](data[1:])


def refused(error: HeadError, allowed: Set[int]) -> None:
    assert error.status in allowed, error.status
    assert error.code
    assert str(error).isprintable()


def request(data: bytes) -> None:
    """A head up to its empty line, and a body after it."""
    end = data.find(b"\r\n\r\n", 2) + 4
    head = data[:end] if end > 3 else data
    try:
        parsed = parse_request(head)
    except HeadError as e:
        refused(e, STATUSES)
        return
    block = parsed.block()
    assert clean_trailers(block) is not None
    again = parse_request(
        b"%b %b HTTP/1.1\r\nHost: %b\r\n%b\r\n" % (parsed.method, parsed.target, parsed.host or b"none", block)
    )
    assert (again.method, again.target) == (parsed.method, parsed.target)
    assert again.body_length == 0
    assert again.block() == block
    _same_to_h11(parsed, data, len(head))


def _same_to_h11(parsed: RequestHead, data: bytes, end: int) -> None:
    """When h11 takes the request too, it must see the same body in it."""
    other = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    try:
        other.receive_data(data)
        other.receive_data(b"")
        event = other.next_event()
        if not isinstance(event, h11.Request):
            return
        body = b""
        while isinstance(event := other.next_event(), h11.Data):
            body += bytes(event.data)
    except h11.RemoteProtocolError:
        return
    if not isinstance(event, h11.EndOfMessage):
        return
    rest = data[end:]
    if parsed.body_length == UNKNOWN_LENGTH:
        whole, decoder = _decode([rest])
        # h11 tolerates more than we do; but where we find the end of the body, it must find it too.
        assert not decoder or not decoder.done or whole == body
        assert not decoder or decoder.done
    else:
        assert body == rest[: parsed.body_length]


def _decode(portions: list[bytes]) -> tuple[bytes, ChunkedDecoder | None]:
    decoder = ChunkedDecoder()
    body = b""
    try:
        for portion in portions:
            if not decoder.done:
                body += b"".join(decoder.feed(portion))
    except HeadError as e:
        refused(e, {400, 431})
        return body, None
    return body, decoder


def chunked(data: bytes) -> None:
    """The same bytes whole, one by one, and cut at a place of the input's choice."""
    if not data:
        return
    place, data = data[0], data[1:]
    outcomes = []
    for portions in ([data], [data[i : i + 1] for i in range(len(data))], [data[:place], data[place:]]):
        body, decoder = _decode(portions)
        outcomes.append((body, decoder.trailers, decoder.done) if decoder else None)
        if decoder and decoder.done:
            clean_trailers(decoder.trailers)
    assert outcomes[0] == outcomes[1] == outcomes[2]


def response(data: bytes) -> None:
    if not data:
        return
    method, head = METHODS[data[0] % len(METHODS)], data[1:]
    try:
        parsed = parse_response(head, method)
    except HeadError as e:
        refused(e, {502})
        return
    assert 100 <= parsed.status <= 599
    assert parsed.body_length >= UNKNOWN_LENGTH
    assert clean_block(parsed.block) == parsed.block


def block(data: bytes) -> None:
    """A header block from an agent: what the client would get must be lines alone."""
    for check in (clean_block, clean_trailers):
        try:
            cleaned = check(data)
        except FrameError:
            continue
        assert b"\r\n\r\n" not in b"\r\n" + cleaned
        assert not cleaned or cleaned.endswith(b"\r\n")
        assert cleaned.count(b"\r") == cleaned.count(b"\n") == cleaned.count(b"\r\n")
        assert check(cleaned) == cleaned
        if cleaned:
            parse_response(b"HTTP/1.1 200 OK\r\n" + cleaned + b"\r\n", b"GET")


TARGETS = (request, chunked, response, block)
